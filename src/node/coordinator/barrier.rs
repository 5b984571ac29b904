//! Linearizable reads from any replica.
//!
//! A leader that confirmed its office by a round of heartbeats knows an index that every completed
//! write lies at or below (ReadIndex, Raft thesis section 6.4). Any replica that has applied this
//! index may answer. So a node asks the leader for the index only, and reads its own state: one
//! small question serves all reads that wait for the same leader, whatever they read.
//!
//! Questions to one node are never under way twice: what comes meanwhile waits and is asked
//! together. (An answer to a question asked *before* a read began would not do: the read could miss
//! a write completed in between.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use kotoba_db_cluster_proto::v1::{ConfirmRequest, ConfirmResponse};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    outcome::of_request,
    routing::{Route, Routing},
};
use crate::{
    error::{ClusterError, ErrorCode},
    node::{
        handle::NodeHandle,
        service::{channels::Channels, errors},
    },
    placement::PartitionId,
    raft::{GroupId, Index, PeerId},
};

/// How long one question to another node may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before asking again while nobody leads.
const PAUSE: Duration = Duration::from_millis(20);

/// Finds indexes from which on a state answers linearizably.
#[derive(Debug)]
pub(crate) struct Barriers {
    handle: NodeHandle,
    routing: Arc<Routing>,
    channels: Arc<Channels>,
    deadline: Duration,
    questions: Mutex<BTreeMap<PeerId, Questions>>,
}

/// Questions to one node.
#[derive(Debug, Default)]
struct Questions {
    under_way: bool,
    waiting: Vec<(GroupId, oneshot::Sender<Option<Index>>)>,
}

impl Barriers {
    pub(super) fn new(
        handle: NodeHandle,
        routing: Arc<Routing>,
        channels: Arc<Channels>,
        deadline: Duration,
    ) -> Self {
        Self { handle, routing, channels, deadline, questions: Mutex::default() }
    }

    /// Returns once this node's state of the partition answers linearizably for everything
    /// completed before the call. For partitions this node has a replica of.
    pub(crate) async fn fresh(self: &Arc<Self>, partition: PartitionId) -> Result<Index, ClusterError> {
        let until = Instant::now() + self.deadline;
        let index = self.confirm_until(partition.group(), until).await?;
        self.applied_until(partition, index, until).await
    }

    /// Returns once this node's state of the partition includes `index`.
    pub(crate) async fn applied(&self, partition: PartitionId, index: Index) -> Result<Index, ClusterError> {
        self.applied_until(partition, index, Instant::now() + self.deadline).await
    }

    /// An index of the group's log at or above every write completed before the call.
    pub(crate) async fn confirm(
        self: &Arc<Self>,
        group: GroupId,
        within: Duration,
    ) -> Result<Index, ClusterError> {
        self.confirm_until(group, Instant::now() + within).await
    }

    async fn applied_until(
        &self,
        partition: PartitionId,
        index: Index,
        until: Instant,
    ) -> Result<Index, ClusterError> {
        let group = partition.group();
        if let Some(hint) = self.handle.hint(group)
            && hint.applied() >= index
        {
            return Ok(hint.applied());
        }
        match timeout(left(until), self.handle.wait_applied(group, index)).await {
            Ok(answer) => answer.map_err(|error| of_request(error, partition)),
            Err(_) => {
                let what = format!(
                    "this node has not applied index {} of partition {} in time",
                    index.0, partition.0
                );
                Err(ClusterError::new(ErrorCode::Unavailable, what))
            }
        }
    }

    async fn confirm_until(self: &Arc<Self>, group: GroupId, until: Instant) -> Result<Index, ClusterError> {
        let mut leaders = self.handle.shared.changes.subscribe();
        for attempt in 0.. {
            if let Some(failure) = self.routing.dead_end(group) {
                return Err(failure);
            }
            leaders.mark_unchanged();
            let question = self.ask(group, attempt, &mut leaders);
            if let Ok(Some(index)) = timeout(left(until), question).await {
                return Ok(index);
            }
            if Instant::now() + PAUSE >= until {
                break;
            }
            tokio::select! {
                biased;
                _ = leaders.changed() => {}
                () = sleep(PAUSE) => {}
            }
        }
        Err(ClusterError::NoLeader)
    }

