//! Forgetting the log's beginning.
//!
//! The embedder says how far the state machine's effect is durable; followers that are only a
//! little behind keep what they need within a budget, so that they are not sent the whole state.

use super::{
    configuration::ConfigurationEntry,
    contract::Output,
    progress::Stage,
    replica::Replica,
    role::Role,
    snapshot::SnapshotMeta,
    types::{Index, Position},
};

impl Replica {
    /// The log may forget entries up to `index`.
    pub(super) fn compact(&mut self, index: Index) {
        let index = if mutant!(M31) { self.applied } else { index };
        let target = index.min(self.commit).min(self.applied).min(self.needed_by_followers());
        let start = self.log.start().index;
        if target <= start {
            return;
        }
        let term = self.log.term_at(target).expect("between the log's start and its end");
        let position = Position::new(target, term);
        let configuration = self.configuration_at(target).clone();
        self.configurations.retain(|entry| entry.index > target);
        let base = ConfigurationEntry { index: target, configuration: configuration.clone() };
        self.configurations.insert(0, base);
        self.log.purge_to(position);
        self.outputs.push_back(Output::Purge(SnapshotMeta { position, configuration }));
    }

    /// The last entry no follower within the budget still needs.
    fn needed_by_followers(&self) -> Index {
        let Role::Leader(leader) = &self.role else { return self.log.last().index };
        let needs = leader.followers.iter().filter_map(|(_, progress)| match &progress.stage {
            Stage::Snapshot(sending) => {
                sending.snapshot.as_ref().map(|snapshot| snapshot.meta.position.index)
            }
            Stage::Probe { .. } | Stage::Replicate { .. } => {
                let affordable = self.log.bytes_behind(progress.matched) <= self.settings.retained_bytes;
                affordable.then_some(progress.matched)
            }
        });
        needs.min().unwrap_or_else(|| self.log.last().index)
    }
}
