//! The naive model: per group, a vector of entries.

use alloc::{collections::BTreeMap, vec::Vec};

use proptest::prelude::*;

use super::{
    super::{Entry, GatherError, GroupId, GroupWrite, LogIndex, LogReader, MemDisk, Recovery},
    append, entry, genesis, hard_state, meta, open, script, vote,
};
use crate::raft::{HardState, Index, SnapshotMeta, TermRuns};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelGroup {
    pub(super) hard_state: HardState,
    pub(super) start: SnapshotMeta,
    pub(super) entries: Vec<Entry>,
}

pub(super) type Model = BTreeMap<GroupId, ModelGroup>;

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
    let begin_at = |group: &mut ModelGroup, meta: &SnapshotMeta| {
        if meta.position.index >= group.start.position.index {
            group.entries.retain(|entry| entry.index > meta.position.index);
            group.start = meta.clone();
        }
    };
    if let Some(meta) = &write.install {
        begin_at(group, meta);
    }
    if let Some(from) = write.truncate_from {
        group.entries.retain(|entry| entry.index < from);
    }
    group.entries.extend(write.entries.iter().cloned());
    if let Some(meta) = &write.purge {
        begin_at(group, meta);
    }
}

/// A group as the log gives it back, every byte of its entries read from disk.
pub(super) fn read_group(disk: &MemDisk, recovery: &Recovery, id: GroupId) -> ModelGroup {
    let group = &recovery.groups[&id];
    let index = LogIndex::of_recovery(recovery, 0);
    let (first, last) = (group.start.position.index.next(), group.last().index);
    let entries = if first > last { Ok(Vec::new()) } else { index.entries(id, first, last, u64::MAX) };
    let entries = match entries {
        Ok(entries) => entries,
        Err(GatherError::OnDisk(plan)) => {
            LogReader::new(disk.clone(), recovery.log_id).read(&plan).expect("a sound group is readable")
        }
        Err(error) => panic!("{error}"),
    };
    ModelGroup { hard_state: group.hard_state, start: group.start.clone(), entries }
}

/// The whole log as it comes back.
pub(super) fn read_all(disk: &MemDisk, recovery: &Recovery) -> Model {
    recovery.groups.keys().map(|&id| (id, read_group(disk, recovery, id))).collect()
}

/// Asserts that the log comes back as the model says, without damage.
pub(super) fn check_equal(disk: &MemDisk, recovery: &Recovery, model: &Model) {
    assert_eq!(recovery.damage, []);
    assert!(recovery.groups.values().all(|group| group.damage.is_none()), "{recovery:?}");
    assert_eq!(&read_all(disk, recovery), model);
    for (id, group) in &recovery.groups {
        let bytes: u64 = group.runs.iter().map(|run| run.bytes).sum();
        assert_eq!(bytes, model[id].entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>());
        assert_eq!(group.runs.last().map_or(group.start.position, |run| run.last), group.last());
    }
}

#[test]
fn script_comes_back_after_each_step() {
    let mut model = Model::new();
    let (mut writer, recovery) = open(MemDisk::new());
    assert!(recovery.created && recovery.groups.is_empty());
    for writes in script() {
        writer.write(&writes).expect("a sound disk takes it");
        writes.iter().for_each(|write| apply(&mut model, write));
        let (again, recovery) = open(writer.disk().clone());
        check_equal(again.disk(), &recovery, &model);
        assert_eq!(recovery.torn, None);
    }
}

#[test]
fn configurations_in_the_log_are_found() {
    let (mut writer, _) = open(MemDisk::new());
    for writes in &script()[..5] {
        writer.write(writes).expect("a sound disk takes it");
    }
    let (_, recovery) = open(writer.disk().clone());
    let found = &recovery.groups[&GroupId(2)].configurations;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].index, found[0].configuration.voters.len()), (Index(4), 4));
}

#[test]
fn every_open_is_a_new_boot_and_a_new_segment() {
    let (mut writer, recovery) = open(MemDisk::new());
    assert_eq!(recovery.boot.0, 1);
    writer.write(&[genesis(1), append(1, 2..=3, 1)]).expect("a sound disk takes it");
    let mut disk = writer.close().expect("a sound disk takes it");
    for boot in 2..12 {
        let (writer, recovery) = open(disk);
        assert_eq!((recovery.boot.0, writer.segments().1.0), (boot, u32::try_from(boot).unwrap()));
        assert_eq!(recovery.groups[&GroupId(1)].last().index, Index(3));
        disk = writer.disk().clone();
    }
    let (writer, _) = open(disk);
    assert!(writer.segments().0.0 > 5, "entries are rewritten, so that old segments can go");
}

