//! Beginning segments: the header, a checkpoint of every group, and the few entries that would keep
//! old segments from being removed.

use alloc::{collections::BTreeMap, vec::Vec};

use super::{Segment, WalWriter, encoder::place_of};
use crate::{
    raft::{HardState, Position, WriteFault},
    storage::wal::{
        Damage, Disk, DiskError, Entry, GroupId, Place, PlannedRead, SegmentNumber, WriteError,
        batch::{BatchBuilder, Buffers, Destination, Link, record_bytes},
        codec::{
            BATCH_HEADER_BYTES, Chain, Checkpoint, DATA_START, HEADER_OFFSETS, MIRROR_BYTES, Mark,
            RecordKind, Seal, SegmentEnd, SegmentHeader,
        },
        reader::read_entries,
        recovery::segment_name,
        state::GroupState,
    },
};

/// A group's entries are rewritten when they are the reason to keep a segment this much older than
/// the newest.
const REWRITE_AGE: u32 = 2;
/// Lengths of segments are multiples of this.
pub(super) const SEGMENT_UNIT: u64 = 4096;

impl<D: Disk> WalWriter<D> {
    /// Ends the current segment and begins another with room for this many bytes.
    pub(super) fn roll(&mut self, room: u64) -> Result<(), WriteError> {
        let Mark { sequence, end } = self.segment.last_mark;
        let previous = SegmentEnd { segment: self.segment.number, offset: end, sequence };
        self.begin_segment(self.segment.number.next(), Some(previous), room).map_err(
            |stopped| match stopped {
                Begin::Full => WriteError::Full,
                Begin::Failed(fault, _) => self.poison(fault),
            },
        )
    }

    /// Begins a segment: the header and a checkpoint of every group are durable before the file gets
    /// its name, so a segment that has a name is complete up to there.
    pub(super) fn begin_segment(
        &mut self,
        number: SegmentNumber,
        previous: Option<SegmentEnd>,
        room: u64,
    ) -> Result<(), Begin> {
        let rewrites = self.choose_rewrites(number);
        let size = self.checkpoint_size(&rewrites);
        let needed = DATA_START + size + room + SEGMENT_UNIT;
        let spare = self.take_spare(needed.max(self.options.segment_bytes))?;
        let length = spare.length;
        let oldest = self.oldest_needed(number, &rewrites);
        let seal = Seal::new(self.log, number);
        let to = Destination {
            seal: &seal,
            sequence: self.next,
            boot: self.boot,
            offset: DATA_START,
            mirror_low: length,
        };
        let header =
            SegmentHeader { log: self.log, segment: number, oldest, boot: self.boot, length, previous };
        let (records, moved) = write_checkpoint(to, &mut self.buffers, &self.groups, &rewrites, number);
        let mark = Mark { sequence: self.next, end: DATA_START + self.buffers.batch.len() as u64 };
        let name = segment_name(number);
        self.put_segment(&spare.name, &name, &header, mark, &seal).inspect_err(|_| {
            // Not part of the log: removed at the next start at the latest.
            let _ = self.disk.remove(&spare.name);
        })?;

        for (id, state) in &mut self.groups {
            let entries = rewrites.get(id).map_or(0, |entries| entries.len() as u64);
            state.chain = Chain(state.chain.0.wrapping_add(1 + entries));
        }
        for &(group, position, place) in &moved {
            let state = self.groups.get_mut(&group).expect("a group that was rewritten is there");
            state.index.locate(position, place);
        }
        self.moved.extend(moved);
        self.counters.records += u64::from(records);
        self.counters.batches += 1;
        self.counters.segments += 1;
        self.counters.bytes += (self.buffers.batch.len() + self.buffers.mirrors.len()) as u64;
        let mirror_low = length - self.buffers.mirrors.len() as u64;
        self.segment = Segment { number, name, seal, tail: mark.end, mirror_low, last_mark: mark, oldest };
        self.next = self.next.next();
        self.files.insert(number);
        self.remove_old();
        Ok(())
    }

    /// Makes a new segment durable under its own name.
    fn put_segment(
        &mut self,
        spare: &str,
        name: &str,
        header: &SegmentHeader,
        mark: Mark,
        seal: &Seal,
    ) -> Result<(), Begin> {
        let failed = |error| match error {
            DiskError::Full => Begin::Full,
            error => Begin::Failed(WriteFault::WriteFailed, error),
        };
        for offset in HEADER_OFFSETS {
            self.disk.write_at(spare, offset, &header.encode()).map_err(failed)?;
        }
        self.disk.write_at(spare, mark.offset(), &mark.encode(seal)).map_err(failed)?;
        self.disk.write_at(spare, DATA_START, &self.buffers.batch).map_err(failed)?;
        if !self.buffers.mirrors.is_empty() {
            let low = header.length - self.buffers.mirrors.len() as u64;
            self.disk.write_at(spare, low, &self.buffers.mirrors).map_err(failed)?;
        }
        self.counters.syncs += 1;
        let unsynced = |error| Begin::Failed(WriteFault::SyncFailed, error);
        self.disk.sync_data(spare).map_err(unsynced)?;
        self.disk.rename(spare, name).map_err(unsynced)?;
        if mutant!(M48) {
            return Ok(());
        }
        self.disk.sync_dir().map_err(unsynced)
    }

