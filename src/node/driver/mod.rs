//! The driver loop: the one task that owns a node's pure state.
//!
//! It drains what has happened (requests, peers' frames, completions, deadlines), hands it to the
//! core one input at a time, and carries out what the core wants: writes to the log writer,
//! messages to the peer streams, committed entries to the applier. Batching falls out of draining:
//! all proposals that wait for a group become one, and all writes of all groups become one batch
//! with one flush. Nothing here decides about safety.

mod clock;
mod groups;
pub(super) mod housekeeping;
mod outputs;
mod payloads;
mod requests;
mod retired;
mod unary;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::sync::mpsc;

pub(crate) use clock::Clock;
use groups::GroupState;
pub(crate) use housekeeping::routes_of;
pub(crate) use outputs::wire_entries;
use payloads::Payloads;
use requests::Proposals;
use unary::Unary;

use super::{
    applier::{ApplyEvent, Job},
    handle::{Command, RequestError, Shared},
    peers::Peers,
    room::Room,
    snapshots::{SnapshotEvent, SnapshotJob},
    status::GroupFault,
    worker::Worker,
};
use crate::{
    error::{ClusterError, ErrorCode},
    limits::STREAM_IN_FLIGHT_MAX,
    multiraft::{Node, NodeInput},
    placement::MetaState,
    raft::{GroupId, Index, Input, ReadId, SnapshotMeta, WriteToken},
    runtime::watcher,
    storage::wal::{GroupWrite, LogIndex, WalEvent, WalHandle},
};

/// Commands handled between two looks at completions.
const COMMANDS_PER_TURN: usize = STREAM_IN_FLIGHT_MAX;
/// How often members, compaction and the like are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// Completions: what the node's other threads report.
#[derive(Debug)]
pub(crate) enum Event {
    /// The log writer.
    Wal(WalEvent<u64>),
    /// The applier.
    Apply(ApplyEvent),
    /// The snapshot worker.
    Snapshot(SnapshotEvent),
    /// A thread of the node panicked.
    ThreadDied(&'static str),
    /// Entries could not be read back for a message.
    GatherFailed { group: GroupId, to: crate::raft::ReplicaId, index: Index },
}

/// What a driver is made of.
pub(crate) struct Parts<V> {
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: LogIndex,
    pub(crate) wal: WalHandle<u64>,
    pub(crate) applier: Worker<Job<V>>,
    pub(crate) snapshots: Worker<SnapshotJob<V>>,
    pub(crate) peers: Peers,
    pub(crate) room: Arc<Room>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    pub(crate) event_sender: mpsc::UnboundedSender<Event>,
    pub(crate) settings: DriverSettings,
    /// Per group: applied index, digest, and what is damaged.
    pub(crate) groups: Vec<(GroupId, Index, u128, Option<GroupFault>)>,
}

/// What a driver needs to know of the node's settings.
#[derive(Clone, Debug)]
pub(crate) struct DriverSettings {
    pub(crate) persist_interval: Duration,
    /// Segments the log may have before the state is made durable out of turn.
    pub(crate) segments_max: u64,
    pub(crate) replica: super::start::ReplicaSettings,
    pub(crate) snapshots_dir: std::path::PathBuf,
}

/// Owns the pure state of a node.
pub(crate) struct Driver<V> {
    node: Node,
    clock: Clock,
    shared: Arc<Shared>,
    log: LogIndex,
    wal: WalHandle<u64>,
    applier: Worker<Job<V>>,
    snapshots: Worker<SnapshotJob<V>>,
    peers: Peers,
    event_sender: mpsc::UnboundedSender<Event>,
    settings: DriverSettings,
    room: Arc<Room>,
    full: Full,
    groups: BTreeMap<GroupId, GroupState>,
    payloads: Payloads,
    proposals: Proposals,
    unary: Unary,
    reads: BTreeMap<ReadId, requests::PendingRead>,
    next_read: u64,
    /// Writes of this turn, submitted together at its end.
    writes: Vec<GroupWrite>,
    submitting: Vec<Submitted>,
    /// What each submission holds, in order.
    submitted: BTreeMap<u64, Vec<Submitted>>,
    next_submission: u64,
    meta: Arc<MetaState>,
    housekeeping: housekeeping::Schedule,
    stopping: Option<tokio::sync::oneshot::Sender<()>>,
}

/// Who has no room on the disk, and what the groups were told of it.
#[derive(Debug, Default)]
struct Full {
    log: bool,
    store: bool,
    told: bool,
}

/// One plan of a submission.
#[derive(Debug)]
struct Submitted {
    group: GroupId,
    token: WriteToken,
    install: Option<SnapshotMeta>,
}

impl<V: Send + 'static> Driver<V> {
    pub(crate) fn new(parts: Parts<V>) -> (Self, mpsc::Receiver<Command>, mpsc::UnboundedReceiver<Event>) {
        let meta = Arc::clone(&parts.shared.meta.read().expect("no holder of this lock panics"));
        let groups: BTreeMap<_, _> = parts
            .groups
            .into_iter()
            .map(|(group, applied, digest, fault)| (group, GroupState::new(applied, digest, fault)))
            .collect();
        let mut hints = parts.shared.hints.write().expect("no holder of this lock panics");
        hints.extend(groups.iter().map(|(&group, state)| (group, Arc::clone(&state.hint))));
        drop(hints);
        let driver = Self {
            node: parts.node,
            clock: parts.clock,
            shared: parts.shared,
            log: parts.log,
            wal: parts.wal,
            applier: parts.applier,
            snapshots: parts.snapshots,
            peers: parts.peers,
            event_sender: parts.event_sender,
            settings: parts.settings,
            room: parts.room,
            full: Full::default(),
            groups,
            payloads: Payloads::default(),
            proposals: Proposals::default(),
            unary: Unary::default(),
            reads: BTreeMap::new(),
            next_read: 0,
            writes: Vec::new(),
            submitting: Vec::new(),
            submitted: BTreeMap::new(),
            next_submission: 0,
            meta,
            housekeeping: housekeeping::Schedule::default(),
            stopping: None,
        };
        (driver, parts.commands, parts.events)
    }

