//! Damage anywhere in the log: found, named, and never repaired by forgetting.

use alloc::vec::Vec;

use super::{
    super::{
        BootEpoch, Damage, DamageKind, GatherError, GroupId, GroupWrite, LogIndex, LogReader, MemDisk,
        ReadError, Recovery, SegmentNumber, WalOptions, WalWriter, WriteError,
        codec::{
            BATCH_HEADER_BYTES, DATA_START, HEADER_OFFSETS, MARK_OFFSETS, RECORD_HEADER_BYTES, SegmentHeader,
        },
        recovery::segment_name,
    },
    append, genesis, hard_state, meta,
    model::{Model, apply, check_equal, read_group},
    open, options, script, vote,
};
use crate::raft::Index;

/// The script, closed: its last batch is marked too.
fn closed() -> (MemDisk, Model) {
    let mut model = Model::new();
    let (mut writer, _) = open(MemDisk::new());
    for writes in script() {
        writer.write(&writes).expect("a sound disk takes it");
        writes.iter().for_each(|write| apply(&mut model, write));
    }
    (writer.close().expect("a sound disk takes it"), model)
}

/// Asserts that every group is as the model says or known to be damaged; returns the damaged ones.
fn check_nothing_silent(disk: &MemDisk, recovery: &Recovery, model: &Model) -> Vec<GroupId> {
    let mut damaged = Vec::new();
    for (id, group) in &recovery.groups {
        if group.damage.is_some() {
            assert!(!recovery.damage.is_empty(), "a damaged group has a cause");
            damaged.push(*id);
        } else {
            assert_eq!(Some(&read_group(disk, recovery, *id)), model.get(id), "group {id}");
        }
    }
    assert!(model.keys().all(|id| recovery.groups.contains_key(id)), "no group is forgotten");
    damaged
}

/// Every byte that means something, and some that do not.
fn offsets(disk: &MemDisk, name: &str) -> Vec<usize> {
    let bytes = disk.contents(name).expect("it is there");
    let near_something =
        |offset: usize| bytes[offset.saturating_sub(8)..bytes.len().min(offset + 8)].iter().any(|&b| b != 0);
    (0..bytes.len()).filter(|&offset| near_something(offset) || offset % 61 == 0).collect()
}

#[test]
fn a_flipped_bit_anywhere_is_found_or_harmless() {
    let (disk, model) = closed();
    let name = segment_name(SegmentNumber(1));
    let (mut whole, mut partial) = (0, 0);
    for offset in offsets(&disk, &name) {
        let mut broken = disk.clone();
        broken.flip_bit(&name, offset, u32::try_from(offset % 8).unwrap());
        let (writer, recovery) = open(broken);
        let damaged = check_nothing_silent(writer.disk(), &recovery, &model);
        if damaged.is_empty() {
            whole += 1;
        } else {
            partial += 1;
        }
        let outside_batches = offset < usize::try_from(DATA_START).unwrap();
        assert!(!outside_batches || damaged.is_empty(), "headers and marks have copies: {offset}");
    }
    assert!(whole > 500 && partial > 500, "{whole} harmless, {partial} found");
}

#[test]
fn a_flipped_bit_in_a_sealed_segment_is_found_or_harmless() {
    let (disk, mut model) = closed();
    let (mut writer, _) = open(disk);
    let more = [append(1, 13..=14, 5), vote(2, 8, 3)];
    writer.write(&more).expect("a sound disk takes it");
    more.iter().for_each(|write| apply(&mut model, write));
    let disk = writer.disk().clone();
    let name = segment_name(SegmentNumber(1));
    for offset in offsets(&disk, &name).into_iter().step_by(3) {
        let mut broken = disk.clone();
        broken.flip_bit(&name, offset, u32::try_from(offset % 8).unwrap());
        let (writer, recovery) = open(broken);
        for id in check_nothing_silent(writer.disk(), &recovery, &model) {
            // The next segment's checkpoint knows all groups and their hard states.
            assert_eq!(recovery.groups[&id].hard_state, model[&id].hard_state);
        }
    }
}

#[test]
fn a_lost_sector_anywhere_is_found_or_harmless() {
    let (disk, model) = closed();
    let name = segment_name(SegmentNumber(1));
    let length = disk.contents(&name).expect("it is there").len();
    for offset in (0..length).step_by(512) {
        let mut broken = disk.clone();
        broken.lose_sector(&name, offset);
        let (writer, recovery) = open(broken);
        check_nothing_silent(writer.disk(), &recovery, &model);
    }
}

/// Offset of the first byte of this text in a segment.
fn find(disk: &MemDisk, name: &str, text: &str) -> usize {
    let bytes = disk.contents(name).expect("it is there");
    bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("it was written")
}

