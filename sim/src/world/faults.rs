//! What goes wrong, and when.

use std::time::Duration;

use kotoba_db_cluster::{
    multiraft::NodeInput,
    raft::{GroupId, Input, WriteToken},
};

use super::{
    World,
    event::Event,
    network::{LinkState, nanos},
    packet::Packet,
};
use crate::{choice::Topic, machine::StateMachine, situations::Situation, trace::Kind};

const PAUSE_MAX: Duration = Duration::from_secs(4);
const STALL_MAX: Duration = Duration::from_secs(12);
const FULL_MAX: Duration = Duration::from_secs(6);
const CLOG_MAX: Duration = Duration::from_secs(3);
const FLAP_EVERY: Duration = Duration::from_millis(150);
const JUMP_MAX: Duration = Duration::from_secs(10);
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// Followers hear that their leader is gone this much later at most, and within this time.
const HINTS_AFTER: u64 = 100_000_000;
const HINTS_WITHIN: u64 = 10_000_000;
/// How often a deposed leader is asked.
const PROBES: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    Crash,
    Outage,
    Pause,
    Wipe,
    StaleCompletion,
    Deposition,
    Hint,
    Links,
    LostAnswers,
    Stall,
    Full,
    FailedFlush,
    Damage,
    Jump,
    Resize,
}

impl<M: StateMachine> World<M> {
    /// Something goes wrong now.
    pub(super) fn fault(&mut self) {
        let every = nanos(self.profile.fault_every);
        self.choices.next_turn_of_faults();
        let wait = 1 + every / 2 + self.choices.below(Topic::FaultTime, 0, every);
        self.agenda.plan(self.now + wait, Event::Fault);
        let fault = self.draw_fault();
        if fault == Fault::Nothing {
            return;
        }
        let at = self.draw_victim();
        match fault {
            Fault::Nothing => {}
            Fault::Crash => self.crash(at),
            Fault::Outage => self.outage(),
            Fault::Pause => self.stop_for_seconds(at, PAUSE_MAX),
            Fault::Wipe => {
                if self.all_sound() && self.may_lose(at) {
                    self.wipe(at);
                }
            }
            Fault::StaleCompletion => self.stale_completion(at),
            Fault::Deposition => self.depose(),
            Fault::LostAnswers => self.lose_answers(),
            Fault::Hint => self.hint(at),
            Fault::Links => self.change_links(at),
            Fault::Stall => {
                let length = self.choices.below(Topic::Disk, self.hosts[at].number, nanos(STALL_MAX));
                self.hosts[at].stalled_until = self.now + length;
                self.situations.count(Situation::DiskStalled);
                self.say(Kind::Disk, Some(at), || format!("its disk stalls for {} ms", length / 1_000_000));
            }
            Fault::Full => self.fill_disk(at),
            Fault::FailedFlush => {
                if let Some(process) = &mut self.hosts[at].process {
                    process.writer.disk_mut().fail_sync_after(0);
                    self.situations.count(Situation::FlushFailed);
                }
            }
            Fault::Damage => {
                if self.all_sound() && self.may_lose(at) {
                    self.damage(at);
                }
            }
            Fault::Jump => {
                let by = self.choices.below(Topic::Clock, self.hosts[at].number, nanos(JUMP_MAX));
                let host = &mut self.hosts[at];
                host.clock.jump(self.now, by);
                self.situations.count(Situation::ClockJumped);
                self.say(Kind::Fault, Some(at), || format!("its clock jumps by {} ms", by / 1_000_000));
                self.rewake(at);
            }
            Fault::Resize => self.resize(),
        }
    }

