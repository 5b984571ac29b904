//! A run: faults, then a core of hosts that must get by alone, then everything healed.

use std::time::Duration;

use kotoba_db_cluster::raft::{
    Configuration, GroupId, Index, Position, Replica, ReplicaId, RoleKind, Status,
};

use super::{World, host::Damage, network::LinkState};
use crate::{
    check::{
        Check,
        linearizability::{self, Judgement},
        sessions,
    },
    choice::{Chooser, Seeded, Topic},
    history::TrueTime,
    machine::StateMachine,
    situations::Situation,
    trace::Kind,
};

/// A core has this long to elect, write and read.
const CORE_NANOS: TrueTime = 40_000_000_000;
/// A healed cluster has this long to have the same everywhere.
const HEALED_NANOS: TrueTime = 90_000_000_000;
/// Members have this long to agree: a large snapshot in chunks of 64 bytes takes minutes.
const AGREED_NANOS: TrueTime = 600_000_000_000;
/// Clients of the last phases do not think for long.
const BRISK: Duration = Duration::from_millis(100);
/// How often a last phase is looked at.
const GLANCE_NANOS: TrueTime = 200_000_000;

impl<M: StateMachine> World<M> {
    /// The whole run. Ends early where a check fails.
    pub fn run(&mut self) {
        self.run_chaos();
        self.run_core();
        self.run_healed();
        self.finish();
    }

    /// Faults.
    pub fn run_chaos(&mut self) {
        let until = self.now + super::network::nanos(self.profile.chaos);
        self.run_until(until);
    }

    /// Only a core of hosts that holds a quorum of every group lives, undisturbed; it must serve.
    pub fn run_core(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let Some(core) = self.draw_core() else {
            // Only damage can leave no quorum, and damage is kept to a minority.
            return self.fail(Check::Liveness, "no set of sound hosts holds a quorum of every group");
        };
        self.say(Kind::Phase, None, || format!("only hosts {core:?} live on"));
        self.calm = true;
        self.profile.calm_down();
        self.heal_links();
        for at in 0..self.hosts.len() {
            if core.contains(&at) {
                self.heal(at);
            } else {
                self.break_for_good(at);
            }
        }
        // Whoever was asking is left to give up, so that what follows is asked of the core.
        self.clients.answered.clear();
        let served = |world: &Self| {
            world.genesis.keys().all(|group| {
                world.clients.answered.get(group).is_some_and(|&(writes, reads)| writes > 1 && reads > 1)
            })
        };
        // A change of members may need voters that are not here.
        self.operators = false;
        self.profile.think = self.profile.think.min(BRISK);
        self.insist = Some(Chooser::new(Seeded::new(0)));
        if !self.run_while(CORE_NANOS, |world| !served(world)) && self.violation.is_none() {
            if self.waits_for_lost_change(&core) {
                self.situations.count(Situation::CoreUnelectable);
                return;
            }
            let message = format!("hosts {core:?} do not serve: {}", self.describe());
            self.fail(Check::Liveness, message);
        }
    }

    /// Whether a group has nobody in the core who could win an election, because a change of members is
    /// in some logs only: whoever has it needs the vote of a replica that, not having it, is no voter
    /// in its own eyes and holds more. Only the leader that is gone knows both (thesis, section 4.2).
    fn waits_for_lost_change(&self, core: &[usize]) -> bool {
        let statuses = |group: GroupId| -> Vec<Status> {
            let processes = core.iter().filter_map(|&at| self.hosts[at].process.as_ref());
            processes.filter_map(|process| process.node.replica(group)).map(Replica::status).collect()
        };
        self.genesis.keys().any(|&group| {
            let members = statuses(group);
            let differ = members.iter().any(|member| member.configuration != members[0].configuration);
            let leads = members.iter().any(|member| member.role.role == RoleKind::Leader);
            let could_win = members.iter().any(|candidate| {
                let grants = |voter: &ReplicaId| {
                    members.iter().any(|member| {
                        member.id == *voter
                            && (candidate.last.term, candidate.last.index)
                                >= (member.last.term, member.last.index)
                    })
                };
                let Configuration { voters, outgoing, .. } = &candidate.configuration;
                voters.contains(&candidate.id)
                    && [voters, outgoing].into_iter().all(|half| {
                        half.is_empty() || 2 * half.iter().filter(|voter| grants(voter)).count() > half.len()
                    })
            });
            differ && !leads && !could_win
        })
    }

