//! Writing the log: batches at the tail, a new segment when one is full.
//!
//! [`WalWriter`] has no thread and no clock. One `write` is one batch and one flush, for as many
//! groups as wait. The state of a group changes in memory only after the flush that makes the
//! change durable, so a refused write leaves nothing behind.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::mem;

use super::{
    BatchSequence, BootEpoch, Disk, DiskError, Entry, EntryIndex, GroupId, GroupWrite, LogId, OpenError,
    Place, PlannedRead, Recovery, SegmentNumber, WalOptions, WriteError,
    batch::{BatchBuilder, Buffers, Destination, Link, record_bytes},
    codec::{
        BATCH_HEADER_BYTES, Chain, Checkpoint, DATA_START, HEADER_OFFSETS, MIRROR_BYTES, Mark, RecordKind,
        SEGMENT_BYTES_MIN, Seal, SegmentEnd, SegmentHeader, encode_configuration,
    },
    reader::read_entries,
    recovery::{recover, segment_name},
    state::GroupState,
};
use crate::raft::{HardState, Index, Position, SnapshotMeta, WriteFault};

/// A group's entries are rewritten when they are the reason to keep a segment this much older than
/// the newest.
const REWRITE_AGE: u32 = 2;
/// Lengths of segments are multiples of this.
const SEGMENT_UNIT: u64 = 4096;
const SPARE_SUFFIX: &str = ".spare";

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

/// An empty segment file to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareOrder {
    name: String,
    length: u64,
}

/// An empty segment file that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareReady(SpareOrder);

