//! The bytes of a segment file: header, marks, batches of records, and the mirror of hard states.
//!
//! All numbers are little-endian. Every checksum is CRC-32 (IEEE) and begins with the log's id, the
//! segment's number and the structure's own offset, so that bytes copied or misdirected from
//! anywhere else are no valid structure. `docs/wal-format.md` draws the layout.

use alloc::vec::Vec;

use super::{BatchSequence, BootEpoch, EntryKind, GroupId, LogId, SegmentNumber};
use crate::raft::{Configuration, HardState, Index, Position, ReplicaId, SnapshotMeta, Term};

/// The version of the format this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;
/// Length of the header, of which a segment has two copies.
pub const HEADER_BYTES: usize = 128;
/// Where the copies of the header begin: on different sectors, whatever their size.
pub const HEADER_OFFSETS: [u64; 2] = [0, 4096];
/// Length of a mark.
pub const MARK_BYTES: usize = 48;
/// Where the two marks begin; batches alternate between them.
pub const MARK_OFFSETS: [u64; 2] = [8192, 12288];
/// Where the first batch begins.
pub const DATA_START: u64 = 16384;
/// Length of a batch's header.
pub const BATCH_HEADER_BYTES: usize = 56;
/// Length of a record's header.
pub const RECORD_HEADER_BYTES: usize = 48;
/// Length of a mirrored hard state.
pub const MIRROR_BYTES: usize = 64;
/// Records and batches begin at multiples of this.
pub const ALIGNMENT: usize = 8;
/// The smallest segment.
pub const SEGMENT_BYTES_MIN: u64 = DATA_START + 4096;

/// Indices, terms and epochs above this are nobody's: they leave room to count on.
const NUMBER_MAX: u64 = u64::MAX >> 1;
/// No log has as many batches: a [`Chain`] begins at a batch's number times 2^20.
const SEQUENCE_MAX: u64 = 1 << 43;

const SEGMENT_MAGIC: [u8; 8] = *b"KOTOWAL\0";
const BATCH_MAGIC: u32 = u32::from_le_bytes(*b"KDBb");
const MARK_MAGIC: u32 = u32::from_le_bytes(*b"KDBm");
const MIRROR_MAGIC: u32 = u32::from_le_bytes(*b"KDBh");

/// A length rounded up to [`ALIGNMENT`].
#[must_use]
pub const fn aligned(length: usize) -> usize {
    length.div_ceil(ALIGNMENT) * ALIGNMENT
}

/// What makes checksums belong to one segment of one log.
#[derive(Clone, Debug)]
pub struct Seal {
    seeded: crc32fast::Hasher,
}

impl Seal {
    /// The seal of a segment.
    #[must_use]
    pub fn new(log: LogId, segment: SegmentNumber) -> Self {
        let mut seeded = crc32fast::Hasher::new();
        seeded.update(&log.0);
        seeded.update(&segment.0.to_le_bytes());
        Self { seeded }
    }