#[test]
fn a_damaged_entry_is_named_and_its_group_alone_suffers() {
    let (mut disk, model) = closed();
    let name = segment_name(SegmentNumber(1));
    let at = find(&disk, &name, "group 1 entry 8 term 2");
    disk.flip_bit(&name, at + 3, 1);
    let (writer, recovery) = open(disk);
    assert_eq!(check_nothing_silent(writer.disk(), &recovery, &model), [GroupId(1)]);
    let one = DamageKind::Entries { first: Index(8), last: Index(8) };
    let damage = Damage { segment: SegmentNumber(1), offset: (at - RECORD_HEADER_BYTES) as u64, kind: one };
    let group = &recovery.groups[&GroupId(1)];
    assert_eq!((group.damage, recovery.damage.as_slice()), (Some(damage), &[damage][..]));
    assert_eq!(group.last(), model[&GroupId(1)].entries.last().expect("it has entries").position());
    assert_eq!(group.hard_state, model[&GroupId(1)].hard_state);

    let index = LogIndex::of_recovery(&recovery, 1 << 20);
    assert_eq!(index.entries(GroupId(1), Index(7), Index(9), u64::MAX), Err(GatherError::Damaged));
    assert!(matches!(index.entries(GroupId(1), Index(4), Index(7), u64::MAX), Err(GatherError::OnDisk(_))));
}

#[test]
fn damage_outlives_segments_and_restarts_until_the_group_is_removed() {
    let (mut disk, model) = closed();
    let name = segment_name(SegmentNumber(1));
    let at = find(&disk, &name, "group 1 entry 8 term 2") - RECORD_HEADER_BYTES;
    disk.flip_bit(&name, at, 1);
    let (mut writer, first) = open(disk);
    let damage = first.groups[&GroupId(1)].damage.expect("its record is lost");
    assert_eq!(damage.kind, DamageKind::Records);
    let sound = GroupId(2);
    assert_eq!(writer.write(&[vote(1, 9, 1)]), Err(WriteError::Damaged(GroupId(1))));
    for round in 0..4_u64 {
        let (again, recovery) = open(writer.disk().clone());
        assert_eq!(recovery.groups[&GroupId(1)].damage, Some(damage), "round {round}");
        assert_eq!(read_group(again.disk(), &recovery, sound), model[&sound]);
        writer = again;
    }
    writer.write(&[GroupWrite { remove: true, ..genesis(1) }]).expect("a new replica");
    let (_, recovery) = open(writer.disk().clone());
    assert_eq!(recovery.groups[&GroupId(1)].damage, None);
    assert_eq!(recovery.groups[&GroupId(1)].last(), meta(1, 1).position);
}

#[test]
fn a_torn_tail_is_cut_and_a_marked_one_is_not() {
    let (mut writer, _) = open(MemDisk::new());
    writer.write(&[genesis(1)]).expect("a sound disk takes it");
    writer.write(&[append(1, 2..=2, 1)]).expect("a sound disk takes it");
    let name = segment_name(SegmentNumber(1));
    let break_last = |mut disk: MemDisk| {
        let at = find(&disk, &name, "group 1 entry 2");
        disk.flip_bit(&name, at, 0);
        open(disk).1
    };
    let torn = break_last(writer.disk().clone());
    assert_eq!((torn.groups[&GroupId(1)].damage, torn.damage.len()), (None, 0));
    assert_eq!(torn.groups[&GroupId(1)].last(), meta(1, 1).position);
    assert!(torn.torn.is_some());
    writer.write(&[genesis(2)]).expect("a sound disk takes it");
    assert!(break_last(writer.disk().clone()).groups[&GroupId(1)].damage.is_some());
}

#[test]
fn a_mark_alone_tells_damage_from_a_torn_tail() {
    let (mut writer, _) = open(MemDisk::new());
    writer.write(&[genesis(1)]).expect("a sound disk takes it");
    writer.write(&[append(1, 2..=2, 1)]).expect("a sound disk takes it");
    let tail = writer.disk().contents(&segment_name(SegmentNumber(1))).expect("it is there").to_vec();
    writer.write(&[genesis(2)]).expect("a sound disk takes it");
    // The disk loses all it was told after the first batch, except the marks.
    let name = segment_name(SegmentNumber(1));
    let mut bytes = writer.disk().contents(&name).expect("it is there").to_vec();
    let start = tail.windows(15).position(|window| window == b"group 1 entry 2").expect("it was written");
    let (from, to) = (start - RECORD_HEADER_BYTES - 56, bytes.len() - 1024);
    bytes[from..to].fill(0);
    let mut disk = writer.disk().clone();
    disk.put(&name, bytes);
    let (_, recovery) = open(disk);
    assert_eq!(recovery.damage.len(), 1, "{:?}", recovery.damage);
    assert!(recovery.groups[&GroupId(1)].damage.is_some());
}

