//! The world: hosts that run the pure node of the engine, a network, disks, clocks and clients, and
//! everything that breaks them. Driven by hand, event by event, in one thread; a [`World`] can be
//! cloned in the middle of a run.
//!
//! The code under test is the engine as it ships: `multiraft` with its replicas, the log with its
//! codec and recovery on a simulated disk, and the state machine with its sessions. What surrounds
//! it in production (sockets, threads, files) is what this module stands for.
//!
//! | file | subject |
//! |---|---|
//! | `agenda`, `event` | what will happen, in order |
//! | `host`, `lifecycle` | disks and processes: starting, crashing, wiping |
//! | `process` | inputs and outputs of the core |
//! | `damage` | what disks do to what they hold |
//! | `storage`, `apply` | writing, applying, snapshots |
//! | `network`, `packet`, `clock` | links, messages, clocks |
//! | `clients` | who asks, and what they are told |
//! | `faults`, `members` | what goes wrong, and what operators do |
//! | `phases` | a run from beginning to end |
//! | `picture` | what a picture of the run shows |

mod agenda;
mod apply;
mod clients;
mod clock;
mod damage;
mod event;
mod faults;
mod host;
mod lifecycle;
mod members;
mod network;
mod packet;
mod phases;
mod picture;
mod process;
mod storage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kotoba_db_cluster::{
    multiraft::{NodeInput, NodeOutput},
    raft::{Configuration, ConfigurationEntry, GroupId, Index, PeerId, ReplicaId, Term},
};

use crate::{
    check::{
        Check, Verdict, Violation, election_safety::ElectionSafety, exactly_once::ExactlyOnce,
        log_matching::LogMatching, quorum_intersection::QuorumIntersection, real_time::RealTime,
        recovery::Kept, state_machine_safety::Ledger, trial::Trial,
    },
    choice::Chooser,
    history::{History, TrueTime},
    machine::StateMachine,
    profile::{Profile, Setup},
    situations::Situations,
    trace::{Detail, Kind, Line, Trace},
};
pub(crate) use clients::FIRST_WAY;

use agenda::Agenda;
use clients::Clients;
use event::Event;
use host::{Asker, Host};
use network::Network;

/// Steps of one run, at most: beyond it something spins.
const STEPS_MAX: u64 = 20_000_000;

/// When the first fault is due.
pub(crate) const FIRST_FAULT: TrueTime = 1_000_000_000;

/// When a client first wakes.
pub(crate) const fn first_wake(client: u32) -> TrueTime {
    client as TrueTime * 1_000_000
}

/// Checks that remember.
#[derive(Clone, Debug)]
struct Checks<A> {
    election_safety: ElectionSafety,
    log_matching: LogMatching,
    quorum_intersection: QuorumIntersection,
    real_time: RealTime,
    exactly_once: ExactlyOnce<A>,
    /// By host.
    trials: BTreeMap<(usize, GroupId), Trial>,
}

/// A simulated cluster and everything around it.
#[derive(Clone, Debug)]
pub struct World<M: StateMachine> {
    profile: Profile,
    choices: Chooser,
    now: TrueTime,
    /// Moments at which something happened.
    steps: u64,
    agenda: Agenda<Event<M::Answer>>,
    /// What happens next, at the same moment.
    at_once: VecDeque<Event<M::Answer>>,
    hosts: Vec<Host<M>>,
    network: Network,
    clients: Clients<M>,
    /// The host each data directory is, or was, on.
    peers: BTreeMap<PeerId, usize>,
    peers_minted: u64,
    /// Replica numbers used up, and where each replica lives.
    replicas: BTreeMap<GroupId, u64>,
    places: BTreeMap<GroupId, Vec<(ReplicaId, PeerId)>>,
    genesis: BTreeMap<GroupId, Configuration>,
    /// The voters each group shall have.
    wanted: BTreeMap<GroupId, Vec<ReplicaId>>,
    /// The members in force at each host.
    configurations: BTreeMap<(usize, GroupId), ConfigurationEntry>,
    /// What lost directories held.
    lost: BTreeMap<(GroupId, ReplicaId), Kept>,
    /// Who was elected last.
    leaders: BTreeMap<GroupId, (usize, Term)>,
    ledgers: BTreeMap<GroupId, Ledger<M>>,
    /// What leaders have decided to be committed: looked at when it is decided, because a directory
    /// that is lost later takes its copy with it.
    decided: BTreeMap<GroupId, Index>,
    checks: Checks<M::Answer>,
    situations: Situations,
    trace: Trace,
    violation: Option<Violation>,
    /// Who asked for what is being proposed.
    proposing: Vec<Asker>,
    outputs: Vec<NodeOutput>,
    /// Faults are over.
    calm: bool,
    /// Clients are never idle, and what they ask depends on nothing: in the calmest of runs, too,
    /// each group must write and read.
    insist: Option<Chooser>,
    /// Operators look after members.
    operators: bool,
    /// Hosts that stay down.
    excluded: BTreeSet<usize>,
}

