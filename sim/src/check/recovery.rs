//! A restart finds what the disk was told to keep, or says that it is damaged.
//!
//! What the log's writer had acknowledged before a crash is compared with what is read back: a
//! group is as the last acknowledged batch left it, or as the batch left it that was being written.

use std::collections::BTreeMap;

use kotoba_db_cluster::{
    raft::{BootEpoch, GroupId, HardState, Index, Position, SnapshotMeta, Term},
    storage::wal::{Disk, EntryIndex, GroupWrite, Place, RecoveredGroup, Recovery, WalWriter},
};

use super::{Check, Verdict, Violation};

/// One group's durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Durable {
    hard_state: HardState,
    start: SnapshotMeta,
    entries: EntryIndex,
}

impl Default for Durable {
    fn default() -> Self {
        let entries = EntryIndex::new(Position::ZERO);
        Self { hard_state: HardState::default(), start: SnapshotMeta::default(), entries }
    }
}

impl Durable {
    fn begin_at(&mut self, meta: &SnapshotMeta) {
        if meta.position.index >= self.start.position.index {
            self.start = meta.clone();
            self.entries.purge(meta.position);
        }
    }

    fn carry_out(&mut self, write: &GroupWrite) {
        self.hard_state = write.hard_state.unwrap_or(self.hard_state);
        if let Some(meta) = &write.install {
            self.begin_at(meta);
        }
        if let Some(from) = write.truncate_from {
            self.entries.truncate(from);
        }
        for entry in &write.entries {
            self.entries.push(entry.term, Place { segment: None, offset: 0, length: 0 });
        }
        if let Some(meta) = &write.purge {
            self.begin_at(meta);
        }
    }
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    groups: BTreeMap<GroupId, Durable>,
}

impl Kept {
    /// What a writer has acknowledged of these groups.
    pub fn of<D: Disk>(writer: &WalWriter<D>, groups: impl IntoIterator<Item = GroupId>) -> Self {
        let durable = groups.into_iter().filter_map(|group| {
            let (hard_state, start, index) = writer.durable(group)?;
            Some((group, Durable { hard_state, start: start.clone(), entries: index.clone() }))
        });
        Self { groups: durable.collect() }
    }

    /// What a restart found is what is held from now on; of damaged groups, what was held before.
    pub fn read_back(&mut self, recovery: &Recovery) {
        self.groups.retain(|group, _| recovery.groups.contains_key(group));
        for (&group, found) in recovery.groups.iter().filter(|(_, found)| found.damage.is_none()) {
            let (start, entries) = (found.start.clone(), found.index.clone());
            self.groups.insert(group, Durable { hard_state: found.hard_state, start, entries });
        }
    }

    /// These writes are carried out.
    pub fn carry_out(&mut self, writes: &[GroupWrite]) {
        for write in writes {
            if write.remove {
                self.groups.remove(&write.group);
            }
            self.groups.entry(write.group).or_default().carry_out(write);
        }
    }

    /// What would be held if these writes were carried out too.
    #[must_use]
    pub fn with(mut self, writes: &[GroupWrite]) -> Self {
        self.carry_out(writes);
        self
    }

    /// What is held of a group: term and vote, where its log begins, and its entries.
    #[must_use]
    pub fn durable(&self, group: GroupId) -> Option<(HardState, &SnapshotMeta, &EntryIndex)> {
        self.groups.get(&group).map(|durable| (durable.hard_state, &durable.start, &durable.entries))
    }

    /// Whether a position is held, as an entry or by a state with its effect.
    #[must_use]
    pub fn holds(&self, group: GroupId, position: Position) -> bool {
        self.groups.get(&group).is_some_and(|durable| {
            durable.start.position.index >= position.index || durable.entries.holds(position)
        })
    }
}

fn positions(index: &EntryIndex) -> impl Iterator<Item = Position> {
    index.range(index.base().index.next(), index.last().index).map(|(position, _)| position)
}