    fn checksum(&self, offset: u64, bytes: &[u8]) -> u32 {
        let mut hasher = self.seeded.clone();
        hasher.update(&offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// The checksum of a payload.
#[must_use]
pub fn payload_checksum(payload: &[u8]) -> u32 {
    if mutant!(M43) {
        return 0;
    }
    crc32fast::hash(payload)
}

/// Where a segment's batches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct SegmentEnd {
    /// The segment.
    pub segment: SegmentNumber,
    /// Behind its last batch.
    pub offset: u64,
    /// Its last batch.
    pub sequence: BatchSequence,
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The log it is part of.
    pub log: LogId,
    /// Its number.
    pub segment: SegmentNumber,
    /// The oldest segment that was needed when it began: older ones may be gone.
    pub oldest: SegmentNumber,
    /// The life of the node it was written in.
    pub boot: BootEpoch,
    /// Its length in bytes.
    pub length: u64,
    /// The end of the segment before it; none for the first.
    pub previous: Option<SegmentEnd>,
}

impl SegmentEnd {
    /// Whether a segment can end there. What has a right checksum and says what no writer says is damaged
    /// like any other.
    fn is_possible(self) -> bool {
        self.offset <= u64::from(u32::MAX) && self.sequence.0 <= SEQUENCE_MAX
    }
}

/// Why bytes are no segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They are damaged, or something else.
    Invalid,
    /// They are of a format this code does not know.
    Version(u32),
}

impl SegmentHeader {
    /// The bytes of the header. Magic, version and checksum keep their places in every version.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = Put(&mut bytes, 0);
        at.put(&SEGMENT_MAGIC);
        at.put(&FORMAT_VERSION.to_le_bytes());
        at.put(&[0; 4]);
        at.put(&self.log.0);
        at.put(&self.segment.0.to_le_bytes());
        at.put(&self.oldest.0.to_le_bytes());
        at.put(&self.boot.0.to_le_bytes());
        at.put(&self.length.to_le_bytes());
        let previous = self.previous.unwrap_or_default();
        at.put(&previous.segment.0.to_le_bytes());
        at.put(&[0; 4]);
        at.put(&previous.offset.to_le_bytes());
        at.put(&previous.sequence.0.to_le_bytes());
        let checksum = Self::checksum(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads one copy of the header.
    ///
    /// # Errors
    /// Where the bytes are none.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let checksum = u32_at(bytes, 12);
        if bytes[..8] != SEGMENT_MAGIC || checksum != Self::checksum(bytes) {
            return Err(HeaderError::Invalid);
        }
        let version = u32_at(bytes, 8);
        if version != FORMAT_VERSION {
            return Err(HeaderError::Version(version));
        }
        let mut log = [0; 16];
        log.copy_from_slice(&bytes[16..32]);
        let previous = SegmentEnd {
            segment: SegmentNumber(u32_at(bytes, 56)),
            offset: u64_at(bytes, 64),
            sequence: BatchSequence(u64_at(bytes, 72)),
        };
        let header = Self {
            log: LogId(log),
            segment: SegmentNumber(u32_at(bytes, 32)),
            oldest: SegmentNumber(u32_at(bytes, 36)),
            boot: BootEpoch(u64_at(bytes, 40)),
            length: u64_at(bytes, 48),
            previous: (previous.segment.0 > 0).then_some(previous),
        };
        if header.is_possible() { Ok(header) } else { Err(HeaderError::Invalid) }
    }

    fn is_possible(&self) -> bool {
        // Another segment can follow, and the numbers before this one are before it.
        self.segment.0 < u32::MAX
            && self.oldest <= self.segment
            && self.boot.0 <= NUMBER_MAX
            && self.previous.is_none_or(|end| end.segment < self.segment && end.is_possible())
    }

    fn checksum(bytes: &[u8; HEADER_BYTES]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&bytes[..12]);
        hasher.update(&bytes[16..]);
        hasher.finalize()
    }
}

/// A completed batch, written down together with the next one and far from both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The batch.
    pub sequence: BatchSequence,
    /// Behind its last byte.
    pub end: u64,
}

impl Mark {
    /// Where the mark of this batch is written.
    #[must_use]
    pub const fn offset(self) -> u64 {
        MARK_OFFSETS[(self.sequence.0 % 2) as usize]
    }

    /// The bytes of the mark.
    #[must_use]
    pub fn encode(self, seal: &Seal) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        bytes[..4].copy_from_slice(&MARK_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end.to_le_bytes());
        seal_at_4(seal, self.offset(), &mut bytes);
        bytes
    }

    /// Reads a mark that stands at `offset`.
    #[must_use]
    pub fn decode(bytes: &[u8], offset: u64, seal: &Seal) -> Option<Self> {
        let bytes = sealed_at_4(bytes, MARK_BYTES, MARK_MAGIC, offset, seal)?;
        let mark = Self { sequence: BatchSequence(u64_at(bytes, 8)), end: u64_at(bytes, 16) };
        (mark.sequence.0 <= SEQUENCE_MAX && mark.end <= u64::from(u32::MAX)).then_some(mark)
    }
}

/// What comes before the records of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Its number.
    pub sequence: BatchSequence,
    /// The life of the node it was written in.
    pub boot: BootEpoch,
    /// Length of all records in bytes.
    pub body_bytes: u32,
    /// How many records.
    pub records: u32,
}

