//! How the rest of a node talks to its driver loop.
//!
//! Services, streams and the API hold a [`NodeHandle`]. Everything that decides goes through the
//! driver as a [`Command`]; everything that is only a hint (who leads, what is applied) is read
//! from [`Shared`] without asking.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::{
    peers::InboundFrame,
    status::{GroupFault, GroupStatus},
    wire::GroupMembers,
};
use crate::{
    api::ClusterEvent,
    graph::Outcome,
    placement::{MetaOutcome, MetaState},
    raft::{Body, GroupId, Index, Message, PeerId, Refusal, RoleKind, Term},
    storage::wal::WalMetrics,
};

pub(crate) use crate::limits::COMMANDS_WAITING_MAX;

/// A request to the driver loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Append an entry to a group's log; answered when it is applied here, or cannot be.
    Propose { group: GroupId, entry: Bytes, responder: Responder },
    /// Confirm leadership; answered with an index once the local state includes it.
    Read { group: GroupId, reply: oneshot::Sender<Result<Index, RequestError>> },
    /// Answered once the local state of a group includes `index`.
    WaitApplied { group: GroupId, index: Index, reply: oneshot::Sender<Result<Index, RequestError>> },
    /// Frames from a peer's stream.
    Frame { peer: PeerId, frame: InboundFrame },
    /// Leaders of groups tell their members: for the meta group, where this node leads it.
    Members(Vec<GroupMembers>),
    /// A consensus message of a unary call; answered with the core's own answer to its sender.
    Consensus { group: GroupId, message: Message, payloads: Vec<Bytes>, reply: oneshot::Sender<Message> },
    /// The stream to a peer was closed by the other side.
    PeerClosed(PeerId),
    /// What every group of this node is doing.
    Status(oneshot::Sender<Vec<GroupStatus>>),
    /// Flush, persist and stop.
    Stop(oneshot::Sender<()>),
}

/// Where the answer to a proposal goes: many proposals share one channel.
#[derive(Clone, Debug)]
pub(crate) struct Responder {
    /// The asker's own number for the proposal.
    pub(crate) id: u64,
    /// Receives `(id, answer)`.
    pub(crate) to: mpsc::UnboundedSender<(u64, ProposalResult)>,
}

impl Responder {
    /// Sends the answer. An asker that is gone does not want it.
    pub(crate) fn answer(self, result: ProposalResult) {
        let _ = self.to.send((self.id, result));
    }
}

/// What became of a proposal.
pub(crate) type ProposalResult = Result<Applied, RequestError>;

/// A proposal that was committed and applied.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// Where its entry stands.
    pub(crate) index: Index,
    /// What the state machine said. Meta commands answer with their own encoding.
    pub(crate) outcome: AppliedOutcome,
}

/// What the state machine said.
#[derive(Clone, Debug)]
pub(crate) enum AppliedOutcome {
    /// The graph's answer.
    Graph(Outcome),
    /// The meta group's answer.
    Meta(MetaOutcome),
    /// A marker: members keep their state at its index for a comparison.
    Verify,
}

/// Why the driver did not do what was asked.
#[derive(Clone, Debug)]
pub(crate) enum RequestError {
    /// The core refused.
    Refused(Refusal),
    /// Appended here, then leadership was lost before the commit: the outcome is unknown. The
    /// same session id may be proposed again, to the new leader.
    OutcomeUnknown,
    /// This node has no replica of the group.
    NotHere,
    /// The group is quarantined, damaged or faulted: the reason for people.
    Faulted(GroupFault),
    /// The node is stopping.
    Stopping,
}

/// What a node knows and anyone may look at: hints, never decisions.
pub(crate) struct Shared {
    /// The meta group's state as applied here.
    pub(crate) meta: RwLock<Arc<MetaState>>,
    /// Per group: who leads, as far as this node knows.
    pub(crate) hints: RwLock<BTreeMap<GroupId, Arc<GroupHint>>>,
    /// Figures of the log's writer.
    pub(crate) log: Arc<WalMetrics>,
    /// What subscribers are told.
    pub(crate) events: broadcast::Sender<ClusterEvent>,
    /// Changes whenever any group's role or leader does.
    pub(crate) changes: watch::Sender<u64>,
    /// There is no room on the disk.
    pub(crate) disk_full: AtomicBool,
    /// This node's number.
    pub(crate) peer: PeerId,
}