    /// Groups to be written out in full in the next segment, because old segments are kept for few
    /// entries of theirs.
    fn choose_rewrites(&self, number: SegmentNumber) -> BTreeMap<GroupId, Vec<Entry>> {
        let mut rewrites = BTreeMap::new();
        let mut room = self.options.rewrite_bytes_max;
        for pinned in self.pinned_before(number) {
            let state = &self.groups[&pinned.group];
            let records = state.index.len() as u64 * record_bytes(0) + pinned.bytes;
            let young = pinned.segment.0.saturating_add(REWRITE_AGE) > number.0;
            if young || records > room || state.damage.is_some() {
                continue;
            }
            // Entries that cannot be read stay where they are; whoever needs them is told.
            if let Some(entries) = self.read_all(pinned.group, state) {
                room -= records;
                rewrites.insert(pinned.group, entries);
            }
        }
        rewrites
    }

    fn read_all(&self, group: GroupId, state: &GroupState) -> Option<Vec<Entry>> {
        let range = state.index.range(state.index.base().index.next(), state.index.last().index);
        let reads: Vec<_> =
            range.map(|(position, place)| PlannedRead::of(position, place)).collect::<Option<_>>()?;
        read_entries(&self.disk, self.log, group, &reads).ok()
    }

    fn checkpoint_size(&self, rewrites: &BTreeMap<GroupId, Vec<Entry>>) -> u64 {
        let checkpoints = self.groups.values().map(|state| {
            let payload = checkpoint_of(state, false).encode();
            record_bytes(payload.len()) + MIRROR_BYTES as u64
        });
        let entries = rewrites.values().flatten().map(|entry| record_bytes(entry.payload.len()));
        BATCH_HEADER_BYTES as u64 + checkpoints.sum::<u64>() + entries.sum::<u64>()
    }

    fn oldest_needed(
        &self,
        number: SegmentNumber,
        rewrites: &BTreeMap<GroupId, Vec<Entry>>,
    ) -> SegmentNumber {
        let kept = self.groups.iter().filter(|(group, _)| !rewrites.contains_key(group));
        let kept = kept.filter(|_| !mutant!(M49));
        let oldest = kept.filter_map(|(_, state)| state.index.oldest_segment()).min().unwrap_or(number);
        match self.witnesses {
            // A damaged segment is needed, and so is what made up for the damage.
            Some(witnesses) if oldest <= witnesses.damaged => oldest.min(witnesses.oldest),
            Some(_) | None => oldest,
        }
    }

    /// Removes the files that the newest segment says are not needed.
    fn remove_old(&mut self) {
        while let Some(&file) = self.files.first() {
            // What cannot be removed now is tried again with the next segment.
            if file >= self.segment.oldest || self.disk.remove(&segment_name(file)).is_err() {
                return;
            }
            self.files.pop_first();
        }
    }
}

/// Why a segment was not begun.
pub(super) enum Begin {
    Full,
    Failed(WriteFault, DiskError),
}

fn checkpoint_of(state: &GroupState, entries_follow: bool) -> Checkpoint {
    Checkpoint {
        hard_state: HardState { vote: state.hard_state.vote.filter(|_| !mutant!(M47)), ..state.hard_state },
        start: state.start.clone(),
        entries_follow,
        damage: state.damage.map(Damage::to_words),
    }
}

fn write_checkpoint(
    to: Destination<'_>,
    buffers: &mut Buffers,
    groups: &BTreeMap<GroupId, GroupState>,
    rewrites: &BTreeMap<GroupId, Vec<Entry>>,
    number: SegmentNumber,
) -> (u32, Vec<(GroupId, Position, Place)>) {
    let mut builder = BatchBuilder::new(to, buffers);
    let mut moved = Vec::new();
    for (&group, state) in groups {
        let entries = rewrites.get(&group);
        let mut link = Link { group, chain: state.chain.next(), first: false };
        let payload = checkpoint_of(state, entries.is_some()).encode();
        builder.mirrored(link, RecordKind::Checkpoint(state.index.last()), &payload, state.hard_state);
        for entry in entries.into_iter().flatten() {
            link.chain = link.chain.next();
            let offset = builder.entry(link, entry);
            moved.push((group, entry.position(), place_of(number, offset, entry)));
        }
    }
    (builder.finish(), moved)
}
