//! The graph store on disk: fjall, a log-structured merge tree.
//!
//! All groups share one keyspace, so one batch is one atomic write. Batches go to fjall's journal without
//! an fsync of their own: the Raft log already holds what they came from, and after a crash the entries
//! behind the recovered applied positions are applied again. fjall recovers a prefix of the batches, which
//! is all that this needs.

use std::{io::ErrorKind, ops::Bound, path::Path, sync::Arc};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
    compaction::Leveled,
    config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry},
};

use super::{Batch, GraphStore, KeyRange, Order, ReadView, StoreError, Visitor};

const KEYSPACE: &str = "graph";
/// fjall's own lower bound.
const JOURNAL_BYTES_MIN: u64 = 64 << 20;

/// The knobs of a [`FjallStore`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// Memory for blocks read from disk. Default 32 MiB.
    pub cache_bytes: u64,
    /// Memory for rows not yet in a table; up to a few times as much while tables are written. Default
    /// 16 MiB.
    pub write_buffer_bytes: u64,
    /// Disk for the journals of rows not yet in a table, at least 64 MiB. Default 64 MiB.
    pub journal_bytes_max: u64,
    /// Bits of bloom filter per row: 10 makes one read in a hundred look at a table in vain. Default 10.
    pub bloom_bits_per_row: f32,
    /// How tables are merged.
    pub compaction: Compaction,
    /// Threads that write and merge tables, at least 1. Default 1.
    pub worker_threads: usize,
}

/// Leveled compaction: each level holds a multiple of the one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Tables of the first level that start a merge. More: cheaper writes, dearer reads. Default 8.
    pub level_0_tables: u8,
    /// Bytes of one table. Default 32 MiB.
    pub table_bytes: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { level_0_tables: 8, table_bytes: 32 << 20 }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            journal_bytes_max: JOURNAL_BYTES_MIN,
            bloom_bits_per_row: 10.0,
            compaction: Compaction::default(),
            worker_threads: 1,
        }
    }
}

/// A graph store in a directory of its own. Clones share it.
#[derive(Clone)]
pub struct FjallStore {
    database: Database,
    rows: Keyspace,
}

/// A [`FjallStore`] as it was at one moment. Rows it can see are kept on disk until it is dropped.
#[derive(Clone)]
pub struct FjallView {
    snapshot: Snapshot,
    rows: Keyspace,
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallStore").field("path", &self.rows.path()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for FjallView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallView").finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(fjall::Error) -> StoreError {
    move |error| match &error {
        fjall::Error::Io(cause) if cause.kind() == ErrorKind::StorageFull => StoreError::Full { action },
        _ => StoreError::Io { action, cause: error.to_string() },
    }
}

impl FjallStore {
    /// Opens the store in a directory; creates both where they do not exist.
    ///
    /// # Errors
    /// Where the directory cannot be used, is open elsewhere, or holds a damaged store.
    pub fn open(directory: &Path, options: &StoreOptions) -> Result<Self, StoreError> {
        let database = Database::builder(directory)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes_max.max(JOURNAL_BYTES_MIN))
            .worker_threads(options.worker_threads.max(1))
            .manual_journal_persist(true)
            .open()
            .map_err(failed("open"))?;
        let rows = database.keyspace(KEYSPACE, || keyspace_options(options)).map_err(failed("open"))?;
        Ok(Self { database, rows })
    }

    /// Bytes on disk, journals included.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.database.disk_space().map_err(failed("measure its files"))
    }
}

fn keyspace_options(options: &StoreOptions) -> KeyspaceCreateOptions {
    let bloom = BloomConstructionPolicy::BitsPerKey(options.bloom_bits_per_row);
    let compaction = Leveled::default()
        .with_l0_threshold(options.compaction.level_0_tables)
        .with_table_target_size(options.compaction.table_bytes);
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(options.write_buffer_bytes)
        .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(bloom)))
        // The upper levels are rewritten soon: compressing them costs more than it saves.
        .data_block_compression_policy(CompressionPolicy::new([
            CompressionType::None,
            CompressionType::None,
            CompressionType::Lz4,
        ]))
        .compaction_strategy(Arc::new(compaction))
}

impl ReadView for FjallView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.snapshot.get(&self.rows, key).map_err(failed("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&range.start), end);
        let mut rows = self.snapshot.range::<&[u8], _>(&self.rows, bounds);
        loop {
            let row = match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(row) = row else {
                return Ok(());
            };
            let (key, value) = row.into_inner().map_err(failed("read"))?;
            if visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }
}

impl ReadView for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.rows.get(key).map_err(failed("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.view().scan(range, order, visit)
    }
}

impl GraphStore for FjallStore {
    type View = FjallView;

    fn view(&self) -> FjallView {
        FjallView { snapshot: self.database.snapshot(), rows: self.rows.clone() }
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut writes = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.len());
        for (key, value) in batch {
            match value {
                Some(value) => writes.insert(&self.rows, key, &*value),
                None => writes.remove(&self.rows, key),
            }
        }
        writes.commit().map_err(failed("write"))
    }

    fn persist(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(failed("sync"))
    }
}
