//! What a replica is, and what it knows only while it is that.

use alloc::{collections::VecDeque, vec::Vec};

use super::{
    contract::{RoleKind, WriteFault},
    progress::{Progress, Window},
    snapshot::SnapshotDescriptor,
    types::{Index, Instant, ReadId, ReplicaId, Round},
};

/// A replica's role with its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Follower(Follower),
    PreCandidate(Candidate),
    Candidate(Candidate),
    Leader(Leader),
    /// A write failed: nothing is known of the disk from it on.
    Faulted(WriteFault),
}

impl Role {
    pub(super) fn kind(&self) -> RoleKind {
        match self {
            Self::Follower(_) => RoleKind::Follower,
            Self::PreCandidate(_) => RoleKind::PreCandidate,
            Self::Candidate(_) => RoleKind::Candidate,
            Self::Leader(_) => RoleKind::Leader,
            Self::Faulted(_) => RoleKind::Faulted,
        }
    }
}

/// Follows a leader, or waits for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Follower {
    pub(super) leader: Option<Following>,
    /// When to stand for election, unless a leader is heard of before.
    pub(super) deadline: Instant,
}

/// The leader that is followed, in the current term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Following {
    pub(super) leader: ReplicaId,
    /// When it was last heard of.
    pub(super) heard: Instant,
    /// Its node's connection was closed since.
    pub(super) unreachable: bool,
    /// Every entry up to here is known to equal its log; not necessarily durable.
    pub(super) verified: Option<Index>,
    /// The last index acknowledged to it.
    pub(super) acknowledged: Index,
    /// Its latest round.
    pub(super) round: Round,
    /// A snapshot it is sending.
    pub(super) incoming: Option<Incoming>,
}

/// A snapshot that is arriving.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Incoming {
    pub(super) snapshot: SnapshotDescriptor,
    /// Every byte before this one was handed over to be stored.
    pub(super) next_offset: u64,
    /// All of it is stored and being installed.
    pub(super) installing: bool,
}

/// Stands for election, or asks whether it would win one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidate {
    /// One answer a voter: repeated messages count once.
    pub(super) votes: Vec<(ReplicaId, bool)>,
    /// When to give up.
    pub(super) deadline: Instant,
}

impl Candidate {
    pub(super) fn vote_of(&self, voter: ReplicaId) -> Option<bool> {
        self.votes.iter().find(|(id, _)| *id == voter).map(|&(_, granted)| granted)
    }

    /// The first answer of a voter counts.
    pub(super) fn record(&mut self, voter: ReplicaId, granted: bool) {
        if self.vote_of(voter).is_none() || mutant!(B04) {
            self.votes.push((voter, granted));
        }
    }
}

/// Leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leader {
    /// The first entry of this leadership: once it is committed, so is all before it.
    pub(super) first_of_term: Index,
    /// Every other member, in ascending order.
    pub(super) followers: Vec<(ReplicaId, Progress)>,
    /// Rounds started.
    pub(super) round: Round,
    pub(super) next_beat: Instant,
    /// When to check that a majority is still heard of.
    pub(super) quorum_check: Instant,
    pub(super) reads: Reads,
    /// Proposed and not committed.
    pub(super) uncommitted: Window,
    pub(super) snapshots: Snapshots,
}

impl Leader {
    pub(super) fn progress(&self, replica: ReplicaId) -> Option<&Progress> {
        let at = self.followers.binary_search_by_key(&replica, |(id, _)| *id).ok()?;
        Some(&self.followers[at].1)
    }

    pub(super) fn progress_mut(&mut self, replica: ReplicaId) -> Option<&mut Progress> {
        let at = self.followers.binary_search_by_key(&replica, |(id, _)| *id).ok()?;
        Some(&mut self.followers[at].1)
    }
}

/// Reads that wait to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Reads {
    /// Not part of a round yet.
    pub(super) queued: Vec<ReadId>,
    /// Of a round that is under way: its number, the index they may be served at, the reads.
    pub(super) confirming: VecDeque<(Round, Index, Vec<ReadId>)>,
    pub(super) count: usize,
}

/// Snapshots a leader can send.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Snapshots {
    pub(super) building: bool,
    pub(super) latest: Option<SnapshotDescriptor>,
}
