//! The driver's side of the log: recent entries in memory, the places of older ones.
//!
//! A [`LogIndex`] learns of a write twice: when it is [handed](LogIndex::submitted) to the writer,
//! from when on its entries can be gathered, and when it is [durable](LogIndex::written), from when
//! on they may be dropped from memory. Each group's cache is a suffix of its log. When all caches
//! together exceed the budget, entries that are durable and applied go, the oldest first; entries
//! that are not stay, and are bounded by the engine's own limits.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::fmt;

use super::{Damage, Entry, EntryIndex, GroupId, GroupWrite, Place, Recovery, SegmentNumber, WriteReceipt};
use crate::raft::{Index, Position, TermRuns};

/// What an entry costs in memory besides its payload, in bytes.
const ENTRY_OVERHEAD_BYTES: u64 = 64;
/// Pieces of caches that are remembered before those that are gone are looked for.
const ORDER_LENGTH_MIN: usize = 1024;

/// Entries that were all in memory, in order.
pub type Gathered = Vec<Entry>;

/// One entry to be read from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedRead {
    /// The entry.
    pub position: Position,
    /// The segment that holds its record.
    pub segment: SegmentNumber,
    /// Where the record begins.
    pub offset: u32,
    /// Length of the payload in bytes.
    pub length: u32,
}

impl PlannedRead {
    /// The read of a durable entry.
    pub(super) fn of(position: Position, place: Place) -> Option<Self> {
        let Place { segment, offset, length } = place;
        Some(Self { position, segment: segment?, offset, length })
    }
}

/// Entries that must be read from disk, by a [`LogReader`](super::LogReader) on a thread that may
/// wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    /// The group.
    pub group: GroupId,
    /// The entries on disk, in order.
    pub reads: Vec<PlannedRead>,
    /// The entries behind them, from memory.
    pub tail: Vec<Entry>,
}

/// Why entries are not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatherError {
    /// Some must be read from disk.
    OnDisk(ReadPlan),
    /// The log does not hold these entries, or no longer: purged, truncated, or of another term.
    Gone,
    /// Some of them are known to be damaged.
    Damaged,
}

impl fmt::Display for GatherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnDisk(_) => "the entries must be read from disk",
            Self::Gone => "the log does not hold these entries",
            Self::Damaged => "some of these entries are damaged",
        })
    }
}

impl core::error::Error for GatherError {}

/// The logs of all groups of a node.
#[derive(Clone, Debug, Default)]
pub struct LogIndex {
    groups: BTreeMap<GroupId, GroupLog>,
    cache_bytes_max: u64,
    cached_bytes: u64,
    /// What was added to the caches, oldest first: the last index of each piece.
    order: VecDeque<(GroupId, Index)>,
    order_length_max: usize,
}

/// One group's log.
#[derive(Clone, Debug)]
struct GroupLog {
    index: EntryIndex,
    /// The last entries of the log.
    cache: VecDeque<Entry>,
    applied: Index,
    unreadable: BTreeSet<Index>,
    damage: Option<Damage>,
}

impl LogIndex {
    /// An index that keeps about this many bytes of entries in memory.
    #[must_use]
    pub fn new(cache_bytes_max: u64) -> Self {
        Self { cache_bytes_max, ..Self::default() }
    }

    /// The index of a log that was opened. Nothing is in memory yet.
    #[must_use]
    pub fn of_recovery(recovery: &Recovery, cache_bytes_max: u64) -> Self {
        let groups = recovery.groups.iter().map(|(&id, group)| {
            let mut log = GroupLog::new();
            log.index = group.index.clone();
            log.unreadable.clone_from(&group.unreadable);
            log.damage = group.damage;
            (id, log)
        });
        Self { groups: groups.collect(), ..Self::new(cache_bytes_max) }
    }

