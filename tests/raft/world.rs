//! A world of replicas in which everything that can go wrong does, from one seed.

#![allow(clippy::disallowed_types, reason = "two hashes of one run are compared, none is kept")]

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use kotoba_db_cluster::raft::{
    Body, Configuration, ConfigurationChange, Index, Input, Instant, Now, Output, PayloadId, Position,
    ReadId, ReplicaId, RoleKind, SnapshotId, WriteToken,
};

use super::{
    checks::Checks,
    random::Random,
    shell::{Shell, Wire},
};

/// How rough a run is. Some faults are wholly off in some runs, so that others get far.
#[derive(Clone, Debug)]
struct Weather {
    loss: u64,
    duplication: u64,
    delay_micros: u64,
    disk_micros: u64,
    faults_every_ms: u64,
    crashes: u64,
    partitions: u64,
    pauses: u64,
    disk_full: u64,
    wipes: u64,
    reconfigures: u64,
    compacts: u64,
    clients_every_ms: u64,
}

impl Weather {
    fn draw(random: &mut Random) -> Self {
        let mut one_of = |list: &[u64]| *random.pick(list).expect("a list with something in it");
        Self {
            loss: one_of(&[0, 5, 30, 200]),
            duplication: one_of(&[0, 20, 200]),
            delay_micros: one_of(&[1_000, 20_000, 300_000]),
            disk_micros: one_of(&[500, 10_000, 200_000]),
            faults_every_ms: one_of(&[150, 700, 2_500]),
            crashes: one_of(&[0, 10, 40]),
            partitions: one_of(&[0, 10, 30]),
            pauses: one_of(&[0, 10]),
            disk_full: one_of(&[0, 0, 5]),
            wipes: one_of(&[0, 0, 5]),
            reconfigures: one_of(&[0, 0, 100]),
            compacts: one_of(&[0, 20, 200]),
            clients_every_ms: one_of(&[3, 20, 120]),
        }
    }

