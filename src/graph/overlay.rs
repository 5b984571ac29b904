//! The changes of one batch before they are committed: reads see them, the store does not yet.
//!
//! Each touched row remembers what it added to the state digest before, so that the batch's effect on the
//! digest falls out at the end, once per row however often it changed.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;

use crate::{
    graph::digest::{counts, row_sum},
    storage::graph_store::{Batch, KeyRange, Order, ReadView, StoreError},
};

/// What is known of a row before the batch.
#[derive(Clone, Debug)]
pub(crate) enum Before {
    /// There is none.
    Absent,
    /// Its value.
    Value(Bytes),
    /// What it adds to the digest.
    Sum(u128),
}

impl Before {
    fn sum(&self, key: &[u8]) -> u128 {
        match self {
            Self::Absent => 0,
            Self::Value(value) => row_sum(key, value),
            Self::Sum(sum) => *sum,
        }
    }
}

struct Slot {
    before: Before,
    /// `None` in a slot that was only read: the store has the value.
    now: Now,
}

enum Now {
    Unchanged,
    /// The value, and what it adds to the digest where that is known already.
    Set(Bytes, Option<u128>),
    Removed,
}

/// A store and the changes that a batch makes to it.
pub(crate) struct Overlay<'s, S> {
    store: &'s S,
    slots: BTreeMap<Vec<u8>, Slot>,
}

impl<'s, S: ReadView> Overlay<'s, S> {
    pub(crate) fn new(store: &'s S) -> Self {
        Self { store, slots: BTreeMap::new() }
    }

    /// Reads a row as the batch sees it.
    pub(crate) fn get(&mut self, key: Vec<u8>) -> Result<Option<Bytes>, StoreError> {
        match self.slots.entry(key) {
            Entry::Occupied(slot) if mutant!(M60) => self.store.get(slot.key()),
            Entry::Occupied(slot) => {
                let slot = slot.get();
                match (&slot.now, &slot.before) {
                    (Now::Set(value, _), _) | (Now::Unchanged, Before::Value(value)) => {
                        Ok(Some(value.clone()))
                    }
                    (Now::Removed, _) | (Now::Unchanged, Before::Absent) => Ok(None),
                    (Now::Unchanged, Before::Sum(_)) => unreachable!("a slot with a sum was written"),
                }
            }
            Entry::Vacant(vacant) => {
                let value = self.store.get(vacant.key())?;
                let before = value.clone().map_or(Before::Absent, Before::Value);
                vacant.insert(Slot { before, now: Now::Unchanged });
                Ok(value)
            }
        }
    }

    /// Sets a row. `before` says what the store holds; it counts only where the batch has not touched the
    /// row yet.
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Bytes, before: Before) {
        self.change(key, Now::Set(value, None), before);
    }

    /// Like [`Overlay::put`], where what the new row adds to the digest is known.
    pub(crate) fn put_summed(&mut self, key: Vec<u8>, value: Bytes, sum: u128, before: Before) {
        self.change(key, Now::Set(value, Some(sum)), before);
    }

    /// Sets a row of which nothing is known but that the store may hold it.
    pub(crate) fn replace(&mut self, key: Vec<u8>, value: Bytes) -> Result<(), StoreError> {
        let before = match self.slots.contains_key(&key) {
            true => Before::Absent,
            false => self.store.get(&key)?.map_or(Before::Absent, Before::Value),
        };
        self.put(key, value, before);
        Ok(())
    }

    /// Removes a row.
    pub(crate) fn remove(&mut self, key: Vec<u8>, before: Before) {
        self.change(key, Now::Removed, before);
    }

    fn change(&mut self, key: Vec<u8>, now: Now, before: Before) {
        match self.slots.entry(key) {
            Entry::Occupied(mut slot) => slot.get_mut().now = now,
            Entry::Vacant(vacant) => {
                vacant.insert(Slot { before, now });
            }
        }
    }

    /// Up to `limit` rows of a range as the batch sees them.
    pub(crate) fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let changed = self.slots.range::<Vec<u8>, _>((Bound::Included(&range.start), end));
        let mut changed = changed
            .filter_map(|(key, slot)| match &slot.now {
                Now::Unchanged => None,
                Now::Set(value, _) => Some((key, Some(value))),
                Now::Removed => Some((key, None)),
            })
            .peekable();
        let mut rows: Vec<(Vec<u8>, Bytes)> = Vec::new();
        self.store.scan(range, Order::Ascending, &mut |key, value| {
            while let Some((ours, now)) = changed.next_if(|(ours, _)| ours.as_slice() < key) {
                rows.extend(now.map(|value| (ours.clone(), value.clone())));
            }
            match changed.next_if(|(ours, _)| ours.as_slice() == key) {
                Some((_, now)) => rows.extend(now.map(|value| (key.to_vec(), value.clone()))),
                None => rows.push((key.to_vec(), Bytes::copy_from_slice(value))),
            }
            if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if rows.len() < limit {
            rows.extend(changed.filter_map(|(key, now)| now.map(|value| (key.clone(), value.clone()))));
        }
        rows.truncate(limit);
        Ok(rows)
    }

    /// The changes as a batch for the store, and what they add to the digest.
    pub(crate) fn finish(self) -> (Batch, u128) {
        let mut batch = Batch::new();
        let mut delta = 0_u128;
        for (key, slot) in self.slots {
            let (counted, before) = (counts(&key), slot.before);
            let mut count = |after: u128| {
                if counted {
                    delta = delta.wrapping_sub(before.sum(&key)).wrapping_add(after);
                }
            };
            match slot.now {
                Now::Unchanged => {}
                Now::Set(value, sum) => {
                    if counted {
                        count(sum.unwrap_or_else(|| row_sum(&key, &value)));
                    }
                    match before {
                        Before::Absent => batch.insert(key, value),
                        Before::Value(_) | Before::Sum(_) => batch.put(key, value),
                    }
                }
                Now::Removed => {
                    if !mutant!(M59) {
                        count(0);
                    }
                    if !matches!(before, Before::Absent) {
                        batch.remove(key);
                    }
                }
            }
        }
        (batch, delta)
    }
}