fn matches(kept: Option<&Durable>, found: Option<&RecoveredGroup>) -> bool {
    match (kept, found) {
        (None, None) => true,
        (Some(kept), Some(found)) => {
            kept.start == found.start && positions(&kept.entries).eq(positions(&found.index))
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether a hard state is the one before, the one after, or one on the way: a torn batch may leave
/// a newer one in its second copy, which is kept (`docs/wal-format.md`).
fn lies_between(found: HardState, before: Option<&Durable>, after: Option<&Durable>) -> bool {
    let rank = |state: HardState| (state.term, state.vote.is_some());
    let state = |kept: Option<&Durable>| kept.map(|kept| kept.hard_state).unwrap_or_default();
    let (before, after) = (state(before), state(after));
    if rank(found) == rank(before) || rank(found) == rank(after) {
        return found == before || found == after;
    }
    rank(before) < rank(found) && rank(found) < rank(after)
}

/// A log was opened for the `boot`th time; before that it was opened for the `before`th.
///
/// # Errors
/// Where that is no later life: what is told to an earlier one could be taken for this one's.
pub fn opened(host: u32, before: BootEpoch, boot: BootEpoch) -> Verdict {
    if boot > before {
        return Ok(());
    }
    let message = format!("host {host}: life {} follows life {}", boot.0, before.0);
    Err(Violation::new(Check::Recovery, message))
}

/// A log forgets everything up to `purged`; the state on disk has the effect of everything up to
/// `state`.
///
/// # Errors
/// Where a restart could find neither entries nor effect.
pub fn purged(group: GroupId, host: u32, purged: Index, state: Index) -> Verdict {
    if purged <= state {
        return Ok(());
    }
    let message =
        format!("{group}: host {host} forgets entries up to {purged}, its state on disk is at {state}");
    Err(Violation::new(Check::Recovery, message))
}

/// A snapshot takes the place of a log's beginning. `held` is the term of the log's own entry at the
/// snapshot's position.
///
/// # Errors
/// Where entries behind it go too, although the log holds what the snapshot ends with (Raft paper,
/// figure 13, rule 6): they may have been acknowledged.
pub fn installed(group: GroupId, write: &GroupWrite, held: Option<Term>) -> Verdict {
    let Some(meta) = &write.install else { return Ok(()) };
    match write.truncate_from {
        Some(from) if held == Some(meta.position.term) => {
            let message = format!("{group}: the snapshot at {} drops the log from {from} on", meta.position);
            Err(Violation::new(Check::Recovery, message))
        }
        Some(_) | None => Ok(()),
    }
}

/// A log was read back. `before` is what was acknowledged, `after` what would have been if the batch
/// that was being written had made it.
///
/// # Errors
/// Where a group is neither, and not said to be damaged.
pub fn recovered(host: u32, before: &Kept, after: &Kept, recovery: &Recovery) -> Verdict {
    let groups = before.groups.keys().chain(after.groups.keys()).chain(recovery.groups.keys());
    for group in groups {
        let found = recovery.groups.get(group);
        let (kept, would_be) = (before.groups.get(group), after.groups.get(group));
        let sound = matches(kept, found) || matches(would_be, found);
        if found.is_some_and(|found| found.damage.is_some())
            || sound && found.is_none_or(|found| lies_between(found.hard_state, kept, would_be))
        {
            continue;
        }
        let message = format!(
            "host {host} {group}: the disk kept {:?}, the restart found {:?}",
            before.groups.get(group).map(summary),
            found.map(|found| (found.hard_state, found.start.position, found.last(), found.index.len()))
        );
        return Err(Violation::new(Check::Recovery, message));
    }
    Ok(())
}

fn summary(durable: &Durable) -> (HardState, Position, Position, usize) {
    (durable.hard_state, durable.start.position, durable.entries.last(), durable.entries.len())
}