    /// Runs until the node is told to stop.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) {
        watcher::set(&self.node);
        self.first_campaigns();
        let mut arrived = Vec::with_capacity(COMMANDS_PER_TURN);
        let mut happened = Vec::with_capacity(COMMANDS_PER_TURN);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let deadline = self.node.deadline().map(|at| self.clock.at(at));
            tokio::select! {
                biased;
                count = events.recv_many(&mut happened, COMMANDS_PER_TURN) => {
                    if count == 0 { break; }
                }
                () = sleep_until(deadline) => {}
                count = commands.recv_many(&mut arrived, COMMANDS_PER_TURN) => {
                    if count == 0 { break; }
                }
                _ = housekeeping.tick() => self.keep_house(),
            }
            // Everything else that waits belongs to the same turn.
            while let Ok(event) = events.try_recv() {
                happened.push(event);
            }
            while arrived.len() < COMMANDS_PER_TURN
                && let Ok(command) = commands.try_recv()
            {
                arrived.push(command);
            }
            for event in happened.drain(..) {
                self.on_event(event);
            }
            for command in arrived.drain(..) {
                self.on_command(command);
            }
            self.propose_gathered();
            if self.node.deadline().is_some_and(|at| at <= self.clock.now().monotonic) {
                self.step(NodeInput::Tick);
            }
            self.submit_writes();
            if let Some(done) = self.stopping.take() {
                self.stop(done).await;
                return;
            }
        }
    }

    /// At the first start of a cluster each group's first replica stands at once, so that leaders
    /// are spread and nobody waits for a time-out.
    fn first_campaigns(&mut self) {
        let own = self.shared.peer;
        let first: Vec<GroupId> = self
            .meta
            .map
            .groups
            .iter()
            .filter(|group| group.replicas.first().is_some_and(|place| place.peer == own))
            .map(|group| group.group)
            .filter(|group| {
                let genesis = |replica: &crate::raft::Replica| replica.status().last.index <= Index(1);
                let alone = |replica: &crate::raft::Replica| replica.configuration().voters.len() == 1;
                self.node.replica(*group).is_some_and(|replica| genesis(replica) || alone(replica))
            })
            .collect();
        for group in first {
            self.step_group(group, Input::Campaign);
        }
        self.submit_writes();
    }

    /// Hands one input to the core and carries out what follows. Where an invariant of a group
    /// does not hold, that group is taken out and the others go on.
    fn step(&mut self, input: NodeInput) {
        let now = self.clock.now();
        watcher::given(now, &input);
        let node = &mut self.node;
        if catch_unwind(AssertUnwindSafe(|| node.handle(now, input))).is_err() {
            self.quarantine();
        }
        while let Some(output) = self.node.poll_output() {
            watcher::wants(&output, &self.node, &self.log);
            self.carry_out(output);
        }
        watcher::done(&self.node);
    }

    fn step_group(&mut self, group: GroupId, input: Input) {
        self.step(NodeInput::Group { group, input });
    }

    fn quarantine(&mut self) {
        let Some(group) = self.node.quarantine_stepping() else { return };
        watcher::set(&self.node);
        let what =
            "an invariant of the consensus core does not hold, the panic message in the log says which";
        self.fail(group, &GroupFault::new(ErrorCode::Quarantined, what));
    }

    /// Takes a group of this node out of service: whoever waits for it is told, and what comes goes to
    /// other nodes.
    fn fail(&mut self, group: GroupId, fault: &GroupFault) {
        tracing::error!("{}", fault.error(group).report());
        if let Some(state) = self.groups.get_mut(&group) {
            state.fail(fault);
        }
        self.refuse_reads(group, fault);
        self.shared.changes.send_modify(|changes| *changes += 1);
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Wal(WalEvent::Completed(completion)) => {
                self.on_written(&completion.tags, &completion.result);
            }
            Event::Wal(WalEvent::Full(full)) => {
                self.full.log = full;
                self.on_room_changed();
            }
            Event::Apply(event) => self.on_applied(event),
            Event::Snapshot(event) => self.on_snapshot_event(event),
            Event::ThreadDied(thread) => self.on_thread_died(thread),
            Event::GatherFailed { group, to, index } => {
                self.step_group(group, Input::GatherFailed { to, index });
            }
        }
    }

    /// The log or the state machines ran out of room, or have room again.
    pub(super) fn on_room_changed(&mut self) {
        let full = self.full.log || self.full.store;
        if full == self.full.told {
            return;
        }
        self.full.told = full;
        self.shared.disk_full.store(full, Relaxed);
        if full {
            let reserve = self.room.reserve_bytes() >> 20;
            let what = format!("less than {reserve} MiB are free on the disk of the data directory");
            tracing::error!("{}", ClusterError::new(ErrorCode::DiskFull, what).report());
        } else {
            tracing::info!("there is room on the disk again");
        }
        self.step(NodeInput::DiskFull(full));
    }

    /// Nothing that needs the thread can be done any more: every group stops, and says so.
    fn on_thread_died(&mut self, thread: &str) {
        let what = format!("the thread {thread:?} of this node panicked, restart the node");
        let fault = GroupFault::new(ErrorCode::Internal, what);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for group in groups {
            self.fail(group, &fault);
            self.node.remove_group(group);
        }
        watcher::set(&self.node);
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Propose { group, entry, responder } => self.gather_proposal(group, entry, responder),
            Command::Read { group, reply } => self.begin_read(group, reply),
            Command::WaitApplied { group, index, reply } => match self.groups.get_mut(&group) {
                Some(state) => state.await_applied(index, reply),
                None => {
                    let _ = reply.send(Err(RequestError::NotHere));
                }
            },
            Command::Frame { peer, frame } => self.on_frame(peer, frame),
            Command::Members(reports) => self.on_members(reports),
            Command::Consensus { group, message, payloads, reply } => {
                self.on_unary(group, message, payloads, reply);
            }
            Command::PeerClosed(peer) => self.step(NodeInput::PeerClosed(peer)),
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Stop(reply) => self.stopping = Some(reply),
        }
    }

    /// Answers who waits, makes everything durable and ends the threads.
    async fn stop(mut self, done: tokio::sync::oneshot::Sender<()>) {
        for state in self.groups.values_mut() {
            state.leadership_lost();
        }
        self.room.give_up();
        self.applier.send(Job::Stop);
        let Self { wal, applier, snapshots, .. } = self;
        snapshots.join().await;
        applier.join().await;
        if let Err(error) = wal.close().await {
            tracing::error!("the log was not written to its end: {error}");
        }
        // Who asked may be gone.
        let _ = done.send(());
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