    fn draw_fault(&mut self) -> Fault {
        let (process, disk) = (&self.profile.process, &self.profile.disk);
        let weights = [
            (Fault::Crash, process.crashes),
            (Fault::Outage, process.outages),
            (Fault::Pause, process.pauses),
            (Fault::Wipe, process.wipes),
            (Fault::StaleCompletion, process.stale_completions),
            (Fault::Deposition, process.depositions),
            (Fault::LostAnswers, self.profile.network.lost_answers),
            (Fault::Hint, process.hints),
            (Fault::Links, self.profile.network.partitions),
            (Fault::Stall, disk.stalls),
            (Fault::Full, disk.full),
            (Fault::FailedFlush, disk.failed_flushes),
            (Fault::Damage, disk.damage),
            (Fault::Jump, self.profile.clock.jumps),
            (Fault::Resize, self.profile.administration.resizes),
        ];
        let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
        let mut drawn = self.choices.below(Topic::Fault, 0, u64::from(total) + 1);
        if drawn == 0 {
            return Fault::Nothing;
        }
        drawn -= 1;
        for (fault, weight) in weights {
            let weight = u64::from(weight);
            if drawn < weight {
                return fault;
            }
            drawn -= weight;
        }
        unreachable!("a number below the sum of all weights falls into one of them")
    }

    /// Whoever leads is the most interesting victim.
    fn draw_victim(&mut self) -> usize {
        let hosts = self.hosts.len() as u64;
        if self.choices.below(Topic::Victim, 0, 3) == 1 {
            let groups = u64::from(self.profile.groups);
            let group = self.choices.below(Topic::Victim, 0, groups) + 1;
            let group = GroupId(u32::try_from(group).expect("few groups"));
            if let Some(leader) = self.leader_of(group) {
                return leader;
            }
        }
        usize::try_from(self.choices.below(Topic::Victim, 0, hosts)).expect("few hosts")
    }

    /// Whether every group keeps a majority of sound voters without this host's directory.
    pub(super) fn may_lose(&self, at: usize) -> bool {
        self.wanted.iter().all(|(&group, wanted)| {
            let own = self.hosts[at].groups.get(&group).map(|stored| stored.replica);
            let left = wanted.iter().filter(|replica| Some(**replica) != own).count();
            own.is_none_or(|own| !wanted.contains(&own)) || 2 * left > wanted.len()
        })
    }

    fn outage(&mut self) {
        self.situations.count(Situation::Outage);
        let spared = self.choices.below(Topic::Process, 0, self.hosts.len() as u64 + 1);
        for at in 0..self.hosts.len() {
            if spared != at as u64 + 1 {
                self.crash(at);
            }
        }
    }

    /// Reports a write that was reported before, or belongs to an earlier life; never one under way.
    pub(super) fn stale_completion(&mut self, at: usize) {
        let under_way = self.earlier_like_one_under_way(at);
        let count = self.hosts[at].old_tokens.len() as u64;
        let chosen = self.choices.below(Topic::Process, self.hosts[at].number, count.max(1));
        let chosen = usize::try_from(chosen).expect("few tokens");
        let told_before = self.hosts[at].old_tokens.get(chosen).copied();
        let Some((group, token)) = under_way.or(told_before) else { return };
        if !self.hosts[at].is_running(self.now) {
            return;
        }
        self.situations.count(Situation::StaleCompletion);
        self.group_input(at, group, Input::Persisted { token, result: Ok(()) });
        self.look_at_group(at, group);
    }

    /// A write of an earlier life that has the number of one under way.
    fn earlier_like_one_under_way(&self, at: usize) -> Option<(GroupId, WriteToken)> {
        let host = &self.hosts[at];
        let under_way = &host.process.as_ref()?.writing.as_ref()?.tokens;
        let alike = |submitted: &super::host::Submitted| {
            let issued = |(group, last): &&(GroupId, WriteToken)| {
                *group == submitted.group && last.sequence >= submitted.token.sequence
            };
            let (group, last) = *host.earlier.iter().find(issued)?;
            Some((group, WriteToken { sequence: submitted.token.sequence, ..last }))
        };
        under_way.iter().rev().find_map(alike)
    }

