//! Writing the log: batches at the tail, a new segment when one is full.
//!
//! [`WalWriter`] has no thread and no clock. One `write` is one batch and one flush, for as many
//! groups as wait. The state of a group changes in memory only after the flush that makes the
//! change durable, so a refused write leaves nothing behind.

mod encoder;
mod segment;
mod spare;
mod staging;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec,
    vec::Vec,
};
use core::{mem, ops::Range};

use super::{
    BatchSequence, BootEpoch, Disk, DiskError, EntryIndex, GroupId, GroupWrite, LogId, OpenError, Place,
    Recovery, SegmentNumber, WalOptions, WriteError,
    batch::{Buffers, Destination},
    codec::{Mark, SEGMENT_BYTES_MIN, Seal},
    recovery::{Witnesses, recover, segment_name},
    state::GroupState,
};
use crate::raft::{HardState, Position, SnapshotMeta, WriteFault};

use encoder::{Encoder, apply, size_of};
use segment::Begin;
use spare::SPARE_SUFFIX;
pub use spare::{SpareOrder, SpareReady, prepare_spare};
pub(super) use staging::Staging;

/// A log that is written.
#[derive(Clone, Debug)]
pub struct WalWriter<D> {
    disk: D,
    options: WalOptions,
    log: LogId,
    boot: BootEpoch,
    groups: BTreeMap<GroupId, GroupState>,
    segment: Segment,
    files: BTreeSet<SegmentNumber>,
    witnesses: Option<Witnesses>,
    next: BatchSequence,
    buffers: Buffers,
    /// Entries that a new segment took over, not yet told to the embedder.
    moved: Vec<(GroupId, Position, Place)>,
    spare: Option<SpareReady>,
    spares_ordered: u64,
    fault: Option<WriteFault>,
    counters: WalCounters,
}

/// The segment being written.
#[derive(Clone, Debug)]
struct Segment {
    number: SegmentNumber,
    name: String,
    seal: Seal,
    tail: u64,
    mirror_low: u64,
    last_mark: Mark,
    /// The oldest segment that was needed when this one began.
    oldest: SegmentNumber,
}

/// What a durable write did.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WriteReceipt {
    /// Where entries are now: those written, and older ones that were moved.
    pub places: Vec<(GroupId, Position, Place)>,
}

/// Figures since the log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WalCounters {
    /// Flushes of segment files.
    pub syncs: u64,
    /// Bytes written to segment files, zeros of new ones not counted.
    pub bytes: u64,
    /// Batches.
    pub batches: u64,
    /// Records.
    pub records: u64,
    /// Segments begun.
    pub segments: u64,
}

/// A group whose entries keep old segments from being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinnedGroup {
    /// The group.
    pub group: GroupId,
    /// The oldest segment that holds an entry of it.
    pub segment: SegmentNumber,
    /// Payload bytes of all its entries.
    pub bytes: u64,
}

impl<D: Disk> WalWriter<D> {
    /// Opens the log in a directory, or creates it, and begins a new segment.
    ///
    /// # Errors
    /// Where the log cannot be read, or a segment cannot be begun. Nothing that was acknowledged is
    /// changed.
    pub fn open(mut disk: D, options: WalOptions) -> Result<(Self, Recovery), OpenError> {
        if !(SEGMENT_BYTES_MIN..1 << 32).contains(&options.segment_bytes) {
            return Err(OpenError::SegmentBytes(options.segment_bytes));
        }
        for name in disk.list().map_err(OpenError::disk("listing its files"))? {
            if name.ends_with(SPARE_SUFFIX) {
                disk.remove(&name).map_err(OpenError::disk(format!("removing {name}")))?;
            }
        }
        let found = recover(&disk)?;
        let mut recovery = Recovery {
            log_id: found.as_ref().map_or(options.log_id, |found| found.log),
            created: found.is_none(),
            boot: BootEpoch(found.as_ref().map_or(0, |found| found.boot.0) + u64::from(!mutant!(M42))),
            next_sequence: BatchSequence(1),
            groups: BTreeMap::new(),
            damage: Vec::new(),
            torn: None,
        };
        let mut writer = Self::new(disk, options, &recovery);
        let mut previous = None;
        if let Some(found) = found {
            for (id, group) in found.groups {
                recovery.groups.insert(id, group.recovered);
                writer.groups.insert(id, group.state);
            }
            recovery.damage = found.damage;
            recovery.torn = found.torn;
            writer.files = found.files;
            writer.witnesses = found.witnesses;
            writer.next = found.end.sequence.next();
            if let Some(batch) = found.unproven {
                writer.secure(found.end.segment, &batch)?;
            }
            previous = Some(found.end);
        }
        let number = writer.files.last().copied().unwrap_or_default().next();
        writer.begin_segment(number, previous, 0).map_err(|fault| {
            let error = match fault {
                Begin::Full => DiskError::Full,
                Begin::Failed(_, error) => error,
            };
            OpenError::Disk { action: format!("beginning segment {number}"), error }
        })?;
        recovery.next_sequence = writer.next;
        for (group, position, place) in writer.moved.drain(..) {
            if let Some(group) = recovery.groups.get_mut(&group) {
                group.index.locate(position, place);
            }
        }
        Ok((writer, recovery))
    }