impl<M: StateMachine> World<M> {
    /// A world at its beginning.
    pub fn new(mut choices: Chooser, setup: impl Into<Setup>, trace: Trace) -> Self {
        let profile = Profile::of(&mut choices, setup.into());
        let spare = if profile.administration.resizes > 0 { 2 } else { 0 };
        let mut world = Self {
            now: 0,
            steps: 0,
            agenda: Agenda::default(),
            at_once: VecDeque::new(),
            hosts: Vec::new(),
            network: Network::new((profile.hosts + spare) as usize),
            clients: Clients::new(profile.clients),
            peers: BTreeMap::new(),
            peers_minted: 0,
            replicas: BTreeMap::new(),
            places: BTreeMap::new(),
            genesis: BTreeMap::new(),
            wanted: BTreeMap::new(),
            configurations: BTreeMap::new(),
            lost: BTreeMap::new(),
            leaders: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            decided: BTreeMap::new(),
            checks: Checks {
                election_safety: ElectionSafety::default(),
                log_matching: LogMatching::default(),
                quorum_intersection: QuorumIntersection::default(),
                real_time: RealTime::default(),
                exactly_once: ExactlyOnce::default(),
                trials: BTreeMap::new(),
            },
            situations: Situations::default(),
            trace,
            violation: None,
            proposing: Vec::new(),
            outputs: Vec::new(),
            calm: false,
            insist: None,
            operators: true,
            excluded: BTreeSet::new(),
            profile,
            choices,
        };
        world.found(world.profile.hosts, spare);
        for at in 0..world.hosts.len() {
            world.agenda.plan(0, Event::Start { host: at });
        }
        for client in 0..world.profile.clients {
            world.agenda.plan(first_wake(client), Event::Wake { client });
        }
        world.agenda.plan(FIRST_FAULT, Event::Fault);
        world.agenda.plan(500_000_000, Event::Administer);
        world
    }

    /// How the run is set up.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Simulated time so far.
    pub fn now(&self) -> TrueTime {
        self.now
    }

    /// The first property that did not hold.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// What happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How often what was met.
    pub fn situations(&self) -> &Situations {
        &self.situations
    }

    /// What clients asked and were told.
    pub fn history(&self) -> &History<M::Operation, M::Answer> {
        &self.clients.history
    }

    /// Where a log holds the operation at a place in the history, if one does: what clients do not
    /// know.
    pub fn effect(&self, at: usize) -> Option<Index> {
        let operation = &self.clients.history.operations[at];
        let request = (operation.client, operation.serial);
        let (index, answer) = self.checks.exactly_once.effect(operation.group, request)?;
        answer.map(|_| index)
    }

