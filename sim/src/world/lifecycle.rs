//! Processes begin, end, and begin again; directories are lost.

use std::collections::{BTreeMap, VecDeque};

use kotoba_db_cluster::{
    multiraft::{Node, NodeInput, Routes},
    raft::{
        BootEpoch, Configuration, ConfigurationEntry, GroupId, Index, PeerId, Position, Replica, ReplicaId,
        Restored, Settings, SnapshotMeta, Term, Timing,
    },
    storage::wal::{GroupWrite, LogId, LogIndex, MemDisk, Recovery, WalOptions, WalWriter},
};

use super::{
    World,
    event::Event,
    host::{Damage, Host, Hosted, LastBatch, Process, Stored, Submission, fresh},
    network::nanos,
    storage::OLD_TOKENS_MAX,
};
use crate::{
    check::{
        Check,
        monotonicity::Marks,
        recovery::{self, Kept},
        state_machine_safety::Ledger,
    },
    choice::Topic,
    machine::StateMachine,
    situations::Situation,
    trace::{Detail, Kind},
};

/// Where every group begins.
pub(super) const GENESIS: Position = Position::new(Index(1), Term(1));
/// How long a killed process stays down at most, and at least.
const DOWN_NANOS: u64 = 3_000_000_000;
const DOWN_NANOS_MIN: u64 = 20_000_000;
/// One process in this many dies without its machine.
const DIES_ALONE_ONE_IN: u64 = 3;

impl<M: StateMachine> World<M> {
    /// Starts a host's process from what its disk holds.
    pub(super) fn start(&mut self, at: usize) {
        if self.hosts[at].process.is_some() || self.hosts[at].damage == Damage::Known {
            return;
        }
        let host = &mut self.hosts[at];
        host.life += 1;
        let options = WalOptions {
            segment_bytes: self.profile.segment_bytes,
            rewrite_bytes_max: self.profile.segment_bytes / 4,
            ..WalOptions::new(host.log_id)
        };
        let disk = std::mem::take(&mut host.disk);
        let untouched = (host.damage != Damage::None).then(|| disk.clone());
        let (mut writer, mut recovery) = match WalWriter::open(disk, options) {
            Ok(opened) => opened,
            Err(error) if host.damage != Damage::None => {
                host.disk = untouched.expect("kept for damaged disks");
                return self.know_damage(at, &error.to_string());
            }
            Err(error) => return self.fail(Check::Recovery, format!("host {at}: {error}")),
        };
        if recovery.torn.is_some() {
            self.situations.count(Situation::TornTail);
        }
        let verdict = self.check_recovery(at, &recovery);
        self.judge(verdict);
        let host = &mut self.hosts[at];
        let before = std::mem::replace(&mut host.boot, recovery.boot);
        let verdict = recovery::opened(host.number, before, recovery.boot);
        self.judge(verdict);
        if self.begin_groups(at, &mut writer) {
            let disk = writer.close().expect("a sound disk is written");
            (writer, recovery) = WalWriter::open(disk, options).expect("a log that was just closed opens");
            self.hosts[at].boot = recovery.boot;
        }
        self.launch(at, writer, &recovery);
    }

    fn check_recovery(&mut self, at: usize, recovery: &Recovery) -> crate::check::Verdict {
        let host = &self.hosts[at];
        let Some((before, after)) = &host.kept else { return Ok(()) };
        let verdict = recovery::recovered(host.number, before, after, recovery);
        if verdict.is_ok() && before != after && recovery.torn.is_none() {
            self.situations.count(Situation::UnreportedKept);
        }
        verdict
    }

