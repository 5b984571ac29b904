//! The next single step from the members a group has to the members it should have.
//!
//! One voter at a time, so that any two majorities of neighbouring configurations share a replica
//! (Raft thesis, section 4.1). Where a replica takes the place of a dead one the order decides
//! about availability: three voters, one dead, tolerate no further failure. Promoting the
//! newcomer first would make four voters of which three must live, and one slow replica would stop
//! the group. So: send the log to the newcomer; once it has caught up remove the dead one (two
//! voters, both alive); promote the newcomer (three voters, all alive).

use alloc::vec::Vec;

use crate::raft::{Configuration, ConfigurationChange, ReplicaId};

/// The step to take now, or `None` where nothing is left to do or a learner must catch up first.
/// Asked again after each committed step it arrives at exactly `desired`, whatever it began with.
#[must_use]
pub fn next_step(
    current: &Configuration,
    desired: &[ReplicaId],
    caught_up: impl Fn(ReplicaId) -> bool,
) -> Option<ConfigurationChange> {
    if current.is_joint() || desired.is_empty() {
        return None;
    }
    let is_desired = |replica: &ReplicaId| desired.contains(replica);
    if let Some(&stray) = current.learners.iter().find(|learner| !is_desired(learner)) {
        return Some(ConfigurationChange::Remove(stray));
    }
    let missing: Vec<_> = desired.iter().copied().filter(|&replica| !current.is_voter(replica)).collect();
    let is_learner = |replica: &ReplicaId| current.learners.contains(replica);
    let ready = missing.iter().copied().find(|replica| is_learner(replica) && caught_up(*replica));
    let surplus = current.voters.iter().copied().find(|voter| !is_desired(voter));
    let absent = missing.iter().copied().find(|replica| !is_learner(replica));

    // A group of one cannot let go of its only voter before it has another.
    let full = current.voters.len() >= desired.len() && current.voters.len() > 1;
    match (ready, surplus) {
        (Some(ready), Some(surplus)) if full => {
            debug_assert_ne!(ready, surplus, "a learner is no voter");
            Some(ConfigurationChange::Remove(surplus))
        }
        (Some(ready), _) => Some(ConfigurationChange::Promote(ready)),
        (None, Some(surplus)) if missing.is_empty() => Some(ConfigurationChange::Remove(surplus)),
        (None, _) => absent.map(ConfigurationChange::AddLearner),
    }
}

#[cfg(test)]
mod tests;
