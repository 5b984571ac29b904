//! What the core knows of the log: which term each entry has, and how far it is durable.
//!
//! Entries themselves live with the embedder. A log of a million entries is a handful of
//! [`Run`]s here, because neighbouring entries of one term share a run until it holds
//! [`RUN_BYTES_MAX`] payload bytes; so appending a batch costs the same as appending one entry.

use alloc::collections::VecDeque;
use core::fmt;

use super::{
    message::EntryRange,
    types::{Index, Position, Term},
};
use crate::limits::{APPEND_ENTRIES_MAX, RUN_BYTES_MAX, TERM_RUNS_PER_MESSAGE_MAX};

/// The terms of a range of entries: each element names the last index of its run. Holds at most
/// [`TERM_RUNS_PER_MESSAGE_MAX`] runs, in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TermRuns {
    count: u8,
    runs: [Position; TERM_RUNS_PER_MESSAGE_MAX],
}

impl TermRuns {
    /// The runs of entries that all have one term and end at `last`.
    #[must_use]
    pub fn one(last: Position) -> Self {
        let mut runs = Self::default();
        let pushed = runs.push(last);
        assert!(pushed, "an empty list has room");
        runs
    }

    /// Adds a run that ends at `last`, or lengthens the last run where it has the same term.
    /// Returns whether there was room.
    #[must_use]
    pub fn push(&mut self, last: Position) -> bool {
        let count = usize::from(self.count);
        if count > 0 && self.runs[count - 1].term == last.term {
            self.runs[count - 1] = last;
            return true;
        }
        if count == TERM_RUNS_PER_MESSAGE_MAX {
            return false;
        }
        self.runs[count] = last;
        self.count += 1;
        true
    }

    /// Whether there is no run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.as_slice().last().copied()
    }

    /// The runs, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Position] {
        &self.runs[..usize::from(self.count)]
    }

    /// The term of the entry at `index`, which must not lie before the first entry of the range.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.as_slice().iter().find(|run| index <= run.index).map(|run| run.term)
    }
}

impl fmt::Debug for TermRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Neighbouring entries of one term. Its first entry follows the last one of the run before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    last: Position,
    bytes: u64,
}

/// The metadata of a replica's log: everything behind its `start`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LogMeta {
    start: Position,
    runs: VecDeque<Run>,
}

impl LogMeta {
    /// A log that begins behind `start` and is empty.
    pub(super) fn starting_at(start: Position) -> Self {
        Self { start, runs: VecDeque::new() }
    }

    /// The entry before the first one held: purged, or the place of a snapshot.
    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// The last entry.
    pub(super) fn last(&self) -> Position {
        self.runs.back().map_or(self.start, |run| run.last)
    }

    /// The term of the entry at `index`: known from `start` to the last entry.
    pub(super) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index {
            return None;
        }
        self.runs.get(self.run_of(index)).map(|run| run.last.term)
    }

    /// Whether the log holds exactly this entry.
    pub(super) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// Adds entries behind the last one.
    pub(super) fn append(&mut self, range: &EntryRange) {
        assert_eq!(range.first, self.last().index.next(), "entries are appended without a gap");
        let total = range.count();
        let mut before = self.last().index;
        for &last in range.runs.as_slice() {
            let count = last.index.0 - before.0;
            // Where a range has several terms the share of each is not known: spread the bytes evenly.
            let mut bytes = if count == total { range.bytes } else { (range.bytes / total + 1) * count };
            // A run is sent whole, so none may have more entries than a message. Longer ones come from disk.
            while last.index.0 - before.0 > APPEND_ENTRIES_MAX {
                let share = bytes / (last.index.0 - before.0) * RUN_ENTRIES_MAX;
                before = Index(before.0 + RUN_ENTRIES_MAX);
                self.append_run(
                    Run { last: Position::new(before, last.term), bytes: share },
                    RUN_ENTRIES_MAX,
                );
                bytes -= share;
            }
            self.append_run(Run { last, bytes }, last.index.0 - before.0);
            before = last.index;
        }
    }

    fn append_run(&mut self, run: Run, count: u64) {
        let before = self.last();
        assert!(run.last.index > before.index, "a run has entries");
        assert!(run.last.term >= before.term, "terms never fall along a log");
        let first = self.runs.len().checked_sub(2).map_or(self.start.index, |at| self.runs[at].last.index);
        if let Some(tail) = self.runs.back_mut()
            && tail.last.term == run.last.term
            && tail.bytes + run.bytes <= RUN_BYTES_MAX
            && tail.last.index.0 - first.0 + count <= RUN_ENTRIES_MAX
        {
            tail.last = run.last;
            tail.bytes += run.bytes;
        } else {
            self.runs.push_back(run);
        }
    }

    /// Forgets the entries from `from` on.
    pub(super) fn truncate_from(&mut self, from: Index) {
        assert!(from > self.start.index, "what is purged cannot be truncated");
        while let Some(tail) = self.runs.back().copied() {
            if tail.last.index < from {
                return;
            }
            self.runs.pop_back();
            if self.last().index < from.previous() {
                // The kept part of a run is charged with all of it: an upper bound.
                self.runs.push_back(Run {
                    last: Position::new(from.previous(), tail.last.term),
                    bytes: tail.bytes,
                });
                return;
            }
        }
    }

    /// Forgets the entries up to `start`, which the log holds.
    pub(super) fn purge_to(&mut self, start: Position) {
        assert!(self.holds(start), "only what the log holds can be purged");
        while self.runs.front().is_some_and(|run| run.last.index <= start.index) {
            self.runs.pop_front();
        }
        self.start = start;
    }

    /// The entries from `first` on, as many as fit one message; at least one where there is one.
    pub(super) fn slice(&self, first: Index, bytes_max: u64, entries_max: u64) -> EntryRange {
        assert!(first > self.start.index && first <= self.last().index.next(), "the range must be held");
        let mut range = EntryRange { first, ..EntryRange::default() };
        for run in self.runs.range(self.run_of(first)..) {
            let fits = range.bytes + run.bytes <= bytes_max && run.last.index.0 + 1 - first.0 <= entries_max;
            if !range.is_empty() && !fits || !range.runs.push(run.last) {
                break;
            }
            range.bytes += run.bytes;
        }
        range
    }

    /// The last entry that may equal one of a log that holds `other`: not behind it, of no later
    /// term. Whatever lies between cannot match, because terms never fall along a log.
    pub(super) fn last_that_may_match(&self, other: Position) -> Position {
        let capped = other.index.min(self.last().index);
        if capped <= self.start.index {
            return self.start;
        }
        let mut at = self.run_of(capped);
        let mut index = capped;
        loop {
            let Some(run) = self.runs.get(at) else { return self.start };
            if run.last.term <= other.term {
                return Position::new(index, run.last.term);
            }
            let Some(before) = at.checked_sub(1) else { return self.start };
            at = before;
            index = self.runs[at].last.index;
        }
    }

    /// Payload bytes behind `index`, at most.
    pub(super) fn bytes_behind(&self, index: Index) -> u64 {
        self.runs.iter().rev().take_while(|run| run.last.index > index).map(|run| run.bytes).sum()
    }

    /// Which run holds `index`, or the number of runs.
    fn run_of(&self, index: Index) -> usize {
        self.runs.partition_point(|run| run.last.index < index)
    }
}

