//! Reading one segment from its first batch to its end, past whatever is damaged in between.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};
use core::ops::Range;

use super::{
    BatchSequence, DamageKind, DiskError, GroupId, ReadDisk, SegmentNumber,
    codec::{
        ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, DATA_START, MARK_OFFSETS, MIRROR_BYTES, Mark, Mirror,
        RECORD_HEADER_BYTES, RecordHeader, Seal, SegmentEnd, aligned, payload_checksum,
    },
    replay::{At, Replay},
};

/// The bytes of a segment, with zeros where the disk did not give them.
#[derive(Debug)]
pub(super) struct SegmentImage {
    bytes: Vec<u8>,
    unreadable: Vec<Range<u64>>,
}

/// The smallest piece a disk loses.
const SECTOR: usize = 512;

impl SegmentImage {
    /// Reads a whole file; then, where that fails, what can be read of it.
    pub(super) fn read(disk: &impl ReadDisk, name: &str) -> Result<Self, DiskError> {
        let length = u32::try_from(disk.length(name)?)
            .map_err(|_| DiskError::Failed("it is longer than a segment can be".to_owned()))?;
        let length = usize::try_from(length).map_err(|_| DiskError::Full)?;
        let mut bytes = vec![0; length];
        let mut unreadable = Vec::new();
        match disk.read_at(name, 0, &mut bytes) {
            Ok(()) => {}
            Err(DiskError::Unreadable { .. }) => {
                for (sector, piece) in bytes.chunks_mut(SECTOR).enumerate() {
                    let offset = (sector * SECTOR) as u64;
                    match disk.read_at(name, offset, piece) {
                        Ok(()) => {}
                        Err(DiskError::Unreadable { .. }) => {
                            piece.fill(0);
                            unreadable.push(offset..offset + piece.len() as u64);
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            Err(error) => return Err(error),
        }
        Ok(Self { bytes, unreadable })
    }

    fn from(&self, offset: u64) -> &[u8] {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.bytes.get(offset..).unwrap_or_default()
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_unreadable(&self, range: &Range<u64>) -> bool {
        self.unreadable.iter().any(|lost| lost.start < range.end && range.start < lost.end)
    }
}

/// Where a segment's batches were found to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ScanEnd {
    /// Behind the last batch.
    pub(super) offset: u64,
    /// The last batch.
    pub(super) sequence: BatchSequence,
    /// Whether something that is no batch stands behind it.
    pub(super) torn: bool,
    /// The last batch, where nothing says that its flush succeeded.
    pub(super) unproven: Option<Range<u64>>,
}

/// One segment being read.
pub(super) struct Scan<'a> {
    image: &'a SegmentImage,
    segment: SegmentNumber,
    seal: &'a Seal,
    /// The segment's end as the next segment knows it.
    sealed: Option<SegmentEnd>,
    marks: Vec<Mark>,
    mirrors: BTreeMap<u64, Mirror>,
}

/// Evidence that a batch that cannot be read was once complete.
struct Completed {
    /// The damage ends here.
    end: u64,
    /// The batch expected there.
    next: BatchSequence,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        image: &'a SegmentImage,
        segment: SegmentNumber,
        seal: &'a Seal,
        sealed: Option<SegmentEnd>,
    ) -> Self {
        let mark = |&offset: &u64| Mark::decode(image.from(offset), offset, seal);
        let marks = MARK_OFFSETS.iter().filter_map(mark).collect();
        let cells = (1..).map_while(|cell| {
            let offset = image.length().checked_sub(cell * MIRROR_BYTES as u64)?;
            (offset >= DATA_START).then_some(offset)
        });
        let mirrors = cells
            .filter_map(|offset| Mirror::decode(image.from(offset), offset, seal))
            .map(|mirror| (mirror.record, mirror))
            .collect();
        Self { image, segment, seal, sealed, marks, mirrors }
    }

    /// Replays every batch. `next` is the segment's first.
    pub(super) fn run(&self, mut next: BatchSequence, replay: &mut Replay) -> ScanEnd {
        let mut offset = DATA_START;
        let mut last = None;
        while self.sealed.is_none_or(|end| offset < end.offset) {
            if let Some(end) = self.whole_batch(offset, next) {
                self.salvage(offset..end, replay);
                if offset == DATA_START {
                    replay.keep_only(&self.groups_in(offset..end));
                }
                last = Some(offset..end);
                (offset, next) = (end, next.next());
            } else if let Some(completed) = self.evidence(offset, next) {
                self.salvage(offset..completed.end, replay);
                last = None;
                (offset, next) = (completed.end, completed.next);
            } else {
                break;
            }
        }
        let mut sequence = BatchSequence(next.0 - 1);
        if let Some(end) = self.sealed {
            if sequence < end.sequence {
                replay.lose(self.at(offset).damage(DamageKind::Records));
            }
            sequence = end.sequence.max(sequence);
        } else if self.is_doubtful(offset, next) {
            // A sector that cannot be read may have held the last batch.
            replay.lose(self.at(offset).damage(DamageKind::Records));
        }
        replay.mirrors(self.mirrors.values());
        let proven = self.sealed.is_some() || self.marks.iter().any(|mark| mark.sequence >= sequence);
        let unproven = last.filter(|_| !proven);
        ScanEnd { offset, sequence, torn: self.sealed.is_none() && self.is_torn(offset, next), unproven }
    }

    /// The end of the batch at `offset`, if every byte of it is what was written.
    fn whole_batch(&self, offset: u64, next: BatchSequence) -> Option<u64> {
        let header = self.batch_header(offset).filter(|header| header.sequence == next)?;
        let mut at = offset + BATCH_HEADER_BYTES as u64;
        let end = at + u64::from(header.body_bytes);
        let mut records = 0;
        while at < end {
            let record = self.record_header(at)?;
            self.payload(&record, at)?;
            at += record.record_bytes() as u64;
            records += 1;
        }
        (at == end && records == header.records).then_some(end)
    }

    /// Whether the batch that cannot be read at `offset` was completed, and so is damaged, not torn.
    fn evidence(&self, offset: u64, next: BatchSequence) -> Option<Completed> {
        if mutant!(B24) && self.sealed.is_none() {
            return None;
        }
        let limit = self.sealed.map_or(u64::MAX, |end| end.offset).min(self.image.length());
        let later = (offset + BATCH_HEADER_BYTES as u64..limit)
            .step_by(ALIGNMENT)
            .find_map(|at| Some((at, self.batch_header(at).filter(|header| header.sequence > next)?)));
        if let Some((at, header)) = later {
            return Some(Completed { end: at, next: header.sequence });
        }
        if let Some(end) = self.sealed {
            return Some(Completed { end: end.offset, next: end.sequence.next() });
        }
        if mutant!(M44)
            && let Some(header) = self.batch_header(offset).filter(|header| header.sequence == next)
        {
            let end = offset + (BATCH_HEADER_BYTES as u64) + u64::from(header.body_bytes);
            return Some(Completed { end, next: next.next() });
        }
        // A mark is written while the batch behind it is, so the batch it names was complete.
        let mark =
            self.marks.iter().filter(|mark| mark.sequence >= next && mark.end > offset && !mutant!(M45));
        mark.max_by_key(|mark| mark.end).map(|mark| Completed { end: mark.end, next: mark.sequence.next() })
    }

    /// Replays what can be read of a range that begins with a batch header, readable or not.
    fn salvage(&self, range: Range<u64>, replay: &mut Replay) {
        let mut at = range.start + BATCH_HEADER_BYTES as u64;
        let mut losing = false;
        while at < range.end.min(self.image.length()) {
            if let Some(record) = self.record_header(at).filter(|r| at + r.record_bytes() as u64 <= range.end)
            {
                replay.record(&record, self.payload(&record, at), self.at(at));
                at += record.record_bytes() as u64;
                losing = false;
            } else if let Some(mirror) = self.mirrors.get(&at) {
                replay.mirrored_record(mirror, self.at(at));
                at += aligned(RECORD_HEADER_BYTES + mirror.payload_bytes as usize) as u64;
                losing = false;
            } else {
                if !losing {
                    replay.lose(self.at(at).damage(DamageKind::Records));
                }
                losing = true;
                at += ALIGNMENT as u64;
            }
        }
        if at < range.end && !losing {
            // The file was cut.
            replay.lose(self.at(at).damage(DamageKind::Records));
        }
    }

    /// The groups that a whole batch has records of.
    fn groups_in(&self, batch: Range<u64>) -> BTreeSet<GroupId> {
        let mut at = batch.start + BATCH_HEADER_BYTES as u64;
        let mut groups = BTreeSet::new();
        while let Some(record) = self.record_header(at).filter(|_| at < batch.end) {
            groups.insert(record.group);
            at += record.record_bytes() as u64;
        }
        groups
    }

    /// Whether bytes that would tell if a batch stands at `offset` cannot be read.
    fn is_doubtful(&self, offset: u64, next: BatchSequence) -> bool {
        let header = self.batch_header(offset).filter(|header| header.sequence == next);
        let length = header.map_or(0, |header| u64::from(header.body_bytes)) + BATCH_HEADER_BYTES as u64;
        self.image.is_unreadable(&(offset..offset + length))
    }

    fn is_torn(&self, offset: u64, next: BatchSequence) -> bool {
        let mirrored = self.mirrors.values().any(|mirror| mirror.sequence >= next);
        mirrored
            || self
                .image
                .from(offset)
                .iter()
                .take(BATCH_HEADER_BYTES + RECORD_HEADER_BYTES)
                .any(|&byte| byte != 0)
    }

    fn batch_header(&self, offset: u64) -> Option<BatchHeader> {
        BatchHeader::decode(self.image.from(offset), offset, self.seal)
    }

    fn record_header(&self, offset: u64) -> Option<RecordHeader> {
        RecordHeader::decode(self.image.from(offset), offset, self.seal)
    }

    fn payload(&self, record: &RecordHeader, offset: u64) -> Option<&'a [u8]> {
        let from = self.image.from(offset + RECORD_HEADER_BYTES as u64);
        let payload = from.get(..record.payload_bytes as usize)?;
        (payload_checksum(payload) == record.payload_checksum).then_some(payload)
    }

    fn at(&self, offset: u64) -> At {
        At { segment: self.segment, offset }
    }
}