impl BatchHeader {
    /// Writes the header over the first bytes of `batch`, which will stand at `offset`.
    pub fn encode(&self, offset: u64, seal: &Seal, batch: &mut [u8]) {
        let bytes = &mut batch[..BATCH_HEADER_BYTES];
        bytes.fill(0);
        bytes[..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.boot.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&offset.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.records.to_le_bytes());
        seal_at_4(seal, offset, bytes);
    }

    /// Reads a header that stands at `offset`.
    #[must_use]
    pub fn decode(bytes: &[u8], offset: u64, seal: &Seal) -> Option<Self> {
        let bytes = sealed_at_4(bytes, BATCH_HEADER_BYTES, BATCH_MAGIC, offset, seal)?;
        let header = Self {
            sequence: BatchSequence(u64_at(bytes, 8)),
            boot: BootEpoch(u64_at(bytes, 16)),
            body_bytes: u32_at(bytes, 32),
            records: u32_at(bytes, 36),
        };
        (header.sequence.0 <= SEQUENCE_MAX).then_some(header)
    }
}

/// The place of a record among the records of its group. Begins with a number above every earlier
/// one when the group begins anew, and grows by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Chain(pub u64);

impl Chain {
    /// The first number of a group that begins in this batch. A batch holds fewer than 2^20 records.
    #[must_use]
    pub const fn beginning(sequence: BatchSequence) -> Self {
        Self(sequence.0 << 20)
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKind {
    /// An entry. Its payload follows.
    Entry(Position, EntryKind),
    /// Term and vote.
    HardState(HardState),
    /// Entries from this index on are void.
    Truncate(Index),
    /// A snapshot took the place of the log up to here. The configuration follows.
    Install(Position),
    /// The log is no longer needed up to here. The configuration follows.
    Purge(Position),
    /// Everything of the group is forgotten.
    Remove,
    /// The state of the group when its segment began, with its last position. A
    /// [`Checkpoint`] follows.
    Checkpoint(Position),
}

const FLAG_FIRST: u16 = 1;
const FLAG_VOTE: u16 = 2;
const FLAGS_KNOWN: u16 = FLAG_FIRST | FLAG_VOTE;

/// A record without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// The group.
    pub group: GroupId,
    /// What it says.
    pub kind: RecordKind,
    /// Its place among the group's records.
    pub chain: Chain,
    /// Whether the group begins anew with this record.
    pub first: bool,
    /// Length of the payload in bytes.
    pub payload_bytes: u32,
    /// Checksum of the payload.
    pub payload_checksum: u32,
}

impl RecordHeader {
    /// Length of the whole record, padding included.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        aligned(RECORD_HEADER_BYTES + self.payload_bytes as usize)
    }

    /// Appends the header; the record will stand at `offset` of the segment.
    pub fn encode(&self, offset: u64, seal: &Seal, into: &mut Vec<u8>) {
        let (code, entry_code, position, flags) = self.kind.parts();
        let flags = flags | if self.first { FLAG_FIRST } else { 0 };
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[4] = code;
        bytes[5] = entry_code;
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&position.index.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&position.term.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.chain.0.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = seal.checksum(offset, &bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        into.extend_from_slice(&bytes);
    }

    /// Reads a header that stands at `offset`.
    #[must_use]
    pub fn decode(bytes: &[u8], offset: u64, seal: &Seal) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        // A cheap look first: recovery tries this at every place behind a damage.
        if !(1..=7).contains(&bytes[4]) || u32_at(bytes, 0) != seal.checksum(offset, &bytes[4..]) {
            return None;
        }
        let flags = u16::from_le_bytes([bytes[6], bytes[7]]);
        let position = Position::new(Index(u64_at(bytes, 16)), Term(u64_at(bytes, 24)));
        let kind = RecordKind::of_parts(bytes[4], bytes[5], position, flags)?;
        Some(Self {
            group: GroupId(u32_at(bytes, 8)),
            kind,
            chain: Chain(u64_at(bytes, 32)),
            first: flags & FLAG_FIRST != 0,
            payload_bytes: u32_at(bytes, 12),
            payload_checksum: u32_at(bytes, 40),
        })
    }
}