    /// A leader loses its followers: they hear that its connections are closed, and what is said
    /// between it and them is held for a while. Somebody goes on asking it.
    fn depose(&mut self) {
        let groups = u64::from(self.profile.groups);
        let group = self.choices.below(Topic::Process, 0, groups) + 1;
        let group = GroupId(u32::try_from(group).expect("few groups"));
        let Some(leader) = self.leader_of(group) else { return };
        self.situations.count(Situation::Deposed);
        self.say(Kind::Fault, Some(leader), || format!("{group}: followers are told that it is gone"));
        let about = self.hosts[leader].peer;
        let held = self.choices.below(Topic::Link, 0, 4);
        let longest = 2 * nanos(self.profile.election);
        let length = self.choices.below(Topic::Link, 0, longest);
        let begin = self.choices.below(Topic::Process, 0, HINTS_AFTER);
        for other in (0..self.hosts.len()).filter(|&other| other != leader) {
            let links = [(other, leader), (leader, other)];
            for (bit, (from, to)) in links.into_iter().enumerate() {
                if held >> bit & 1 == 1 && self.network.state(from, to) == LinkState::Open {
                    self.set_link(from, to, LinkState::Clogged);
                    self.agenda.plan(self.now + length, Event::Unclog { from, to });
                }
            }
            let number = self.hosts[other].number;
            let wait = begin + self.choices.below(Topic::Process, number, HINTS_WITHIN);
            self.agenda.plan(self.now + wait, Event::Hint { host: other, about });
        }
        let life = self.hosts[leader].life;
        for _ in 0..PROBES {
            let wait = self.choices.below(Topic::Process, 0, longest);
            self.agenda.plan(self.now + wait, Event::Probe { host: leader, life, group });
        }
    }

    /// What one follower answers its leader is lost for a while.
    fn lose_answers(&mut self) {
        let groups = u64::from(self.profile.groups);
        let group = self.choices.below(Topic::Process, 0, groups) + 1;
        let group = GroupId(u32::try_from(group).expect("few groups"));
        let follower = self.choices.below(Topic::Link, 0, self.hosts.len() as u64);
        let follower = usize::try_from(follower).expect("few hosts");
        let Some(leader) = self.leader_of(group).filter(|&leader| leader != follower) else { return };
        let length = 1 + self.choices.below(Topic::Link, 0, nanos(CLOG_MAX));
        self.situations.count(Situation::AnswersLost);
        self.say(Kind::Fault, Some(follower), || format!("{group}: its answers are lost"));
        self.set_link(follower, leader, LinkState::Cut);
        self.agenda.plan(self.now + length, Event::Mend { from: follower, to: leader });
        // A restart forgets what was acknowledged, and how far its leader has got.
        if self.choices.below(Topic::Process, 0, 4) == 1 {
            let life = self.hosts[follower].life;
            let wait = self.choices.below(Topic::Process, 0, length);
            self.agenda.plan(self.now + wait, Event::Kill { host: follower, life });
        }
    }

    /// What a host says is lost for a while.
    pub(super) fn silence(&mut self, at: usize, link: u32) {
        let length = 1 + self.choices.below(Topic::Aim, link, nanos(SILENCE_MAX));
        self.situations.count(Situation::Partitioned);
        self.say(Kind::Fault, Some(at), || format!("is not heard for {} ms", length / 1_000_000));
        for to in (0..self.hosts.len()).filter(|&to| to != at) {
            self.set_link(at, to, LinkState::Cut);
            self.agenda.plan(self.now + length, Event::Mend { from: at, to });
        }
    }

    /// A link that was cut for a while opens.
    pub(super) fn mend(&mut self, from: usize, to: usize) {
        if !self.calm && self.network.state(from, to) == LinkState::Cut {
            self.set_link(from, to, LinkState::Open);
        }
    }

    fn hint(&mut self, at: usize) {
        if !self.hosts[at].is_running(self.now) {
            return;
        }
        let number = self.hosts[at].number;
        let about = usize::try_from(self.choices.below(Topic::Process, number, self.hosts.len() as u64));
        let about = about.expect("few hosts");
        if about == at {
            let groups: Vec<_> = self.hosts[at].groups.keys().copied().collect();
            for group in groups {
                self.group_input(at, group, Input::Campaign);
                self.look_at_group(at, group);
            }
        } else {
            let peer = self.hosts[about].peer;
            self.input(at, NodeInput::PeerClosed(peer), None);
        }
    }

    fn fill_disk(&mut self, at: usize) {
        let length = self.choices.below(Topic::Disk, self.hosts[at].number, nanos(FULL_MAX));
        let host = &mut self.hosts[at];
        let Some(process) = &mut host.process else { return };
        process.writer.disk_mut().refuse_writes(true);
        host.full_until = self.now + length;
        self.agenda.plan(self.now + length, Event::Room { host: at });
        self.situations.count(Situation::DiskFull);
        self.say(Kind::Disk, Some(at), || "its disk is full".to_owned());
    }

