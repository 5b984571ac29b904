//! The graph store in one file: redb, a copy-on-write B-tree.
//!
//! It starts no threads, reads no clock and reaches its file through a trait, so that a simulator
//! can run it on a disk of its own. Commits are not flushed: after a crash the file holds what it
//! held at the last [`GraphStore::persist`], and the log has the rest.

use std::{
    io,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use bytes::Bytes;
use redb::{
    Database, Durability, ReadOnlyTable, ReadableDatabase as _, StorageBackend, TableDefinition,
    TransactionError,
};

use super::{Batch, GraphStore, KeyRange, Order, ReadView, StoreError, Visitor};
use crate::runtime::fs::{self, File, FileExt as _, OpenOptions};

const FILE: &str = "graph.redb";
const ROWS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("graph");

/// A graph store in a directory of its own. Clones share it.
#[derive(Clone, Debug)]
pub struct RedbStore {
    database: Arc<Database>,
    /// The state as of now, opened when it is first read and replaced by the next commit.
    current: Arc<Mutex<Arc<OnceLock<RedbView>>>>,
}

/// A [`RedbStore`] as it was at one moment. Pages it can see are kept until it is dropped.
#[derive(Clone)]
pub struct RedbView {
    /// Where the store had failed by then, so does every read.
    rows: Result<Arc<Rows>, StoreError>,
}

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl std::fmt::Debug for RedbView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedbView").finish_non_exhaustive()
    }
}

fn failed<E: std::fmt::Display>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Io { action, cause: error.to_string() }
}

impl RedbStore {
    /// Opens the store in a directory; creates both where they do not exist.
    ///
    /// # Errors
    /// Where the directory cannot be used, is open elsewhere, or holds a damaged store.
    pub fn open(directory: &Path, cache_bytes: usize) -> Result<Self, StoreError> {
        let backend = OneFile::open(directory).map_err(failed("open"))?;
        let mut builder = Database::builder();
        let database = builder.set_cache_size(cache_bytes).create_with_backend(backend);
        let database = database.map_err(failed("open"))?;
        let creation = database.begin_write().map_err(failed("open"))?;
        creation.open_table(ROWS).map_err(failed("open"))?;
        creation.commit().map_err(failed("open"))?;
        Ok(Self { database: Arc::new(database), current: Arc::default() })
    }

    fn open_view(&self) -> RedbView {
        let opened = self.database.begin_read().map_err(failed("read"));
        let rows = opened.and_then(|snapshot| snapshot.open_table(ROWS).map_err(failed("read")));
        RedbView { rows: rows.map(Arc::new) }
    }

    /// Commits that never end with an error leave the store as it was or as it should be.
    fn write(&self, durability: Durability, batch: Batch) -> Result<(), StoreError> {
        let mut transaction =
            self.database.begin_write().map_err(|error: TransactionError| failed("write")(error))?;
        transaction.set_durability(durability).map_err(failed("write"))?;
        if !batch.is_empty() {
            let mut rows = transaction.open_table(ROWS).map_err(failed("write"))?;
            for (key, value) in batch {
                match value {
                    Some(value) => rows.insert(key.as_slice(), &*value).map(drop),
                    None => rows.remove(key.as_slice()).map(drop),
                }
                .map_err(failed("write"))?;
            }
        }
        transaction.commit().map_err(failed("write"))
    }
}

impl ReadView for RedbView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let rows = self.rows.as_ref().map_err(Clone::clone)?;
        let value = redb::ReadableTable::get(&**rows, key).map_err(failed("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let table = self.rows.as_ref().map_err(Clone::clone)?;
        let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(&range.start), end);
        let mut rows = table.range::<&[u8]>(bounds).map_err(failed("read"))?;
        loop {
            let row = match order {
                Order::Ascending => rows.next(),
                Order::Descending => rows.next_back(),
            };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row.map_err(failed("read"))?;
            if visit(key.value(), value.value()).is_break() {
                return Ok(());
            }
        }
    }
}

impl ReadView for RedbStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.view().get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.view().scan(range, order, visit)
    }
}

impl GraphStore for RedbStore {
    type View = RedbView;

    fn view(&self) -> RedbView {
        let current = Arc::clone(&self.current.lock().expect("no holder of this lock panics"));
        current.get_or_init(|| self.open_view()).clone()
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let committed = self.write(Durability::None, batch);
        *self.current.lock().expect("no holder of this lock panics") = Arc::default();
        committed
    }

    fn persist(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, Batch::new())
    }
}

/// The file of a store.
#[derive(Debug)]
struct OneFile(File);

impl OneFile {
    fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut options = OpenOptions::new();
        let path = directory.join(FILE);
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(io::Error::other("it is open elsewhere")),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // The names of the file and of its directory must survive a crash, too.
        for directory in [Some(directory), directory.parent()].into_iter().flatten() {
            if !directory.as_os_str().is_empty() {
                File::open(directory)?.sync_all()?;
            }
        }
        Ok(Self(file))
    }
}

impl StorageBackend for OneFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(into, offset)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
}
