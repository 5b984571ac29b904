//! A write buffer before a graph store.
//!
//! A log-structured tree keeps every version of a row until it merges its tables, and pays for each. A
//! state machine overwrites a few rows with every batch (the applied position, the session) and removes
//! others soon after it wrote them (outcomes that the client has acknowledged). Here such rows change in
//! place, in memory; what reaches the store below is one batch of a group's rows as they are by then.
//!
//! A group's rows leave together and in one batch, so the store below always holds the group as it was
//! behind one of its commits. What a crash takes from here is applied again from the log, like what it
//! takes from the store below.
//!
//! Reads look here first, then below. Views share the maps; a commit copies a group's map only where a
//! view still holds it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::{Bound, ControlFlow},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bytes::Bytes;

use super::{Batch, Change, GraphStore, KeyRange, Known, Order, ReadView, StoreError, Visitor};
use crate::{
    limits::{STORE_BUFFER_BYTES_MAX, STORE_BUFFER_GROUP_BYTES_MAX},
    raft::GroupId,
};

/// What a row costs in memory besides its key and value, in bytes.
const ROW_OVERHEAD_BYTES: usize = 96;

/// A store behind a write buffer. Clones share both.
#[derive(Clone, Debug)]
pub struct BufferedStore<S> {
    below: S,
    buffer: Arc<RwLock<Buffer>>,
}

/// A [`BufferedStore`] as it was at one moment.
#[derive(Clone, Debug)]
pub struct BufferedView<V> {
    below: V,
    groups: Groups,
}

pub(super) type GroupKey = [u8; 4];
type Groups = Arc<BTreeMap<GroupKey, Arc<GroupRows>>>;

#[derive(Debug, Default)]
pub(super) struct Buffer {
    groups: Groups,
    bytes: usize,
    /// The store below failed: what it holds is unknown, so nothing more may be written to it.
    failed: Option<StoreError>,
}

/// Changed rows of one group.
#[derive(Clone, Debug, Default)]
struct GroupRows {
    rows: BTreeMap<Vec<u8>, Row>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Row {
    /// `None`: it is removed.
    value: Option<Bytes>,
    /// What is known of the store below.
    below: Known,
}

fn group_of(key: &[u8]) -> GroupKey {
    let mut group = GroupKey::default();
    let length = key.len().min(group.len());
    group[..length].copy_from_slice(&key[..length]);
    group
}

impl<S: GraphStore> BufferedStore<S> {
    /// Puts a buffer before a store.
    #[must_use]
    pub fn new(below: S) -> Self {
        Self { below, buffer: Arc::default() }
    }

    fn read(&self) -> RwLockReadGuard<'_, Buffer> {
        // Nothing panics between the changes of a batch: a poisoned buffer is whole.
        self.buffer.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Buffer> {
        self.buffer.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands the rows of these groups to the store below, as one batch.
    pub(super) fn flush(&self, buffer: &mut Buffer, groups: &[GroupKey]) -> Result<(), StoreError> {
        if let Some(error) = &buffer.failed {
            return Err(error.clone());
        }
        let mut batch = Batch::new();
        for rows in groups.iter().filter_map(|group| buffer.groups.get(group)) {
            for (key, row) in &rows.rows {
                match &row.value {
                    Some(value) => batch.put(key.clone(), value.clone()),
                    None => batch.remove(key.clone()),
                }
            }
        }
        if let Err(error) = self.below.commit(batch) {
            buffer.failed = Some(error.clone());
            return Err(error);
        }
        // Only now: until the store below has the rows, reads find them here.
        let maps = Arc::make_mut(&mut buffer.groups);
        for group in groups {
            buffer.bytes -= maps.remove(group).map_or(0, |rows| rows.bytes);
        }
        Ok(())
    }
}

impl Buffer {
    fn change(&mut self, change: Change) -> GroupKey {
        let group = group_of(&change.key);
        let rows = Arc::make_mut(&mut self.groups).entry(group).or_default();
        let rows = Arc::make_mut(rows);
        let before = rows.bytes;
        rows.change(change);
        self.bytes = self.bytes + rows.bytes - before;
        group
    }

    fn bytes_of(&self, group: &GroupKey) -> usize {
        self.groups.get(group).map_or(0, |rows| rows.bytes)
    }

    fn fullest(&self) -> Option<GroupKey> {
        self.groups.iter().max_by_key(|(_, rows)| rows.bytes).map(|(&group, _)| group)
    }
}

impl GroupRows {
    fn change(&mut self, Change { key, value, before }: Change) {
        let cost = |key: &[u8], value: &Option<Bytes>| {
            key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
        };
        // A row that is absent below and removed here came and went: the store below never hears of it.
        match self.rows.entry(key) {
            Entry::Vacant(vacant) => {
                if value.is_some() || before == Known::Nothing {
                    self.bytes += cost(vacant.key(), &value);
                    vacant.insert(Row { value, below: before });
                }
            }
            Entry::Occupied(mut row) => {
                self.bytes -= cost(row.key(), &row.get().value);
                if value.is_some() || row.get().below == Known::Nothing {
                    self.bytes += cost(row.key(), &value);
                    row.get_mut().value = value;
                } else {
                    row.remove();
                }
            }
        }
    }
}

impl<S: GraphStore> ReadView for BufferedStore<S> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(row) = row(&self.read().groups, key) {
            return Ok(row.value.clone());
        }
        // Rows only move downward, so one that is not here by now is below, or nowhere.
        self.below.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.view().scan(range, order, visit)
    }
}

