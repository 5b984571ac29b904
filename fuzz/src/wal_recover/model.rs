//! What was written, as plainly as it can be said.

use std::collections::{BTreeMap, BTreeSet};

use kotoba_db_cluster::{
    raft::{HardState, Index, Position, SnapshotMeta, Term},
    storage::wal::{Entry, GroupId, GroupWrite},
};

/// One group's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelGroup {
    pub(super) hard_state: HardState,
    pub(super) start: SnapshotMeta,
    pub(super) entries: Vec<Entry>,
}

/// All groups of a log.
pub(super) type Model = BTreeMap<GroupId, ModelGroup>;

impl ModelGroup {
    pub(super) fn last(&self) -> Position {
        self.entries.last().map_or(self.start.position, Entry::position)
    }

    fn begin_at(&mut self, meta: &SnapshotMeta) {
        if meta.position.index >= self.start.position.index {
            self.entries.retain(|entry| entry.index > meta.position.index);
            self.start = meta.clone();
        }
    }
}

/// Carries out a write.
pub(super) fn apply(model: &mut Model, write: &GroupWrite) {
    if write.remove {
        model.remove(&write.group);
    }
    if (GroupWrite { remove: false, ..write.clone() }) == GroupWrite::of(write.group) {
        return;
    }
    let group = model.entry(write.group).or_default();
    if let Some(hard_state) = write.hard_state {
        group.hard_state = hard_state;
    }
    if let Some(meta) = &write.install {
        group.begin_at(meta);
    }
    if let Some(from) = write.truncate_from {
        group.entries.retain(|entry| entry.index < from);
    }
    group.entries.extend(write.entries.iter().cloned());
    if let Some(meta) = &write.purge {
        group.begin_at(meta);
    }
}

/// Everything that was ever handed to the writer, whether or not it was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Written {
    entries: BTreeMap<(GroupId, Index, Term), Vec<Entry>>,
    hard_states: BTreeMap<GroupId, BTreeSet<(u64, Option<u64>)>>,
    starts: BTreeMap<GroupId, Vec<SnapshotMeta>>,
}

fn plain(hard_state: HardState) -> (u64, Option<u64>) {
    (hard_state.term.0, hard_state.vote.map(|vote| vote.0))
}

impl Written {
    /// Notes a write.
    pub(super) fn add(&mut self, write: &GroupWrite) {
        let group = write.group;
        for entry in &write.entries {
            self.entries.entry((group, entry.index, entry.term)).or_default().push(entry.clone());
        }
        self.hard_states.entry(group).or_default().extend(write.hard_state.map(plain));
        self.starts.entry(group).or_default().extend(write.install.iter().chain(&write.purge).cloned());
    }

    /// Whether exactly this entry was once written there.
    pub(super) fn has_entry(&self, group: GroupId, entry: &Entry) -> bool {
        self.entries.get(&(group, entry.index, entry.term)).is_some_and(|there| there.contains(entry))
    }

    /// Whether the group ever had this term and vote.
    pub(super) fn has_hard_state(&self, group: GroupId, hard_state: HardState) -> bool {
        hard_state == HardState::default()
            || self.hard_states.get(&group).is_some_and(|known| known.contains(&plain(hard_state)))
    }

    /// Whether the group's log ever began there.
    pub(super) fn has_start(&self, group: GroupId, start: &SnapshotMeta) -> bool {
        *start == SnapshotMeta::default()
            || self.starts.get(&group).is_some_and(|known| known.contains(start))
    }
}
