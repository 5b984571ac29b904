//! What must hold. One file for each property, with the paper's name for it.
//!
//! | check | says | looked at |
//! |---|---|---|
//! | [`election_safety`] | at most one leader per term (Raft paper, section 5.2) | every change of role |
//! | [`log_matching`] | logs that hold the same position are equal up to it (5.3) | every append |
//! | [`leader_completeness`] | a leader holds everything committed before its term (5.4) | every election |
//! | [`state_machine_safety`] | one log: what is committed, applied and held as state is the same everywhere (5.4.3) | every commit and apply |
//! | [`commit_durability`] | what is committed is on the disks of a quorum of the configuration in force | every commit of a leader |
//! | [`current_term_commit`] | a leader commits by counting replicas of an entry of its own term only (5.4.2) | every commit of a leader |
//! | [`later_terms`] | whoever hears of a later term adopts it (5.1) | every message |
//! | [`trial`] | who has a majority's word stands (thesis, 9.6) | every answer to a trial |
//! | [`promise`] | no vote, acknowledgement or term leaves before it is durable | every message |
//! | [`monotonicity`] | term, commit and applied only rise; purged ≤ applied ≤ committed ≤ last | every step |
//! | [`quorum_intersection`] | quorums of neighbouring configurations share a voter (thesis, 4.1) | every change of members |
//! | [`member_changes`] | a leader changes members one committed step at a time (thesis, 4.1) | every change of members |
//! | [`recovery`] | a restart finds what the disk was told, or says what is damaged | every restart |
//! | [`replay`] | a core given the same inputs does the same | every run of the whole program |
//! | [`read_index`] | a read covers what was committed before it was asked for (thesis, 6.4) | every read a replica serves |
//! | [`real_time`] | an operation takes effect between its call and its answer | every answer |
//! | [`sessions`] | what a client may rely on from one of its operations to the next (Terry et al., 1994) | every run |
//! | [`linearizability`] | a history has a sequential explanation (Herlihy and Wing, 1990) | a sample of the runs |
//! | [`exactly_once`] | a request takes effect once, and is answered the same each time | every commit and answer |

pub mod commit_durability;
pub mod current_term_commit;
pub mod election_safety;
pub mod exactly_once;
pub mod later_terms;
pub mod leader_completeness;
pub mod linearizability;
pub mod log_matching;
pub mod member_changes;
pub mod monotonicity;
pub mod promise;
pub mod quorum_intersection;
pub mod read_index;
pub mod real_time;
pub mod recovery;
pub mod replay;
pub mod sessions;
pub mod state_machine_safety;
pub mod trial;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A property of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// At most one leader per term.
    ElectionSafety,
    /// Logs that hold the same position are equal up to it.
    LogMatching,
    /// A leader holds everything committed before its term.
    LeaderCompleteness,
    /// One log, one state.
    StateMachineSafety,
    /// What is committed is on the disks of a quorum.
    CommitDurability,
    /// A leader counts replicas of entries of its own term only.
    CurrentTermCommit,
    /// A later term is adopted when it is heard of.
    LaterTerms,
    /// Who has a majority's word stands.
    Trial,
    /// Nothing is promised before it is durable.
    Promise,
    /// What must only rise, rises.
    Monotonicity,
    /// Quorums of neighbouring configurations share a voter.
    QuorumIntersection,
    /// Members change one committed step at a time.
    MemberChanges,
    /// A restart finds what the disk was told.
    Recovery,
    /// A core given the same inputs does the same.
    Replay,
    /// A read covers what was committed before it was asked for.
    ReadIndex,
    /// An operation takes effect between its call and its answer.
    RealTime,
    /// A request takes effect once.
    ExactlyOnce,
    /// The history of the clients has a sequential explanation.
    Linearizability,
    /// A client reads its writes, and neither its reads nor its writes go back.
    Sessions,
    /// A client reads its own writes, and does not go back.
    SessionGuarantees,
    /// What the state machine says of its own state.
    Invariant,
    /// With a quorum healed, the group elects, commits and answers.
    Liveness,
    /// With everything healed, all members hold the same.
    Convergence,
    /// Nothing grows beyond its limit.
    Bounds,
    /// An assertion inside the engine, or a contract between its parts.
    Assertion,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ElectionSafety => "election-safety",
            Self::LogMatching => "log-matching",
            Self::LeaderCompleteness => "leader-completeness",
            Self::StateMachineSafety => "state-machine-safety",
            Self::CommitDurability => "commit-durability",
            Self::CurrentTermCommit => "current-term-commit",
            Self::LaterTerms => "later-terms",
            Self::Trial => "trial",
            Self::Promise => "promise",
            Self::Monotonicity => "monotonicity",
            Self::QuorumIntersection => "quorum-intersection",
            Self::MemberChanges => "member-changes",
            Self::Recovery => "recovery",
            Self::Replay => "replay",
            Self::ReadIndex => "read-index",
            Self::RealTime => "real-time",
            Self::ExactlyOnce => "exactly-once",
            Self::Linearizability => "linearizability",
            Self::Sessions => "sessions",
            Self::SessionGuarantees => "session-guarantees",
            Self::Invariant => "invariant",
            Self::Liveness => "liveness",
            Self::Convergence => "convergence",
            Self::Bounds => "bounds",
            Self::Assertion => "assertion",
        })
    }
}

/// A property that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// What was seen.
    pub message: String,
}

impl Violation {
    /// A violation of `check`.
    pub fn new(check: Check, message: impl Into<String>) -> Self {
        Self { check, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)
    }
}

impl std::error::Error for Violation {}

/// Whether a check is content.
pub type Verdict = Result<(), Violation>;