    /// Everything works; every member must come to hold the same.
    pub fn run_healed(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.say(Kind::Phase, None, || "everything is healed".to_owned());
        self.calm = true;
        self.profile.calm_down();
        self.heal_links();
        self.excluded.clear();
        self.operators = true;
        for at in 0..self.hosts.len() {
            self.heal(at);
        }
        self.run_while(HEALED_NANOS / 3, |world| !world.all_sound());
        self.clients.open = false;
        self.run_while(self.longest_wait(), |world| !world.clients.is_idle());
        if !self.run_while(AGREED_NANOS, |world| world.disagreement().is_some()) && self.violation.is_none() {
            let what = self.disagreement().unwrap_or_default();
            self.fail(Check::Convergence, format!("{what}: {}", self.describe()));
        }
    }

    /// Checks that need the whole run.
    fn finish(&mut self) {
        if self.violation.is_some() {
            return;
        }
        // Every member's state in full, not only where digests were due.
        for group in self.genesis.keys().copied().collect::<Vec<_>>() {
            for at in 0..self.hosts.len() {
                let Some(hosted) =
                    self.hosts[at].process.as_ref().and_then(|process| process.groups.get(&group))
                else {
                    continue;
                };
                let Some(machine) = &hosted.machine else { continue };
                let verdict =
                    self.ledgers[&group].state(self.hosts[at].number, hosted.applied.index, machine);
                let audit = machine.audit();
                self.judge(verdict);
                if let Err(what) = audit {
                    let host = self.hosts[at].number;
                    self.fail(Check::Invariant, format!("{group}: the state of host {host}: {what}"));
                }
            }
        }
        if let Err(anomaly) = sessions::check::<M::Model>(&self.clients.history) {
            self.fail(Check::SessionGuarantees, anomaly.to_string());
        }
        if self.profile.judged {
            self.judge_history();
        }
    }

    /// Looks for a sequential explanation of what the clients saw.
    fn judge_history(&mut self) {
        let history = &self.clients.history;
        // What the log holds and the machine refused had no effect.
        let effect = |place: usize| self.effect(place);
        let judgement = linearizability::check_guided::<M::Model>(history, linearizability::STEPS, &effect);
        match judgement {
            Judgement::Linearizable => self.situations.count(Situation::Explained),
            Judgement::Unknown { .. } => self.situations.count(Situation::Unexplained),
            Judgement::NotLinearizable(witness) => self.fail(Check::Linearizability, witness.to_string()),
        }
    }

    /// Runs until a condition ends or time is up. Returns whether it ended.
    fn run_while(&mut self, longest: TrueTime, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + longest;
        while condition(self) {
            if self.now >= end || self.violation.is_some() {
                return false;
            }
            self.run_until((self.now + GLANCE_NANOS).min(end));
        }
        true
    }

    fn heal(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.paused_until = self.now;
        host.timers_from = self.now;
        self.resume_disk(at);
        self.room(at);
        if self.hosts[at].process.is_none() {
            self.start(at);
        }
        self.rewake(at);
    }

    /// A host outside the core is dead, or worse: it lives and its disk does not answer, it hears
    /// nothing, is not heard, or neither.
    fn break_for_good(&mut self, at: usize) {
        let number = self.hosts[at].number;
        let fate = self.choices.below(Topic::Core, number, 6);
        if fate < 2 || self.hosts[at].damage != Damage::None {
            self.crash(at);
            self.excluded.insert(at);
            return;
        }
        self.situations.count(Situation::BrokenAlive);
        self.heal(at);
        let (deaf, mute) = match fate {
            2 => {
                self.say(Kind::Disk, Some(at), || "its disk does not answer any more".to_owned());
                self.hosts[at].stalled_until = TrueTime::MAX;
                (false, false)
            }
            3 => (true, false),
            4 => (false, true),
            _ => (true, true),
        };
        for other in (0..self.hosts.len()).filter(|&other| other != at) {
            if deaf {
                self.set_link(other, at, LinkState::Cut);
            }
            if mute {
                self.set_link(at, other, LinkState::Cut);
            }
        }
        self.say(Kind::Fault, Some(at), || format!("hears nothing: {deaf}, is not heard: {mute}"));
    }

