//! The contract between a replica and whoever embeds it.
//!
//! > **After every `handle(now, input)`, drain `poll_output()` to `None` before the next `handle`;
//! > carry out each write durably before you feed back its `Persisted`.**
//!
//! There is no other ordering rule. Messages that are emitted may be sent at once, in any order,
//! or be lost; writes must be carried out in the order they are emitted.

use super::{
    configuration::{Configuration, ConfigurationChange},
    message::{EntryRange, Message},
    snapshot::{SnapshotDescriptor, SnapshotMeta},
    types::{HardState, Index, PayloadId, Position, ReadId, ReplicaId, SnapshotId, Term, WriteToken},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passed. Due whenever [`Replica::deadline`](super::Replica::deadline) has been reached.
    Tick,
    /// A message arrived. Anything may be in it: what is not well formed is counted and dropped.
    Message {
        /// The message.
        message: Message,
        /// Where its payloads are kept, for a message that has entries or a chunk.
        payload: Option<PayloadId>,
    },
    /// Append these entries, if this replica leads. Answered by [`Output::Proposed`] or
    /// [`Output::ProposalRefused`] in the same drain.
    Propose(Proposal),
    /// Change the members by one step, if this replica leads. Answered like a proposal.
    Reconfigure {
        /// The step.
        change: ConfigurationChange,
        /// The embedder's name for the request.
        payload: PayloadId,
    },
    /// Ask for an index that a linearizable read may be served at. Answered by
    /// [`Output::ReadReady`] or [`Output::ReadRefused`], at once or later.
    Read(ReadId),
    /// A write is durable, or failed for ever. Never reported for a write that may still happen.
    Persisted {
        /// The write. An unknown or repeated token changes nothing.
        token: WriteToken,
        /// Whether it is on disk.
        result: Result<(), WriteFault>,
    },
    /// The state machine has applied every entry up to this one.
    Applied(Index),
    /// The state machine's effect of every entry up to this one is durable: the log may forget
    /// them. Answered by [`Output::Purge`] where anything can go.
    Compact(Index),
    /// A snapshot that [`Output::BuildSnapshot`] asked for is ready, or could not be built.
    SnapshotBuilt(Option<BuiltSnapshot>),
    /// A chunk that [`Output::StoreChunk`] named is stored; stored chunks need not be durable
    /// until the write that installs the snapshot is.
    ChunkStored {
        /// The snapshot's place in the log.
        position: Position,
        /// Every byte before this one is stored.
        next_offset: u64,
    },
    /// A chunk or a whole snapshot that was received turned out to be damaged or could not be stored.
    SnapshotDamaged(Position),
    /// Entries of a message could not be gathered: the message was not sent.
    GatherFailed {
        /// The replica the message was for.
        to: ReplicaId,
        /// The first entry that is missing.
        index: Index,
    },
    /// A connection to this replica's node was closed: a hint that it may be dead.
    Unreachable(ReplicaId),
    /// Start an election without waiting, if nobody leads.
    Campaign,
    /// The disk has no room (`true`), or has room again. While it has none the replica does not
    /// lead; writes already asked for stay outstanding until they are done.
    DiskFull(bool),
}

/// Entries to append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// How many; at least one.
    pub count: u32,
    /// Payload bytes of all of them.
    pub bytes: u64,
    /// Where the payloads are kept.
    pub payload: PayloadId,
}

