//! The log against a naive model of itself, on a disk that breaks.

#[cfg(not(feature = "std"))]
extern crate std;

mod codec;
mod crash;
mod damage;
mod golden;
mod index;
mod model;
#[cfg(feature = "node")]
mod os;
mod segments;

use alloc::{vec, vec::Vec};

use bytes::Bytes;

use super::{Entry, EntryKind, GroupId, GroupWrite, LogId, MemDisk, WalOptions, WalWriter};
use crate::raft::{Configuration, HardState, Index, Position, ReplicaId, SnapshotMeta, Term};

const LOG: LogId = LogId(*b"the log of tests");
/// Room for a few small batches, so that tests see many segments.
const SEGMENT_BYTES: u64 = 20 << 10;

fn options() -> WalOptions {
    WalOptions { segment_bytes: SEGMENT_BYTES, ..WalOptions::new(LOG) }
}

fn open(disk: MemDisk) -> (WalWriter<MemDisk>, super::Recovery) {
    WalWriter::open(disk, options()).expect("a sound disk opens")
}

fn entry(index: u64, term: u64, payload: &[u8]) -> Entry {
    Entry {
        index: Index(index),
        term: Term(term),
        kind: EntryKind::Normal,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// Entries of one term with payloads that name them.
fn entries(group: u32, indexes: core::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let payload = |index| alloc::format!("group {group} entry {index} term {term}");
    indexes.map(|index| entry(index, term, payload(index).as_bytes())).collect()
}

fn position(index: u64, term: u64) -> Position {
    Position::new(Index(index), Term(term))
}

fn configuration(voters: u64) -> Configuration {
    Configuration::of_voters((1..=voters).map(ReplicaId)).expect("some voters")
}

fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta { position: position(index, term), configuration: configuration(3) }
}

fn hard_state(term: u64, vote: Option<u64>) -> HardState {
    HardState { term: Term(term), vote: vote.map(ReplicaId) }
}

/// A group as bootstrap begins it: a snapshot at 1/1.
fn genesis(group: u32) -> GroupWrite {
    GroupWrite {
        hard_state: Some(hard_state(1, None)),
        install: Some(meta(1, 1)),
        ..GroupWrite::of(GroupId(group))
    }
}

fn append(group: u32, indexes: core::ops::RangeInclusive<u64>, term: u64) -> GroupWrite {
    GroupWrite { entries: entries(group, indexes, term), ..GroupWrite::of(GroupId(group)) }
}

fn vote(group: u32, term: u64, replica: u64) -> GroupWrite {
    GroupWrite { hard_state: Some(hard_state(term, Some(replica))), ..GroupWrite::of(GroupId(group)) }
}

/// Writes that touch everything the format has; some are batches of several groups.
fn script() -> Vec<Vec<GroupWrite>> {
    let install = GroupWrite {
        install: Some(meta(20, 3)),
        truncate_from: Some(Index(21)),
        entries: entries(3, 21..=22, 4),
        ..vote(3, 4, 2)
    };
    let mut changed = entries(2, 4..=5, 3);
    changed[0].kind = EntryKind::Configuration;
    changed[0].payload = Bytes::from(configuration(4).encode());
    changed[1].kind = EntryKind::Empty;
    changed[1].payload = Bytes::new();
    vec![
        vec![genesis(1), genesis(2)],
        vec![append(1, 2..=4, 1), append(2, 2..=3, 1), genesis(3)],
        vec![vote(1, 2, 3)],
        vec![GroupWrite { truncate_from: Some(Index(4)), ..append(1, 4..=6, 2) }, vote(2, 3, 1)],
        vec![GroupWrite { entries: changed, ..GroupWrite::of(GroupId(2)) }],
        vec![append(3, 2..=9, 1)],
        vec![install],
        vec![GroupWrite { purge: Some(meta(3, 1)), ..append(1, 7..=8, 2) }],
        vec![GroupWrite { remove: true, ..genesis(2) }, vote(1, 5, 1)],
        vec![append(2, 2..=3, 1), append(3, 23..=24, 4)],
        vec![GroupWrite { remove: true, ..GroupWrite::of(GroupId(3)) }],
        vec![append(1, 9..=12, 5), append(2, 4..=6, 2)],
    ]
}
