//! What must be true of a log that was opened.

use kotoba_db_cluster::{
    raft::{BootEpoch, HardState, Limits, Now, Replica, ReplicaId, Restored, Settings, Timing},
    storage::wal::{Entry, GroupId, LogReader, PlannedRead, ReadDisk, ReadPlan, RecoveredGroup, Recovery},
};

use super::{
    damage::Extent,
    history::History,
    model::{Model, ModelGroup},
};

/// After a crash and nothing worse: no damage, and the whole log as one of `allowed` says, except that a
/// vote about to be promised may come back alone. Returns what was found.
pub(super) fn sound(disk: &(impl ReadDisk + Clone), recovery: &Recovery, allowed: &[&Model]) -> Model {
    assert_eq!(recovery.damage, [], "a crash is no damage");
    let mut found = Model::new();
    for (&id, group) in &recovery.groups {
        assert_eq!(group.damage, None, "a crash damages no group");
        found.insert(id, read_group(disk, recovery, id, group).expect("a sound group is readable"));
    }
    let promised = |id: &GroupId, hard: HardState| {
        allowed.iter().any(|model| model.get(id).is_some_and(|group| group.hard_state == hard))
    };
    let is = |model: &&Model| {
        found.len() == model.len()
            && found.iter().zip(model.iter()).all(|((id, found), (other, group))| {
                id == other
                    && found.start == group.start
                    && found.entries == group.entries
                    && (found.hard_state == group.hard_state || promised(id, found.hard_state))
            })
    };
    assert!(allowed.iter().any(is), "{found:#?}\nis none of\n{allowed:#?}");
    found
}

/// After damage: what may be relied on, by how much was broken.
pub(super) fn damaged(
    disk: &(impl ReadDisk + Clone),
    recovery: &Recovery,
    history: &History,
    extent: Extent,
) {
    match extent {
        Extent::Nothing => {
            sound(disk, recovery, &[&history.acknowledged, &history.attempted]);
        }
        Extent::One => {
            nothing_silent(disk, recovery, history);
            nothing_invented(disk, recovery, history);
        }
        Extent::Several => nothing_invented(disk, recovery, history),
        Extent::Forged => readable_or_refused(disk, recovery),
    }
    for (&id, group) in &recovery.groups {
        take_up(id, group, extent);
    }
}

/// A write that was acknowledged is found again, or its group is reported damaged; but for the last batch
/// of a log that was not closed.
fn nothing_silent(disk: &(impl ReadDisk + Clone), recovery: &Recovery, history: &History) {
    let History { previous, acknowledged, attempted, closed, .. } = history;
    let mut allowed = vec![acknowledged, attempted];
    if !closed {
        allowed.push(previous);
    }
    for (&id, group) in &recovery.groups {
        if group.damage.is_some() {
            assert!(!recovery.damage.is_empty(), "a damaged group has a cause");
            continue;
        }
        let found = read_group(disk, recovery, id, group).expect("a group that is not damaged is readable");
        let same = |model: &&&Model| {
            model.get(&id).is_some_and(|group| group.start == found.start && group.entries == found.entries)
        };
        assert!(allowed.iter().any(|model| same(&model)), "group {id}: {found:#?}\nis none of\n{allowed:#?}");
        let hard_states = allowed.iter().filter_map(|model| model.get(&id)).map(|group| group.hard_state);
        assert!(
            hard_states.into_iter().any(|hard| hard == found.hard_state),
            "group {id}: {:?}",
            found.hard_state
        );
        // Its second copy outlives the loss of the batch, unless the group began anew with it.
        if let (Some(before), Some(after)) = (previous.get(&id), acknowledged.get(&id))
            && after.hard_state.term > before.hard_state.term
            && before.start.position.index.0 > 0
        {
            assert!(
                found.hard_state.term >= after.hard_state.term,
                "group {id}: a term that was acknowledged is forgotten"
            );
        }
    }
    for id in acknowledged.keys() {
        let may_be_gone = allowed.iter().any(|model| !model.contains_key(id));
        assert!(may_be_gone || recovery.groups.contains_key(id), "group {id} is forgotten");
    }
}

