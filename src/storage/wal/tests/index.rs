//! The index against a list of terms, and the cache's bounds.

use alloc::{vec, vec::Vec};

use proptest::prelude::*;

use super::{
    super::{EntryIndex, GatherError, GroupId, GroupWrite, LogIndex, MemDisk, Place, SegmentNumber},
    append, genesis, meta, open, position,
};
use crate::raft::{Index, Term, TermRuns};

#[derive(Clone, Debug)]
enum Change {
    Push { more_term: bool },
    Truncate { back: u64 },
    Purge { ahead: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => prop::bool::weighted(0.3).prop_map(|more_term| Change::Push { more_term }),
        1 => (0..5_u64).prop_map(|back| Change::Truncate { back }),
        1 => (0..5_u64).prop_map(|ahead| Change::Purge { ahead }),
    ]
}

proptest! {
    #[test]
    fn index_equals_a_list(changes in prop::collection::vec(change(), 0..80)) {
        let mut base = position(1, 1);
        let mut twin: Vec<Term> = Vec::new();
        let mut index = EntryIndex::new(base);
        for change in changes {
            let last = Index(base.index.0 + twin.len() as u64);
            match change {
                Change::Push { more_term } => {
                    let term = Term(twin.last().unwrap_or(&base.term).0 + u64::from(more_term));
                    let number = u32::try_from(last.0).unwrap();
                    index.push(term, Place { segment: Some(SegmentNumber(1 + number / 8)), offset: number, length: 1 });
                    twin.push(term);
                }
                Change::Truncate { back } => {
                    let keep = twin.len() - usize::try_from(back).unwrap().min(twin.len());
                    twin.truncate(keep);
                    index.truncate(Index(base.index.0 + 1 + keep as u64));
                }
                Change::Purge { ahead } => {
                    let gone = usize::try_from(ahead).unwrap().min(twin.len());
                    let term = if gone == 0 { base.term } else { twin[gone - 1] };
                    twin.drain(..gone);
                    base = position(base.index.0 + gone as u64, term.0);
                    index.purge(base);
                }
            }
            let at = |n: usize| position(base.index.0 + 1 + n as u64, twin[n].0);
            let all: Vec<_> = (0..twin.len()).map(at).collect();
            let found: Vec<_> = index.range(base.index.next(), index.last().index).map(|(at, _)| at).collect();
            prop_assert_eq!(&found, &all);
            prop_assert_eq!(index.last(), all.last().copied().unwrap_or(base));
            prop_assert_eq!(index.len(), twin.len());
            prop_assert_eq!(index.term_at(base.index), Some(base.term));
            prop_assert!(all.iter().all(|&at| index.holds(at)));
            prop_assert_eq!(index.term_at(index.last().index.next()), None);
            let bytes: u64 = index.runs().iter().map(|run| run.bytes).sum();
            prop_assert_eq!(bytes, twin.len() as u64);
        }
    }
}

const G: GroupId = GroupId(1);

fn runs(last: u64, term: u64) -> TermRuns {
    TermRuns::one(position(last, term))
}

#[test]
fn entries_can_be_gathered_before_they_are_durable_and_stay_until_then() {
    let mut index = LogIndex::new(0);
    index.submitted(&genesis(1));
    index.submitted(&append(1, 2..=5, 1));
    index.applied(G, Index(5));
    let gathered = index.gather(G, Index(3), &runs(4, 1)).expect("in memory");
    assert_eq!(gathered, super::entries(1, 3..=4, 1));
    assert!(index.cached_bytes() > 0, "what is not durable stays, whatever the budget");
}

#[test]
fn gather_checks_terms_and_bounds() {
    let mut index = LogIndex::new(1 << 20);
    index.submitted(&genesis(1));
    index.submitted(&append(1, 2..=5, 1));
    index.submitted(&GroupWrite { truncate_from: Some(Index(4)), ..append(1, 4..=6, 2) });
    let mut mixed = runs(3, 1);
    assert!(mixed.push(position(6, 2)));
    assert_eq!(index.gather(G, Index(2), &mixed).map(|entries| entries.len()), Ok(5));
    for (first, asked) in [(2, runs(5, 1)), (4, runs(7, 2)), (1, runs(3, 1)), (4, runs(5, 1))] {
        assert_eq!(index.gather(G, Index(first), &asked), Err(GatherError::Gone), "{first} {asked:?}");
    }
    assert_eq!(index.gather(GroupId(2), Index(2), &mixed), Err(GatherError::Gone));
    index.submitted(&GroupWrite { purge: Some(meta(3, 1)), ..GroupWrite::of(G) });
    assert_eq!(index.gather(G, Index(2), &mixed), Err(GatherError::Gone));
    assert_eq!(index.gather(G, Index(4), &runs(6, 2)).map(|entries| entries.len()), Ok(3));
}

#[test]
fn ranges_are_cut_at_their_byte_limit_but_never_empty() {
    let mut index = LogIndex::new(1 << 20);
    index.submitted(&genesis(1));
    index.submitted(&append(1, 2..=9, 1));
    let one = super::entries(1, 2..=2, 1)[0].payload.len() as u64;
    let count = |max| index.entries(G, Index(2), Index(9), max).map(|entries| entries.len());
    assert_eq!([count(0), count(one), count(2 * one), count(u64::MAX)], [Ok(1), Ok(1), Ok(2), Ok(8)]);
    assert_eq!(index.entries(G, Index(2), Index(10), 1), Err(GatherError::Gone));
}

#[test]
fn eviction_takes_what_is_applied_and_durable_oldest_first() {
    let (mut writer, recovery) = open(MemDisk::new());
    let mut index = LogIndex::of_recovery(&recovery, 300);
    for write in [genesis(1), genesis(2), append(1, 2..=4, 1), append(2, 2..=4, 1)] {
        index.submitted(&write);
        index.written(&writer.write(&[write]).expect("a sound disk takes it"));
    }
    index.applied(GroupId(2), Index(4));
    let is_on_disk = |index: &LogIndex, group, at| {
        matches!(index.entries(GroupId(group), Index(at), Index(at), 1), Err(GatherError::OnDisk(_)))
    };
    assert!(is_on_disk(&index, 2, 4) && !is_on_disk(&index, 1, 2), "group 1 has applied nothing");
    index.applied(G, Index(3));
    assert!(is_on_disk(&index, 1, 2) || index.cached_bytes() <= 300);
    assert!(!is_on_disk(&index, 1, 4));
    assert_eq!(vec![index.last(G)], vec![Some(position(4, 1))]);
}