    /// Hosts there are.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Runs until a moment, or until a check fails.
    pub fn run_until(&mut self, until: TrueTime) {
        while self.violation.is_none() {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                self.fail(Check::Bounds, format!("more than {STEPS_MAX} steps: something spins"));
            }
            if let Some(event) = self.at_once.pop_front() {
                self.happen(event);
                continue;
            }
            let wake = self.hosts.iter().enumerate().map(|(at, host)| (host.wake, at)).min();
            let (wake_at, host) = wake.unwrap_or((TrueTime::MAX, 0));
            let planned_at = self.agenda.next_at().unwrap_or(TrueTime::MAX);
            let next = wake_at.min(planned_at);
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            self.choices.now(self.now);
            if wake_at <= planned_at {
                self.tick(host);
            } else if let Some((_, event)) = self.agenda.pop() {
                self.happen(event);
            }
        }
        if self.violation.is_none() {
            self.now = self.now.max(until);
        }
    }

    fn tick(&mut self, at: usize) {
        self.input(at, NodeInput::Tick, None);
        for group in self.genesis.keys().copied().collect::<Vec<_>>() {
            self.look_at_group(at, group);
        }
    }

    /// The host and the life an event belongs to, where it belongs to a process.
    fn process_of(event: &Event<M::Answer>) -> Option<(usize, Option<u64>)> {
        match event {
            Event::DiskDone { host, life, .. }
            | Event::Flushed { host, life, .. }
            | Event::Stale { host, life }
            | Event::Probe { host, life, .. }
            | Event::Hasty { host, life, .. }
            | Event::Apply { host, life, .. }
            | Event::Gather { host, life, .. }
            | Event::Build { host, life, .. }
            | Event::Stored { host, life, .. }
            | Event::Input { host, life, .. }
            | Event::Kill { host, life } => Some((*host, Some(*life))),
            Event::Hint { host, .. } | Event::Request { host, .. } | Event::Reuse { host, .. } => {
                Some((*host, None))
            }
            Event::Deliver { .. }
            | Event::Start { .. }
            | Event::Wake { .. }
            | Event::Reply { .. }
            | Event::Timeout { .. }
            | Event::Administer
            | Event::Fault
            | Event::Unclog { .. }
            | Event::Mend { .. }
            | Event::Flap { .. }
            | Event::Room { .. } => None,
        }
    }

    fn happen(&mut self, event: Event<M::Answer>) {
        if let Event::Deliver { from, to, peer, .. } = &event {
            let (from, to, peer) = (*from, *to, *peer);
            let through = self.network.arrives(from, to);
            let host = &self.hosts[to];
            if !through || host.process.is_none() || host.peer != peer {
                return self.show_lost(&event);
            }
        }
        let addressee = match &event {
            Event::Deliver { to, .. } => Some((*to, None)),
            event => Self::process_of(event),
        };
        if let Some((at, life)) = addressee {
            let host = &self.hosts[at];
            if host.process.is_none() || life.is_some_and(|life| life != host.life) {
                return;
            }
            if host.paused_until > self.now {
                return self.postpone(at, event);
            }
        }
        match event {
            Event::Deliver { from, to, sent, packet, .. } => self.deliver(from, to, sent, packet),
            Event::DiskDone { host, batch, .. } => self.disk_done(host, batch),
            Event::Flushed { host, group, .. } => self.flushed(host, group),
            Event::Stale { host, .. } => self.stale_completion(host),
            Event::Probe { host, group, .. } => self.begin_read(host, group, None),
            Event::Hasty { host, group, .. } => self.hasty(host, group),
            Event::Apply { host, group, .. } => self.apply(host, group),
            Event::Gather { host, peer, message, .. } => self.gather(host, peer, *message),
            Event::Build { host, group, at_least, .. } => self.build(host, group, at_least),
            Event::Stored { host, group, position, next_offset, .. } => {
                self.stored(host, group, position, next_offset);
            }
            Event::Input { host, group, input, .. } => self.late_input(host, group, input),
            Event::Hint { host, about } => {
                self.input(host, NodeInput::PeerClosed(about), None);
                for group in self.genesis.keys().copied().collect::<Vec<_>>() {
                    self.look_at_group(host, group);
                }
            }
            Event::Start { host } => {
                if !self.excluded.contains(&host) {
                    self.start(host);
                }
            }
            Event::Kill { host, .. } => self.crash(host),
            Event::Wake { client } => self.wake(client),
            Event::Request { host, askers } => self.request(host, askers),
            Event::Reuse { host, group, payload } => self.reuse(host, group, payload),
            Event::Reply { host, asker, answer } => self.on_reply(host, asker, answer),
            Event::Timeout { asker, attempt } => self.timeout(asker, attempt),
            Event::Administer => {
                self.agenda.plan(self.now + members::EVERY_NANOS, Event::Administer);
                if self.operators {
                    self.administer();
                }
            }
            Event::Fault => {
                if !self.calm {
                    self.fault();
                }
            }
            Event::Unclog { from, to } => self.unclog(from, to),
            Event::Mend { from, to } => self.mend(from, to),
            Event::Flap { from, to, until } => self.flap(from, to, until),
            Event::Room { host } => self.room(host),
        }
    }

    /// A process that stands still gets to it later.
    fn postpone(&mut self, at: usize, event: Event<M::Answer>) {
        let until = self.hosts[at].paused_until;
        if let Event::Deliver { from, to, .. } = &event {
            self.network.keep(*from, *to);
        }
        self.agenda.plan(until, event);
    }

    /// Takes note of a verdict. The first violation ends the run.
    fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.say(Kind::Violation, None, || violation.to_string());
            self.violation.get_or_insert(violation);
        }
    }

    fn fail(&mut self, check: Check, message: impl Into<String>) {
        self.judge(Err(Violation::new(check, message)));
    }

    fn say(&mut self, kind: Kind, at: Option<usize>, text: impl FnOnce() -> String) {
        if self.trace.is_read() {
            let host = at.map(|at| self.hosts[at].number);
            self.trace.line(Line {
                at: self.now,
                kind,
                host,
                from: None,
                sent: None,
                detail: Detail::None,
                text: text(),
            });
        }
    }
}