    /// A write was handed to the writer: its entries can be gathered from now on.
    pub fn submitted(&mut self, write: &GroupWrite) {
        if write.remove
            && let Some(gone) = self.groups.remove(&write.group)
        {
            self.cached_bytes -= gone.cache.iter().map(cost).sum::<u64>();
        }
        let nothing_else = write.hard_state.is_none()
            && write.install.is_none()
            && write.truncate_from.is_none()
            && write.entries.is_empty()
            && write.purge.is_none();
        if nothing_else {
            return;
        }
        let log = self.groups.entry(write.group).or_insert_with(GroupLog::new);
        let mut freed = 0;
        if let Some(meta) = &write.install {
            freed += log.purge(meta.position);
        }
        if let Some(from) = write.truncate_from {
            freed += log.truncate(from);
        }
        for entry in &write.entries {
            log.index.push(entry.term, Place { segment: None, offset: 0, length: length_of(entry) });
            self.cached_bytes += cost(entry);
        }
        log.cache.extend(write.entries.iter().cloned());
        if let Some(meta) = &write.purge {
            freed += log.purge(meta.position);
        }
        self.cached_bytes -= freed;
        if let Some(last) = write.entries.last() {
            self.remember(write.group, last.index);
        }
        self.evict();
    }

    /// A write is durable.
    pub fn written(&mut self, receipt: &WriteReceipt) {
        for &(group, position, place) in &receipt.places {
            if let Some(log) = self.groups.get_mut(&group) {
                log.index.locate(position, place);
            }
        }
        self.evict();
    }

    /// The state machine has applied a group's entries up to this one.
    pub fn applied(&mut self, group: GroupId, index: Index) {
        if let Some(log) = self.groups.get_mut(&group) {
            log.applied = log.applied.max(index);
        }
        self.evict();
    }

    /// The last entry of a group's log, or the position it begins behind.
    #[must_use]
    pub fn last(&self, group: GroupId) -> Option<Position> {
        self.groups.get(&group).map(|log| log.index.last())
    }

    /// The term of an entry, or of the position the log begins behind.
    #[must_use]
    pub fn term_at(&self, group: GroupId, index: Index) -> Option<crate::raft::Term> {
        self.groups.get(&group)?.index.term_at(index)
    }

    /// Bytes of entries in memory, with what they cost besides their payloads.
    #[must_use]
    pub const fn cached_bytes(&self) -> u64 {
        self.cached_bytes
    }

    /// The entries from `first` to the end of `runs`, whose terms must be these.
    ///
    /// # Errors
    /// Where they are not in memory, or not these.
    pub fn gather(&self, group: GroupId, first: Index, runs: &TermRuns) -> Result<Gathered, GatherError> {
        let log = self.groups.get(&group).ok_or(GatherError::Gone)?;
        let last = runs.last().ok_or(GatherError::Gone)?;
        log.check_terms(first, runs)?;
        log.collect(group, first, last.index)
    }

    /// The entries from `first` to `last`, or as many of them from the first on as have at most
    /// `bytes_max` payload bytes together; at least one.
    ///
    /// # Errors
    /// Where they are not in memory, or not in the log.
    pub fn entries(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        bytes_max: u64,
    ) -> Result<Gathered, GatherError> {
        let log = self.groups.get(&group).ok_or(GatherError::Gone)?;
        if first <= log.index.base().index || last > log.index.last().index || first > last {
            return Err(GatherError::Gone);
        }
        let mut bytes = 0;
        let fitting = log.index.range(first, last).take_while(|(position, place)| {
            bytes += u64::from(place.length);
            position.index == first || bytes <= bytes_max
        });
        let last = fitting.last().map_or(first, |(position, _)| position.index);
        log.collect(group, first, last)
    }

    /// Notes that entries up to `last` were added to a cache.
    fn remember(&mut self, group: GroupId, last: Index) {
        match self.order.back_mut() {
            Some(piece) if piece.0 == group => piece.1 = last,
            _ => self.order.push_back((group, last)),
        }
        if self.order.len() >= self.order_length_max {
            // Purges empty caches without looking here: forget pieces that are gone.
            let groups = &self.groups;
            self.order.retain(|(group, last)| {
                let first = groups.get(group).and_then(|log| log.cache.front());
                first.is_some_and(|entry| entry.index <= *last)
            });
            self.order_length_max = 2 * self.order.len() + ORDER_LENGTH_MIN;
        }
    }