/// A snapshot the embedder built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BuiltSnapshot {
    /// The embedder's name for it.
    pub id: SnapshotId,
    /// The last entry it holds the effect of.
    pub index: Index,
    /// Its length in bytes; never zero.
    pub bytes: u64,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Make this durable, after every write emitted before it, then report its token.
    Write(WritePlan),
    /// Send this message; it may be lost.
    Send(Message),
    /// Every entry up to this one is committed, and durable here: apply those not yet applied, in
    /// order. Not emitted between a write that installs a snapshot and its `Persisted`.
    Commit(Index),
    /// The proposal was appended; it is committed once `Commit` reaches `last` while the entry
    /// there still has this term.
    Proposed {
        /// The proposal.
        payload: PayloadId,
        /// Index of its first entry.
        first: Index,
        /// Position of its last entry.
        last: Position,
    },
    /// The proposal was not appended: nothing changed, and proposing again is safe.
    ProposalRefused {
        /// The proposal.
        payload: PayloadId,
        /// Why.
        reason: Refusal,
    },
    /// The read may be served from any state that includes this index.
    ReadReady {
        /// The read.
        read: ReadId,
        /// The index the state must include.
        index: Index,
    },
    /// The read cannot be confirmed here: ask again, elsewhere where a leader is named.
    ReadRefused {
        /// The read.
        read: ReadId,
        /// Why.
        reason: Refusal,
    },
    /// The role, the term or the known leader changed.
    RoleChanged(RoleReport),
    /// The members changed: by an appended entry, a truncated one, or a snapshot.
    Members(Configuration),
    /// The log up to this position is no longer needed.
    Purge(SnapshotMeta),
    /// Build a snapshot of the state machine at any index from this one on.
    BuildSnapshot {
        /// The first index that is of use.
        at_least: Index,
    },
    /// Store a chunk that arrived. A chunk at offset 0 begins its snapshot anew.
    StoreChunk {
        /// The snapshot it is part of.
        snapshot: SnapshotDescriptor,
        /// Where it begins.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Where its bytes are kept.
        payload: PayloadId,
    },
    /// The replica stopped for good: a write failed. It can only be recovered from its disk.
    Faulted(WriteFault),
}

/// One atomic unit of durable change, totally ordered among the writes of its replica.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WritePlan {
    /// To be reported when all of it is durable.
    pub token: WriteToken,
    /// A new term or vote.
    pub hard_state: Option<HardState>,
    /// A received snapshot takes the place of the log up to its position. Entries behind it stay
    /// only where `truncate_from` leaves them.
    pub install: Option<SnapshotMeta>,
    /// Entries from this index on are void, before `append` adds others.
    pub truncate_from: Option<Index>,
    /// Entries to add at the end.
    pub append: Option<AppendPlan>,
}

/// Entries to add to the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendPlan {
    /// Their metadata.
    pub range: EntryRange,
    /// Where their bytes come from.
    pub source: EntrySource,
}

/// Where the bytes of appended entries come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EntrySource {
    /// Payloads the embedder holds. A received message may begin before the range: entries below
    /// `range.first` are already in the log and skipped.
    Payload(PayloadId),
    /// One entry without payload, which a new leader commits to learn what is committed.
    Empty,
    /// One entry that holds this configuration, encoded by [`Configuration::encode`].
    Configuration(Configuration),
}

/// Who this replica is in its group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleReport {
    /// Its role.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// The leader it knows of in that term.
    pub leader: Option<ReplicaId>,
}

/// A role by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Follows a leader or waits for one. Learners are followers that are not voters.
    Follower,
    /// Asks whether it would win an election.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped after a failed write.
    Faulted,
}

/// Why a request was refused. State is unchanged in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another replica leads, or none is known to.
    NotLeader(Option<ReplicaId>),
    /// A bound was reached; try again later.
    Busy(BusyReason),
    /// This leadership ended before the request was decided. A proposal may still be committed.
    LeadershipLost,
    /// The proposal has no entries or is larger than one message may be.
    Malformed,
    /// The change of members is not possible as asked.
    Reconfiguration(ReconfigurationRefusal),
    /// The replica is faulted.
    Faulted,
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BusyReason {
    /// Too many bytes are appended and not yet committed.
    UncommittedBytes,
    /// Too many writes are not yet durable.
    WritesOutstanding,
    /// Too many reads wait for a round.
    ReadsWaiting,
    /// The disk is full.
    DiskFull,
}

/// Why members cannot be changed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconfigurationRefusal {
    /// An earlier change is not committed yet.
    InProgress,
    /// The leader has not committed an entry of its own term yet (Ongaro's correction of 2015).
    NoCommitInTerm,
    /// The learner has not caught up.
    NotCaughtUp,
    /// The change would leave the group without voters, add a member twice, or remove none.
    NoEffect,
    /// A leader does not remove itself until leadership can be handed over.
    RemovesLeader,
}

/// How a write failed. Nothing may be assumed about what is on disk from the failed write on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteFault {
    /// The disk reported an error for a write.
    WriteFailed,
    /// The disk reported an error for a flush. Retrying a flush proves nothing, so nobody does.
    SyncFailed,
    /// The log is known to be damaged.
    Damaged,
}