#[test]
fn a_hard_state_survives_the_loss_of_either_copy() {
    let (mut writer, _) = open(MemDisk::new());
    let mut model = Model::new();
    for write in [genesis(1), genesis(2), vote(1, 5, 2), append(2, 2..=2, 1)] {
        writer.write(core::slice::from_ref(&write)).expect("a sound disk takes it");
        apply(&mut model, &write);
    }
    let sound = writer.close().expect("a sound disk takes it");
    let name = segment_name(SegmentNumber(1));
    // The record of the vote: the batch behind those of two groups' beginnings.
    let bytes = sound.contents(&name).expect("it is there").to_vec();
    let vote_term = 5_u64.to_le_bytes();
    let copies: Vec<_> = (usize::try_from(DATA_START).unwrap()..bytes.len() - 8)
        .step_by(8)
        .filter(|&offset| bytes[offset..offset + 8] == vote_term)
        .collect();
    let votes: Vec<_> = copies
        .into_iter()
        .filter(|&at| {
            bytes[at - 8..at] == 2_u64.to_le_bytes() || bytes[at + 8..at + 16] == 2_u64.to_le_bytes()
        })
        .collect();
    assert!(votes.len() >= 2, "two copies: {votes:?}");
    for copy in votes {
        let mut disk = sound.clone();
        disk.flip_bit(&name, copy, 3);
        let (writer, recovery) = open(disk);
        assert!(recovery.groups.values().all(|group| group.damage.is_none()), "{recovery:?}");
        assert_eq!(read_group(writer.disk(), &recovery, GroupId(1)), model[&GroupId(1)]);
        assert_eq!(read_group(writer.disk(), &recovery, GroupId(2)), model[&GroupId(2)]);
    }
}

#[test]
fn a_vote_in_the_last_batch_survives_the_loss_of_that_batch() {
    let (mut writer, _) = open(MemDisk::new());
    writer.write(&[genesis(1)]).expect("a sound disk takes it");
    writer.write(&[vote(1, 5, 2)]).expect("a sound disk takes it");
    let mut disk = writer.disk().clone();
    let name = segment_name(SegmentNumber(1));
    // The first copy is the record; no mark tells that its batch was complete.
    disk.flip_bit(&name, find_term(&disk, &name, 5), 3);
    let (_, recovery) = open(disk);
    assert_eq!(recovery.groups[&GroupId(1)].hard_state, hard_state(5, Some(2)));
}

/// Where a term first stands on the disk.
fn find_term(disk: &MemDisk, name: &str, term: u64) -> usize {
    let bytes = disk.contents(name).expect("it is there");
    let mut offsets = (usize::try_from(DATA_START).expect("small")..bytes.len() - 8).step_by(8);
    offsets.find(|&at| bytes[at..at + 8] == term.to_le_bytes()).expect("it is there")
}

#[test]
fn one_copy_of_a_header_and_one_mark_are_enough() {
    let (sound, model) = closed();
    let name = segment_name(SegmentNumber(1));
    for offset in HEADER_OFFSETS.into_iter().chain(MARK_OFFSETS) {
        let mut disk = sound.clone();
        disk.lose_sector(&name, usize::try_from(offset).unwrap());
        let (writer, recovery) = open(disk);
        check_equal(writer.disk(), &recovery, &model);
    }
    let mut disk = sound;
    disk.flip_bit(&name, 20, 1);
    disk.flip_bit(&name, 4096 + 20, 1);
    let opened = WalWriter::open(disk, options()).map(|_| ());
    assert_eq!(opened, Err(super::super::OpenError::Header(SegmentNumber(1))));
}

#[test]
fn a_log_that_made_up_for_damage_still_does_when_it_is_opened_again() {
    let mut model = Model::new();
    let (mut writer, _) = open(MemDisk::new());
    // The entry keeps the first segment, which alone says how the other group began.
    let first = [genesis(1), genesis(2), append(2, 2..=2, 1)];
    writer.write(&first).expect("a sound disk takes it");
    let (mut writer, _) = open(writer.disk().clone());
    let second = append(1, 2..=4, 1);
    writer.write(core::slice::from_ref(&second)).expect("a sound disk takes it");
    first.iter().chain([&second]).for_each(|write| apply(&mut model, write));
    let mut disk = writer.close().expect("a sound disk takes it");
    // The first record of the second segment's checkpoint.
    let record = usize::try_from(DATA_START).unwrap() + BATCH_HEADER_BYTES;
    disk.flip_bit(&segment_name(SegmentNumber(2)), record, 0);
    for round in 0..5 {
        let (writer, recovery) = open(disk);
        assert_eq!(check_nothing_silent(writer.disk(), &recovery, &model), [], "round {round}");
        disk = writer.disk().clone();
    }
}