    /// Makes the first state of groups durable that the log does not know yet. Returns whether
    /// there was one.
    fn begin_groups(&mut self, at: usize, writer: &mut WalWriter<MemDisk>) -> bool {
        let host = &mut self.hosts[at];
        let mut writes = Vec::new();
        for (&group, stored) in &mut host.groups {
            if std::mem::replace(&mut stored.begun, true) {
                continue;
            }
            let configuration = &self.genesis[&group];
            let founder = configuration.is_voter(stored.replica);
            let start = SnapshotMeta { position: GENESIS, configuration: configuration.clone() };
            writes.push(GroupWrite {
                remove: true,
                hard_state: Some(fresh(if founder { GENESIS.term } else { Term(0) })),
                install: founder.then_some(start),
                ..GroupWrite::of(group)
            });
            stored.durable = founder.then(|| (GENESIS, M::create(group, GENESIS)));
        }
        if writes.is_empty() {
            return false;
        }
        writer.write(&writes).expect("a sound disk is written");
        true
    }

    fn launch(&mut self, at: usize, writer: WalWriter<MemDisk>, recovery: &Recovery) {
        let now = self.hosts[at].clock.now(self.now);
        let mut node = Node::new();
        let mut hosted = BTreeMap::new();
        let groups: Vec<_> = self.hosts[at].groups.keys().copied().collect();
        for group in groups {
            if let Some((replica, state)) = self.recover_group(at, group, recovery, now) {
                node.add_group(group, replica, self.routes(group));
                hosted.insert(group, state);
            }
            self.configurations.remove(&(at, group));
            self.checks.trials.remove(&(at, group));
        }
        let host = &mut self.hosts[at];
        host.process = Some(Process {
            node,
            log: LogIndex::of_recovery(recovery, self.profile.cache_bytes),
            writer,
            groups: hosted,
            turn: Submission::default(),
            queue: VecDeque::new(),
            writing: None,
            batch: 0,
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            names: 0,
        });
        host.kept = None;
        host.paused_until = 0;
        host.timers_from = 0;
        let (number, boot) = (host.number, recovery.boot);
        self.show(Kind::Process, at, Detail::Started, || format!("starts, life {}", boot.0));
        self.show_first_roles(at);
        self.trace.event(self.now, number, &("start", boot));
        let process = self.hosts[at].process.as_mut().expect("just made");
        let log = &mut process.log;
        for (&group, hosted) in &process.groups {
            log.applied(group, hosted.applied.index);
        }
        let configurations = process.groups.keys().filter_map(|&group| {
            let status = process.node.replica(group)?.status();
            let (index, configuration) = (status.configuration_index, status.configuration);
            Some(((at, group), ConfigurationEntry { index, configuration }))
        });
        self.configurations.extend(configurations);
        if self.hosts[at].full_until > self.now {
            self.hosts[at].process.as_mut().expect("just made").writer.disk_mut().refuse_writes(true);
        }
        // Wakes it, and plans its first deadline.
        self.input(at, NodeInput::Tick, None);
    }

    fn recover_group(
        &mut self,
        at: usize,
        group: GroupId,
        recovery: &Recovery,
        now: kotoba_db_cluster::raft::Now,
    ) -> Option<(Replica, Hosted<M>)> {
        let seed = self.choices.below(Topic::Seed, self.hosts[at].number, u64::MAX);
        let host = &mut self.hosts[at];
        let stored = host.groups.get_mut(&group).expect("asked for its groups");
        let found = recovery.groups.get(&group);
        let damaged = host.damage != Damage::None;
        let Some(found) = found.filter(|found| found.damage.is_none()) else {
            if !damaged {
                let message =
                    format!("host {} {group}: damaged or gone, yet nothing was broken", host.number);
                self.fail(Check::Recovery, message);
                return None;
            }
            self.know_damage(at, &format!("{group}: {:?}", found.and_then(|found| found.damage)));
            return None;
        };
        // An installation that a crash interrupted is finished.
        let applied = stored.durable.as_ref().map_or(Position::ZERO, |(position, _)| *position);
        if let Some(received) =
            stored.received.get(&found.start.position.index).filter(|received| received.meta == found.start)
            && applied.index < found.start.position.index
            && let data = &received.snapshot.data
            && let Ok(machine) = match &stored.durable {
                Some((_, before)) => before.replaced(group, found.start.position, data),
                None => M::restore(group, found.start.position, data),
            }
        {
            stored.durable = Some((found.start.position, machine));
            self.situations.count(Situation::InstallFinished);
        }
        let applied = stored.durable.as_ref().map_or(Position::ZERO, |(position, _)| *position);
        let restored = Restored {
            hard_state: found.hard_state,
            start: found.start.clone(),
            runs: found.runs.iter().map(|run| (run.last, run.bytes)).collect(),
            configurations: found.configurations.clone(),
            applied: applied.index,
            damaged: false,
        };
        let settings = Settings {
            id: stored.replica,
            boot: recovery.boot,
            seed,
            timing: Timing {
                heartbeat: self.profile.heartbeat,
                election: self.profile.election,
                ..Timing::default()
            },
            retained_bytes: self.profile.retained_bytes,
            limits: self.profile.limits,
        };
        let hosted = Hosted {
            machine: stored.durable.as_ref().map(|(_, machine)| machine.restarted()),
            applied,
            flushing: None,
            dispatched: applied.index,
            queue: VecDeque::new(),
            applying: false,
            ready: Vec::new(),
            incoming: None,
            marks: Marks::default(),
            start: found.start.position.index,
        };
        match Replica::recover(settings, restored, now) {
            Ok(replica) => Some((replica, hosted)),
            Err(error) if damaged => {
                self.know_damage(at, &format!("{group}: {error}"));
                None
            }
            Err(error) => {
                let message = format!("host {} {group}: {error}", self.hosts[at].number);
                self.fail(Check::Recovery, message);
                None
            }
        }
    }

