//! The graph store in memory: the twin that the one on disk is checked against, and the simulator's.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;

use super::{Batch, GraphStore, KeyRange, Order, ReadView, StoreError, Visitor};

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// A graph store that forgets everything when its last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    rows: Arc<RwLock<Arc<Rows>>>,
}

/// A [`MemoryStore`] as it was at one moment. The first commit after it was taken copies the map.
#[derive(Clone, Debug)]
pub struct MemoryView {
    rows: Arc<Rows>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> Arc<Rows> {
        // A commit replaces rows one by one without panicking between them: a poisoned map is whole.
        Arc::clone(&self.rows.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ReadView for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rows = self.rows.range::<Vec<u8>, _>((Bound::Included(&range.start), end));
        let mut show = |(key, value): (&Vec<u8>, &Bytes)| visit(key, value).is_break();
        match order {
            Order::Ascending => rows.into_iter().any(&mut show),
            Order::Descending => rows.rev().any(&mut show),
        };
        Ok(())
    }
}

impl ReadView for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.view().scan(range, order, visit)
    }
}

impl GraphStore for MemoryStore {
    type View = MemoryView;

    fn view(&self) -> MemoryView {
        MemoryView { rows: self.rows() }
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        let rows = Arc::make_mut(&mut rows);
        for (key, value) in batch {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