/// What a random test does next.
#[derive(Clone, Debug)]
enum Step {
    Append { group: u32, count: u8, bytes: u16 },
    Overwrite { group: u32, back: u8 },
    Vote { group: u32 },
    Purge { group: u32, keep: u8 },
    Install { group: u32, ahead: u8 },
    Remove { group: u32 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let group = 1..6_u32;
    prop_oneof![
        6 => (group.clone(), 1..12_u8, 0..1500_u16)
            .prop_map(|(group, count, bytes)| Step::Append { group, count, bytes }),
        2 => (group.clone(), 1..6_u8).prop_map(|(group, back)| Step::Overwrite { group, back }),
        2 => group.clone().prop_map(|group| Step::Vote { group }),
        3 => (group.clone(), 0..8_u8).prop_map(|(group, keep)| Step::Purge { group, keep }),
        1 => (group.clone(), 0..9_u8).prop_map(|(group, ahead)| Step::Install { group, ahead }),
        1 => group.prop_map(|group| Step::Remove { group }),
        1 => Just(Step::Reopen),
    ]
}

/// The write of a step, for the state the model is in.
fn write_of(step: &Step, model: &Model) -> Option<GroupWrite> {
    let state = |group: &u32| model.get(&GroupId(*group)).cloned().unwrap_or_default();
    let last = |group: &ModelGroup| group.entries.last().map_or(group.start.position, Entry::position);
    Some(match step {
        Step::Append { group, count, bytes } => {
            let before = last(&state(group));
            let term = before.term.0.max(1);
            let next = |n: u64| entry(before.index.0 + n, term, &alloc::vec![*count; usize::from(*bytes)]);
            GroupWrite {
                entries: (1..=u64::from(*count)).map(next).collect(),
                ..GroupWrite::of(GroupId(*group))
            }
        }
        Step::Overwrite { group, back } => {
            let now = state(group);
            let keep = now.entries.len().saturating_sub(usize::from(*back));
            let from = now.start.position.index.0 + 1 + keep as u64;
            let term = last(&now).term.0 + 1;
            let entries = alloc::vec![entry(from, term, b"another leader's")];
            let hard_state = Some(hard_state(term, None));
            GroupWrite {
                hard_state,
                truncate_from: Some(Index(from)),
                entries,
                ..GroupWrite::of(GroupId(*group))
            }
        }
        Step::Vote { group } => vote(*group, state(group).hard_state.term.0 + 1, 2),
        Step::Purge { group, keep } => {
            let now = state(group);
            let to = now.entries.iter().rev().nth(usize::from(*keep))?;
            GroupWrite { purge: Some(meta(to.index.0, to.term.0)), ..GroupWrite::of(GroupId(*group)) }
        }
        Step::Install { group, ahead } => {
            let now = last(&state(group));
            let to = now.index.0 + u64::from(*ahead);
            let truncate_from = Some(Index(to + 1));
            GroupWrite {
                install: Some(meta(to, now.term.0 + 1)),
                truncate_from,
                ..GroupWrite::of(GroupId(*group))
            }
        }
        Step::Remove { group } => GroupWrite { remove: true, ..GroupWrite::of(GroupId(*group)) },
        Step::Reopen => return None,
    })
}

/// Everything the index says of a group, in one list.
fn gather_all(index: &LogIndex, disk: &MemDisk, id: GroupId, group: &ModelGroup) -> Vec<Entry> {
    let Some(last) = group.entries.last() else { return Vec::new() };
    let mut runs = TermRuns::default();
    if !group.entries.iter().all(|entry| runs.push(entry.position())) {
        return group.entries.clone();
    }
    assert_eq!(index.last(id), Some(last.position()));
    match index.gather(id, group.entries[0].index, &runs) {
        Ok(entries) => entries,
        Err(GatherError::OnDisk(plan)) => {
            LogReader::new(disk.clone(), super::LOG).read(&plan).expect("what is durable can be read")
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn random_writes_come_back(steps in prop::collection::vec(step(), 1..60), cache in 0..6000_u64) {
        let mut model = Model::new();
        let (mut writer, recovery) = open(MemDisk::new());
        let mut index = LogIndex::of_recovery(&recovery, cache);
        for step in &steps {
            if let Some(write) = write_of(step, &model) {
                index.submitted(&write);
                apply(&mut model, &write);
                index.written(&writer.write(core::slice::from_ref(&write)).expect("a sound disk takes it"));
                index.applied(write.group, Index(u64::MAX));
            } else if matches!(step, Step::Reopen) {
                let (again, recovery) = open(writer.disk().clone());
                check_equal(again.disk(), &recovery, &model);
                writer = again;
                index = LogIndex::of_recovery(&recovery, cache);
            }
            prop_assert!(index.cached_bytes() <= cache);
            for (&id, group) in &model {
                prop_assert_eq!(&gather_all(&index, writer.disk(), id, group), &group.entries);
            }
        }
        let (again, recovery) = open(writer.disk().clone());
        check_equal(again.disk(), &recovery, &model);
    }
}
