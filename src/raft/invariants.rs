//! What must always hold, checked after every input, in release builds too.
//!
//! | property | where | source |
//! |---|---|---|
//! | Election Safety: a vote once given stands for its term | [`Replica::check_monotone`] | paper, 5.2 |
//! | Leader Append-Only | `lead.rs`: a leader only calls `append_own` | paper, 5.3 |
//! | Log Matching: terms never fall along a log | `LogMeta::append_run` | paper, 5.3 |
//! | Leader Completeness: what is committed is never truncated | `Replica::truncate` | paper, 5.4 |
//! | State ordering: start ≤ applied ≤ commit ≤ last, durable ≤ last | [`Replica::check_invariants`] | – |
//! | Term, commit and applied never fall | [`Replica::check_monotone`] | paper, figure 2 |
//!
//! A violation is our own fault, never a remote's: it panics, and `multiraft` stops that group.

use super::{
    replica::Replica,
    role::Role,
    types::{HardState, Index},
};

/// What may only rise.
pub(super) struct Milestones {
    hard_state: HardState,
    commit: Index,
    applied: Index,
    start: Index,
}

impl Replica {
    pub(super) fn milestones(&self) -> Milestones {
        Milestones {
            hard_state: self.hard_state,
            commit: self.commit,
            applied: self.applied,
            start: self.log.start().index,
        }
    }

    pub(super) fn check_monotone(&self, before: &Milestones) {
        let (term, vote) = (before.hard_state.term, before.hard_state.vote);
        assert!(self.hard_state.term >= term, "a term never falls");
        if self.hard_state.term == term && vote.is_some() {
            assert_eq!(self.hard_state.vote, vote, "Election Safety: a vote stands for its term");
        }
        assert!(self.commit >= before.commit, "a commit index never falls");
        assert!(self.applied >= before.applied, "an applied index never falls");
        assert!(self.log.start().index >= before.start, "what is purged never comes back");
    }

    pub(super) fn check_invariants(&self) {
        let (start, last) = (self.log.start(), self.log.last());
        assert!(start.index <= self.commit, "only committed entries are purged");
        assert!(self.commit <= last.index, "only what is held is committed");
        assert!(self.applied <= self.commit, "only committed entries are applied");
        assert!(self.durability.durable() <= last.index, "only what is held is durable");
        assert!(last.term <= self.hard_state.term, "no entry is of a later term than the replica");
        assert!(
            self.configuration_index() >= start.index && self.configuration_index() <= last.index,
            "the configuration in force stands in the log"
        );
        match &self.role {
            Role::Leader(leader) => {
                assert_eq!(self.hard_state.vote, Some(self.settings.id), "a leader voted for itself");
                for (_, progress) in &leader.followers {
                    assert!(progress.matched <= last.index, "a follower matches at most the whole log");
                    assert!(progress.next > progress.matched, "what is matched is never sent again");
                }
            }
            Role::Candidate(_) => {
                assert_eq!(self.hard_state.vote, Some(self.settings.id), "a candidate voted for itself");
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Faulted(_) => {}
        }
    }
}