impl RecordKind {
    fn parts(&self) -> (u8, u8, Position, u16) {
        match self {
            Self::Entry(position, EntryKind::Normal) => (1, 0, *position, 0),
            Self::Entry(position, EntryKind::Empty) => (1, 1, *position, 0),
            Self::Entry(position, EntryKind::Configuration) => (1, 2, *position, 0),
            Self::HardState(HardState { term, vote }) => {
                let index = Index(vote.map_or(0, |replica| replica.0));
                (2, 0, Position::new(index, *term), if vote.is_some() { FLAG_VOTE } else { 0 })
            }
            Self::Truncate(from) => (3, 0, Position::new(*from, Term(0)), 0),
            Self::Install(position) => (4, 0, *position, 0),
            Self::Purge(position) => (5, 0, *position, 0),
            Self::Remove => (6, 0, Position::ZERO, 0),
            Self::Checkpoint(last) => (7, 0, *last, 0),
        }
    }

    fn of_parts(code: u8, entry_code: u8, position: Position, flags: u16) -> Option<Self> {
        if flags & !FLAGS_KNOWN != 0 {
            return None;
        }
        // Where a vote stands, the index is a replica's id, which a remote chose.
        let index = if code == 2 { Index::ZERO } else { position.index };
        possible(Position { index, ..position })?;
        Some(match (code, entry_code) {
            (1, 0) => Self::Entry(position, EntryKind::Normal),
            (1, 1) => Self::Entry(position, EntryKind::Empty),
            (1, 2) => Self::Entry(position, EntryKind::Configuration),
            (2, 0) => Self::HardState(HardState {
                term: position.term,
                vote: (flags & FLAG_VOTE != 0).then_some(ReplicaId(position.index.0)),
            }),
            (3, 0) => Self::Truncate(position.index),
            (4, 0) => Self::Install(position),
            (5, 0) => Self::Purge(position),
            (6, 0) => Self::Remove,
            (7, 0) => Self::Checkpoint(position),
            _ => return None,
        })
    }
}

/// The bytes of a configuration; none stand for the empty one of a group without a beginning.
#[must_use]
pub fn encode_configuration(configuration: &Configuration) -> Vec<u8> {
    if *configuration == Configuration::default() { Vec::new() } else { configuration.encode() }
}

/// Reads a configuration.
#[must_use]
pub fn decode_configuration(bytes: &[u8]) -> Option<Configuration> {
    if bytes.is_empty() { Some(Configuration::default()) } else { Configuration::decode(bytes).ok() }
}

/// The state of a group when a segment began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Term and vote.
    pub hard_state: HardState,
    /// Where the group's log begins.
    pub start: SnapshotMeta,
    /// Whether all its entries follow in the same batch, so that none before them is needed.
    pub entries_follow: bool,
    /// What is known to be damaged: code, segment, offset, first and last index (see
    /// [`Damage`](super::Damage)).
    pub damage: Option<[u64; 5]>,
}

impl Checkpoint {
    const VOTE: u64 = 1;
    const ENTRIES_FOLLOW: u64 = 2;
    const DAMAGED: u64 = 4;
    const FIXED_BYTES: usize = 80;

    /// The payload of the record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = if self.hard_state.vote.is_some() { Self::VOTE } else { 0 }
            | if self.entries_follow { Self::ENTRIES_FOLLOW } else { 0 }
            | if self.damage.is_some() { Self::DAMAGED } else { 0 };
        let [d0, d1, d2, d3, d4] = self.damage.unwrap_or_default();
        let vote = self.hard_state.vote.map_or(0, |replica| replica.0);
        let position = self.start.position;
        let fixed =
            [flags, self.hard_state.term.0, vote, position.index.0, position.term.0, d0, d1, d2, d3, d4];
        let mut bytes: Vec<u8> = fixed.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.extend(encode_configuration(&self.start.configuration));
        bytes
    }

    /// Reads the payload of a record.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (fixed, configuration) = bytes.split_at_checked(Self::FIXED_BYTES)?;
        let number = |slot: usize| u64_at(fixed, slot * 8);
        let flags = number(0);
        let vote = (flags & Self::VOTE != 0).then_some(ReplicaId(number(2)));
        let position = possible(Position::new(Index(number(3)), Term(number(4))))?;
        if number(1) > NUMBER_MAX {
            return None;
        }
        let damage = [number(5), number(6), number(7), number(8), number(9)];
        Some(Self {
            hard_state: HardState { term: Term(number(1)), vote },
            start: SnapshotMeta { position, configuration: decode_configuration(configuration)? },
            entries_follow: flags & Self::ENTRIES_FOLLOW != 0,
            damage: (flags & Self::DAMAGED != 0).then_some(damage),
        })
    }
}