    /// Drops entries that are durable and applied until the budget is kept, the oldest first.
    fn evict(&mut self) {
        for _ in 0..self.order.len() {
            if self.cached_bytes <= self.cache_bytes_max {
                return;
            }
            let Some((group, last)) = self.order.pop_front() else { return };
            let Some(log) = self.groups.get_mut(&group) else { continue };
            self.cached_bytes -= log.evict(last);
            if log.cache.front().is_some_and(|entry| entry.index <= last) {
                self.order.push_back((group, last));
            }
        }
    }
}

impl GroupLog {
    fn new() -> Self {
        Self {
            index: EntryIndex::new(Position::ZERO),
            cache: VecDeque::new(),
            applied: Index::ZERO,
            unreadable: BTreeSet::new(),
            damage: None,
        }
    }

    fn purge(&mut self, to: Position) -> u64 {
        self.index.purge(to);
        self.unreadable.retain(|&index| index > to.index);
        // What a snapshot stands for counts as applied.
        self.applied = self.applied.max(to.index);
        self.drop_front(|entry| entry.index <= to.index)
    }

    fn truncate(&mut self, from: Index) -> u64 {
        self.index.truncate(from);
        self.unreadable.retain(|&index| index < from);
        let mut freed = 0;
        while let Some(entry) = self.cache.pop_back_if(|entry| entry.index >= from && !mutant!(M51)) {
            freed += cost(&entry);
        }
        freed
    }

    fn evict(&mut self, last: Index) -> u64 {
        let (index, applied) = (&self.index, self.applied);
        let mut freed = 0;
        while let Some(entry) = self.cache.pop_front_if(|entry| {
            let durable = index.place(entry.index).is_some_and(|place| place.segment.is_some());
            entry.index <= last && entry.index <= applied && durable
        }) {
            freed += cost(&entry);
        }
        freed
    }

    fn drop_front(&mut self, gone: impl Fn(&Entry) -> bool) -> u64 {
        let mut freed = 0;
        while let Some(entry) = self.cache.pop_front_if(|entry| gone(entry)) {
            freed += cost(&entry);
        }
        freed
    }

    /// Whether the log has entries of these terms from `first` on.
    fn check_terms(&self, first: Index, runs: &TermRuns) -> Result<(), GatherError> {
        let mut from = first;
        for run in runs.as_slice() {
            if from <= self.index.base().index || run.index < from {
                return Err(GatherError::Gone);
            }
            // Terms never fall along a log, so equal ends mean equal terms between them.
            let ends = [self.index.term_at(from), self.index.term_at(run.index)];
            if ends != [Some(run.term), Some(run.term)] && !mutant!(M50) {
                return Err(GatherError::Gone);
            }
            from = run.index.next();
        }
        Ok(())
    }

    fn collect(&self, group: GroupId, first: Index, last: Index) -> Result<Gathered, GatherError> {
        if self.unreadable.range(first..=last).next().is_some() {
            return Err(GatherError::Damaged);
        }
        let cached_from = self.cache.front().map_or(self.index.last().index.next(), |entry| entry.index);
        let skip = usize::try_from(first.0.saturating_sub(cached_from.0)).unwrap_or(usize::MAX);
        let cached = self.cache.iter().skip(skip).take_while(|entry| entry.index <= last);
        let tail: Vec<_> = cached.cloned().collect();
        if first >= cached_from {
            return Ok(tail);
        }
        let on_disk = self.index.range(first, last.min(Index(cached_from.0 - 1)));
        let reads = on_disk.map(|(position, place)| PlannedRead::of(position, place)).collect();
        match reads {
            Some(reads) => Err(GatherError::OnDisk(ReadPlan { group, reads, tail })),
            // Neither in memory nor on disk: only a damaged log has such entries.
            None => Err(if self.damage.is_some() { GatherError::Damaged } else { GatherError::Gone }),
        }
    }
}

fn cost(entry: &Entry) -> u64 {
    entry.payload.len() as u64 + ENTRY_OVERHEAD_BYTES
}

fn length_of(entry: &Entry) -> u32 {
    u32::try_from(entry.payload.len()).unwrap_or(u32::MAX)
}
