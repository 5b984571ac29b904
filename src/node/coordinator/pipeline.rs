//! Many writes under way at once, for one client stream (or one call).
//!
//! A pipeline owns its writes in one task: no task, lock or channel of its own for each of them.
//! A write that this node can propose goes straight to the driver, one that another node leads
//! goes into the next frame of that node's stream; answers come back over two shared channels.
//! Only what has to ask first (is the edge's target alive? where is this edge?) leaves the task,
//! and that in batches.
//!
//! A write whose attempt failed is tried again, always under the same session id, until its
//! deadline; so at most one attempt takes effect and the answer is the first outcome. Past the
//! deadline the answer tells whether an attempt *may* still take effect.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1::{ClientRequest, ClientResponse};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    Coordinator, EdgePlace, Route,
    outcome::{self, Attempt},
    prepare::{Need, Prepared, Session, Write},
};
use crate::{
    error::{ClusterError, Effect},
    graph::Cid,
    node::{
        handle::{Command, ProposalResult, Responder},
        peers::{ForwardResponder, ForwardResult},
        service::errors,
    },
    placement::PartitionId,
    raft::PeerId,
};

/// How finely retries and deadlines are kept.
const TICK: Duration = Duration::from_millis(10);
/// The pause before an attempt when nobody is known to lead; elections take several of them.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// Generations of edge targets by the writes that asked, or those writes and why there are none.
type TargetAnswer = Result<Vec<(u64, u64)>, (Vec<u64>, ClusterError)>;

/// A channel that belongs to this pipeline alone.
type Channel<T> = (mpsc::UnboundedSender<T>, mpsc::UnboundedReceiver<T>);

/// Something a write had to know first.
pub(super) enum Event {
    /// Generations of edge targets in one partition; 0 for a node that is not alive.
    Targets(PartitionId, TargetAnswer),
    /// Where an edge is and the node it enters; `None` where no partition has it.
    Edge(u64, Result<Option<EdgePlace>, ClusterError>),
    /// What has the CID of a node that was not found, where something has.
    Kind(u64, Result<Option<(PartitionId, ClusterError)>, ClusterError>),
}

/// Writes under way and their answers.
pub(crate) struct Pipeline {
    coordinator: Arc<Coordinator>,
    writes: BTreeMap<u64, InFlight>,
    next_token: u64,
    answers: VecDeque<ClientResponse>,
    retries: BTreeSet<(Instant, u64)>,
    targets: TargetChecks,
    applied: Channel<(u64, ProposalResult)>,
    forwarded: Channel<(u64, ForwardResult)>,
    events: Channel<Event>,
    leaders: watch::Receiver<u64>,
    tick: Interval,
}

/// One write under way.
struct InFlight {
    write: Write,
    /// Where it goes, once that is known.
    partition: Option<PartitionId>,
    /// The entry to propose, once everything about it is known.
    command: Option<Bytes>,
    deadline: Instant,
    attempts: u32,
    /// The node that has an attempt under way.
    sent_to: Option<PeerId>,
    /// An attempt ended without telling whether it took effect.
    uncertain: bool,
    last: Option<ClusterError>,
    /// The answer, unless the CID turns out to be no node's.
    refused: Option<ClientResponse>,
}

/// Edge targets to be looked at: one question per partition under way, the rest waits and is asked
/// together.
#[derive(Default)]
struct TargetChecks {
    waiting: BTreeMap<PartitionId, Vec<(u64, Cid)>>,
    asking: BTreeSet<PartitionId>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("in_flight", &self.writes.len()).finish_non_exhaustive()
    }
}