/// The second copy of a hard state, in an area that grows down from the segment's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The batch that holds the first copy.
    pub sequence: BatchSequence,
    /// Where the first copy's record begins.
    pub record: u64,
    /// The group.
    pub group: GroupId,
    /// The record's place among the group's records.
    pub chain: Chain,
    /// Whether the group begins anew with that record.
    pub first: bool,
    /// Length of that record's payload in bytes: none for a hard state, some for a checkpoint.
    pub payload_bytes: u32,
    /// What both copies say.
    pub hard_state: HardState,
}

impl Mirror {
    /// The bytes of the mirror at `offset`.
    #[must_use]
    pub fn encode(&self, offset: u64, seal: &Seal) -> [u8; MIRROR_BYTES] {
        let flags = if self.hard_state.vote.is_some() { FLAG_VOTE } else { 0 }
            | if self.first { FLAG_FIRST } else { 0 };
        let mut bytes = [0; MIRROR_BYTES];
        bytes[..4].copy_from_slice(&MIRROR_MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.record.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.group.0.to_le_bytes());
        bytes[28..30].copy_from_slice(&flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.hard_state.term.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.hard_state.vote.map_or(0, |vote| vote.0).to_le_bytes());
        bytes[48..56].copy_from_slice(&self.chain.0.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_bytes.to_le_bytes());
        seal_at_4(seal, offset, &mut bytes);
        bytes
    }

    /// Reads a mirror that stands at `offset`.
    #[must_use]
    pub fn decode(bytes: &[u8], offset: u64, seal: &Seal) -> Option<Self> {
        let bytes = sealed_at_4(bytes, MIRROR_BYTES, MIRROR_MAGIC, offset, seal)?;
        if u64_at(bytes, 8) > SEQUENCE_MAX || u64_at(bytes, 32) > NUMBER_MAX {
            return None;
        }
        let flags = u16::from_le_bytes([bytes[28], bytes[29]]);
        let vote = (flags & FLAG_VOTE != 0).then_some(ReplicaId(u64_at(bytes, 40)));
        Some(Self {
            sequence: BatchSequence(u64_at(bytes, 8)),
            record: u64_at(bytes, 16),
            group: GroupId(u32_at(bytes, 24)),
            chain: Chain(u64_at(bytes, 48)),
            first: flags & FLAG_FIRST != 0,
            payload_bytes: u32_at(bytes, 56),
            hard_state: HardState { term: Term(u64_at(bytes, 32)), vote },
        })
    }
}

/// The position, where a log can reach it.
fn possible(position: Position) -> Option<Position> {
    (position.index.0 <= NUMBER_MAX && position.term.0 <= NUMBER_MAX).then_some(position)
}

/// Writes the checksum of a structure into its bytes 4 to 8.
fn seal_at_4(seal: &Seal, offset: u64, bytes: &mut [u8]) {
    let checksum = seal.checksum(offset, &bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// The first `length` bytes, if they have this magic and their checksum.
fn sealed_at_4<'a>(bytes: &'a [u8], length: usize, magic: u32, offset: u64, seal: &Seal) -> Option<&'a [u8]> {
    let bytes = bytes.get(..length)?;
    let valid = u32_at(bytes, 0) == magic && u32_at(bytes, 4) == seal.checksum(offset, &bytes[8..]);
    valid.then_some(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(core::array::from_fn(|byte| bytes[at + byte]))
}

/// Fills an array from its beginning.
struct Put<'a>(&'a mut [u8], usize);

impl Put<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0[self.1..self.1 + bytes.len()].copy_from_slice(bytes);
        self.1 += bytes.len();
    }
}
