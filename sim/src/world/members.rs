//! What operators do: they look after members, and want other ones.

use kotoba_db_cluster::{
    placement::next_step,
    raft::{ConfigurationChange, GroupId, Input, PayloadId, ReplicaId},
};

use super::World;
use crate::{choice::Topic, machine::StateMachine, trace::Kind};

/// How often operators look.
pub(super) const EVERY_NANOS: u64 = 250_000_000;
/// Members a group shall have at most.
const VOTERS_MAX: usize = 5;

impl<M: StateMachine> World<M> {
    /// One step for every group, towards the members it shall have.
    pub(super) fn administer(&mut self) {
        self.replace_damaged();
        let groups: Vec<GroupId> = self.wanted.keys().copied().collect();
        for group in groups {
            let leaders: Vec<usize> = (0..self.hosts.len()).filter(|&at| self.leads(at, group)).collect();
            for at in leaders {
                self.take_step(at, group);
            }
        }
    }

    fn leads(&self, at: usize, group: GroupId) -> bool {
        let host = &self.hosts[at];
        host.is_running(self.now)
            && host
                .process
                .as_ref()
                .and_then(|process| process.node.replica(group))
                .is_some_and(|replica| replica.role().role == kotoba_db_cluster::raft::RoleKind::Leader)
    }

    fn take_step(&mut self, at: usize, group: GroupId) {
        let process = self.hosts[at].process.as_ref().expect("it leads");
        let replica = process.node.replica(group).expect("it leads");
        // A leader does not remove itself, so it counts as wanted while it leads.
        let mut desired = self.wanted[&group].clone();
        if !desired.contains(&replica.id()) {
            desired.push(replica.id());
        }
        let mut change = next_step(replica.configuration(), &desired, |member| replica.has_caught_up(member));
        // An impatient operator promotes whoever is there.
        if self.profile.administration.resizes > 0
            && let Some(&learner) = replica.configuration().learners.first()
            && self.choices.chance(Topic::Operator, 0, 100)
        {
            change = Some(ConfigurationChange::Promote(learner));
        }
        let Some(change) = change else { return };
        self.say(Kind::Members, Some(at), || format!("{group}: asked for {change:?}"));
        let input = Input::Reconfigure { change, payload: PayloadId(u64::MAX) };
        self.group_input(at, group, input);
        self.look_at_group(at, group);
        // Another operator asks at the same time, for the same or for what comes next.
        if self.choices.chance(Topic::Operator, 0, 50) {
            let input = Input::Reconfigure { change, payload: PayloadId(u64::MAX) };
            self.group_input(at, group, input);
            self.look_at_group(at, group);
        }
        if self.choices.chance(Topic::Operator, 0, self.profile.administration.impatience) {
            self.take_next_step(at, group, &desired);
        }
    }

    /// An operator who does not wait for the step before: the leader must refuse.
    fn take_next_step(&mut self, at: usize, group: GroupId, desired: &[ReplicaId]) {
        let Some(process) = &self.hosts[at].process else { return };
        let Some(replica) = process.node.replica(group) else { return };
        let change = next_step(replica.configuration(), desired, |member| replica.has_caught_up(member));
        let Some(change) = change else { return };
        self.say(Kind::Members, Some(at), || format!("{group}: asked for {change:?} at once"));
        let input = Input::Reconfigure { change, payload: PayloadId(u64::MAX) };
        self.group_input(at, group, input);
        self.look_at_group(at, group);
    }

    /// An operator asks whoever was elected at once.
    pub(super) fn hasty(&mut self, at: usize, group: GroupId) {
        if self.operators && self.leads(at, group) {
            self.take_step(at, group);
        }
    }

    /// Damaged directories are wiped, one after the other.
    fn replace_damaged(&mut self) {
        use super::host::Damage;
        let damaged = self.hosts.iter().position(|host| host.damage == Damage::Known);
        if let Some(at) = damaged
            && self.wanted.keys().all(|&group| self.is_settled(group))
        {
            self.wipe(at);
        }
    }