/// Entries of one run: a run is sent whole or from some entry on.
const RUN_ENTRIES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The slow, obvious twin: one term an entry.
    #[derive(Default)]
    struct Twin {
        start: u64,
        terms: Vec<u64>,
    }

    fn range(first: u64, terms: &[(u64, u64)], bytes: u64) -> EntryRange {
        let mut range = EntryRange { first: Index(first), bytes, runs: TermRuns::default() };
        let mut last = first - 1;
        for &(term, count) in terms {
            last += count;
            assert!(range.runs.push(Position::new(Index(last), Term(term))));
        }
        range
    }

    #[test]
    fn a_long_run_from_disk_is_sent_in_messages_that_are_accepted() {
        let mut log = LogMeta::starting_at(Position::ZERO);
        log.append(&range(1, &[(1, 10_000)], 100_000));
        assert_eq!(log.last(), Position::new(Index(10_000), Term(1)));
        let (mut next, mut bytes) = (Index(1), 0);
        while next <= log.last().index {
            let slice = log.slice(next, 1 << 20, APPEND_ENTRIES_MAX);
            assert!(slice.count() <= APPEND_ENTRIES_MAX, "{slice:?}");
            bytes += slice.bytes;
            next = slice.last().expect("it is not empty").index.next();
        }
        assert_eq!(bytes, 100_000);
    }

    proptest! {
        #[test]
        fn equals_a_list_of_terms(steps in prop::collection::vec((0..4u8, 1..6u64, 0..3u64, 0..40_000u64), 1..60)) {
            let mut log = LogMeta::starting_at(Position::ZERO);
            let mut twin = Twin { start: 0, terms: alloc::vec![0] };
            for (kind, count, rise, bytes) in steps {
                let (start, last) = (twin.start, twin.terms.len() as u64 - 1);
                match kind {
                    0 | 1 => {
                        let term = twin.terms[last as usize] + rise;
                        log.append(&range(last + 1, &[(term, count)], bytes));
                        twin.terms.extend(core::iter::repeat_n(term, count as usize));
                    }
                    2 if last > start => {
                        let from = start + 1 + (bytes % (last - start));
                        log.truncate_from(Index(from));
                        twin.terms.truncate(from as usize);
                    }
                    _ => {
                        let to = start + bytes % (last - start + 1);
                        log.purge_to(Position::new(Index(to), Term(twin.terms[to as usize])));
                        twin.start = to;
                    }
                }
                let last = twin.terms.len() as u64 - 1;
                prop_assert_eq!(log.last(), Position::new(Index(last), Term(twin.terms[last as usize])));
                for index in 0..last + 3 {
                    let expected = (index >= twin.start).then(|| twin.terms.get(index as usize).copied()).flatten();
                    prop_assert_eq!(log.term_at(Index(index)).map(|term| term.0), expected);
                    for term in 0..8 {
                        let slow = (twin.start..=last.min(index)).rev().find(|&at| twin.terms[at as usize] <= term);
                        let found = log.last_that_may_match(Position::new(Index(index), Term(term)));
                        prop_assert_eq!(found.index.0, slow.unwrap_or(twin.start));
                    }
                }
                if last > twin.start {
                    let slice = log.slice(Index(twin.start + 1), 50_000, 8);
                    prop_assert!(!slice.is_empty());
                    for index in twin.start + 1..=slice.last().unwrap().index.0 {
                        prop_assert_eq!(slice.runs.term_at(Index(index)).unwrap().0, twin.terms[index as usize]);
                    }
                }
            }
        }
    }
}
