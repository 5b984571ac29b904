//! The graph store: one ordered map of bytes per node.
//!
//! Every key begins with the group it belongs to, as four big-endian bytes, so that one store serves all
//! groups of a node and a group's state is one contiguous range. The state machine needs three things of
//! a store: reads, batches that take effect wholly or not at all, and views that later batches do not
//! change. Durability comes from the log: a commit may be lost in a crash as long as *all* commits of the
//! same group after it are lost too; [`GraphStore::persist`] says when the log may be shortened.

mod buffered;
#[cfg(feature = "node")]
mod fjall;
mod memory;
#[cfg(feature = "redb")]
mod redb;
#[cfg(test)]
mod tests;

#[cfg(feature = "node")]
pub use self::fjall::{Compaction, FjallStore, FjallView, StoreOptions};
#[cfg(feature = "redb")]
pub use self::redb::{RedbStore, RedbView};
pub use self::{
    buffered::{BufferedStore, BufferedView},
    memory::{MemoryStore, MemoryView},
};

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::raft::GroupId;

/// Why the store could not answer. A failed read changed nothing; after a failed commit the state on
/// disk is unknown, and the store must be reopened before it is used again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk or the engine below failed.
    #[error("the graph store failed to {action}: {cause}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the engine said.
        cause: String,
    },
    /// The disk is full. The engine below takes no more until the node is started again with room.
    #[error("the graph store failed to {action}: the disk is full; start the node again when there is room")]
    Full {
        /// What was being done.
        action: &'static str,
    },
    /// A row is not what was written there.
    #[error("the graph store holds a damaged row: {0}")]
    Damaged(&'static str),
    /// The group has no state here, or its import did not finish: it needs a snapshot.
    #[error("group {0} has no complete state in this store; it needs a snapshot")]
    NoState(u32),
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// The keys from `start`, which is included, to `end`, which is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key, where it exists.
    pub start: Vec<u8>,
    /// The first key behind the range; `None`: no bound.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start: prefix.to_vec(), end: Some(end) };
            }
        }
        Self { start: prefix.to_vec(), end: None }
    }

    /// The part of this range behind `key`.
    #[must_use]
    pub fn after(mut self, key: &[u8]) -> Self {
        if key >= self.start.as_slice() {
            self.start = key.to_vec();
            self.start.push(0);
        }
        self
    }

    /// Whether no key can lie within.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Receives one row of a scan and says whether to go on.
pub type Visitor<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Reading, from a store or from a view of it. The store itself is for the one thread that commits a
/// group's batches; everybody else takes a view, which never shows half a batch.
pub trait ReadView {
    /// The value of a key.
    ///
    /// # Errors
    /// Where the engine below fails.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Shows the rows of a range one by one, in order, until the visitor breaks.
    ///
    /// # Errors
    /// Where the engine below fails; rows shown until then were right.
    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError>;
}

/// Changes that take effect together. A later change of the same key replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Vec<u8>,
    /// `None` removes the row.
    pub(crate) value: Option<Bytes>,
    pub(crate) before: Known,
}

/// What whoever changes a row knows of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The store may hold the row.
    Nothing,
    /// The store does not hold it.
    Absent,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.changes.push(Change { key, value: Some(value.into()), before: Known::Nothing });
    }

    /// Sets a key that the store does not hold. Where it does hold it, what a later removal leaves is
    /// undefined.
    pub fn insert(&mut self, key: Vec<u8>, value: impl Into<Bytes>) {
        self.changes.push(Change { key, value: Some(value.into()), before: Known::Absent });
    }

    /// Removes a key, where it exists.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.push(Change { key, value: None, before: Known::Nothing });
    }

    /// Changes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn into_changes(self) -> Vec<Change> {
        self.changes
    }
}

impl IntoIterator for Batch {
    /// A key and its new value; `None` removes it.
    type Item = (Vec<u8>, Option<Bytes>);
    type IntoIter = BatchIntoIter;

    fn into_iter(self) -> Self::IntoIter {
        BatchIntoIter(self.changes.into_iter())
    }
}

/// The changes of a [`Batch`], in order.
#[derive(Debug)]
pub struct BatchIntoIter(std::vec::IntoIter<Change>);

impl Iterator for BatchIntoIter {
    type Item = (Vec<u8>, Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|change| (change.key, change.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// An ordered map of bytes with atomic batches and consistent views. Clones share the same map.
pub trait GraphStore: ReadView + Clone + Send + Sync + 'static {
    /// The map as it was at one moment.
    type View: ReadView + Clone + Send + Sync + 'static;

    /// The map as it is now; later commits do not change it. A view costs memory or disk until dropped.
    fn view(&self) -> Self::View;

    /// Like [`GraphStore::view`], for whoever reads one group: rows of others may be missing or old. Costs
    /// no more than that group's share, also where many are kept.
    fn group_view(&self, _group: GroupId) -> Self::View {
        self.view()
    }

    /// Makes all changes of a batch, or none. Visible to reads when this returns; durable only after the
    /// next [`GraphStore::persist`].
    ///
    /// # Errors
    /// Where the engine fails: see [`StoreError`].
    fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Returns once everything committed before the call is on disk.
    ///
    /// # Errors
    /// Where the disk fails. It must not be retried: what is on disk is unknown from then on.
    fn persist(&self) -> Result<(), StoreError>;
}

/// Keys that one step of [`clear_prefix`] removes.
const CLEAR_KEYS: usize = 1024;

/// Removes all keys that begin with `prefix`, in steps of bounded size: not atomic.
///
/// # Errors
/// Where the store fails; some keys may be gone.
pub fn clear_prefix<S: GraphStore>(store: &S, prefix: &[u8]) -> Result<(), StoreError> {
    let range = KeyRange::prefix(prefix);
    loop {
        let mut batch = Batch::new();
        store.scan(&range, Order::Ascending, &mut |key, _| {
            batch.remove(key.to_vec());
            if batch.len() < CLEAR_KEYS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if batch.is_empty() {
            return Ok(());
        }
        store.commit(batch)?;
    }
}