    /// The disk has room again; the next try will find out.
    pub(super) fn room(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.full_until = 0;
        if let Some(process) = &mut host.process {
            process.writer.disk_mut().refuse_writes(false);
        }
    }

    /// Cuts, clogs or heals links.
    fn change_links(&mut self, victim: usize) {
        let hosts = self.hosts.len();
        match self.choices.below(Topic::Link, 0, 7) {
            0 => self.heal_links(),
            // One host alone, in both directions or in one.
            1 => self.cut(|from, to| (from == victim) != (to == victim)),
            2 => self.cut(|from, _| from == victim),
            3 => self.cut(|_, to| to == victim),
            // Two sides.
            4 => {
                let sides = self.choices.below(Topic::Link, 0, 1 << hosts.min(16));
                self.cut(|from, to| (sides >> from & 1) != (sides >> to & 1));
            }
            // A ring: everybody talks to two neighbours only.
            5 => self.cut(|from, to| (from + 1) % hosts != to && (to + 1) % hosts != from),
            _ => self.disturb(victim),
        }
    }

    fn disturb(&mut self, victim: usize) {
        let hosts = self.hosts.len() as u64;
        let other = usize::try_from(self.choices.below(Topic::Link, 0, hosts)).expect("few hosts");
        if other == victim {
            return;
        }
        let length = self.choices.below(Topic::Link, 0, nanos(CLOG_MAX));
        if self.choices.below(Topic::Link, 0, 2) == 0 {
            self.set_link(victim, other, LinkState::Clogged);
            self.situations.count(Situation::Clogged);
            self.agenda.plan(self.now + length, Event::Unclog { from: victim, to: other });
        } else {
            let until = self.now + length;
            self.agenda.plan(self.now, Event::Flap { from: victim, to: other, until });
        }
    }

    fn cut(&mut self, is_cut: impl Fn(usize, usize) -> bool) {
        self.situations.count(Situation::Partitioned);
        for (from, to) in self.network.pairs() {
            let state = if is_cut(from, to) { LinkState::Cut } else { LinkState::Open };
            self.set_link(from, to, state);
        }
        self.say(Kind::Fault, None, || "links are cut".to_owned());
    }

    /// Opens every link.
    pub(super) fn heal_links(&mut self) {
        for (from, to) in self.network.pairs() {
            self.set_link(from, to, LinkState::Open);
        }
        self.say(Kind::Fault, None, || "every link is open".to_owned());
    }

    /// Changes a link; what it held is sent on its way, in another order.
    pub(super) fn set_link(&mut self, from: usize, to: usize, state: LinkState) {
        self.show_link((from, to), self.network.state(from, to), state);
        let released = self.network.set(from, to, state);
        let number = self.network.number(from, to);
        let peer = self.hosts[to].peer;
        for packet in released {
            let wait = 1 + self.choices.below(Topic::Delay, number, 5_000_000);
            let packet: Packet = packet;
            self.agenda.plan(self.now + wait, Event::Deliver { from, to, peer, sent: self.now, packet });
        }
    }

    /// A clogged link opens.
    pub(super) fn unclog(&mut self, from: usize, to: usize) {
        if self.network.state(from, to) == LinkState::Clogged {
            self.set_link(from, to, LinkState::Open);
        }
    }

    /// A flapping link turns over.
    pub(super) fn flap(&mut self, from: usize, to: usize, until: u64) {
        if self.calm {
            return;
        }
        if self.now >= until {
            return self.set_link(from, to, LinkState::Open);
        }
        let state = match self.network.state(from, to) {
            LinkState::Cut => LinkState::Open,
            LinkState::Open | LinkState::Clogged => LinkState::Cut,
        };
        self.set_link(from, to, state);
        // The calmest flapping is the slowest.
        let wait = match self.choices.below(Topic::Flap, 0, nanos(FLAP_EVERY)) {
            0 => nanos(FLAP_EVERY),
            wait => 1 + wait,
        };
        self.agenda.plan(self.now + wait, Event::Flap { from, to, until });
    }
}