    /// Hosts that together hold a quorum of every configuration that may be in force.
    fn draw_core(&mut self) -> Option<Vec<usize>> {
        let sound: Vec<usize> =
            (0..self.hosts.len()).filter(|&at| self.hosts[at].damage == Damage::None).collect();
        let mut order = sound.clone();
        // A random order; the calm one is that of their numbers.
        for last in (1..order.len()).rev() {
            let other = last
                - usize::try_from(self.choices.below(Topic::Core, 0, last as u64 + 1)).expect("few hosts");
            order.swap(last, other);
        }
        let demands = self.configurations_in_force();
        let enough = |core: &[usize]| {
            demands.iter().all(|(group, configuration)| {
                let alive =
                    |voter: &ReplicaId| self.host_of(*group, *voter).is_some_and(|at| core.contains(&at));
                [&configuration.voters, &configuration.outgoing].into_iter().all(|half| {
                    half.is_empty() || 2 * half.iter().filter(|voter| alive(voter)).count() > half.len()
                })
            })
        };
        if !enough(&order) {
            return None;
        }
        // As few as possible.
        let mut core = order;
        let mut at = 0;
        while at < core.len() {
            let left_out = core.remove(at);
            if !enough(&core) {
                core.insert(at, left_out);
                at += 1;
            }
        }
        core.sort_unstable();
        Some(core)
    }

    /// The last configuration that is committed, and every later one that some log ends with.
    fn configurations_in_force(&self) -> Vec<(GroupId, Configuration)> {
        let mut found = Vec::new();
        for (&group, ledger) in &self.ledgers {
            let committed = ledger.configuration();
            found.push((group, committed.configuration.clone()));
            let later = self
                .configurations
                .iter()
                .filter(|((_, of), entry)| *of == group && entry.index > committed.index)
                .map(|(_, entry)| (group, entry.configuration.clone()));
            found.extend(later);
        }
        found
    }

    /// What is not the same everywhere yet.
    fn disagreement(&self) -> Option<String> {
        for (&group, ledger) in &self.ledgers {
            if !self.is_settled(group) {
                return Some(format!("{group}: members are not settled"));
            }
            let last: Position = ledger.last();
            for replica in &self.wanted[&group] {
                let hosted = self
                    .host_of(group, *replica)
                    .and_then(|at| self.hosts[at].process.as_ref())
                    .and_then(|process| process.groups.get(&group));
                let applied = hosted.map_or(Index::ZERO, |hosted| hosted.applied.index);
                if applied != last.index {
                    return Some(format!("{group}: {replica} has applied {applied} of {}", last.index));
                }
            }
        }
        None
    }

    /// The replicas in a line each, for a message.
    pub(super) fn describe(&self) -> String {
        let mut text = String::new();
        for host in &self.hosts {
            let Some(process) = &host.process else {
                text.push_str(&format!("\n  host {} is down ({:?})", host.number, host.damage));
                continue;
            };
            for (group, replica) in process.node.groups() {
                let status = replica.status();
                text.push_str(&format!(
                    "\n  host {} {group} {}: {:?} {} leader {:?}, start {}, last {}, durable {}, commit {}, applied {}, members {:?}",
                    host.number,
                    status.id,
                    status.role.role,
                    status.role.term,
                    status.role.leader,
                    status.start,
                    status.last,
                    status.durable,
                    status.commit,
                    status.applied,
                    status.configuration
                ));
            }
        }
        for (group, wanted) in &self.wanted {
            text.push_str(&format!("\n  {group} wants {wanted:?}"));
        }
        text
    }
}
