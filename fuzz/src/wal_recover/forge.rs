//! Structures whose checksums are right and whose contents are absurd. No crash and no rot makes them; a
//! program with a fault could, and one damage in four billion does.

use kotoba_db_cluster::{
    raft::{BootEpoch, Configuration, HardState, Index, Position, ReplicaId, SnapshotMeta, Term},
    storage::wal::{
        BatchSequence, EntryKind, GroupId, MemDisk, SegmentNumber,
        codec::{
            ALIGNMENT, BATCH_HEADER_BYTES, BatchHeader, Chain, Checkpoint, DATA_START, HEADER_OFFSETS,
            MARK_OFFSETS, MIRROR_BYTES, Mark, Mirror, RECORD_HEADER_BYTES, RecordHeader, RecordKind, Seal,
            SegmentEnd, SegmentHeader, payload_checksum,
        },
        recovery::{segment_name, segment_of},
    },
};

use super::{damage::pick_file, history::LOG};
use crate::choices::Choices;

/// Puts one such structure on the disk.
pub(super) fn forge(choices: &mut Choices<'_>, disk: &mut MemDisk) {
    let Some((name, contents)) = pick_file(choices, disk) else { return };
    let Some(segment) = segment_of(&name) else { return };
    let mut file = File { seal: Seal::new(LOG, segment), segment, contents };
    match choices.below(6) {
        0 => {
            let segment = file.forge_header(choices);
            disk.put(&segment_name(segment), file.contents);
            return;
        }
        1 => file.forge_mark(choices),
        2 => file.forge_batch(choices),
        3 | 4 => file.forge_record(choices),
        _ => file.forge_mirror(choices),
    }
    disk.put(&name, file.contents);
}

struct File {
    segment: SegmentNumber,
    seal: Seal,
    contents: Vec<u8>,
}

fn number(choices: &mut Choices<'_>) -> u64 {
    match choices.below(8) {
        0 => u64::MAX,
        1 => 1 << 63,
        2 => u64::from(u32::MAX),
        3 => choices.number(),
        4 => 20 << 10,
        _ => choices.below(40),
    }
}

fn number32(choices: &mut Choices<'_>) -> u32 {
    match choices.below(6) {
        0 => u32::MAX,
        1 => u32::MAX - 1,
        2 => 1 << 31,
        _ => u32::try_from(choices.below(12)).expect("small"),
    }
}

fn position(choices: &mut Choices<'_>) -> Position {
    Position::new(Index(number(choices)), Term(number(choices)))
}

fn hard_state(choices: &mut Choices<'_>) -> HardState {
    let vote = choices.once_in(2).then(|| ReplicaId(number(choices)));
    HardState { term: Term(number(choices)), vote }
}

impl File {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.contents.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    fn forge_header(&mut self, choices: &mut Choices<'_>) -> SegmentNumber {
        let segment = if choices.once_in(3) { SegmentNumber(number32(choices)) } else { self.segment };
        let previous = choices.once_in(2).then(|| SegmentEnd {
            segment: SegmentNumber(number32(choices)),
            offset: number(choices),
            sequence: BatchSequence(number(choices)),
        });
        let header = SegmentHeader {
            log: LOG,
            segment,
            oldest: SegmentNumber(number32(choices)),
            boot: BootEpoch(number(choices)),
            length: number(choices),
            previous,
        };
        for offset in HEADER_OFFSETS {
            self.put(usize::try_from(offset).expect("small"), &header.encode());
        }
        segment
    }

    fn forge_mark(&mut self, choices: &mut Choices<'_>) {
        let mark = Mark { sequence: BatchSequence(number(choices)), end: number(choices) };
        debug_assert!(MARK_OFFSETS.contains(&mark.offset()));
        self.put(usize::try_from(mark.offset()).expect("small"), &mark.encode(&self.seal));
    }

    /// Where structures of a kind stand.
    fn places(&self, stands: impl Fn(&[u8], u64) -> bool) -> Vec<usize> {
        let start = usize::try_from(DATA_START).expect("small");
        let all = (start..self.contents.len()).step_by(ALIGNMENT);
        all.filter(|&at| stands(&self.contents[at..], at as u64)).take(64).collect()
    }

    /// The place of such a structure, or any.
    fn place(&self, choices: &mut Choices<'_>, stands: impl Fn(&[u8], u64) -> bool) -> usize {
        let places = self.places(stands);
        match choices.pick(&places) {
            Some(at) if !choices.once_in(6) => at,
            Some(_) | None => (choices.place(self.contents.len() + 1) / ALIGNMENT) * ALIGNMENT,
        }
    }