/// Prepares the file of a segment to come. May run on another thread than the writer.
///
/// # Errors
/// Where the disk fails or is full; the file is then removed again.
pub fn prepare_spare(disk: &mut impl Disk, order: SpareOrder) -> Result<SpareReady, DiskError> {
    match disk.create_zeroed(&order.name, order.length) {
        Ok(()) => Ok(SpareReady(order)),
        Err(error) => {
            // The first error is the one to tell; the file is removed at the next start at the latest.
            let _ = disk.remove(&order.name);
            Err(error)
        }
    }
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
            boot: BootEpoch(found.as_ref().map_or(0, |found| found.boot.0) + 1),
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
            writer.next = found.end.sequence.next();
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

    /// The file the next segment will need, if none is ready. Each call names another file.
    #[must_use]
    pub fn order_spare(&mut self) -> Option<SpareOrder> {
        if self.spare.is_some() {
            return None;
        }
        Some(self.new_order(self.options.segment_bytes))
    }

    /// Takes a file that was prepared.
    pub fn offer_spare(&mut self, spare: SpareReady) {
        if let Some(unused) = self.spare.replace(spare) {
            // Left over at worst until the next start.
            let _ = self.disk.remove(&unused.0.name);
        }
    }

    fn new_order(&mut self, length: u64) -> SpareOrder {
        self.spares_ordered += 1;
        let name = format!("{:020}-{}{SPARE_SUFFIX}", self.segment.number.0, self.spares_ordered);
        SpareOrder { name, length: length.next_multiple_of(SEGMENT_UNIT) }
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
        self.sync()?;
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
        self.disk.sync_data(&self.segment.name).map_err(|_| self.poison(WriteFault::SyncFailed))
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

    /// Ends the current segment and begins another with room for this many bytes.
    fn roll(&mut self, room: u64) -> Result<(), WriteError> {
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
    fn begin_segment(
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
        self.disk.sync_dir().map_err(unsynced)
    }

    /// A file of zeros that is at least this long.
    fn take_spare(&mut self, length: u64) -> Result<SpareOrder, Begin> {
        if let Some(SpareReady(spare)) = self.spare.take_if(|spare| spare.0.length >= length) {
            return Ok(spare);
        }
        let order = self.new_order(length);
        match prepare_spare(&mut self.disk, order) {
            Ok(SpareReady(spare)) => Ok(spare),
            Err(DiskError::Full) => Err(Begin::Full),
            Err(error) => Err(Begin::Failed(WriteFault::WriteFailed, error)),
        }
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
        kept.filter_map(|(_, state)| state.index.oldest_segment()).min().unwrap_or(number)
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
enum Begin {
    Full,
    Failed(WriteFault, DiskError),
}

/// Bytes that writes will take.
struct Size {
    bytes: u64,
    mirror_bytes: u64,
}

fn size_of(writes: &[GroupWrite]) -> Size {
    let mut size = Size { bytes: BATCH_HEADER_BYTES as u64, mirror_bytes: 0 };
    for write in writes {
        let metas = write.install.iter().chain(&write.purge);
        size.bytes +=
            metas.map(|meta| record_bytes(encode_configuration(&meta.configuration).len())).sum::<u64>();
        size.bytes += write.entries.iter().map(|entry| record_bytes(entry.payload.len())).sum::<u64>();
        let plain = [write.remove, write.hard_state.is_some(), write.truncate_from.is_some()];
        size.bytes += plain.iter().filter(|&&present| present).count() as u64 * record_bytes(0);
        size.mirror_bytes += if write.hard_state.is_some() { MIRROR_BYTES as u64 } else { 0 };
    }
    size
}

fn checkpoint_of(state: &GroupState, entries_follow: bool) -> Checkpoint {
    Checkpoint {
        hard_state: state.hard_state,
        start: state.start.clone(),
        entries_follow,
        damage: state.damage.map(super::Damage::to_words),
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

fn place_of(segment: SegmentNumber, offset: u64, entry: &Entry) -> Place {
    Place {
        segment: Some(segment),
        offset: u32::try_from(offset).expect("segments are shorter than 4 GiB"),
        length: u32::try_from(entry.payload.len()).expect("payloads are shorter than a segment"),
    }
}

/// What the groups' logs will be after the writes admitted so far.
#[derive(Default)]
pub(super) struct Staging {
    groups: BTreeMap<GroupId, Staged>,
}

#[derive(Clone, Copy)]
struct Staged {
    start: Index,
    last: Index,
    damaged: bool,
}

impl Staging {
    /// Checks that a write continues its group's log.
    fn admit(
        &mut self,
        groups: &BTreeMap<GroupId, GroupState>,
        write: &GroupWrite,
    ) -> Result<(), WriteError> {
        let fresh = Staged { start: Index::ZERO, last: Index::ZERO, damaged: false };
        let staged = self.groups.entry(write.group).or_insert_with(|| {
            groups.get(&write.group).map_or(fresh, |state| Staged {
                start: state.start.position.index,
                last: state.index.last().index,
                damaged: state.damage.is_some(),
            })
        });
        if write.remove {
            *staged = fresh;
        }
        if staged.damaged {
            return Err(WriteError::Damaged(write.group));
        }
        staged.change(write)
    }
}

impl Staged {
    fn change(&mut self, write: &GroupWrite) -> Result<(), WriteError> {
        let refuse = |expected, found| Err(WriteError::OutOfOrder { group: write.group, expected, found });
        if let Some(meta) = &write.install {
            let to = meta.position.index;
            if to < self.start {
                return refuse(self.start, to);
            }
            (self.start, self.last) = (to, self.last.max(to));
        }
        if let Some(from) = write.truncate_from {
            if from <= self.start {
                return refuse(self.start.next(), from);
            }
            self.last = self.last.min(from.previous());
        }
        for entry in &write.entries {
            if entry.index != self.last.next() {
                return refuse(self.last.next(), entry.index);
            }
            self.last = entry.index;
        }
        if let Some(meta) = &write.purge {
            if meta.position.index > self.last {
                return refuse(self.last, meta.position.index);
            }
            self.start = self.start.max(meta.position.index);
        }
        Ok(())
    }
}

/// Turns writes into records.
struct Encoder<'a> {
    builder: BatchBuilder<'a>,
    groups: &'a BTreeMap<GroupId, GroupState>,
    sequence: BatchSequence,
    segment: SegmentNumber,
    /// The last record of each group in this batch, and whether the group is there after it.
    chains: BTreeMap<GroupId, (Chain, bool)>,
    places: Vec<(GroupId, Position, Place)>,
}

impl<'a> Encoder<'a> {
    fn new(
        to: Destination<'a>,
        buffers: &'a mut Buffers,
        groups: &'a BTreeMap<GroupId, GroupState>,
        segment: SegmentNumber,
    ) -> Self {
        let sequence = to.sequence;
        let builder = BatchBuilder::new(to, buffers);
        Self { builder, groups, sequence, segment, chains: BTreeMap::new(), places: Vec::new() }
    }

    fn write(&mut self, write: &GroupWrite) {
        let group = write.group;
        if write.remove && self.is_there(group) {
            let link = self.link(group);
            self.builder.record(link, RecordKind::Remove, &[]);
            self.chains.insert(group, (link.chain, false));
        }
        if let Some(hard_state) = write.hard_state {
            let link = self.link(group);
            self.builder.mirrored(link, RecordKind::HardState(hard_state), &[], hard_state);
        }
        if let Some(meta) = &write.install {
            let link = self.link(group);
            let configuration = encode_configuration(&meta.configuration);
            self.builder.record(link, RecordKind::Install(meta.position), &configuration);
        }
        if let Some(from) = write.truncate_from {
            let link = self.link(group);
            self.builder.record(link, RecordKind::Truncate(from), &[]);
        }
        for entry in &write.entries {
            let link = self.link(group);
            let offset = self.builder.entry(link, entry);
            self.places.push((group, entry.position(), place_of(self.segment, offset, entry)));
        }
        if let Some(meta) = &write.purge {
            let link = self.link(group);
            let configuration = encode_configuration(&meta.configuration);
            self.builder.record(link, RecordKind::Purge(meta.position), &configuration);
        }
    }

    fn is_there(&self, group: GroupId) -> bool {
        self.chains.get(&group).map_or_else(|| self.groups.contains_key(&group), |&(_, there)| there)
    }

    /// The next place in a group's chain.
    fn link(&mut self, group: GroupId) -> Link {
        let before = match self.chains.get(&group) {
            Some(&before) => Some(before),
            None => self.groups.get(&group).map(|state| (state.chain, true)),
        };
        let (chain, first) = match before {
            Some((chain, true)) => (chain.next(), false),
            Some((chain, false)) => (Chain::beginning(self.sequence).max(chain.next()), true),
            None => (Chain::beginning(self.sequence), true),
        };
        self.chains.insert(group, (chain, true));
        Link { group, chain, first }
    }

    #[expect(clippy::type_complexity, reason = "taken apart at once by its only caller")]
    fn finish(self) -> (u32, Vec<(GroupId, Position, Place)>, BTreeMap<GroupId, (Chain, bool)>) {
        (self.builder.finish(), self.places, self.chains)
    }
}

/// Changes a group's state as its records say.
fn apply(
    groups: &mut BTreeMap<GroupId, GroupState>,
    write: &GroupWrite,
    chains: &BTreeMap<GroupId, (Chain, bool)>,
    places: &mut impl Iterator<Item = Place>,
) {
    if write.remove {
        groups.remove(&write.group);
    }
    let Some(&(chain, _)) = chains.get(&write.group) else { return };
    let state = groups.entry(write.group).or_insert_with(|| GroupState::new(chain));
    state.chain = chain;
    if let Some(hard_state) = write.hard_state {
        state.hard_state = hard_state;
    }
    if let Some(meta) = &write.install {
        state.begin_at(meta.clone());
    }
    if let Some(from) = write.truncate_from {
        state.truncate(from);
    }
    for entry in &write.entries {
        state.push(entry.term, places.next().expect("every entry of the batch has a place"));
    }
    if let Some(meta) = &write.purge {
        state.begin_at(meta.clone());
    }
}
