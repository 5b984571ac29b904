//! The structures of the log, with right checksums.

use kotoba_db_cluster::storage::wal::{
    LogId, SegmentNumber,
    codec::{
        BATCH_HEADER_BYTES, BatchHeader, Checkpoint, HEADER_BYTES, MARK_BYTES, MARK_OFFSETS, MIRROR_BYTES,
        Mark, Mirror, RECORD_HEADER_BYTES, RecordHeader, Seal, SegmentHeader,
    },
};

use crate::{Situations, choices::Choices};

const LOG: LogId = LogId(*b"a log of fuzzing");
const SEGMENT: SegmentNumber = SegmentNumber(7);

/// What stands before the bytes under every checksum but the header's (see `docs/wal-format.md`).
fn checksum(offset: u64, covered: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&LOG.0);
    hasher.update(&SEGMENT.0.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(covered);
    hasher.finalize().to_le_bytes()
}

fn bytes<const LENGTH: usize>(rest: &[u8]) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let length = rest.len().min(LENGTH);
    bytes[..length].copy_from_slice(&rest[..length]);
    bytes
}

/// Magic and checksum of a structure that has them in front.
fn seal<const LENGTH: usize>(rest: &[u8], magic: &[u8; 4], offset: u64) -> [u8; LENGTH] {
    let mut bytes: [u8; LENGTH] = bytes(rest);
    bytes[..4].copy_from_slice(magic);
    let sum = checksum(offset, &bytes[8..]);
    bytes[4..8].copy_from_slice(&sum);
    bytes
}

pub(super) fn structure(mut choices: Choices<'_>, situations: &mut Situations) -> Option<()> {
    let which = choices.below(6);
    let offset = 8 * choices.below(1 << 29);
    let seal_of = Seal::new(LOG, SEGMENT);
    let rest = choices.rest();
    match which {
        0 => {
            let mut header: [u8; HEADER_BYTES] = bytes(rest);
            header[..12].copy_from_slice(b"KOTOWAL\0\x01\0\0\0");
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&header[..12]);
            hasher.update(&header[16..]);
            header[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
            let header = SegmentHeader::decode(&header).ok()?;
            assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
        1 => {
            let at = MARK_OFFSETS[usize::from(offset.is_multiple_of(16))];
            let mark = Mark::decode(&seal::<MARK_BYTES>(rest, b"KDBm", at), at, &seal_of)?;
            assert_eq!(Mark::decode(&mark.encode(&seal_of), mark.offset(), &seal_of), Some(mark));
        }
        2 => {
            let sealed = seal::<BATCH_HEADER_BYTES>(rest, b"KDBb", offset);
            let header = BatchHeader::decode(&sealed, offset, &seal_of)?;
            let mut again = [0; BATCH_HEADER_BYTES];
            header.encode(offset, &seal_of, &mut again);
            assert_eq!(BatchHeader::decode(&again, offset, &seal_of), Some(header));
        }
        3 => {
            let mut record: [u8; RECORD_HEADER_BYTES] = bytes(rest);
            let sum = checksum(offset, &record[4..]);
            record[..4].copy_from_slice(&sum);
            let header = RecordHeader::decode(&record, offset, &seal_of)?;
            let mut again = Vec::new();
            header.encode(offset, &seal_of, &mut again);
            assert_eq!(RecordHeader::decode(&again, offset, &seal_of), Some(header));
        }
        4 => {
            let sealed = seal::<MIRROR_BYTES>(rest, b"KDBh", offset);
            let mirror = Mirror::decode(&sealed, offset, &seal_of)?;
            assert_eq!(Mirror::decode(&mirror.encode(offset, &seal_of), offset, &seal_of), Some(mirror));
        }
        _ => {
            let checkpoint = Checkpoint::decode(rest)?;
            assert_eq!(Checkpoint::decode(&checkpoint.encode()), Some(checkpoint));
        }
    }
    situations.reach("a structure of the log");
    Some(())
}