    /// A restart found damage: an operator will wipe the directory.
    fn know_damage(&mut self, at: usize, what: &str) {
        self.situations.count(Situation::DamageFound);
        self.say(Kind::Fault, Some(at), || format!("finds damage: {what}"));
        self.hosts[at].damage = Damage::Known;
    }

    /// A running process finds that a group's log cannot be read: it runs on without the group.
    pub(super) fn refuse_group(&mut self, at: usize, group: GroupId) {
        self.know_damage(at, &format!("{group}: committed entries cannot be read"));
        let process = self.hosts[at].process.as_mut().expect("it found the damage");
        process.node.remove_group(group);
        process.groups.remove(&group);
    }

    /// Kills a process. With its machine: what was not flushed may be lost, sector by sector. Alone: the
    /// next one reads all of it, and a later power failure may still take it.
    pub(super) fn crash(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let number = host.number;
        let Some(mut process) = host.process.take() else { return };
        host.life += 1;
        host.wake = u64::MAX;
        host.earlier.extend(std::mem::take(&mut host.asked));
        while host.earlier.len() > OLD_TOKENS_MAX {
            host.earlier.pop_front();
        }
        let groups: Vec<_> = host.groups.keys().copied().collect();
        let before = Kept::of(&process.writer, groups.iter().copied());
        let mut after = before.clone().with(&std::mem::take(&mut host.in_doubt));
        self.situations.count(Situation::Crashed);
        let unreported = process.queue.iter().chain(&process.writing).flat_map(|batch| &batch.tokens);
        host.old_tokens.extend(unreported.map(|plan| (plan.group, plan.token)).take(OLD_TOKENS_MAX));
        if let Some(batch) = process.writing.take() {
            self.situations.count(Situation::CrashedWriting);
            // A writer whose disk failed before writes nothing any more.
            if after == before {
                after = after.with(&batch.writes);
            }
            // Zero: the disk had not begun. Few changes are a batch, many begin a segment.
            let most = [12, 5][usize::from(self.choices.below(Topic::Crash, number, 2) == 1)];
            let reached = self.choices.below(Topic::Crash, number, most);
            if reached > 0 {
                process.writer.disk_mut().cut_power_at(reached - 1);
                // Whether it failed or was done in time: nobody is told.
                let _unreported = process.writer.write(&batch.writes);
            }
        }
        let choices = &mut self.choices;
        let disk = if choices.below(Topic::Crash, number, DIES_ALONE_ONE_IN) == 1 {
            self.situations.count(Situation::DiedAlone);
            process.writer.disk().process_died()
        } else {
            let mut disk = process.writer.disk().crash(|versions| {
                usize::try_from(choices.below(Topic::Crash, number, versions as u64)).expect("few versions")
            });
            self.damage_in_crash(at, &mut disk);
            disk
        };
        // The store may have kept more than it was asked to.
        for (&group, hosted) in &process.groups {
            let lucky = self.choices.below(Topic::Crash, number, 3) == 1;
            if lucky && let Some(machine) = &hosted.machine {
                let stored = self.hosts[at].groups.get_mut(&group).expect("hosts know their groups");
                stored.durable = Some((hosted.applied, machine.clone()));
            }
        }
        let host = &mut self.hosts[at];
        host.disk = disk;
        host.kept = Some((before, after));
        host.disk_full = false;
        self.trace.event(self.now, number, &"crash");
        self.show(Kind::Process, at, Detail::Killed, || "is killed".to_owned());
        self.tell_others(at);
        let down = DOWN_NANOS_MIN + self.choices.below(Topic::Down, number, DOWN_NANOS);
        self.agenda.plan(self.now + down, Event::Start { host: at });
    }