    fn calm() -> Self {
        Self {
            loss: 0,
            duplication: 0,
            delay_micros: 2_000,
            disk_micros: 1_000,
            faults_every_ms: 1_000_000,
            crashes: 0,
            partitions: 0,
            pauses: 0,
            disk_full: 0,
            wipes: 0,
            reconfigures: 0,
            compacts: 20,
            clients_every_ms: 20,
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Deliver(Wire),
    /// The disk of a replica carries out some of its writes.
    Disk(ReplicaId, u64),
    Complete(ReplicaId, u64, WriteToken),
    Apply(ReplicaId, u64),
    Snapshot(ReplicaId, u64, Index),
    Stored(ReplicaId, u64, Position, u64),
    Hint {
        at: ReplicaId,
        about: ReplicaId,
    },
    Later(ReplicaId, Input),
    Restart(ReplicaId),
    Client,
    Fault,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    now: u64,
    sequence: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    pub(crate) shells: BTreeMap<ReplicaId, Shell>,
    pub(crate) checks: Checks,
    weather: Weather,
    blocked: BTreeSet<(ReplicaId, ReplicaId)>,
    paused: BTreeMap<ReplicaId, u64>,
    full: BTreeSet<ReplicaId>,
    /// The voters the group shall have.
    wanted: Vec<ReplicaId>,
    gone: BTreeSet<ReplicaId>,
    names: u64,
    proposals: Vec<u64>,
    calm: bool,
}

impl World {
    pub(crate) fn new(seed: u64, voters: u64) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::draw(&mut random);
        let ids: Vec<_> = (1..=voters).map(ReplicaId).collect();
        let configuration = Configuration::of_voters(ids.iter().copied()).expect("voters make a group");
        let retained = *random.pick(&[0, 100, 10_000]).expect("not empty");
        let mut world = Self {
            now: 1,
            sequence: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            shells: BTreeMap::new(),
            checks: Checks::default(),
            weather,
            blocked: BTreeSet::new(),
            paused: BTreeMap::new(),
            full: BTreeSet::new(),
            wanted: ids.clone(),
            gone: BTreeSet::new(),
            names: 0,
            proposals: Vec::new(),
            calm: false,
            random,
        };
        for id in ids {
            let mut shell = Shell::genesis(id, seed, configuration.clone());
            shell.retained_bytes = retained;
            world.shells.insert(id, shell);
            world.start(id);
        }
        world.schedule(Duration::from_millis(1), Event::Client);
        world.schedule(Duration::from_millis(500), Event::Fault);
        world
    }

    fn clock(&self) -> Now {
        Now { monotonic: Instant(self.now), wall: None }
    }

    fn schedule(&mut self, wait: Duration, event: Event) {
        self.sequence += 1;
        let at = self.now + u64::try_from(wait.as_nanos()).expect("soon");
        self.queue.push(Reverse((at, self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn start(&mut self, id: ReplicaId) {
        let now = self.clock();
        let shell = self.shells.get_mut(&id).expect("known");
        if shell.replica.is_none() {
            shell.start(now).unwrap_or_else(|error| panic!("{id} does not start: {error}"));
            if self.full.contains(&id) {
                self.input(id, Input::DiskFull(true));
            }
        }
    }

    /// Runs until `until` nanoseconds.
    pub(crate) fn run(&mut self, duration: Duration) {
        let until = self.now + u64::try_from(duration.as_nanos()).expect("soon");
        while self.step(until) {}
        self.now = until;
    }

    fn step(&mut self, until: u64) -> bool {
        let due = self
            .shells
            .iter()
            .filter_map(|(&id, shell)| {
                let at = shell.replica.as_ref()?.deadline()?.0;
                Some((at.max(self.paused.get(&id).copied().unwrap_or(0)).max(self.now), id))
            })
            .min();
        let queued = self.queue.peek().map(|Reverse((at, _))| *at);
        match (due, queued) {
            (Some((at, id)), queued) if queued.is_none_or(|queued| at <= queued) => {
                if at > until {
                    return false;
                }
                self.now = at;
                self.input(id, Input::Tick);
            }
            (_, Some(at)) => {
                if at > until {
                    return false;
                }
                let Reverse((at, sequence)) = self.queue.pop().expect("looked at just now");
                self.now = at;
                let event = self.events.remove(&sequence).expect("scheduled");
                self.happen(event);
            }
            (_, None) => return false,
        }
        true
    }

    /// Feeds one input; now and then twice, to see that a replica is a pure function.
    fn input(&mut self, id: ReplicaId, input: Input) {
        let now = self.clock();
        let twin = self.random.chance(30).then(|| {
            let mut twin = self.shells[&id].replica().clone();
            twin.handle(now, input.clone());
            let outputs: Vec<_> = std::iter::from_fn(|| twin.poll_output()).collect();
            (twin, outputs)
        });
        let outputs = self.shells.get_mut(&id).expect("known").handle(now, input);
        if let Some((twin, expected)) = twin {
            assert_eq!(outputs, expected, "the same input gives the same outputs");
            assert_eq!(&twin, self.shells[&id].replica(), "the same input gives the same replica");
            let hash = |replica: &_| {
                let mut hasher = DefaultHasher::new();
                Hash::hash(replica, &mut hasher);
                hasher.finish()
            };
            assert_eq!(hash(&twin), hash(self.shells[&id].replica()));
        }
        self.follow_up(id, outputs);
    }

    fn follow_up(&mut self, id: ReplicaId, outputs: Vec<Output>) {
        self.checks.observe(&self.shells[&id], &self.shells, &outputs);
        let boot = self.shells[&id].boots;
        for output in outputs {
            match output {
                Output::Write(_) | Output::Purge(_) => {
                    if !self.full.contains(&id) {
                        let wait = self.random.micros(1..self.weather.disk_micros);
                        self.schedule(wait, Event::Disk(id, boot));
                    }
                }
                Output::Send(message) => self.send(id, message),
                Output::Commit(_) => {
                    let wait = self.random.micros(1..5_000);
                    self.schedule(wait, Event::Apply(id, boot));
                }
                Output::BuildSnapshot { at_least } => {
                    let wait = self.random.micros(1..50_000);
                    self.schedule(wait, Event::Snapshot(id, boot, at_least));
                }
                Output::StoreChunk { snapshot, offset, length, .. } => {
                    let wait = self.random.micros(1..5_000);
                    let position = snapshot.meta.position;
                    self.schedule(wait, Event::Stored(id, boot, position, offset + length));
                }
                Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::ReadReady { .. }
                | Output::ReadRefused { .. }
                | Output::RoleChanged(_)
                | Output::Members(_) => {}
                Output::Faulted(fault) => panic!("no write failed, yet {id} is faulted: {fault:?}"),
            }
        }
    }

    fn send(&mut self, from: ReplicaId, message: kotoba_db_cluster::raft::Message) {
        let to = message.to;
        let failed = Input::GatherFailed {
            to,
            index: match &message.body {
                Body::Append(append) => append.entries.first,
                _ => Index(1),
            },
        };
        let Some(wire) = self.shells[&from].gather(message) else {
            // Reported later: an input may not be fed while outputs are being carried out.
            return self.schedule(Duration::from_micros(1), Event::Later(from, failed));
        };
        let lost = self.random.chance(self.weather.loss) || self.blocked.contains(&(from, to));
        let copies = if lost { 0 } else { 1 + u64::from(self.random.chance(self.weather.duplication)) };
        for _ in 0..copies {
            let wait = self.random.micros(50..self.weather.delay_micros);
            let wait = if self.weather.loss > 0 && self.random.chance(3) { wait * 20 } else { wait };
            self.schedule(wait, Event::Deliver(wire.clone()));
        }
    }

    fn happen(&mut self, event: Event) {
        let (id, boot) = match &event {
            Event::Deliver(wire) => (wire.message.to, None),
            Event::Disk(id, boot)
            | Event::Complete(id, boot, _)
            | Event::Apply(id, boot)
            | Event::Snapshot(id, boot, _)
            | Event::Stored(id, boot, _, _) => (*id, Some(*boot)),
            Event::Hint { at, .. } | Event::Later(at, _) => (*at, None),
            Event::Restart(id) => return self.start(*id),
            Event::Client => return self.client(),
            Event::Fault => return self.fault(),
        };
        let Some(shell) = self.shells.get(&id) else { return };
        if shell.replica.is_none() || boot.is_some_and(|boot| boot != shell.boots) {
            return;
        }
        if let Some(&until) = self.paused.get(&id)
            && until > self.now
        {
            return self.schedule(Duration::from_nanos(until - self.now), event);
        }
        let now = self.clock();
        match event {
            Event::Deliver(wire) => {
                if self.blocked.contains(&(wire.message.from, id)) {
                    return;
                }
                let outputs = self.shells.get_mut(&id).expect("known").receive(now, wire);
                self.follow_up(id, outputs);
            }
            Event::Disk(id, boot) => self.disk(id, boot),
            Event::Complete(id, _, token) => {
                self.input(id, Input::Persisted { token, result: Ok(()) });
                if self.random.chance(20) && self.shells[&id].replica.is_some() {
                    self.input(id, Input::Persisted { token, result: Ok(()) });
                }
            }
            Event::Apply(id, _) => {
                let shell = self.shells.get_mut(&id).expect("known");
                let applied = shell.apply();
                let index = shell.state.applied;
                self.checks.applied(&self.shells[&id], &applied);
                self.input(id, Input::Applied(index));
                if self.random.chance(self.weather.compacts) {
                    self.shells.get_mut(&id).expect("known").sync_state();
                    let durable = self.shells[&id].disk.state.applied;
                    let index = Index(durable.0.saturating_sub(self.random.below(20)));
                    self.input(id, Input::Compact(index));
                }
            }
            Event::Snapshot(id, _, at_least) => {
                let name = self.name();
                let bytes = self.random.within(1..6 << 18);
                let shell = self.shells.get_mut(&id).expect("known");
                let fits = shell.state.applied >= at_least;
                let built = shell.build_snapshot(SnapshotId(name), bytes);
                let built = (fits && !self.random.chance(50)).then_some(built);
                self.input(id, Input::SnapshotBuilt(built));
            }
            Event::Stored(id, _, position, next_offset) => {
                let damaged = !self.calm && self.random.chance(20);
                let input = if damaged {
                    Input::SnapshotDamaged(position)
                } else {
                    Input::ChunkStored { position, next_offset }
                };
                self.input(id, input);
            }
            Event::Hint { at, about } => self.input(at, Input::Unreachable(about)),
            Event::Later(at, input) => self.input(at, input),
            Event::Restart(_) | Event::Client | Event::Fault => unreachable!("handled above"),
        }
    }

    /// Carries out some writes; each is reported on its own, in any order.
    fn disk(&mut self, id: ReplicaId, boot: u64) {
        if self.full.contains(&id) {
            return;
        }
        let count = 1 + self.random.below(3);
        for _ in 0..count {
            let shell = self.shells.get_mut(&id).expect("known");
            if shell.writes_pending() == 0 {
                return;
            }
            if let Some(token) = shell.write_one() {
                let wait = self.random.micros(1..2 + self.weather.disk_micros / 2);
                self.schedule(wait, Event::Complete(id, boot, token));
            }
        }
        if self.random.chance(100) {
            self.shells.get_mut(&id).expect("known").sync_state();
        }
    }

    fn leader(&self) -> Option<ReplicaId> {
        let leads = |shell: &&Shell| {
            shell.replica.as_ref().is_some_and(|replica| replica.status().role.role == RoleKind::Leader)
        };
        self.shells
            .values()
            .filter(leads)
            .max_by_key(|shell| shell.replica().status().role.term)
            .map(|shell| shell.id)
    }

    fn client(&mut self) {
        let wait = Duration::from_millis(self.random.within(1..self.weather.clients_every_ms + 1));
        self.schedule(wait, Event::Client);
        let running: Vec<_> =
            self.shells.values().filter(|shell| shell.replica.is_some()).map(|shell| shell.id).collect();
        // Any replica that believes it leads is asked, also one that was deposed long ago.
        let leaders: Vec<_> = running
            .iter()
            .copied()
            .filter(|id| self.shells[id].replica().status().role.role == RoleKind::Leader)
            .collect();
        let target = if self.random.chance(900) { &leaders } else { &running };
        let Some(&target) = self.random.pick(target) else { return };
        if self.paused.get(&target).is_some_and(|&until| until > self.now) {
            return;
        }
        match self.random.below(10) {
            0..5 => {
                self.propose(target);
            }
            5..9 => {
                let read = ReadId(self.name());
                self.checks.read_begins(read);
                self.input(target, Input::Read(read));
            }
            _ => self.administer(target),
        }
    }

    fn propose(&mut self, target: ReplicaId) -> Vec<u64> {
        let count = if self.random.chance(100) { self.random.within(2..50) } else { 1 };
        let values: Vec<_> = (0..count).map(|_| self.name()).collect();
        self.proposals.extend(&values);
        let now = self.clock();
        let outputs = self.shells.get_mut(&target).expect("known").propose(now, &values);
        self.follow_up(target, outputs);
        values
    }

    /// One step towards the voters the group shall have.
    fn administer(&mut self, leader: ReplicaId) {
        let replica = self.shells[&leader].replica();
        let configuration = replica.configuration();
        let missing = self.wanted.iter().copied().find(|&id| !configuration.is_member(id));
        let learner = self.wanted.iter().copied().find(|id| configuration.learners.contains(id));
        let mut surplus = configuration.voters.iter().copied();
        let surplus = surplus.find(|id| *id != leader && !self.wanted.contains(id));
        let change = match (missing, learner, surplus) {
            (Some(id), _, _) => ConfigurationChange::AddLearner(id),
            (None, Some(id), _) => ConfigurationChange::Promote(id),
            (None, None, Some(id)) => ConfigurationChange::Remove(id),
            (None, None, None) => return,
        };
        let payload = PayloadId(u64::MAX);
        self.input(leader, Input::Reconfigure { change, payload });
    }

    fn settled_members(&self) -> bool {
        self.leader().is_some_and(|leader| {
            let status = self.shells[&leader].replica().status();
            status.configuration_committed
                && status.configuration.learners.is_empty()
                && self.wanted.iter().all(|id| status.configuration.voters.contains(id))
                // A leader is not removed while it leads.
                && status.configuration.voters.iter().all(|&id| id == leader || self.wanted.contains(&id))
        })
    }

    fn fault(&mut self) {
        let wait = Duration::from_millis(self.random.within(1..self.weather.faults_every_ms * 2));
        self.schedule(wait, Event::Fault);
        let all: Vec<_> = self.shells.keys().copied().filter(|id| !self.gone.contains(id)).collect();
        let Some(&victim) = self.random.pick(&all) else { return };
        // Whoever leads is the most interesting victim.
        let leader = self.leader().filter(|_| self.random.chance(400));
        let victim = leader.unwrap_or(victim);
        let weather = self.weather.clone();
        let total = 10
            + weather.crashes
            + weather.partitions
            + weather.pauses
            + weather.disk_full
            + weather.wipes
            + weather.reconfigures;
        let mut at = self.random.below(total);
        let mut is = |weight: u64| {
            let hit = at < weight;
            at = if hit { u64::MAX } else { at.wrapping_sub(weight) };
            hit
        };
        if is(weather.crashes) {
            self.crash(victim);
        } else if is(weather.partitions) {
            self.partition(victim);
        } else if is(weather.pauses) {
            let length = self.random.within(1..3_000_000_000);
            self.paused.insert(victim, self.now + length);
        } else if is(weather.disk_full) {
            self.toggle_full(victim);
        } else if is(weather.wipes) {
            self.wipe(victim);
        } else if is(weather.reconfigures) {
            self.resize();
        } else if let Some(&other) = self.random.pick(&all)
            && self.shells[&other].replica.is_some()
        {
            let input = if self.random.chance(500) { Input::Unreachable(victim) } else { Input::Campaign };
            self.input(other, input);
        }
    }

    fn crash(&mut self, victim: ReplicaId) {
        let shell = self.shells.get_mut(&victim).expect("known");
        if shell.replica.is_none() {
            return;
        }
        // What was on its way may have reached the disk, unreported.
        for _ in 0..self.random.below(3) {
            let _unreported = shell.write_one();
        }
        shell.crash();
        self.checks.counts.crashes += 1;
        let wait = self.random.micros(1_000..2_000_000);
        self.schedule(wait, Event::Restart(victim));
        let others: Vec<_> = self.shells.keys().copied().filter(|&id| id != victim).collect();
        for other in others {
            if self.random.chance(500) {
                let wait = self.random.micros(10..10_000);
                self.schedule(wait, Event::Hint { at: other, about: victim });
            }
        }
    }

    fn partition(&mut self, victim: ReplicaId) {
        self.blocked.clear();
        if self.random.chance(400) {
            return;
        }
        let ids: Vec<_> = self.shells.keys().copied().collect();
        let one_way = self.random.chance(250);
        let alone = 1 << (victim.0 % 64);
        let side = if self.random.chance(500) { alone } else { self.random.next() };
        for &a in &ids {
            for &b in &ids {
                let (left, right) = (side >> (a.0 % 64) & 1 == 0, side >> (b.0 % 64) & 1 == 0);
                if left != right && (!one_way || left) {
                    self.blocked.insert((a, b));
                }
            }
        }
    }

    fn toggle_full(&mut self, victim: ReplicaId) {
        let full = self.full.insert(victim) || !self.full.remove(&victim);
        if self.shells[&victim].replica.is_none() {
            return;
        }
        let boot = self.shells[&victim].boots;
        self.input(victim, Input::DiskFull(full));
        for _ in 0..if full { 0 } else { self.shells[&victim].writes_pending() } {
            self.schedule(Duration::from_millis(1), Event::Disk(victim, boot));
        }
    }

    /// A directory is lost: the replica never comes back; another takes its place.
    fn wipe(&mut self, victim: ReplicaId) {
        if !self.settled_members() || !self.wanted.contains(&victim) || self.wanted.len() < 3 {
            return;
        }
        self.shells.get_mut(&victim).expect("known").crash();
        self.gone.insert(victim);
        let id = self.add_blank();
        self.wanted.retain(|&wanted| wanted != victim);
        self.wanted.push(id);
    }

    fn add_blank(&mut self) -> ReplicaId {
        let id = ReplicaId(1 + self.shells.len() as u64);
        let seed = self.random.next();
        self.shells.insert(id, Shell::blank(id, seed));
        self.start(id);
        id
    }

    /// Wants another set of voters.
    fn resize(&mut self) {
        if !self.settled_members() || self.shells.len() > 12 {
            return;
        }
        if self.wanted.len() > 2 && self.random.chance(500) {
            let at = usize::try_from(self.random.below(self.wanted.len() as u64)).expect("small");
            self.wanted.remove(at);
        } else if self.wanted.len() < 5 {
            let id = self.add_blank();
            self.wanted.push(id);
        }
    }

    /// Every fault ends; those who are gone stay gone.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.weather = Weather::calm();
        self.blocked.clear();
        self.paused.clear();
        for id in self.shells.keys().copied().collect::<Vec<_>>() {
            if self.full.contains(&id) {
                self.toggle_full(id);
            }
            if !self.gone.contains(&id) {
                self.start(id);
            }
        }
    }

    /// A leader commits a fresh proposal, and every member applies it.
    pub(crate) fn assert_live(&mut self, seed: u64) {
        self.run(Duration::from_secs(60));
        for _ in 0..5 {
            let Some(leader) = self.leader() else {
                self.run(Duration::from_secs(5));
                continue;
            };
            let values = self.propose(leader);
            let last = *values.last().expect("a proposal has values");
            // No client helps: what is lost must be found by the leader itself.
            self.weather.clients_every_ms = 1_000_000;
            self.run(Duration::from_secs(10));
            if !self.checks.committed_value(last) {
                continue;
            }
            let leader = self.leader().expect("a calm group keeps its leader");
            let members = self.shells[&leader].replica().configuration().members();
            for member in members.iter().filter(|member| !self.gone.contains(member)) {
                let shell = &self.shells[member];
                self.checks.state(shell);
                assert!(
                    shell.state.values.iter().any(|&(_, value)| value == last),
                    "Liveness: {member} lacks what was committed (seed {seed}): {:#?}",
                    (shell.replica(), self.shells[&leader].replica())
                );
            }
            assert!(
                self.settled_members(),
                "Liveness: members stay unsettled (seed {seed}): {:#?} shall be {:?}",
                self.shells[&leader].replica(),
                self.wanted
            );
            return;
        }
        let replicas: Vec<_> = self.shells.values().filter_map(|shell| shell.replica.as_ref()).collect();
        panic!("Liveness: nothing is committed (seed {seed}): {replicas:#?}");
    }
}
