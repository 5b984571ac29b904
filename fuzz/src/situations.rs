//! What a run reached.

use std::collections::BTreeSet;

/// The named situations that an input reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situations(BTreeSet<&'static str>);

impl Situations {
    /// Notes a situation.
    pub fn reach(&mut self, situation: &'static str) {
        self.0.insert(situation);
    }

    /// Notes a situation where `reached` says so.
    pub fn reach_if(&mut self, reached: bool, situation: &'static str) {
        if reached {
            self.reach(situation);
        }
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// Whether this one was reached.
    #[must_use]
    pub fn contains(&self, situation: &str) -> bool {
        self.0.contains(situation)
    }

    /// All of them, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().copied()
    }
}