    /// Others may hear that connections were closed.
    fn tell_others(&mut self, at: usize) {
        let about = self.hosts[at].peer;
        for other in 0..self.hosts.len() {
            if other != at && self.choices.chance(Topic::Hearsay, self.hosts[other].number, HINT_CHANCE) {
                let wait = 50_000 + self.choices.below(Topic::Hearsay, self.hosts[other].number, 5_000_000);
                self.agenda.plan(self.now + wait, Event::Hint { host: other, about });
            }
        }
    }

    /// A data directory is lost. The host comes back as a stranger, with new replicas in the place
    /// of the old ones.
    pub(super) fn wipe(&mut self, at: usize) {
        if self.hosts[at].process.is_none() {
            // One that could not start for damage has no start planned.
            self.agenda.plan(self.now + DOWN_NANOS_MIN, Event::Start { host: at });
        }
        self.crash(at);
        let peer = self.mint_peer(at);
        let host = &mut self.hosts[at];
        host.life += 1;
        host.peer = peer;
        host.log_id = LogId(u128::from(peer.0).to_be_bytes());
        host.boot = BootEpoch(0);
        host.disk = MemDisk::new();
        let kept = host.kept.take().map(|(kept, _)| kept).unwrap_or_default();
        host.damage = Damage::None;
        host.full_until = 0;
        host.old_tokens.clear();
        host.earlier.clear();
        host.last_batch = LastBatch::default();
        host.batches_before.clear();
        let groups: Vec<_> = host.groups.keys().copied().collect();
        for group in groups {
            let old = self.hosts[at].groups[&group].replica;
            self.lost.insert((group, old), kept.clone());
            let wanted = self.wanted[&group].contains(&old);
            if wanted {
                let new = self.mint_replica(group, at);
                let list = self.wanted.get_mut(&group).expect("every group has wanted voters");
                list.retain(|replica| *replica != old);
                list.push(new);
            } else {
                self.hosts[at].groups.remove(&group);
            }
        }
        self.situations.count(Situation::Wiped);
        self.show(Kind::Process, at, Detail::Wiped, || "loses its data directory".to_owned());
        self.spread_routes();
    }

    /// Gives a host a replica of a group, under a number that was never used before.
    pub(super) fn mint_replica(&mut self, group: GroupId, at: usize) -> ReplicaId {
        let count = self.replicas.entry(group).or_default();
        *count += 1;
        let replica = ReplicaId(*count);
        let peer = self.hosts[at].peer;
        self.places.entry(group).or_default().push((replica, peer));
        let stored = Stored { replica, durable: None, received: BTreeMap::new(), begun: false };
        self.hosts[at].groups.insert(group, stored);
        replica
    }

    fn mint_peer(&mut self, at: usize) -> PeerId {
        let peer = PeerId(self.peers_minted + 1);
        self.peers_minted += 1;
        self.peers.insert(peer, at);
        peer
    }

