//! What the core knows of the log: which term each entry has, and how far it is durable.
//!
//! Entries themselves live with the embedder. A log of a million entries is a handful of
//! [`Run`]s here, because neighbouring entries of one term share a run until it holds
//! [`RUN_BYTES_MAX`] payload bytes; so appending a batch costs the same as appending one entry.

use alloc::collections::VecDeque;
use core::fmt;

use super::types::{Index, Position, Term};
use crate::limits::{RUN_BYTES_MAX, TERM_RUNS_PER_MESSAGE_MAX};

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
