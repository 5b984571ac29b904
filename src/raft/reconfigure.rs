//! Changing the members one step at a time (thesis, sections 4.1 to 4.2).

use super::{
    configuration::{Configuration, ConfigurationChange, ConfigurationEntry},
    contract::{EntrySource, Output, ReconfigurationRefusal, Refusal},
    progress::Progress,
    replica::Replica,
    role::{Leader, Role},
    types::{Now, PayloadId, ReplicaId},
};

impl Replica {
    /// A client wants the members changed.
    pub(super) fn reconfigure(&mut self, now: Now, change: ConfigurationChange, payload: PayloadId) {
        match self.check_change(change) {
            Ok(configuration) => {
                let last = self.append_own(now, 1, 0, EntrySource::Configuration(configuration.clone()));
                self.enter_configuration(ConfigurationEntry { index: last.index, configuration });
                self.adjust_followers(now);
                self.outputs.push_back(Output::Proposed { payload, first: last.index, last });
                self.replicate_to_all(now);
            }
            Err(reason) => self.outputs.push_back(Output::ProposalRefused { payload, reason }),
        }
    }

    fn check_change(&self, change: ConfigurationChange) -> Result<Configuration, Refusal> {
        let Role::Leader(leader) = &self.role else { return Err(self.not_leader()) };
        let refuse = |reason| Err(Refusal::Reconfiguration(reason));
        if self.commit < leader.first_of_term && !mutant!(B22) {
            // Without an entry of its own term a leader may not know of a change its predecessor
            // committed (Ongaro, raft-dev, 10 July 2015).
            return refuse(ReconfigurationRefusal::NoCommitInTerm);
        }
        if self.configuration_index() > self.commit && !mutant!(M24) || self.configuration().is_joint() {
            return refuse(ReconfigurationRefusal::InProgress);
        }
        let changed = self.changed(leader, change).map_err(Refusal::Reconfiguration)?;
        if changed.check().is_err() {
            return refuse(ReconfigurationRefusal::NoEffect);
        }
        Ok(changed)
    }

    fn changed(
        &self,
        leader: &Leader,
        change: ConfigurationChange,
    ) -> Result<Configuration, ReconfigurationRefusal> {
        let mut changed = self.configuration().clone();
        match change {
            ConfigurationChange::AddLearner(replica) => {
                if changed.is_member(replica) {
                    return Err(ReconfigurationRefusal::NoEffect);
                }
                insert(&mut changed.learners, replica);
            }
            ConfigurationChange::Promote(replica) => {
                if !remove(&mut changed.learners, replica) {
                    return Err(ReconfigurationRefusal::NoEffect);
                }
                if !leader.progress(replica).is_some_and(|progress| self.is_caught_up(progress)) {
                    return Err(ReconfigurationRefusal::NotCaughtUp);
                }
                insert(&mut changed.voters, replica);
            }
            ConfigurationChange::Remove(replica) => {
                if replica == self.settings.id {
                    return Err(ReconfigurationRefusal::RemovesLeader);
                }
                if !remove(&mut changed.voters, replica) && !remove(&mut changed.learners, replica) {
                    return Err(ReconfigurationRefusal::NoEffect);
                }
            }
        }
        Ok(changed)
    }

    /// Brings the list of followers in line with the configuration in force.
    fn adjust_followers(&mut self, now: Now) {
        let newest = self.configurations.last().expect("the base configuration is never removed");
        let members = newest.configuration.members();
        let next = self.log.last().index;
        let own = self.settings.id;
        let Some(leader) = self.leader_mut() else { return };
        leader.followers.retain(|(id, _)| members.contains(id));
        for member in members.into_iter().filter(|&member| member != own) {
            if let Err(at) = leader.followers.binary_search_by_key(&member, |(id, _)| *id) {
                leader.followers.insert(at, (member, Progress::unknown(next, now.monotonic)));
            }
        }
    }

    /// A leader outside the configuration steps down once that is committed.
    pub(super) fn leave_if_removed(&mut self, now: Now) {
        if self.configuration_index() <= self.commit && !self.configuration().is_voter(self.settings.id) {
            self.step_down(now);
        }
    }
}

fn insert(list: &mut alloc::vec::Vec<ReplicaId>, replica: ReplicaId) {
    if let Err(at) = list.binary_search(&replica) {
        list.insert(at, replica);
    }
}

fn remove(list: &mut alloc::vec::Vec<ReplicaId>, replica: ReplicaId) -> bool {
    list.binary_search(&replica).map(|at| list.remove(at)).is_ok()
}