    /// Asks whoever is believed to lead; `None` where that node does not, or did not answer.
    async fn ask(
        self: &Arc<Self>,
        group: GroupId,
        attempt: u32,
        leaders: &mut watch::Receiver<u64>,
    ) -> Option<Index> {
        match self.routing.route(group, attempt) {
            Route::Here => self.handle.read(group).await.ok(),
            Route::Peer(peer) => {
                let answer = self.enqueue(peer, group);
                tokio::pin!(answer);
                loop {
                    tokio::select! {
                        biased;
                        index = &mut answer => return index.ok().flatten(),
                        // The node may be cut off or paused: do not wait for it once another leads.
                        changed = leaders.changed() => {
                            if changed.is_err() || self.routing.leader(group).is_some_and(|leader| leader != peer) {
                                return None;
                            }
                        }
                    }
                }
            }
            Route::Nobody => None,
        }
    }

    fn enqueue(self: &Arc<Self>, peer: PeerId, group: GroupId) -> oneshot::Receiver<Option<Index>> {
        let (reply, answer) = oneshot::channel();
        let mut all = self.questions();
        let questions = all.entry(peer).or_default();
        questions.waiting.push((group, reply));
        if !questions.under_way {
            questions.under_way = true;
            tokio::spawn(Arc::clone(self).ask_all(peer));
        }
        answer
    }

    /// Asks one node question after question while any wait.
    async fn ask_all(self: Arc<Self>, peer: PeerId) {
        loop {
            let waiting = {
                let mut all = self.questions();
                let Some(questions) = all.get_mut(&peer) else { return };
                if questions.waiting.is_empty() {
                    all.remove(&peer);
                    return;
                }
                std::mem::take(&mut questions.waiting)
            };
            let groups: BTreeSet<GroupId> = waiting.iter().map(|&(group, _)| group).collect();
            let indexes = self.ask_peer(peer, &groups).await.unwrap_or_default();
            for (group, reply) in waiting {
                // Who stopped waiting does not want it.
                let _ = reply.send(indexes.get(&group).copied());
            }
        }
    }

    async fn ask_peer(
        &self,
        peer: PeerId,
        groups: &BTreeSet<GroupId>,
    ) -> Result<BTreeMap<GroupId, Index>, ClusterError> {
        let address = self.routing.address(peer).ok_or(ClusterError::NoLeader)?;
        let request = ConfirmRequest { groups: groups.iter().map(|group| group.0).collect() };
        let mut client = self.channels.reads(&address)?;
        let answer = match timeout(QUESTION_TIMEOUT, client.confirm(request)).await {
            Ok(answer) => answer.map_err(|status| errors::of_status(&status))?,
            Err(_) => {
                let what = format!("the node at {address} did not answer within {QUESTION_TIMEOUT:?}");
                return Err(ClusterError::new(ErrorCode::Network, what));
            }
        };
        Ok(self.confirmed(peer, answer.into_inner()))
    }

    fn confirmed(&self, peer: PeerId, response: ConfirmResponse) -> BTreeMap<GroupId, Index> {
        let mut indexes = BTreeMap::new();
        for confirmation in response.confirmations {
            let group = GroupId(confirmation.group);
            if confirmation.index > 0 {
                indexes.insert(group, Index(confirmation.index));
            } else {
                self.routing.distrust(group, peer);
                self.routing.learn(group, &confirmation.leader_address);
            }
        }
        indexes
    }

    fn questions(&self) -> MutexGuard<'_, BTreeMap<PeerId, Questions>> {
        self.questions.lock().expect("no holder of this lock panics")
    }
}

/// How long it is until then.
fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
