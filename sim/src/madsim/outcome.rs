//! What a run of one seed came to, as the process that ran it tells.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Check, Violation};

/// What a run of one seed came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What does not hold, where something does not.
    pub failure: Option<Failure>,
    /// Simulated time, faults, healing and checks together.
    pub simulated_seconds: f64,
    /// Time of the processor.
    pub cpu_seconds: f64,
    /// Messages, answers and faults in the trace.
    pub events: u64,
    /// Hash of the trace: the same for the same seed, in every process.
    pub trace: String,
    /// How often each class of faults struck.
    pub faults: BTreeMap<String, u64>,
    /// How often each situation was met.
    pub situations: BTreeMap<String, u64>,
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which.
    pub check: String,
    /// What was seen.
    pub message: String,
}

impl From<Violation> for Failure {
    fn from(Violation { check, message }: Violation) -> Self {
        Self { check: check.to_string(), message }
    }
}

impl Failure {
    /// An assertion of the product, or of the simulation itself.
    #[must_use]
    pub fn assertion(message: impl Into<String>) -> Self {
        Violation::new(Check::Assertion, message).into()
    }
}

/// Situations that every few dozen runs meet: many seeds without one prove less than they seem to.
pub const EXPECTED: [&str; 13] = [
    "elections",
    "entries-committed",
    "flushes-failed",
    "histories-explained",
    "inputs-replayed",
    "logs-read-back",
    "member-changes",
    "operations-unanswered",
    "purges",
    "session-reads",
    "snapshots-installed",
    "torn-tails-cut",
    "truncations",
];

/// Those of them that were not met.
#[must_use]
pub fn missing(met: &BTreeMap<String, u64>) -> Vec<&'static str> {
    EXPECTED.into_iter().filter(|name| met.get(*name).is_none_or(|&count| count == 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_met_is_missing() {
        let mut met: BTreeMap<String, u64> = EXPECTED.iter().map(|name| ((*name).to_owned(), 1)).collect();
        assert_eq!(missing(&met), [""; 0]);
        met.insert("purges".into(), 0);
        met.remove("elections");
        assert_eq!(missing(&met), ["elections", "purges"]);
    }
}