    fn forge_batch(&mut self, choices: &mut Choices<'_>) {
        let at = self.place(choices, |bytes, at| BatchHeader::decode(bytes, at, &self.seal).is_some());
        let there =
            self.contents.get(at..).and_then(|bytes| BatchHeader::decode(bytes, at as u64, &self.seal));
        let mut header = there.unwrap_or(BatchHeader {
            sequence: BatchSequence(number(choices)),
            boot: BootEpoch(number(choices)),
            body_bytes: number32(choices),
            records: number32(choices),
        });
        match choices.below(3) {
            0 => header.sequence = BatchSequence(number(choices)),
            1 => header.body_bytes = number32(choices),
            _ => header.records = number32(choices),
        }
        let mut bytes = [0; BATCH_HEADER_BYTES];
        header.encode(at as u64, &self.seal, &mut bytes);
        self.put(at, &bytes);
    }

    fn forge_record(&mut self, choices: &mut Choices<'_>) {
        let at = self.place(choices, |bytes, at| RecordHeader::decode(bytes, at, &self.seal).is_some());
        let there =
            self.contents.get(at..).and_then(|bytes| RecordHeader::decode(bytes, at as u64, &self.seal));
        let group = GroupId(number32(choices));
        let chain = Chain(number(choices));
        let mut header = there.unwrap_or(RecordHeader {
            group,
            kind: RecordKind::Remove,
            chain,
            first: false,
            payload_bytes: 0,
            payload_checksum: 0,
        });
        let (kind, payload) = self.draw_kind(choices);
        header.kind = kind;
        match choices.below(5) {
            0 => header.chain = chain,
            1 => header.group = group,
            2 => header.first = !header.first,
            3 => header.payload_bytes = number32(choices),
            _ => {}
        }
        if choices.once_in(2) {
            // Its payload takes the place of what was there.
            header.payload_bytes = u32::try_from(payload.len()).expect("short");
            header.payload_checksum = payload_checksum(&payload);
            self.put(at + RECORD_HEADER_BYTES, &payload);
        }
        let mut bytes = Vec::new();
        header.encode(at as u64, &self.seal, &mut bytes);
        self.put(at, &bytes);
    }

    fn draw_kind(&self, choices: &mut Choices<'_>) -> (RecordKind, Vec<u8>) {
        let configuration = Configuration::of_voters([ReplicaId(1)]).expect("a voter");
        let start = SnapshotMeta { position: position(choices), configuration: configuration.clone() };
        match choices.below(8) {
            0 => (RecordKind::Entry(position(choices), EntryKind::Normal), vec![7; 16]),
            1 => (RecordKind::Entry(position(choices), EntryKind::Configuration), configuration.encode()),
            2 => (RecordKind::HardState(hard_state(choices)), Vec::new()),
            3 => (RecordKind::Truncate(Index(number(choices))), Vec::new()),
            4 => (RecordKind::Install(position(choices)), configuration.encode()),
            5 => (RecordKind::Purge(position(choices)), configuration.encode()),
            6 => (RecordKind::Remove, Vec::new()),
            _ => {
                let damage = choices.once_in(3).then(|| std::array::from_fn(|_| number(choices)));
                let entries_follow = choices.once_in(2);
                let checkpoint =
                    Checkpoint { hard_state: hard_state(choices), start, entries_follow, damage };
                (RecordKind::Checkpoint(position(choices)), checkpoint.encode())
            }
        }
    }

    fn forge_mirror(&mut self, choices: &mut Choices<'_>) {
        let cells = self.contents.len() / MIRROR_BYTES;
        if cells == 0 {
            return;
        }
        let at = self.contents.len() - MIRROR_BYTES * (1 + choices.place(cells.min(20)));
        let record = self.place(choices, |bytes, at| RecordHeader::decode(bytes, at, &self.seal).is_some());
        let mirror = Mirror {
            sequence: BatchSequence(number(choices)),
            record: record as u64,
            group: GroupId(number32(choices)),
            chain: Chain(number(choices)),
            first: choices.once_in(2),
            payload_bytes: number32(choices),
            hard_state: hard_state(choices),
        };
        self.put(at, &mirror.encode(at as u64, &self.seal));
        if choices.once_in(2) {
            // Only the mirror is left of that record.
            self.put(record, &[0; 8]);
        }
    }
}