    /// Whether a group has exactly the members it shall have, and knows it for certain.
    pub(super) fn is_settled(&self, group: GroupId) -> bool {
        let Some(leader) = self.leader_of(group) else { return false };
        let process = self.hosts[leader].process.as_ref().expect("it leads");
        let status = process.node.replica(group).expect("it leads").status();
        let wanted = &self.wanted[&group];
        let voters = &status.configuration.voters;
        status.configuration_committed
            && status.configuration.learners.is_empty()
            && wanted.iter().all(|replica| voters.contains(replica))
            && voters.iter().all(|voter| *voter == status.id || wanted.contains(voter))
            // No later leader may know of something else. One that was removed may be in any term.
            && self.knows_latest(group, leader)
    }

    fn knows_latest(&self, group: GroupId, leader: usize) -> bool {
        let term = |at: usize| {
            let replica = self.hosts[at].process.as_ref()?.node.replica(group)?;
            Some(replica.role().term)
        };
        let Some(leading) = self.hosts[leader].process.as_ref().and_then(|it| it.node.replica(group)) else {
            return false;
        };
        let configuration = leading.configuration();
        let counts = |at: &usize| {
            let stored = self.hosts[*at].groups.get(&group);
            stored.is_some_and(|stored| {
                configuration.is_member(stored.replica) || self.wanted[&group].contains(&stored.replica)
            })
        };
        (0..self.hosts.len()).filter(counts).all(|at| term(at) <= term(leader))
    }

    /// A group shall have other voters.
    pub(super) fn resize(&mut self) {
        let groups = u64::from(self.profile.groups);
        let group = self.choices.below(Topic::Members, 0, groups) + 1;
        let group = GroupId(u32::try_from(group).expect("few groups"));
        if !self.all_sound() {
            return;
        }
        let wanted = self.wanted[&group].clone();
        let outsiders: Vec<usize> = (0..self.hosts.len())
            .filter(|&at| {
                let stored = self.hosts[at].groups.get(&group);
                stored.is_none_or(|stored| !wanted.contains(&stored.replica))
            })
            .collect();
        let shrink = self.choices.below(Topic::Members, 0, 2) == 1;
        if shrink && wanted.len() > 2 {
            let gone =
                usize::try_from(self.choices.below(Topic::Members, 0, wanted.len() as u64)).expect("few");
            let replica: ReplicaId = wanted[gone];
            self.say(Kind::Members, None, || format!("{group} shall lose {replica}"));
            self.wanted.get_mut(&group).expect("known").retain(|known| *known != replica);
        } else if wanted.len() < VOTERS_MAX && !outsiders.is_empty() {
            let chosen =
                usize::try_from(self.choices.below(Topic::Members, 0, outsiders.len() as u64)).expect("few");
            self.grow(group, outsiders[chosen]);
        }
    }

    /// A host gets a new replica of a group: its process is stopped, told, and started again.
    fn grow(&mut self, group: GroupId, at: usize) {
        let stored = self.hosts[at].groups.get(&group).map(|stored| stored.replica);
        // A removed replica may not know it yet; its number is never used again.
        if let Some(old) = stored {
            let member = |host: &super::host::Host<M>| {
                let replica = host.process.as_ref().and_then(|process| process.node.replica(group));
                replica.is_some_and(|replica| replica.configuration().is_member(old))
            };
            if self.hosts.iter().any(member)
                && self.leader_of(group).is_some_and(|leader| member(&self.hosts[leader]))
            {
                return;
            }
        }
        self.crash(at);
        // The crash may have damaged its disk: it must be replaced before anything is added to it.
        if self.hosts[at].damage != super::host::Damage::None {
            return;
        }
        let replica = self.mint_replica(group, at);
        self.wanted.get_mut(&group).expect("known").push(replica);
        self.say(Kind::Members, Some(at), || format!("{group} shall have {replica} here"));
        self.spread_routes();
    }
}
