//! A graph store whose copy costs nothing until one of the two is changed, and then little.

use std::{
    ops::ControlFlow,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use kotoba_db_cluster::storage::graph_store::{
    Batch, GraphStore, KeyRange, Order, ReadView, StoreError, Visitor,
};

/// Rows of one chunk, at most: what a change copies is a chunk and the list of chunks.
const CHUNK_ROWS_MAX: usize = 32;

/// Rows in key order, none of them empty of rows.
type Chunk = Arc<Vec<(Bytes, Bytes)>>;

/// An ordered map of bytes, shared between copies chunk by chunk until it is changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows {
    chunks: Arc<Vec<Chunk>>,
}

impl Rows {
    /// Where a key stands or belongs: its chunk, and the row there.
    fn locate(&self, key: &[u8]) -> (usize, Result<usize, usize>) {
        let behind = self.chunks.partition_point(|chunk| chunk[0].0 <= *key);
        let at = behind.saturating_sub(1);
        let row = self.chunks.get(at).map_or(Err(0), |chunk| chunk.binary_search_by(|(k, _)| (**k).cmp(key)));
        (at, row)
    }

    fn find(&self, key: &[u8]) -> Option<&Bytes> {
        let (chunk, row) = self.locate(key);
        row.ok().map(|row| &self.chunks[chunk][row].1)
    }

    fn set(&mut self, key: Vec<u8>, value: Bytes) {
        let (at, row) = self.locate(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() {
            chunks.push(Chunk::default());
        }
        let chunk = Arc::make_mut(&mut chunks[at]);
        match row {
            Ok(row) => chunk[row].1 = value,
            Err(row) => chunk.insert(row, (key.into(), value)),
        }
        if chunk.len() > CHUNK_ROWS_MAX {
            let upper = chunk.split_off(chunk.len() / 2);
            chunks.insert(at + 1, Arc::new(upper));
        }
    }

    fn remove(&mut self, key: &[u8]) {
        let (at, Ok(row)) = self.locate(key) else {
            return;
        };
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks[at].len() == 1 {
            chunks.remove(at);
        } else {
            Arc::make_mut(&mut chunks[at]).remove(row);
        }
    }
}

impl ReadView for Rows {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.find(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        let within = |key: &[u8]| range.end.as_ref().is_none_or(|end| key < end.as_slice());
        match order {
            Order::Ascending => {
                let (chunk, row) = self.locate(&range.start);
                let skipped = row.unwrap_or_else(|row| row);
                let rows = self.chunks[chunk.min(self.chunks.len())..].iter().flat_map(|chunk| chunk.iter());
                for (key, value) in rows.skip(skipped).take_while(|(key, _)| within(key)) {
                    if visit(key, value) == ControlFlow::Break(()) {
                        break;
                    }
                }
            }
            Order::Descending => {
                let rows = self.chunks.iter().rev().flat_map(|chunk| chunk.iter().rev());
                let rows = rows.skip_while(|(key, _)| !within(key));
                for (key, value) in rows.take_while(|(key, _)| **key >= *range.start) {
                    if visit(key, value) == ControlFlow::Break(()) {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// [`Rows`] as a graph store. As the store's contract says, clones share the rows; a
/// [fork](Store::fork) has rows of its own.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    rows: Arc<RwLock<Rows>>,
}

impl Store {
    /// A store with the same rows that goes its own way.
    pub(super) fn fork(&self) -> Self {
        Self { rows: Arc::new(RwLock::new(self.view())) }
    }
}

impl ReadView for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.view().scan(range, order, visit)
    }
}

impl GraphStore for Store {
    type View = Rows;

    fn view(&self) -> Rows {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => rows.set(key, value),
                None => rows.remove(&key),
            }
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn rows(view: &impl ReadView, range: &KeyRange, order: Order, limit: usize) -> Pairs {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        view.scan(range, order, &mut visit).expect("memory does not fail");
        rows
    }

    fn all(view: &impl ReadView) -> Pairs {
        rows(view, &KeyRange::prefix(&[]), Order::Ascending, usize::MAX)
    }

    fn any_changes() -> impl Strategy<Value = Vec<Vec<(u16, Option<u8>)>>> {
        let change = (0_u16..300, proptest::option::weighted(0.7, any::<u8>()));
        proptest::collection::vec(proptest::collection::vec(change, 0..80), 1..12)
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map_and_forks_go_their_own_way(
            batches in any_changes(),
            (from, to) in (0_u16..300, 0_u16..300),
        ) {
            let mut store = Store::default();
            let mut twin = BTreeMap::new();
            let range = KeyRange { start: from.to_be_bytes().to_vec(), end: Some(to.to_be_bytes().to_vec()) };
            for changes in batches {
                let before = store.clone();
                store = store.fork();
                let expected_before: Pairs = twin.clone().into_iter().collect();
                let mut batch = Batch::new();
                for (key, value) in changes {
                    let key = key.to_be_bytes().to_vec();
                    match value {
                        Some(value) => {
                            batch.put(key.clone(), vec![value]);
                            twin.insert(key, vec![value]);
                        }
                        None => {
                            batch.remove(key.clone());
                            twin.remove(&key);
                        }
                    }
                }
                store.commit(batch).expect("memory does not fail");
                let expected: Pairs = twin.clone().into_iter().collect();
                prop_assert_eq!(all(&store), expected.clone());
                prop_assert_eq!(all(&before), expected_before);
                let mut within: Pairs = expected
                    .into_iter()
                    .filter(|(key, _)| *key >= range.start && range.end.as_ref().is_some_and(|end| key < end))
                    .collect();
                prop_assert_eq!(rows(&store, &range, Order::Ascending, usize::MAX), within.clone());
                within.reverse();
                prop_assert_eq!(rows(&store, &range, Order::Descending, usize::MAX), within.clone());
                within.truncate(3);
                if !within.is_empty() {
                    prop_assert_eq!(rows(&store, &range, Order::Descending, 3), within);
                }
                for key in 0_u16..300 {
                    let key = key.to_be_bytes();
                    let value = store.get(&key).expect("memory does not fail");
                    prop_assert_eq!(value.as_deref(), twin.get(&key[..]).map(|value| &value[..]));
                }
                prop_assert!(store.view().chunks.iter().all(|chunk| (1..=CHUNK_ROWS_MAX).contains(&chunk.len())));
            }
        }
    }
}