    /// Makes a batch durable that was read and may be in the system's cache only. To flush it is not
    /// enough: after a flush that failed, the next one succeeds without having written it.
    fn secure(&mut self, segment: SegmentNumber, batch: &Range<u64>) -> Result<(), OpenError> {
        if mutant!(M66) {
            return Ok(());
        }
        let name = segment_name(segment);
        let mut bytes = vec![0; usize::try_from(batch.end - batch.start).expect("it was in memory just now")];
        let mut secured = self.disk.read_at(&name, batch.start, &mut bytes);
        if secured.is_ok() && !mutant!(M67) {
            secured = self.disk.write_at(&name, batch.start, &bytes);
        }
        self.counters.syncs += 1;
        secured
            .and_then(|()| self.disk.sync_data(&name))
            .map_err(OpenError::disk(format!("making the end of {name} durable")))
    }

    fn new(disk: D, options: WalOptions, recovery: &Recovery) -> Self {
        Self {
            disk,
            options,
            log: recovery.log_id,
            boot: recovery.boot,
            groups: BTreeMap::new(),
            segment: Segment {
                number: SegmentNumber(0),
                name: String::new(),
                seal: Seal::new(recovery.log_id, SegmentNumber(0)),
                tail: 0,
                mirror_low: 0,
                last_mark: Mark { sequence: BatchSequence(0), end: 0 },
                oldest: SegmentNumber(1),
            },
            files: BTreeSet::new(),
            witnesses: None,
            next: BatchSequence(1),
            buffers: Buffers::default(),
            moved: Vec::new(),
            spare: None,
            spares_ordered: 0,
            fault: None,
            counters: WalCounters::default(),
        }
    }

    /// Makes all these writes durable, in this order, as one batch. None of them where it fails.
    ///
    /// # Errors
    /// See [`WriteError`]: only [`Full`](WriteError::Full) may be tried again.
    pub fn write(&mut self, writes: &[GroupWrite]) -> Result<WriteReceipt, WriteError> {
        if let Some(fault) = self.fault {
            return Err(WriteError::Fault(fault));
        }
        let mut staged = Staging::default();
        self.admit(&mut staged, writes)?;
        let size = size_of(writes);
        if self.segment.tail + size.bytes > self.segment.mirror_low.saturating_sub(size.mirror_bytes) {
            self.roll(size.bytes + size.mirror_bytes)?;
        }
        let to = Destination {
            seal: &self.segment.seal,
            sequence: self.next,
            boot: self.boot,
            offset: self.segment.tail,
            mirror_low: self.segment.mirror_low,
        };
        let mut encoder = Encoder::new(to, &mut self.buffers, &self.groups, self.segment.number);
        writes.iter().for_each(|write| encoder.write(write));
        let (records, places, chains) = encoder.finish();
        if records == 0 {
            return Ok(self.receipt(Vec::new()));
        }
        self.put_batch()?;
        self.counters.records += u64::from(records);
        let mut located = places.iter().map(|&(_, _, place)| place);
        for write in writes {
            apply(&mut self.groups, write, &chains, &mut located);
        }
        for (group, _) in chains.iter().filter(|(_, (_, there))| !there) {
            self.groups.remove(group);
        }
        Ok(self.receipt(places))
    }

    /// Whether these writes could be carried out behind those admitted to `staging`, as far as the
    /// log's contents decide.
    pub(super) fn admit(&self, staging: &mut Staging, writes: &[GroupWrite]) -> Result<(), WriteError> {
        writes.iter().try_for_each(|write| staging.admit(&self.groups, write))
    }

