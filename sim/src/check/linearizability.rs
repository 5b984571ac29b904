//! Whether a history has a sequential explanation: an order of its operations in which each takes
//! effect at one moment between its call and its answer, and every answer is the one that the
//! sequential specification gives (Herlihy and Wing, "Linearizability", 1990).
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with the
//! memory of Lowe ("Testing for linearizability", 2017): it places one operation after the other,
//! of those that were called before the first answer not yet accounted for, steps back where none
//! fits, and never looks twice at the same set of placed operations with the same state. A history
//! is split by group and key first, because linearizability is a local property.
//!
//! It uses nothing but what clients saw. The places in the log that answers name decide in which
//! order alternatives are tried, never which are: the order of the log itself is looked at before
//! any search, and explains the history of a correct run; a wrong one is refused only when every
//! order was tried.
//!
//! The problem is NP-complete (Gibbons and Korach, 1997), so a search may take [too
//! long](Judgement::Unknown); that is said, and never taken for an explanation.

mod part;
mod search;
#[cfg(test)]
mod tests;
mod witness;

pub use witness::{Unplaced, Witness};

use std::fmt::{self, Debug};

use kotoba_db_cluster::raft::{GroupId, Index};

use self::{
    part::parts,
    search::{Searched, search},
};
use crate::{history::History, machine::Machine};

/// A sequential specification; its default is the first state. Every [`Machine`] is one.
pub trait Model: Clone + Default {
    /// What is asked for.
    type Operation: Debug;
    /// What is answered.
    type Answer: Debug + PartialEq;

    /// Carries out an operation on its own.
    fn step(&mut self, operation: &Self::Operation) -> Self::Answer;

    /// Whether the operation changes no state there is.
    fn is_read(operation: &Self::Operation) -> bool;

    /// The part of the state the operation is about.
    fn key(operation: &Self::Operation) -> u64;

    /// A number that differs where two states differ. Two states that share one could hide an
    /// explanation: 64 well mixed bits make that less likely than a fault of the hardware.
    fn digest(&self) -> u64;
}

impl<M: Machine> Model for M {
    type Operation = M::Operation;
    type Answer = M::Answer;

    fn step(&mut self, operation: &M::Operation) -> M::Answer {
        if M::is_read(operation) { self.read(operation) } else { self.apply(operation) }
    }

    fn is_read(operation: &M::Operation) -> bool {
        M::is_read(operation)
    }

    fn key(operation: &M::Operation) -> u64 {
        M::key(operation)
    }

    fn digest(&self) -> u64 {
        Machine::digest(self)
    }
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// There is an explanation.
    Linearizable,
    /// There is none.
    NotLinearizable(Box<Witness>),
    /// The steps were used up before either was found.
    Unknown {
        /// The group of the part that took too long.
        group: GroupId,
        /// Its key.
        key: u64,
        /// The steps that were not enough.
        steps: u64,
    },
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::NotLinearizable(witness) => fmt::Display::fmt(witness, f),
            Self::Unknown { group, key, steps } => {
                write!(f, "unknown: {steps} steps were not enough for key {key} of group {group}")
            }
        }
    }
}

/// Steps of the models that a part of a history may take: a few hundred times what a part of a
/// thousand operations needs. A step keeps some hundred bytes until the part is done.
pub const STEPS: u64 = 300_000;

/// Looks for an explanation, with at most `steps` steps of the model for each key. A part without
/// an explanation outweighs one that took too long.
pub fn check<M: Model>(history: &History<M::Operation, M::Answer>, steps: u64) -> Judgement {
    check_guided::<M>(history, steps, &|_| None)
}

/// The same, faster where many operations were not answered: `effect` tells where the log holds
/// the operation at a place in the history, if it does. It decides what is tried first and nothing
/// else.
pub fn check_guided<M: Model>(
    history: &History<M::Operation, M::Answer>,
    steps: u64,
    effect: &dyn Fn(usize) -> Option<Index>,
) -> Judgement {
    let mut judgement = Judgement::Linearizable;
    for part in parts::<M>(history, effect) {
        if part.is_explained_by(&part.order_of_the_log()) {
            continue;
        }
        match search(&part.calls, steps) {
            Searched::Explained(order) => {
                assert!(part.is_explained_by(&order), "the order that was found explains the answers");
            }
            Searched::Stuck(stuck) => {
                let witness = Witness::find::<M>(history, &part, stuck, steps);
                return Judgement::NotLinearizable(Box::new(witness));
            }
            Searched::OutOfSteps => {
                judgement = Judgement::Unknown { group: part.group, key: part.key, steps };
            }
        }
    }
    judgement
}
