//! Every structure comes back from its bytes, and no other bytes pass for it.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::{
    super::{
        BatchSequence, BootEpoch, EntryKind, GroupId, SegmentNumber,
        codec::{
            BATCH_HEADER_BYTES, BatchHeader, Chain, Checkpoint, HeaderError, Mark, Mirror, RecordHeader,
            RecordKind, Seal, SegmentEnd, SegmentHeader,
        },
        recovery::{segment_name, segment_of},
    },
    LOG, configuration, hard_state, position,
};
use crate::raft::{Index, SnapshotMeta};

fn seal() -> Seal {
    Seal::new(LOG, SegmentNumber(7))
}

/// What a log can reach.
fn number() -> impl Strategy<Value = u64> + Clone {
    0..=u64::MAX >> 1
}

fn sequence() -> impl Strategy<Value = BatchSequence> {
    (0..=1_u64 << 43).prop_map(BatchSequence)
}

fn end() -> impl Strategy<Value = u64> {
    0..=u64::from(u32::MAX)
}

fn kind() -> impl Strategy<Value = RecordKind> {
    let at = (number(), number()).prop_map(|(index, term)| position(index, term));
    let entry_kind =
        prop_oneof![Just(EntryKind::Normal), Just(EntryKind::Empty), Just(EntryKind::Configuration)];
    prop_oneof![
        (at.clone(), entry_kind).prop_map(|(at, kind)| RecordKind::Entry(at, kind)),
        (number(), any::<Option<u64>>())
            .prop_map(|(term, vote)| RecordKind::HardState(hard_state(term, vote))),
        number().prop_map(|from| RecordKind::Truncate(Index(from))),
        at.clone().prop_map(RecordKind::Install),
        at.clone().prop_map(RecordKind::Purge),
        Just(RecordKind::Remove),
        at.prop_map(RecordKind::Checkpoint),
    ]
}

proptest! {
    #[test]
    fn records_come_back(
        kind in kind(), group: u32, chain: u64, first: bool, payload_bytes: u32, payload_checksum: u32,
        offset: u64, flip in 0..48_usize * 8,
    ) {
        let header = RecordHeader {
            group: GroupId(group), kind, chain: Chain(chain), first, payload_bytes, payload_checksum,
        };
        let mut bytes = Vec::new();
        header.encode(offset, &seal(), &mut bytes);
        prop_assert_eq!(RecordHeader::decode(&bytes, offset, &seal()), Some(header));
        prop_assert_eq!(RecordHeader::decode(&bytes, offset ^ 8, &seal()), None);
        prop_assert_eq!(RecordHeader::decode(&bytes, offset, &Seal::new(LOG, SegmentNumber(8))), None);
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(RecordHeader::decode(&bytes, offset, &seal()), None);
    }

    #[test]
    fn batches_and_marks_come_back(
        sequence in sequence(), boot: u64, body_bytes: u32, records: u32, offset: u64, end in end(),
        flip in 0..48_usize * 8,
    ) {
        let header = BatchHeader { sequence, boot: BootEpoch(boot), body_bytes, records };
        let mut bytes = [0; BATCH_HEADER_BYTES];
        header.encode(offset, &seal(), &mut bytes);
        prop_assert_eq!(BatchHeader::decode(&bytes, offset, &seal()), Some(header));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(BatchHeader::decode(&bytes, offset, &seal()), None);

        let mark = Mark { sequence, end };
        let mut bytes = mark.encode(&seal());
        prop_assert_eq!(Mark::decode(&bytes, mark.offset(), &seal()), Some(mark));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(Mark::decode(&bytes, mark.offset(), &seal()), None);
    }

    #[test]
    fn mirrors_come_back(
        sequence in sequence(), record: u64, group: u32, chain: u64, first: bool, payload_bytes: u32,
        term in number(), vote: Option<u64>, offset: u64, flip in 0..64_usize * 8,
    ) {
        let hard_state = hard_state(term, vote);
        let mirror = Mirror {
            sequence, record, group: GroupId(group), chain: Chain(chain), first,
            payload_bytes, hard_state,
        };
        let mut bytes = mirror.encode(offset, &seal());
        prop_assert_eq!(Mirror::decode(&bytes, offset, &seal()), Some(mirror));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(Mirror::decode(&bytes, offset, &seal()), None);
    }

    #[test]
    fn checkpoints_come_back(
        term in number(), vote: Option<u64>, index in number(), voters in 0..9_u64, entries_follow: bool,
        damage: Option<[u64; 5]>, cut in 0..80_usize,
    ) {
        let configuration = if voters == 0 { Default::default() } else { configuration(voters) };
        let start = SnapshotMeta { position: position(index, term), configuration };
        let checkpoint = Checkpoint { hard_state: hard_state(term, vote), start, entries_follow, damage };
        let bytes = checkpoint.encode();
        prop_assert_eq!(Checkpoint::decode(&bytes), Some(checkpoint));
        prop_assert_eq!(Checkpoint::decode(&bytes[..cut]), None);
    }

    #[test]
    fn segment_headers_come_back(
        segment in 2..u32::MAX, older: u32, boot in number(), length: u64,
        previous in prop::option::of((end(), sequence())), flip in 0..128_usize * 8,
    ) {
        let previous = previous.map(|(offset, sequence)| SegmentEnd {
            segment: SegmentNumber(segment - 1), offset, sequence,
        });
        let oldest = older % segment + 1;
        let header = SegmentHeader {
            log: LOG, segment: SegmentNumber(segment), oldest: SegmentNumber(oldest), boot: BootEpoch(boot),
            length, previous,
        };
        let mut bytes = header.encode();
        prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[flip / 8] ^= 1 << (flip % 8);
        prop_assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Invalid));
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), offset: u64) {
        prop_assert_eq!(RecordHeader::decode(&bytes, offset, &seal()), None);
        prop_assert_eq!(BatchHeader::decode(&bytes, offset, &seal()), None);
        prop_assert_eq!(Mirror::decode(&bytes, offset, &seal()), None);
        prop_assert_eq!(Mark::decode(&bytes, offset, &seal()), None);
        let _ = Checkpoint::decode(&bytes);
    }
}