    /// Which peer each replica of a group lives on.
    pub(super) fn routes(&self, group: GroupId) -> Routes {
        self.places[&group].iter().copied().collect()
    }

    /// Tells every process where replicas live.
    pub(super) fn spread_routes(&mut self) {
        let groups: Vec<_> = self.places.keys().copied().collect();
        for group in groups {
            let routes = self.routes(group);
            for host in &mut self.hosts {
                if let Some(process) = &mut host.process {
                    process.node.set_routes(group, routes.clone());
                }
            }
        }
    }

    /// The host a replica lives on, unless it was wiped.
    pub(super) fn host_of(&self, group: GroupId, replica: ReplicaId) -> Option<usize> {
        self.hosts
            .iter()
            .position(|host| host.groups.get(&group).is_some_and(|stored| stored.replica == replica))
    }

    /// Makes the hosts of a new run. None of them runs yet.
    pub(super) fn found(&mut self, hosts: u32, spare: u32) {
        for number in 0..hosts + spare {
            let at = number as usize;
            // 0, -1, 1, -2, 2, ...: zero is the true clock.
            let drift =
                self.choices.below(Topic::Clock, number, 2 * u64::from(self.profile.clock.drift_ppm) + 1);
            let half = i64::try_from(drift.div_ceil(2)).expect("drifts are small");
            let drift = if drift.is_multiple_of(2) { half } else { -half };
            let offset = 1 + self.choices.below(Topic::Clock, number, 3_600_000_000_000);
            let peer = self.mint_peer(at);
            self.hosts.push(Host {
                number,
                peer,
                log_id: LogId(u128::from(peer.0).to_be_bytes()),
                clock: super::clock::HostClock::new(offset, drift, self.profile.clock.wall),
                boot: BootEpoch(0),
                life: 0,
                process: None,
                disk: MemDisk::new(),
                groups: BTreeMap::new(),
                paused_until: 0,
                timers_from: 0,
                wake: u64::MAX,
                disk_full: false,
                full_until: 0,
                stalled_until: 0,
                kept: None,
                damage: Damage::None,
                in_doubt: Vec::new(),
                old_tokens: VecDeque::new(),
                earlier: VecDeque::new(),
                asked: BTreeMap::new(),
                last_batch: LastBatch::default(),
                batches_before: VecDeque::new(),
            });
        }
        for group in (1..=self.profile.groups).map(GroupId) {
            let voters: Vec<_> = (0..hosts as usize).map(|at| self.mint_replica(group, at)).collect();
            let configuration =
                Configuration::of_voters(voters.iter().copied()).expect("voters make a group");
            self.wanted.insert(group, voters);
            let ledger = Ledger::new(group, GENESIS, configuration.clone());
            self.ledgers.insert(group, ledger);
            self.genesis.insert(group, configuration);
        }
    }

    /// A wiped or damaged host, or one whose replacement is not complete, must not meet another one.
    pub(super) fn all_sound(&self) -> bool {
        self.hosts.iter().all(|host| host.damage == Damage::None)
            && self.wanted.keys().all(|&group| self.is_settled(group))
    }

    pub(super) fn stop_for_seconds(&mut self, at: usize, longest: std::time::Duration) {
        let number = self.hosts[at].number;
        let length = 1 + self.choices.below(Topic::Process, number, nanos(longest));
        let host = &mut self.hosts[at];
        if host.process.is_none() {
            return;
        }
        host.paused_until = self.now + length;
        // What waits may be handled before the clock is looked at.
        if self.choices.below(Topic::Process, number, 2) == 1 {
            host.timers_from = host.paused_until + TIMERS_BEHIND;
        }
        host.wake = host.wake.max(host.paused_until).max(host.timers_from);
        self.situations.count(Situation::Paused);
        let detail = Detail::Paused(self.now + length);
        self.show(Kind::Process, at, detail, || format!("stands still for {} ms", length / 1_000_000));
    }
}

/// How long after standing still a process looks at its clock.
const TIMERS_BEHIND: u64 = 20_000_000;
/// Chance that a host hears of another's death.
const HINT_CHANCE: u32 = 300;
