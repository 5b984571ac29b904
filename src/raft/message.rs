//! What replicas of one group say to each other.
//!
//! Messages carry log metadata only. For an [`Append`] that leaves, the embedder gathers the
//! payloads of its range from the log; for one that arrives, it keeps them under a
//! [`PayloadId`](super::PayloadId) until the core asks for them to be written or forgets them.

use alloc::vec::Vec;
use core::fmt;

use super::{
    configuration::ConfigurationEntry,
    log::TermRuns,
    snapshot::SnapshotDescriptor,
    types::{Index, Position, ReplicaId, Round, Term, WallInterval},
};

/// One message between two replicas of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who says it.
    pub from: ReplicaId,
    /// To whom.
    pub to: ReplicaId,
    /// The sender's current term.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// A candidate asks for a vote, or whether it would get one.
    VoteAsk(VoteAsk),
    /// The answer to a [`VoteAsk`].
    VoteReply(VoteReply),
    /// A leader extends a follower's log.
    Append(Append),
    /// The answer to an [`Append`], given once what it accepts is durable.
    AppendReply(AppendReply),
    /// A leader is alive and asks whether it still leads.
    Beat(Beat),
    /// The answer to a [`Beat`].
    BeatReply(BeatReply),
    /// A part of a snapshot.
    SnapshotChunk(SnapshotChunk),
    /// How much of a snapshot has arrived.
    SnapshotReply(SnapshotReply),
}

/// Whether a ballot counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ballot {
    /// A trial (Raft thesis, section 9.6): changes nobody's term or vote.
    Pre,
    /// The election itself.
    Real,
}

/// A candidate asks for a vote (Raft paper, figure 2: RequestVote).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteAsk {
    /// Whether it counts.
    pub ballot: Ballot,
    /// The term the candidate would lead: its own for a real ballot, one more for a trial.
    pub campaign_term: Term,
    /// The last entry of the candidate's log.
    pub last: Position,
}

/// The answer to a [`VoteAsk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteReply {
    /// The ballot answered.
    pub ballot: Ballot,
    /// The campaign answered: a reply to an earlier one counts for nothing.
    pub campaign_term: Term,
    /// Whether the vote is given.
    pub granted: bool,
}

/// A leader extends a follower's log (Raft paper, figure 2: AppendEntries).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Append {
    /// The entry just before the first one sent.
    pub prev: Position,
    /// The entries sent; none where the message only probes.
    pub entries: EntryRange,
    /// Configurations among the entries, in order. Left empty by the core when it sends: the
    /// embedder decodes them from the payloads when it receives.
    pub configurations: Vec<ConfigurationEntry>,
    /// The leader's commit index.
    pub commit: Index,
    /// The leader's read round at the time of sending.
    pub round: Round,
    /// The leader's wall clock when it sent, for log leases.
    pub clock: Option<WallInterval>,
}

/// A range of entries by their metadata. Empty where `runs` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct EntryRange {
    /// Index of the first entry.
    pub first: Index,
    /// Payload bytes of all of them, at most: the core counts whole runs.
    pub bytes: u64,
    /// The terms of the entries; the last run ends at the last entry.
    pub runs: TermRuns,
}

impl EntryRange {
    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Position of the last entry.
    #[must_use]
    pub fn last(&self) -> Option<Position> {
        self.runs.last()
    }

    /// How many entries.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.last().map_or(0, |last| last.index.0 + 1 - self.first.0)
    }
}

/// The answer to an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendReply {
    /// What became of it.
    pub outcome: AppendOutcome,
    /// The round of the message answered.
    pub round: Round,
}

/// What became of an [`Append`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// Every entry up to this index equals the leader's and is durable at the follower.
    Accepted(Index),
    /// The follower does not hold the entry before the first one sent.
    Rejected {
        /// The index that did not match: tells which message is answered.
        prev: Index,
        /// The follower's last entry that may match: not above `prev`, of no later term.
        hint: Position,
    },
}

impl fmt::Debug for AppendOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted(index) => write!(f, "accepted {index}"),
            Self::Rejected { prev, hint } => write!(f, "rejected {prev} hint {hint}"),
        }
    }
}

/// A leader is alive. Coalesced per peer by `multiraft`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    /// The leader's commit index.
    pub commit: Index,
    /// The read round this beat confirms.
    pub round: Round,
    /// The last index sent to this follower: one that holds less has lost a message.
    pub sent: Index,
}

/// The answer to a [`Beat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BeatReply {
    /// The round confirmed.
    pub round: Round,
    /// The last index known to equal the leader's, durable or not; none while nothing is verified.
    pub verified: Option<Index>,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotChunk {
    /// The snapshot it is part of.
    pub snapshot: SnapshotDescriptor,
    /// Where the part begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// How much of a snapshot has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotReply {
    /// The snapshot's place in the log.
    pub position: Position,
    /// Every byte before this one is stored.
    pub next_offset: u64,
}
