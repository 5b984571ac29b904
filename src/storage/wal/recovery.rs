//! What a log on disk says: a pure function from the bytes of its segments to the state of its groups.
//!
//! 1. The newest segment's header names the oldest segment that is needed. Every segment between
//!    them must be there.
//! 2. Batches are replayed in order. A segment that another one follows ends where that one's
//!    header says. The newest ends at the first batch that is not whole, unless a mark, a later
//!    batch or an unreadable sector says that the batch may once have been complete.
//! 3. What is not whole and was not complete is a *torn tail*: never acknowledged, cut.
//! 4. What is not whole and was complete is *damage*: never cut. Records in it that can be read are
//!    used; a group that may have lost one, or whose entry cannot be read, is damaged.
//! 5. What is whole may still be on no disk: a process that died before its flush, or of a failed one,
//!    leaves its last batch in the system's cache, where the next one reads it. Unless a mark says that
//!    the flush succeeded, that batch is *unproven*, and is written again before anybody relies on it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::{fmt, ops::Range};

use super::{
    BatchSequence, BootEpoch, DiskError, EntryIndex, GroupId, LogId, ReadDisk, SegmentNumber,
    codec::{HEADER_BYTES, HEADER_OFFSETS, HeaderError, Seal, SegmentEnd, SegmentHeader},
    replay::{At, Replay, Replayed},
    scan::{Scan, SegmentImage},
};
use crate::raft::{ConfigurationEntry, HardState, Index, Position, SnapshotMeta};

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The log's id.
    pub log_id: LogId,
    /// Whether the log did not exist before.
    pub created: bool,
    /// The life that begins now: one more than the last.
    pub boot: BootEpoch,
    /// The number of the next batch.
    pub next_sequence: BatchSequence,
    /// Every group of the log.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Every damage that was found, whether or not a group suffers from it.
    pub damage: Vec<Damage>,
    /// What the last crash left unfinished and was cut.
    pub torn: Option<TornTail>,
}

/// One group of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the log begins: the snapshot or purge position, and the members at it.
    pub start: SnapshotMeta,
    /// The entries behind it, as runs of one term; together without a gap.
    pub runs: Vec<RecoveredRun>,
    /// Configurations among the entries, in order.
    pub configurations: Vec<ConfigurationEntry>,
    /// Why the group may neither vote nor lead, where it may not. The other fields are then what is
    /// left, not what was acknowledged.
    pub damage: Option<Damage>,
    /// Where the entries are.
    pub index: EntryIndex,
    /// Entries whose bytes are damaged.
    pub unreadable: BTreeSet<Index>,
}

impl RecoveredGroup {
    /// The last entry, or where the log begins if it has none.
    #[must_use]
    pub fn last(&self) -> Position {
        self.index.last()
    }
}

/// Neighbouring entries of one term, from the end of the run before (or the log's start) on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecoveredRun {
    /// The last entry.
    pub last: Position,
    /// Payload bytes of all of them.
    pub bytes: u64,
}

/// Acknowledged bytes that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentNumber,
    /// Where in it.
    pub offset: u64,
    /// What is lost.
    pub kind: DamageKind,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DamageKind {
    /// These entries and nothing else.
    Entries {
        /// The first one.
        first: Index,
        /// The last one.
        last: Index,
    },
    /// Records that may have been anything: votes, entries, truncations.
    Records,
    /// A whole segment file, and those behind it that are missing too.
    Segment,
}

impl Damage {
    pub(super) fn to_words(self) -> [u64; 5] {
        let (code, first, last) = match self.kind {
            DamageKind::Entries { first, last } => (1, first.0, last.0),
            DamageKind::Records => (2, 0, 0),
            DamageKind::Segment => (3, 0, 0),
        };
        [code, u64::from(self.segment.0), self.offset, first, last]
    }

    pub(super) fn from_words([code, segment, offset, first, last]: [u64; 5], at: At) -> Self {
        let kind = match code {
            1 => DamageKind::Entries { first: Index(first), last: Index(last) },
            3 => DamageKind::Segment,
            _ => DamageKind::Records,
        };
        Self { segment: u32::try_from(segment).map_or(at.segment, SegmentNumber), offset, kind }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DamageKind::Entries { first, last } if first == last => write!(f, "entry {}", first.0)?,
            DamageKind::Entries { first, last } => write!(f, "entries {} to {}", first.0, last.0)?,
            DamageKind::Records => f.write_str("an unknown number of records")?,
            DamageKind::Segment => return write!(f, "segment {} is missing", self.segment),
        }
        write!(f, " at offset {} of segment {} cannot be read", self.offset, self.segment)
    }
}

/// What a crash left unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TornTail {
    /// The segment that was being written.
    pub segment: SegmentNumber,
    /// Where its last complete batch ends.
    pub offset: u64,
}

/// Why a log cannot be opened. The log on disk is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The disk failed.
    Disk {
        /// What was being done.
        action: String,
        /// How it failed.
        error: DiskError,
    },
    /// No copy of a segment's header can be read.
    Header(SegmentNumber),
    /// The log was written in a format that this program does not know.
    Version {
        /// Where this was seen.
        segment: SegmentNumber,
        /// The format.
        found: u32,
    },
    /// A segment belongs to another log.
    Foreign {
        /// The segment.
        segment: SegmentNumber,
        /// The log it is part of.
        found: LogId,
        /// The log of the newest segment.
        expected: LogId,
    },
    /// A segment length is out of range: at least 20 KiB, below 4 GiB.
    SegmentBytes(u64),
}