impl<V: ReadView> ReadView for BufferedView<V> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match row(&self.groups, key) {
            Some(row) => Ok(row.value.clone()),
            None => self.below.get(key),
        }
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        if range.is_empty() {
            return Ok(());
        }
        match order {
            Order::Ascending => merge(changed(&self.groups, range), &self.below, range, order, visit),
            Order::Descending => merge(changed(&self.groups, range).rev(), &self.below, range, order, visit),
        }
    }
}

fn row<'g>(groups: &'g Groups, key: &[u8]) -> Option<&'g Row> {
    groups.get(&group_of(key))?.rows.get(key)
}

/// The changed rows of a range, in order of their keys.
fn changed<'g>(
    groups: &'g Groups,
    range: &'g KeyRange,
) -> impl DoubleEndedIterator<Item = (&'g Vec<u8>, &'g Row)> {
    let end = range.end.as_ref();
    let last = end.map_or(GroupKey::from([u8::MAX; 4]), |end| group_of(end));
    let groups = groups.range(group_of(&range.start)..=last);
    groups.flat_map(move |(_, rows)| {
        let end = end.map_or(Bound::Unbounded, Bound::Excluded);
        rows.rows.range::<Vec<u8>, _>((Bound::Included(&range.start), end))
    })
}

/// Shows the rows of both, the changed ones in place of those below.
fn merge<'g>(
    changed: impl Iterator<Item = (&'g Vec<u8>, &'g Row)>,
    below: &impl ReadView,
    range: &KeyRange,
    order: Order,
    visit: Visitor<'_>,
) -> Result<(), StoreError> {
    let mut changed = changed.peekable();
    let mut flow = ControlFlow::Continue(());
    let mut show = |key: &[u8], row: &Row| match &row.value {
        Some(value) => visit(key, value),
        None => ControlFlow::Continue(()),
    };
    let precedes = |ours: &[u8], theirs: &[u8]| match order {
        Order::Ascending => ours < theirs,
        Order::Descending => ours > theirs,
    };
    below.scan(range, order, &mut |key, value| {
        while flow.is_continue()
            && let Some((ours, row)) = changed.next_if(|(ours, _)| precedes(ours, key))
        {
            flow = show(ours, row);
        }
        if flow.is_continue() {
            flow = match changed.next_if(|(ours, _)| ours.as_slice() == key) {
                Some((ours, row)) => show(ours, row),
                None => show(key, &Row { value: Some(Bytes::copy_from_slice(value)), below: Known::Nothing }),
            };
        }
        flow
    })?;
    while flow.is_continue()
        && let Some((ours, row)) = changed.next()
    {
        flow = show(ours, row);
    }
    Ok(())
}

impl<S: GraphStore> GraphStore for BufferedStore<S> {
    type View = BufferedView<S::View>;

    fn view(&self) -> Self::View {
        // Both halves under one lock: a flush between them would hide rows from the view.
        let buffer = self.read();
        BufferedView { groups: Arc::clone(&buffer.groups), below: self.below.view() }
    }

    fn group_view(&self, group: GroupId) -> Self::View {
        let buffer = self.read();
        let key = group.0.to_be_bytes();
        let groups = buffer.groups.get(&key).map(|rows| (key, Arc::clone(rows)));
        let groups = Arc::new(groups.into_iter().collect());
        BufferedView { groups, below: self.below.group_view(group) }
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut buffer = self.write();
        if let Some(error) = &buffer.failed {
            return Err(error.clone());
        }
        let mut touched: Option<GroupKey> = None;
        let mut several = false;
        for change in batch.into_changes() {
            let group = buffer.change(change);
            several |= touched.is_some_and(|other| other != group);
            touched = Some(group);
        }
        if several {
            // Of several groups: all or none must survive a crash.
            let all: Vec<_> = buffer.groups.keys().copied().collect();
            return self.flush(&mut buffer, &all);
        }
        if let Some(group) = touched
            && buffer.bytes_of(&group) > STORE_BUFFER_GROUP_BYTES_MAX
        {
            self.flush(&mut buffer, &[group])?;
        }
        while buffer.bytes > STORE_BUFFER_BYTES_MAX
            && let Some(group) = buffer.fullest()
        {
            self.flush(&mut buffer, &[group])?;
        }
        Ok(())
    }

    fn persist(&self) -> Result<(), StoreError> {
        let groups: Vec<_> = self.read().groups.keys().copied().collect();
        // One by one: reads are served between them.
        for group in groups {
            self.flush(&mut self.write(), &[group])?;
        }
        if let Some(error) = &self.read().failed {
            return Err(error.clone());
        }
        self.below.persist()
    }
}