/// Whatever can be read was once written, there and so.
fn nothing_invented(disk: &(impl ReadDisk + Clone), recovery: &Recovery, history: &History) {
    for (&id, group) in &recovery.groups {
        let hard_state = group.hard_state;
        assert!(
            history.written.has_hard_state(id, hard_state),
            "group {id}: {hard_state:?} was never written"
        );
        // Without its payload a record's configuration is unknown, and the group damaged.
        let start = group.damage.is_some() || history.written.has_start(id, &group.start);
        assert!(start, "group {id}: {:?} was never written", group.start);
        for entry in entries(disk, recovery, id, group).into_iter().flatten() {
            assert!(history.written.has_entry(id, &entry), "group {id}: {entry:?} was never written");
        }
    }
}

fn readable_or_refused(disk: &(impl ReadDisk + Clone), recovery: &Recovery) {
    for (&id, group) in &recovery.groups {
        let read = entries(disk, recovery, id, group);
        assert_eq!(read.len(), group.index.len());
    }
}

/// Each entry of a group, where it can be read.
fn entries(
    disk: &(impl ReadDisk + Clone),
    recovery: &Recovery,
    id: GroupId,
    group: &RecoveredGroup,
) -> Vec<Option<Entry>> {
    let reader = LogReader::new(disk.clone(), recovery.log_id);
    let range = group.index.range(group.index.base().index.next(), group.last().index);
    range
        .map(|(position, place)| {
            let segment = place.segment.expect("what was recovered is on disk");
            let read = PlannedRead { position, segment, offset: place.offset, length: place.length };
            let plan = ReadPlan { group: id, reads: vec![read], tail: Vec::new() };
            let mut read = reader.read(&plan).ok()?;
            let entry = read.pop().expect("one entry was asked for");
            assert_eq!(entry.position(), position, "the entry is the one that was meant");
            Some(entry)
        })
        .collect()
}

fn read_group(
    disk: &(impl ReadDisk + Clone),
    recovery: &Recovery,
    id: GroupId,
    group: &RecoveredGroup,
) -> Option<ModelGroup> {
    let entries = entries(disk, recovery, id, group).into_iter().collect::<Option<_>>()?;
    Some(ModelGroup { hard_state: group.hard_state, start: group.start.clone(), entries })
}

/// Hands a group to the consensus core, as a node does at its start.
fn take_up(id: GroupId, group: &RecoveredGroup, extent: Extent) {
    let restored = Restored {
        hard_state: group.hard_state,
        start: group.start.clone(),
        runs: group.runs.iter().map(|run| (run.last, run.bytes)).collect(),
        configurations: group.configurations.clone(),
        applied: group.start.position.index,
        damaged: group.damage.is_some(),
    };
    let settings = Settings {
        id: ReplicaId(1),
        boot: BootEpoch(1),
        seed: 1,
        timing: Timing::default(),
        retained_bytes: 0,
        limits: Limits::default(),
    };
    let taken = Replica::recover(settings, restored, Now::default());
    let is_sound = group.damage.is_none() && extent != Extent::Forged;
    assert!(taken.is_ok() || !is_sound, "group {id} is whole, and the core refuses it: {:?}", taken.err());
}

/// A log that was opened is opened again: nothing changes, and no damage is forgotten.
pub(super) fn stable(first: &Recovery, second: &Recovery) {
    assert_eq!(first.groups.len(), second.groups.len(), "no group comes or goes by opening a log");
    for (id, before) in &first.groups {
        let after = &second.groups[id];
        assert_eq!(before.hard_state, after.hard_state, "group {id}");
        assert_eq!(before.start, after.start, "group {id}");
        assert_eq!(before.damage.is_some(), after.damage.is_some(), "group {id}: {:?}", before.damage);
        if before.damage.is_none() {
            assert_eq!(before.last(), after.last(), "group {id}");
        }
    }
}