impl OpenError {
    pub(super) fn disk(action: impl Into<String>) -> impl FnOnce(DiskError) -> Self {
        let action = action.into();
        move |error| Self::Disk { action, error }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk { action, error } => write!(f, "the log cannot be opened: {action}: {error}"),
            Self::Header(segment) => {
                write!(f, "the log cannot be opened: both headers of segment {segment} are damaged")
            }
            Self::Version { segment, found } => write!(
                f,
                "the log cannot be opened: segment {segment} has format {found}, this program knows 1"
            ),
            Self::Foreign { segment, found, expected } => write!(
                f,
                "the log cannot be opened: segment {segment} belongs to log {found:?}, not {expected:?}"
            ),
            Self::SegmentBytes(length) => {
                write!(f, "a segment of {length} bytes is not possible: 20 KiB at least, below 4 GiB")
            }
        }
    }
}

impl core::error::Error for OpenError {}

/// The file name of a segment.
#[must_use]
pub fn segment_name(segment: SegmentNumber) -> String {
    format!("{:020}.wal", segment.0)
}

/// The segment a file name stands for.
#[must_use]
pub fn segment_of(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(".wal")?;
    let number = digits.parse().ok().map(SegmentNumber)?;
    (segment_name(number) == name).then_some(number)
}

/// A log as it is on disk.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) log: LogId,
    pub(super) boot: BootEpoch,
    pub(super) groups: BTreeMap<GroupId, Replayed>,
    pub(super) damage: Vec<Damage>,
    pub(super) torn: Option<TornTail>,
    pub(super) end: SegmentEnd,
    /// The last batch of the newest segment, where its flush may have failed or never have been.
    pub(super) unproven: Option<Range<u64>>,
    /// The segments that are there, needed or not.
    pub(super) files: BTreeSet<SegmentNumber>,
    /// What the reading rests on, where some of it is damaged.
    pub(super) witnesses: Option<Witnesses>,
}

/// Segments that make up for damage in a later one: what they say is not said again whole before the
/// damaged ones are no longer needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Witnesses {
    /// The oldest segment that was read.
    pub(super) oldest: SegmentNumber,
    /// The last segment that is damaged.
    pub(super) damaged: SegmentNumber,
}

/// Reads the log in this directory; none where there is no segment.
pub(super) fn recover(disk: &impl ReadDisk) -> Result<Option<Recovered>, OpenError> {
    let names = disk.list().map_err(OpenError::disk("listing its files"))?;
    let files: BTreeSet<_> = names.iter().filter_map(|name| segment_of(name)).collect();
    let Some(&newest) = files.last() else { return Ok(None) };
    let newest_header = read_header(disk, newest)?;
    let log = newest_header.log;
    let needed: BTreeSet<_> = files.range(newest_header.oldest..).copied().collect();
    let mut headers = BTreeMap::new();
    for &segment in &needed {
        let header = read_header(disk, segment)?;
        if header.log != log {
            return Err(OpenError::Foreign { segment, found: header.log, expected: log });
        }
        headers.insert(segment, header);
    }

    let mut replay = Replay::default();
    let mut end = SegmentEnd::default();
    let mut torn = None;
    let mut unproven = None;
    let mut expected = newest_header.oldest;
    for (&segment, header) in &headers {
        if segment > expected {
            // Of neighbouring segments that are missing, the first one is named.
            replay.lose(At { segment: expected, offset: 0 }.damage(DamageKind::Segment));
        }
        expected = segment.next();
        let sealed = headers.get(&segment.next()).and_then(|next| next.previous);
        let name = segment_name(segment);
        let image = SegmentImage::read(disk, &name).map_err(OpenError::disk(format!("reading {name}")))?;
        let seal = Seal::new(log, segment);
        let first = header.previous.map_or(BatchSequence(1), |previous| previous.sequence.next());
        let found = Scan::new(&image, segment, &seal, sealed).run(first, &mut replay);
        torn = found.torn.then_some(TornTail { segment, offset: found.offset });
        end = SegmentEnd { segment, offset: found.offset, sequence: found.sequence };
        unproven = found.unproven;
    }
    let (groups, damage) = replay.finish();
    let damaged = damage.iter().map(|damage| damage.segment).max();
    let witnesses = damaged.map(|damaged| Witnesses { oldest: newest_header.oldest, damaged });
    Ok(Some(Recovered {
        log,
        boot: newest_header.boot,
        groups,
        damage,
        torn,
        end,
        unproven,
        files,
        witnesses,
    }))
}

/// Reads a segment's header from whichever copy is whole.
fn read_header(disk: &impl ReadDisk, segment: SegmentNumber) -> Result<SegmentHeader, OpenError> {
    let name = segment_name(segment);
    let mut version = None;
    for offset in HEADER_OFFSETS {
        let mut bytes = [0; HEADER_BYTES];
        match disk.read_at(&name, offset, &mut bytes) {
            Ok(()) => {}
            Err(DiskError::Unreadable { .. }) => continue,
            Err(error) => return Err(OpenError::disk(format!("reading {name}"))(error)),
        }
        match SegmentHeader::decode(&bytes) {
            Ok(header) if header.segment == segment => return Ok(header),
            Ok(_) | Err(HeaderError::Invalid) => {}
            Err(HeaderError::Version(found)) => version = Some(found),
        }
    }
    Err(match version {
        Some(found) => OpenError::Version { segment, found },
        None => OpenError::Header(segment),
    })
}