/// A right checksum does not make a number possible: no log has counted so far, and none could go on.
#[test]
fn what_no_log_can_reach_is_no_structure() {
    let (far, sequence) = (u64::MAX - 1, BatchSequence(u64::MAX - 1));
    let header = SegmentHeader {
        log: LOG,
        segment: SegmentNumber(2),
        oldest: SegmentNumber(1),
        boot: BootEpoch(1),
        length: 0,
        previous: Some(SegmentEnd { segment: SegmentNumber(1), offset: 20_000, sequence: BatchSequence(3) }),
    };
    assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    let end =
        |segment, offset, sequence| Some(SegmentEnd { segment: SegmentNumber(segment), offset, sequence });
    for impossible in [
        SegmentHeader { segment: SegmentNumber(u32::MAX), ..header },
        SegmentHeader { oldest: SegmentNumber(3), ..header },
        SegmentHeader { boot: BootEpoch(far), ..header },
        SegmentHeader { previous: end(2, 20_000, BatchSequence(3)), ..header },
        SegmentHeader { previous: end(1, far, BatchSequence(3)), ..header },
        SegmentHeader { previous: end(1, 20_000, sequence), ..header },
    ] {
        assert_eq!(SegmentHeader::decode(&impossible.encode()), Err(HeaderError::Invalid), "{impossible:?}");
    }
    for mark in [Mark { sequence, end: 20_000 }, Mark { sequence: BatchSequence(1), end: far }] {
        assert_eq!(Mark::decode(&mark.encode(&seal()), mark.offset(), &seal()), None);
    }
    let batch = BatchHeader { sequence, boot: BootEpoch(1), body_bytes: 0, records: 0 };
    let mut bytes = [0; BATCH_HEADER_BYTES];
    batch.encode(0, &seal(), &mut bytes);
    assert_eq!(BatchHeader::decode(&bytes, 0, &seal()), None);
    let record = |kind| {
        let group = GroupId(1);
        let header = RecordHeader {
            group,
            kind,
            chain: Chain(1),
            first: false,
            payload_bytes: 0,
            payload_checksum: 0,
        };
        let mut bytes = Vec::new();
        header.encode(0, &seal(), &mut bytes);
        RecordHeader::decode(&bytes, 0, &seal())
    };
    assert_eq!(record(RecordKind::Install(position(far, 1))), None);
    assert_eq!(record(RecordKind::Truncate(Index(far))), None);
    assert_eq!(record(RecordKind::HardState(hard_state(far, None))), None);
    // A remote may call itself what it likes and still be voted for.
    assert!(record(RecordKind::HardState(hard_state(1, Some(far)))).is_some());
}

#[test]
fn file_names_are_exact() {
    assert_eq!(segment_name(SegmentNumber(12)), "00000000000000000012.wal");
    assert_eq!(segment_of("00000000000000000012.wal"), Some(SegmentNumber(12)));
    for other in [
        "12.wal",
        "00000000000000000012.wal~",
        "LOCK",
        "0000000000000000001x.wal",
        "+0000000000000000012.wal",
    ] {
        assert_eq!(segment_of(other), None, "{other}");
    }
}
