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