/// Hints about one group, updated by the driver.
#[derive(Debug, Default)]
pub(crate) struct GroupHint {
    /// The leader's peer number; 0 where none is known.
    leader: AtomicU64,
    term: AtomicU64,
    applied: AtomicU64,
    role: AtomicU64,
    fault: OnceLock<GroupFault>,
}

impl GroupHint {
    pub(crate) fn leader(&self) -> Option<PeerId> {
        match self.leader.load(Ordering::Relaxed) {
            0 => None,
            peer => Some(PeerId(peer)),
        }
    }

    pub(crate) fn term(&self) -> Term {
        Term(self.term.load(Ordering::Relaxed))
    }

    pub(crate) fn applied(&self) -> Index {
        Index(self.applied.load(Ordering::Acquire))
    }

    pub(crate) fn leads(&self) -> bool {
        self.role.load(Ordering::Relaxed) == 1
    }

    pub(crate) fn set_role(&self, role: RoleKind, term: Term, leader: Option<PeerId>) {
        self.leader.store(leader.map_or(0, |peer| peer.0), Ordering::Relaxed);
        self.term.store(term.0, Ordering::Relaxed);
        self.role.store(u64::from(role == RoleKind::Leader), Ordering::Relaxed);
    }

    /// Why this node's replica is out of service, where it is.
    pub(crate) fn fault(&self) -> Option<&GroupFault> {
        self.fault.get()
    }

    /// The replica is out of service from now on.
    pub(crate) fn set_fault(&self, fault: GroupFault) {
        // What failed first is what is told.
        let _ = self.fault.set(fault);
        self.leader.store(0, Ordering::Relaxed);
        self.role.store(0, Ordering::Relaxed);
    }

    pub(crate) fn set_applied(&self, index: Index) {
        self.applied.store(index.0, Ordering::Release);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A cheap reference to a running node's driver.
#[derive(Clone, Debug)]
pub(crate) struct NodeHandle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) shared: Arc<Shared>,
}

impl NodeHandle {
    /// Confirms leadership of a group; the local state includes the returned index.
    pub(crate) async fn read(&self, group: GroupId) -> Result<Index, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Read { group, reply }).await?;
        answer.await.map_err(|_| RequestError::Stopping)?
    }

    /// Waits until the local state of a group includes `index`.
    pub(crate) async fn wait_applied(&self, group: GroupId, index: Index) -> Result<Index, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::WaitApplied { group, index, reply }).await?;
        answer.await.map_err(|_| RequestError::Stopping)?
    }

    /// Appends one entry and waits until it is applied here.
    pub(crate) async fn propose(&self, group: GroupId, entry: Bytes) -> ProposalResult {
        let (to, mut answers) = mpsc::unbounded_channel();
        self.send(Command::Propose { group, entry, responder: Responder { id: 0, to } }).await?;
        match answers.recv().await {
            Some((_, result)) => result,
            None => Err(RequestError::Stopping),
        }
    }

    /// What every group of this node is doing.
    pub(crate) async fn status(&self) -> Result<Vec<GroupStatus>, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Status(reply)).await?;
        answer.await.map_err(|_| RequestError::Stopping)
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), RequestError> {
        self.commands.send(command).await.map_err(|_| RequestError::Stopping)
    }

    /// The hint about a group this node has.
    pub(crate) fn hint(&self, group: GroupId) -> Option<Arc<GroupHint>> {
        self.shared.hints.read().expect("no holder of this lock panics").get(&group).cloned()
    }

    /// The meta group's state as applied here.
    pub(crate) fn meta(&self) -> Arc<MetaState> {
        Arc::clone(&self.shared.meta.read().expect("no holder of this lock panics"))
    }
}

/// Whether a message answers a unary call of the given kind.
pub(crate) fn answers(body: &Body) -> bool {
    matches!(body, Body::VoteReply(_) | Body::AppendReply(_) | Body::BeatReply(_))
}