    /// Writes the mark of the last batch, so that it is known to be complete. To be called when
    /// writing ends.
    ///
    /// # Errors
    /// Where the disk fails. Everything acknowledged stays so.
    pub fn close(mut self) -> Result<D, WriteError> {
        if let Some(fault) = self.fault {
            return Err(WriteError::Fault(fault));
        }
        let mark = self.segment.last_mark;
        let bytes = mark.encode(&self.segment.seal);
        self.disk
            .write_at(&self.segment.name, mark.offset(), &bytes)
            .map_err(|error| self.poison_write(&error))?;
        self.sync()?;
        Ok(self.disk)
    }

    /// The log's id.
    #[must_use]
    pub const fn log_id(&self) -> LogId {
        self.log
    }

    /// Figures since the log was opened.
    #[must_use]
    pub const fn counters(&self) -> WalCounters {
        self.counters
    }

    /// The disk.
    #[must_use]
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, for those who break it on purpose.
    pub const fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The segments that are there, from the oldest that is needed to the one being written.
    #[must_use]
    pub fn segments(&self) -> (SegmentNumber, SegmentNumber) {
        (self.segment.oldest, self.segment.number)
    }

    /// What is durable of a group: term and vote, where its log begins, and its entries.
    #[must_use]
    pub fn durable(&self, group: GroupId) -> Option<(HardState, &SnapshotMeta, &EntryIndex)> {
        self.groups.get(&group).map(|state| (state.hard_state, &state.start, &state.index))
    }

    /// Where the next batch will stand: the segment being written, and the offset in it.
    #[must_use]
    pub const fn tail(&self) -> (SegmentNumber, u64) {
        (self.segment.number, self.segment.tail)
    }

    /// The groups whose entries keep segments older than the one being written, those with the
    /// oldest first.
    #[must_use]
    pub fn segments_pinned(&self) -> Vec<PinnedGroup> {
        self.pinned_before(self.segment.number)
    }

    fn pinned_before(&self, number: SegmentNumber) -> Vec<PinnedGroup> {
        let mut pinned: Vec<_> = self
            .groups
            .iter()
            .filter_map(|(&group, state)| {
                let segment = state.index.oldest_segment()?;
                let bytes = state.index.bytes();
                (segment < number).then_some(PinnedGroup { group, segment, bytes })
            })
            .collect();
        pinned.sort_by_key(|pinned| (pinned.segment, pinned.bytes, pinned.group));
        pinned
    }

    fn receipt(&mut self, mut places: Vec<(GroupId, Position, Place)>) -> WriteReceipt {
        if !self.moved.is_empty() {
            let written = mem::replace(&mut places, mem::take(&mut self.moved));
            places.extend(written);
        }
        WriteReceipt { places }
    }

    /// Writes the batch that the buffers hold, and flushes it.
    fn put_batch(&mut self) -> Result<(), WriteError> {
        let segment = &self.segment;
        let name = &segment.name;
        let mirror_low = segment.mirror_low - self.buffers.mirrors.len() as u64;
        let mark = segment.last_mark.encode(&segment.seal);
        let mut written = self.disk.write_at(name, segment.tail, &self.buffers.batch);
        if written.is_ok() {
            written = self.disk.write_at(name, segment.last_mark.offset(), &mark);
        }
        if written.is_ok() && !self.buffers.mirrors.is_empty() {
            written = self.disk.write_at(name, mirror_low, &self.buffers.mirrors);
        }
        written.map_err(|error| self.poison_write(&error))?;
        if !mutant!(M40) {
            self.sync()?;
        }
        self.segment.tail += self.buffers.batch.len() as u64;
        self.segment.mirror_low = mirror_low;
        self.segment.last_mark = Mark { sequence: self.next, end: self.segment.tail };
        self.next = self.next.next();
        self.counters.batches += 1;
        self.counters.bytes += (self.buffers.batch.len() + mark.len() + self.buffers.mirrors.len()) as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        self.counters.syncs += 1;
        let mut synced = self.disk.sync_data(&self.segment.name);
        if mutant!(M41) && synced.is_err() {
            synced = self.disk.sync_data(&self.segment.name);
        }
        synced.map_err(|_| self.poison(WriteFault::SyncFailed))
    }

    fn poison_write(&mut self, error: &DiskError) -> WriteError {
        match error {
            DiskError::Full => WriteError::Full,
            DiskError::NotFound | DiskError::Unreadable { .. } | DiskError::Failed(_) => {
                self.poison(WriteFault::WriteFailed)
            }
        }
    }

    fn poison(&mut self, fault: WriteFault) -> WriteError {
        self.fault = Some(fault);
        WriteError::Fault(fault)
    }
}
