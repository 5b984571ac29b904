//! Reading entries back from segment files.

use alloc::{vec, vec::Vec};
use core::{fmt, ops::Range};

use bytes::Bytes;

use super::{
    DiskError, Entry, GroupId, LogId, PlannedRead, ReadDisk, ReadPlan, SegmentNumber,
    codec::{RECORD_HEADER_BYTES, RecordHeader, RecordKind, Seal, payload_checksum},
    recovery::segment_name,
};
use crate::raft::Index;

/// Bytes of one read of the disk, where more than one entry is read.
const READ_BYTES_MAX: u64 = 1 << 20;
/// Bytes between two entries that are read and thrown away rather than skipped.
const GAP_BYTES_MAX: u64 = 32 << 10;

/// Why entries could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// A segment is gone: the entries were moved or are no longer needed. Gather again.
    Gone,
    /// The record is not what was written.
    Damaged {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// Where its record is.
        segment: SegmentNumber,
        /// Where in the segment.
        offset: u64,
    },
    /// The disk failed.
    Disk(DiskError),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the segment is gone"),
            Self::Damaged { group, index, segment, offset } => write!(
                f,
                "entry {} of group {} at offset {offset} of segment {segment} is damaged",
                index.0, group.0
            ),
            Self::Disk(error) => write!(f, "the log cannot be read: {error}"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Carries out [`ReadPlan`]s. Cheap to clone where the disk is; may run on any thread.
#[derive(Clone, Debug)]
pub struct LogReader<D> {
    disk: D,
    log: LogId,
}

impl<D: ReadDisk> LogReader<D> {
    /// A reader of the log in this directory.
    #[must_use]
    pub const fn new(disk: D, log: LogId) -> Self {
        Self { disk, log }
    }

    /// The entries of a plan, each checked against its checksum, group, index and term.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn read(&self, plan: &ReadPlan) -> Result<Vec<Entry>, ReadError> {
        let mut entries = read_entries(&self.disk, self.log, plan.group, &plan.reads)?;
        entries.extend(plan.tail.iter().cloned());
        Ok(entries)
    }
}

/// Reads entries of one group.
pub(super) fn read_entries(
    disk: &impl ReadDisk,
    log: LogId,
    group: GroupId,
    reads: &[PlannedRead],
) -> Result<Vec<Entry>, ReadError> {
    let mut entries = Vec::with_capacity(reads.len());
    let mut rest = reads;
    while !rest.is_empty() {
        let (together, behind) = rest.split_at(run_length(rest));
        match read_together(disk, log, group, together, &mut entries) {
            // The sector that is lost may lie between the entries, or be another's.
            Err(ReadError::Disk(DiskError::Unreadable { .. })) => {
                entries.truncate(reads.len() - rest.len());
                for read in together {
                    read_alone(disk, log, group, read, &mut entries)?;
                }
            }
            other => other?,
        }
        rest = behind;
    }
    Ok(entries)
}

fn read_alone(
    disk: &impl ReadDisk,
    log: LogId,
    group: GroupId,
    read: &PlannedRead,
    entries: &mut Vec<Entry>,
) -> Result<(), ReadError> {
    match read_together(disk, log, group, core::slice::from_ref(read), entries) {
        Err(ReadError::Disk(DiskError::Unreadable { .. })) => Err(damaged(group, read)),
        other => other,
    }
}

fn read_together(
    disk: &impl ReadDisk,
    log: LogId,
    group: GroupId,
    reads: &[PlannedRead],
    entries: &mut Vec<Entry>,
) -> Result<(), ReadError> {
    let (Some(first), Some(last)) = (reads.first(), reads.last()) else { return Ok(()) };
    let start = span(first).start;
    let length = usize::try_from(span(last).end - start).expect("segments are shorter than 4 GiB");
    let mut bytes = vec![0; length];
    match disk.read_at(&segment_name(first.segment), start, &mut bytes) {
        Ok(()) => {}
        Err(DiskError::NotFound) => return Err(ReadError::Gone),
        Err(error) => return Err(ReadError::Disk(error)),
    }
    let bytes = Bytes::from(bytes);
    let seal = Seal::new(log, first.segment);
    for read in reads {
        let at = usize::try_from(span(read).start - start).expect("inside the bytes just read");
        entries.push(entry_at(&bytes, at, read, group, &seal).ok_or_else(|| damaged(group, read))?);
    }
    Ok(())
}

/// The entry whose record begins at `at`, if it is the one that is meant and undamaged.
fn entry_at(bytes: &Bytes, at: usize, read: &PlannedRead, group: GroupId, seal: &Seal) -> Option<Entry> {
    let header = RecordHeader::decode(&bytes[at..], span(read).start, seal)?;
    let RecordKind::Entry(position, kind) = header.kind else { return None };
    if header.group != group || position != read.position || header.payload_bytes != read.length {
        return None;
    }
    let body = at + RECORD_HEADER_BYTES;
    let payload = bytes.slice(body..body + read.length as usize);
    (payload_checksum(&payload) == header.payload_checksum).then_some(Entry {
        index: position.index,
        term: position.term,
        kind,
        payload,
    })
}

/// How many of the first reads lie so close together that one read of the disk gets them all.
fn run_length(reads: &[PlannedRead]) -> usize {
    let Some(first) = reads.first() else { return 0 };
    let start = span(first).start;
    let near = |pair: &&[PlannedRead]| {
        let (before, after) = (span(&pair[0]), span(&pair[1]));
        pair[1].segment == first.segment
            && (before.end..before.end + GAP_BYTES_MAX).contains(&after.start)
            && after.end - start <= READ_BYTES_MAX
    };
    1 + reads.windows(2).take_while(near).count()
}

/// The bytes of a record without padding.
fn span(read: &PlannedRead) -> Range<u64> {
    let start = u64::from(read.offset);
    start..start + RECORD_HEADER_BYTES as u64 + u64::from(read.length)
}

fn damaged(group: GroupId, read: &PlannedRead) -> ReadError {
    let (segment, offset) = (read.segment, u64::from(read.offset));
    ReadError::Damaged { group, index: read.position.index, segment, offset }
}