impl Pipeline {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaders = coordinator.handle.shared.changes.subscribe();
        leaders.mark_unchanged();
        Self {
            coordinator,
            writes: BTreeMap::new(),
            next_token: 0,
            answers: VecDeque::new(),
            retries: BTreeSet::new(),
            targets: TargetChecks::default(),
            applied: mpsc::unbounded_channel(),
            forwarded: mpsc::unbounded_channel(),
            events: mpsc::unbounded_channel(),
            leaders,
            tick,
        }
    }

    /// Writes and answers not yet handed out. Bounded by the caller, who stops submitting.
    pub(crate) fn in_flight(&self) -> usize {
        self.writes.len() + self.answers.len()
    }

    /// Takes a request. Its answer comes from [`Pipeline::next`], in any order.
    pub(crate) fn submit(&mut self, request: ClientRequest) {
        let (client_id, request_id) = (request.client_id.clone(), request.request_id);
        match self.coordinator.prepare(request) {
            Ok(prepared) => self.admit(prepared),
            Err(failure) => {
                let session = Session { client_id, request_id, acked_below: 0 };
                self.answers.push_back(outcome::failed(&session, &failure));
            }
        }
    }

    /// Takes a request that is already checked.
    pub(crate) fn admit(&mut self, prepared: Prepared) {
        let token = self.next_token;
        self.next_token += 1;
        let Prepared { write, need } = prepared;
        let in_flight = InFlight {
            write,
            partition: None,
            command: None,
            refused: None,
            deadline: Instant::now() + self.coordinator.deadline,
            attempts: 0,
            sent_to: None,
            uncertain: false,
            last: None,
        };
        self.writes.insert(token, in_flight);
        self.provide(token, need);
        self.ask_targets();
    }

    /// The next answer. Pends while nothing is in flight; nothing is lost when it is dropped.
    pub(crate) async fn next(&mut self) -> ClientResponse {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            if self.writes.is_empty() {
                std::future::pending::<()>().await;
            }
            tokio::select! {
                biased;
                // Before the others, which under load have always something.
                _ = self.tick.tick() => {
                    self.expire();
                    self.retry(&Due::Now);
                }
                Some((token, result)) = self.applied.1.recv() => self.on_applied(token, result),
                Some((token, result)) = self.forwarded.1.recv() => self.on_forwarded(token, result),
                Some(event) = self.events.1.recv() => self.on_event(event),
                Ok(()) = self.leaders.changed() => self.on_leaders_changed(),
            }
            self.drain();
        }
    }

    /// Handles everything that is there, so that retries and questions go out together.
    fn drain(&mut self) {
        while let Ok((token, result)) = self.applied.1.try_recv() {
            self.on_applied(token, result);
        }
        while let Ok((token, result)) = self.forwarded.1.try_recv() {
            self.on_forwarded(token, result);
        }
        while let Ok(event) = self.events.1.try_recv() {
            self.on_event(event);
        }
        self.ask_targets();
    }

    /// Moves a write on towards its proposal.
    fn provide(&mut self, token: u64, need: Need) {
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        match need {
            Need::Nothing { partition, command } => {
                in_flight.partition = Some(partition);
                in_flight.command = Some(command);
                self.attempt(token);
            }
            Need::Target { partition, target, target_partition } => {
                in_flight.partition = Some(partition);
                self.targets.waiting.entry(target_partition).or_default().push((token, target));
            }
            Need::Edge { edge, hint } => {
                let (coordinator, events) = (Arc::clone(&self.coordinator), self.events.0.clone());
                tokio::spawn(async move {
                    let found = coordinator.find_edge(edge, hint).await;
                    // A pipeline that is gone does not want to know.
                    let _ = events.send(Event::Edge(token, found));
                });
            }
        }
    }

    /// Asks whether an edge or a version has the CID of a node that was not found.
    fn ask_kind(&self, token: u64, cid: Cid) {
        let (coordinator, events) = (Arc::clone(&self.coordinator), self.events.0.clone());
        tokio::spawn(async move {
            let why = coordinator.why_no_node(cid).await;
            let _ = events.send(Event::Kind(token, why));
        });
    }

    fn ask_targets(&mut self) {
        let ready: Vec<_> = self
            .targets
            .waiting
            .keys()
            .filter(|partition| !self.targets.asking.contains(*partition))
            .copied()
            .collect();
        for partition in ready {
            let Some(batch) = self.targets.waiting.remove(&partition) else { continue };
            self.targets.asking.insert(partition);
            let (coordinator, events) = (Arc::clone(&self.coordinator), self.events.0.clone());
            tokio::spawn(async move {
                let (tokens, cids): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
                let answer = match coordinator.living(partition, cids).await {
                    Ok(generations) => Ok(tokens.into_iter().zip(generations).collect()),
                    Err(failure) => Err((tokens, failure)),
                };
                let _ = events.send(Event::Targets(partition, answer));
            });
        }
    }

    /// Sends a write to whoever leads its partition, or plans to try again.
    fn attempt(&mut self, token: u64) {
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        let (Some(partition), Some(command)) = (in_flight.partition, in_flight.command.clone()) else {
            return;
        };
        let group = partition.group();
        match self.coordinator.routing.route(group, in_flight.attempts) {
            Route::Here => {
                in_flight.sent_to = Some(self.coordinator.handle.shared.peer);
                let responder = Responder { id: token, to: self.applied.0.clone() };
                let proposal = Command::Propose { group, entry: command, responder };
                match self.coordinator.handle.commands.try_send(proposal) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => self.again(token, Attempt::busy()),
                    Err(mpsc::error::TrySendError::Closed(_)) => self.again(token, Attempt::stopping()),
                }
            }
            Route::Peer(peer) => {
                in_flight.sent_to = Some(peer);
                let responder = ForwardResponder { id: token, to: self.forwarded.0.clone() };
                self.coordinator.peers.forward_with(peer, partition.0, command, responder);
            }
            Route::Nobody => match self.coordinator.routing.dead_end(group) {
                Some(failure) => self.give_up(token, &failure),
                None => self.again(token, Attempt::no_leader(partition)),
            },
        }
    }

    /// Nobody will ever take the write.
    fn give_up(&mut self, token: u64, failure: &ClusterError) {
        let Some(in_flight) = self.writes.get(&token) else { return };
        let failure = if in_flight.uncertain {
            outcome::timed_out(&in_flight.write.session, Effect::Unknown, Some(failure))
        } else {
            failure.clone()
        };
        self.fail(token, &failure);
    }

    fn on_applied(&mut self, token: u64, result: ProposalResult) {
        let Some(in_flight) = self.writes.get(&token) else { return };
        let Some(partition) = in_flight.partition else { return };
        let attempt = outcome::of_proposal(&in_flight.write.session, partition, result);
        self.settle(token, attempt);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Targets(partition, answer) => {
                self.targets.asking.remove(&partition);
                self.on_targets(answer);
            }
            Event::Edge(token, found) => self.on_edge(token, found),
            Event::Kind(token, why) => self.on_kind(token, why),
        }
    }

    fn on_forwarded(&mut self, token: u64, result: ForwardResult) {
        let Some(in_flight) = self.writes.get(&token) else { return };
        let Some(partition) = in_flight.partition else { return };
        if let Ok(response) = &result {
            self.coordinator.routing.learn(partition.group(), &response.leader_address);
        }
        let attempt = outcome::of_forward(&in_flight.write.session, partition, result);
        self.settle(token, attempt);
    }

    fn on_targets(&mut self, answer: TargetAnswer) {
        match answer {
            Ok(generations) => {
                for (token, generation) in generations {
                    let Some(in_flight) = self.writes.get_mut(&token) else { continue };
                    in_flight.command = Some(in_flight.write.command_for_target(generation));
                    self.attempt(token);
                }
            }
            Err((tokens, failure)) => {
                for token in tokens {
                    self.not_known(token, failure.clone());
                }
            }
        }
    }

    fn on_edge(&mut self, token: u64, found: Result<Option<EdgePlace>, ClusterError>) {
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        match found {
            Ok(Some(EdgePlace { partition, target: Some((target, target_partition)) })) => {
                self.provide(token, Need::Target { partition, target, target_partition });
            }
            Ok(Some(EdgePlace { partition, target: None })) => {
                // No edge: the state machine says so, in its session.
                let command = in_flight.write.command();
                self.provide(token, Need::Nothing { partition, command });
            }
            Ok(None) => {
                let failure = in_flight.write.not_found();
                self.fail(token, &failure);
            }
            Err(failure) => self.not_known(token, failure),
        }
    }

    /// A node was not found; what has its CID instead is told, where anybody can tell.
    fn on_kind(&mut self, token: u64, why: Result<Option<(PartitionId, ClusterError)>, ClusterError>) {
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        let Some(mut refused) = in_flight.refused.take() else { return };
        if let Ok(Some((partition, why))) = why {
            outcome::tell_kind(&mut refused, partition, &why);
        }
        self.answer(token, refused);
    }

    /// What a write needs to know cannot be told now, or never.
    fn not_known(&mut self, token: u64, failure: ClusterError) {
        if errors::is_passing(&failure) {
            self.again(token, Attempt::Again { failure, uncertain: false });
        } else {
            self.give_up(token, &failure);
        }
    }

    fn settle(&mut self, token: u64, attempt: Attempt) {
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        match attempt {
            Attempt::Answered(response) => match in_flight.write.node_changed() {
                Some(cid) if outcome::is_not_found(&response) => {
                    in_flight.sent_to = None;
                    in_flight.refused = Some(response);
                    self.ask_kind(token, cid);
                }
                Some(_) | None => self.answer(token, response),
            },
            attempt @ Attempt::Again { .. } => self.again(token, attempt),
        }
    }

    fn answer(&mut self, token: u64, mut response: ClientResponse) {
        self.coordinator.sign(&mut response);
        self.writes.remove(&token);
        self.answers.push_back(response);
    }

    /// Plans another attempt.
    fn again(&mut self, token: u64, attempt: Attempt) {
        let Attempt::Again { failure, uncertain } = attempt else { return };
        let Some(in_flight) = self.writes.get_mut(&token) else { return };
        let pause = NO_LEADER_PAUSE.saturating_mul(1 << in_flight.attempts.min(8)).min(PAUSE_MAX);
        in_flight.attempts = in_flight.attempts.saturating_add(1);
        in_flight.uncertain |= uncertain;
        in_flight.last = Some(failure);
        in_flight.sent_to = None;
        self.retries.insert((Instant::now() + pause, token));
    }

    fn retry(&mut self, due: &Due) {
        let later = match due {
            Due::Now => self.retries.split_off(&(Instant::now() + Duration::from_nanos(1), 0)),
            Due::All => BTreeSet::new(),
        };
        // Attempts that fail at once plan new ones: those are not this round's.
        for (_, token) in std::mem::replace(&mut self.retries, later) {
            self.resume(token);
        }
    }

    /// Leaders changed: what waits for one goes out now, and what was sent to a node that no
    /// longer leads is sent to the one that does. (A node that is cut off or paused may keep a
    /// write without an answer; the session makes proposing it twice safe.)
    fn on_leaders_changed(&mut self) {
        self.retry(&Due::All);
        let moved: Vec<u64> =
            self.writes.iter().filter_map(|(&token, write)| self.has_moved(token, write)).collect();
        for token in moved {
            if let Some(in_flight) = self.writes.get_mut(&token) {
                in_flight.uncertain = true;
            }
            self.attempt(token);
        }
    }

    fn has_moved(&self, token: u64, in_flight: &InFlight) -> Option<u64> {
        let sent_to = in_flight.sent_to?;
        let leader = self.coordinator.routing.leader(in_flight.partition?.group())?;
        (leader != sent_to).then_some(token)
    }

    /// Takes a write up where it stopped.
    fn resume(&mut self, token: u64) {
        let Some(in_flight) = self.writes.get(&token) else { return };
        if in_flight.command.is_some() {
            self.attempt(token);
            return;
        }
        let need = self.coordinator.need(&in_flight.write);
        self.provide(token, need);
    }

    /// Gives up on writes past their deadline.
    fn expire(&mut self) {
        let now = Instant::now();
        // Tokens and deadlines rise together.
        while let Some((&token, in_flight)) = self.writes.first_key_value() {
            if in_flight.deadline > now {
                break;
            }
            if let Some(refused) = in_flight.refused.clone() {
                self.answer(token, refused);
                continue;
            }
            // An attempt that is still under way may take effect as well.
            let uncertain = in_flight.uncertain || in_flight.sent_to.is_some();
            let effect = if uncertain { Effect::Unknown } else { Effect::Nothing };
            let failure = outcome::timed_out(&in_flight.write.session, effect, in_flight.last.as_ref());
            self.fail(token, &failure);
        }
    }

    fn fail(&mut self, token: u64, failure: &ClusterError) {
        let Some(in_flight) = self.writes.remove(&token) else { return };
        let mut response = outcome::failed(&in_flight.write.session, failure);
        response.partition = in_flight.partition.map_or(0, |partition| partition.0);
        self.coordinator.sign(&mut response);
        self.answers.push_back(response);
    }
}

/// Which planned attempts to make.
enum Due {
    /// Those whose pause is over.
    Now,
    /// All: somebody may lead now who did not before.
    All,
}
