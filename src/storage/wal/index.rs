//! Where each entry of a group's log is: its term, and its record's place on disk.

use alloc::{collections::VecDeque, vec::Vec};

use super::{RecoveredRun, SegmentNumber};
use crate::{
    limits::RUN_BYTES_MAX,
    raft::{Index, Position, Term},
};

/// The place of an entry's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The segment file; none while the record is not known to be durable.
    pub segment: Option<SegmentNumber>,
    /// Where its header begins.
    pub offset: u32,
    /// Length of the entry's payload in bytes.
    pub length: u32,
}

/// The entries of one group behind its base, without their bytes. Terms are kept as runs, so an
/// entry costs 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryIndex {
    base: Position,
    /// The last position of each run of one term, ascending.
    terms: VecDeque<Position>,
    places: VecDeque<Place>,
}

impl EntryIndex {
    /// No entries behind `base`.
    #[must_use]
    pub fn new(base: Position) -> Self {
        Self { base, terms: VecDeque::new(), places: VecDeque::new() }
    }

    /// The position just before the first entry.
    #[must_use]
    pub fn base(&self) -> Position {
        self.base
    }

    /// The last entry, or the base where there is none.
    #[must_use]
    pub fn last(&self) -> Position {
        self.terms.back().copied().unwrap_or(self.base)
    }

    /// How many entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The term of the entry at `index`, or of the base.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last().index {
            return None;
        }
        let run = self.terms.partition_point(|run| run.index < index);
        self.terms.get(run).map(|run| run.term)
    }

    /// Whether the entry at this position, or the base, is this one.
    #[must_use]
    pub fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The place of the entry at `index`.
    #[must_use]
    pub fn place(&self, index: Index) -> Option<Place> {
        self.slot(index).map(|slot| self.places[slot])
    }

    /// Adds an entry of this term at the end.
    pub fn push(&mut self, term: Term, place: Place) {
        let last = Position::new(self.last().index.next(), term);
        match self.terms.back_mut() {
            Some(run) if run.term == term => *run = last,
            _ => self.terms.push_back(last),
        }
        self.places.push_back(place);
    }

    /// Sets the place of an entry, where it is still the one meant.
    pub fn locate(&mut self, position: Position, place: Place) {
        if position.index > self.base.index && self.holds(position) {
            let slot = self.slot(position.index).expect("an entry that is held has a slot");
            self.places[slot] = place;
        }
    }

    /// Drops the entries from `from` on.
    pub fn truncate(&mut self, from: Index) {
        if from <= self.base.index {
            // What lay before is not known here any more: only its index is.
            *self = Self::new(Position::new(Index(from.0.saturating_sub(1)), Term(0)));
            return;
        }
        if from > self.last().index {
            return;
        }
        let keep = slot_of(from, self.base);
        self.places.truncate(keep);
        let last = from.previous();
        while let Some(run) = self.terms.back_mut() {
            if run.index <= last {
                break;
            }
            let term = run.term;
            self.terms.pop_back();
            let before = self.terms.back().map_or(self.base.index, |run| run.index);
            if before < last {
                self.terms.push_back(Position::new(last, term));
                break;
            }
        }
    }

    /// Drops the entries up to `to` and makes it the base. Does nothing where the base is behind it
    /// already.
    pub fn purge(&mut self, to: Position) {
        if to.index < self.base.index {
            return;
        }
        if to.index > self.last().index {
            *self = Self::new(to);
            return;
        }
        let gone = usize::try_from(to.index.0 - self.base.index.0)
            .expect("entries in memory are fewer than addresses");
        self.places.drain(..gone);
        while self.terms.front().is_some_and(|run| run.index <= to.index) {
            self.terms.pop_front();
        }
        self.base = to;
    }

    /// The oldest segment that holds an entry.
    #[must_use]
    pub fn oldest_segment(&self) -> Option<SegmentNumber> {
        // Records are written in the order of their indexes, so the first is in the oldest.
        self.places.front().and_then(|place| place.segment)
    }

    /// Payload bytes of all entries.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.places.iter().map(|place| u64::from(place.length)).sum()
    }

    /// Positions and places of the entries from `first` to `last`, both included.
    pub fn range(&self, first: Index, last: Index) -> impl Iterator<Item = (Position, Place)> + '_ {
        let mut run = self.terms.partition_point(|run| run.index < first);
        let from = usize::try_from(first.0.saturating_sub(self.base.index.0 + 1)).unwrap_or(usize::MAX);
        self.places.iter().enumerate().skip(from).map_while(move |(slot, place)| {
            let index = Index(self.base.index.0 + 1 + slot as u64);
            if index > last {
                return None;
            }
            if self.terms[run].index < index {
                run += 1;
            }
            Some((Position::new(index, self.terms[run].term), *place))
        })
    }

    /// The entries as runs of one term and at most [`RUN_BYTES_MAX`] payload bytes (a single larger
    /// entry is a run of its own).
    #[must_use]
    pub fn runs(&self) -> Vec<RecoveredRun> {
        let mut runs: Vec<RecoveredRun> = Vec::new();
        for (position, place) in self.range(self.base.index.next(), self.last().index) {
            let bytes = u64::from(place.length);
            match runs.last_mut() {
                Some(run) if run.last.term == position.term && run.bytes + bytes <= RUN_BYTES_MAX => {
                    run.last = position;
                    run.bytes += bytes;
                }
                _ => runs.push(RecoveredRun { last: position, bytes }),
            }
        }
        runs
    }

    fn slot(&self, index: Index) -> Option<usize> {
        let inside = index > self.base.index && index <= self.last().index;
        inside.then(|| slot_of(index, self.base))
    }
}

/// The slot of an entry that is not before the base.
fn slot_of(index: Index, base: Position) -> usize {
    let slot = index.0.saturating_sub(base.index.0).saturating_sub(1);
    usize::try_from(slot).expect("entries in memory are fewer than addresses")
}