#[test]
fn a_missing_segment_damages_those_who_had_entries_there() {
    let keep_all = WalOptions { rewrite_bytes_max: 0, ..options() };
    let open = |disk: MemDisk| WalWriter::open(disk, keep_all).expect("it opens");
    let (mut writer, _) = open(MemDisk::new());
    writer.write(&[genesis(1), genesis(2), append(1, 2..=3, 1), append(2, 2..=2, 1)]).expect("sound");
    let (mut writer, _) = open(writer.disk().clone());
    writer.write(&[append(1, 4..=5, 1)]).expect("sound");
    let (mut writer, _) = open(writer.disk().clone());
    super::super::Disk::remove(writer.disk_mut(), &segment_name(SegmentNumber(2))).expect("in memory");
    let (_, recovery) = open(writer.disk().clone());
    let missing = Damage { segment: SegmentNumber(2), offset: 0, kind: DamageKind::Segment };
    assert!(recovery.damage.contains(&missing));
    let lost = recovery.groups[&GroupId(1)].damage.map(|damage| damage.kind);
    assert_eq!(lost, Some(DamageKind::Entries { first: Index(2), last: Index(5) }));
    assert_eq!(recovery.groups[&GroupId(2)].damage, None, "the next checkpoint proves it complete");
}

/// Numbers that a disk made up cost no time and no memory.
#[test]
fn a_gap_of_many_segments_is_one_damage() {
    let far = SegmentNumber(4_000_000_000);
    let header = SegmentHeader {
        log: super::LOG,
        segment: far,
        oldest: SegmentNumber(1),
        boot: BootEpoch(1),
        length: super::SEGMENT_BYTES,
        previous: None,
    };
    let mut bytes = alloc::vec![0; usize::try_from(super::SEGMENT_BYTES).unwrap()];
    bytes[..128].copy_from_slice(&header.encode());
    let mut disk = MemDisk::new();
    disk.put(&segment_name(far), bytes);
    let (_, recovery) = open(disk);
    let missing = Damage { segment: SegmentNumber(1), offset: 0, kind: DamageKind::Segment };
    assert_eq!(recovery.damage, [missing]);
}

#[test]
fn a_sealed_segment_that_was_cut_is_damaged_to_its_end() {
    let (mut writer, _) = open(MemDisk::new());
    writer.write(&[genesis(1), append(1, 2..=9, 1)]).expect("a sound disk takes it");
    let (writer, _) = open(writer.disk().clone());
    let (mut disk, name) = (writer.disk().clone(), segment_name(SegmentNumber(1)));
    let mut bytes = disk.contents(&name).expect("it is there").to_vec();
    bytes.truncate(usize::try_from(DATA_START).unwrap() + 200);
    disk.put(&name, bytes);
    let (_, recovery) = open(disk);
    assert!(!recovery.damage.is_empty() && recovery.groups[&GroupId(1)].damage.is_some());
}

#[test]
fn entries_that_rot_later_are_refused_by_the_reader() {
    let (mut disk, _) = closed();
    let (_, recovery) = open(disk.clone());
    let index = LogIndex::of_recovery(&recovery, 0);
    let Err(GatherError::OnDisk(plan)) = index.entries(GroupId(1), Index(4), Index(12), u64::MAX) else {
        panic!("nothing is in memory");
    };
    let name = segment_name(SegmentNumber(1));
    let at = find(&disk, &name, "group 1 entry 8 term 2");
    let reader = |disk: &MemDisk| LogReader::new(disk.clone(), recovery.log_id);
    assert_eq!(reader(&disk).read(&plan).map(|entries| entries.len()), Ok(9));
    disk.flip_bit(&name, at, 0);
    let refused = reader(&disk).read(&plan);
    assert!(
        matches!(refused, Err(ReadError::Damaged { group: GroupId(1), index: Index(8), .. })),
        "{refused:?}"
    );
    disk.flip_bit(&name, at, 0);
    disk.lose_sector(&name, at);
    assert!(matches!(reader(&disk).read(&plan), Err(ReadError::Damaged { .. })));
    super::super::Disk::remove(&mut disk, &name).expect("in memory");
    assert_eq!(reader(&disk).read(&plan), Err(ReadError::Gone));
}
