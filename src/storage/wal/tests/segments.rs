//! New segments, old ones, and the disk's refusals.

use alloc::vec::Vec;

use super::{
    super::{
        Disk, DiskError, GroupId, GroupWrite, LogId, MemDisk, OpenError, ReadDisk, SegmentNumber, WalOptions,
        WalWriter, WriteError, prepare_spare,
        recovery::{segment_name, segment_of},
    },
    LOG, append, genesis, meta,
    model::{Model, apply, check_equal},
    open, options, vote,
};
use crate::raft::{Index, WriteFault};

fn segment_files(disk: &MemDisk) -> Vec<u32> {
    disk.list()
        .expect("in memory")
        .iter()
        .filter_map(|name| segment_of(name))
        .map(|segment| segment.0)
        .collect()
}

/// Fills segments with entries of one group, which are purged again.
fn churn(writer: &mut WalWriter<MemDisk>, model: &mut Model, group: u32, rounds: u64) {
    let mut next = model.get(&GroupId(group)).map_or(2, |state| {
        state.entries.last().map_or(state.start.position.index.0, |entry| entry.index.0) + 1
    });
    for _ in 0..rounds {
        let purge = Some(meta(next + 29, 1));
        let write = GroupWrite { purge, ..append(group, next..=next + 29, 1) };
        writer.write(core::slice::from_ref(&write)).expect("a sound disk takes it");
        apply(model, &write);
        next += 30;
    }
}

fn begun(groups: u32) -> (WalWriter<MemDisk>, Model) {
    let (mut writer, _) = open(MemDisk::new());
    let mut model = Model::new();
    for group in 1..=groups {
        writer.write(&[genesis(group)]).expect("a sound disk takes it");
        apply(&mut model, &genesis(group));
    }
    (writer, model)
}

#[test]
fn purged_segments_are_removed() {
    let (mut writer, mut model) = begun(2);
    churn(&mut writer, &mut model, 1, 40);
    assert!(writer.segments().1.0 > 10);
    assert!(segment_files(writer.disk()).len() <= 2, "{:?}", segment_files(writer.disk()));
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn few_entries_of_a_slow_group_are_rewritten() {
    let (mut writer, mut model) = begun(2);
    let slow = append(2, 2..=6, 1);
    let receipt = writer.write(core::slice::from_ref(&slow)).expect("a sound disk takes it");
    apply(&mut model, &slow);
    assert!(
        receipt
            .places
            .iter()
            .all(|(group, _, place)| group.0 == 2 && place.segment == Some(SegmentNumber(1)))
    );
    churn(&mut writer, &mut model, 1, 40);
    assert!(segment_files(writer.disk()).len() <= 4, "{:?}", segment_files(writer.disk()));
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn many_entries_pin_their_segments_and_are_named() {
    let rewrite_nothing = WalOptions { rewrite_bytes_max: 0, ..options() };
    let (mut writer, _) = WalWriter::open(MemDisk::new(), rewrite_nothing).expect("an empty disk opens");
    let mut model = Model::new();
    for write in [genesis(1), genesis(2), append(2, 2..=6, 1)] {
        writer.write(core::slice::from_ref(&write)).expect("a sound disk takes it");
        apply(&mut model, &write);
    }
    churn(&mut writer, &mut model, 1, 20);
    let pinned = writer.segments_pinned();
    assert_eq!((pinned.len(), pinned[0].group, pinned[0].segment), (1, GroupId(2), SegmentNumber(1)));
    assert_eq!(segment_files(writer.disk())[0], 1);
    let purge = GroupWrite { purge: Some(meta(6, 1)), ..GroupWrite::of(GroupId(2)) };
    writer.write(&[purge.clone()]).expect("a sound disk takes it");
    apply(&mut model, &purge);
    assert_eq!(writer.segments_pinned(), []);
    churn(&mut writer, &mut model, 1, 4);
    assert!(segment_files(writer.disk())[0] > 1);
}

#[test]
fn a_write_larger_than_a_segment_gets_a_larger_one() {
    let (mut writer, mut model) = begun(1);
    let large = GroupWrite {
        entries: alloc::vec![super::entry(2, 1, &alloc::vec![7; 100_000])],
        ..GroupWrite::of(GroupId(1))
    };
    writer.write(core::slice::from_ref(&large)).expect("a sound disk takes it");
    apply(&mut model, &large);
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn spares_are_used_and_left_over_ones_removed() {
    let long = WalOptions { segment_bytes: 64 << 10, ..options() };
    let (mut writer, _) = WalWriter::open(MemDisk::new(), long).expect("an empty disk opens");
    let mut model = Model::new();
    writer.write(&[genesis(1)]).expect("a sound disk takes it");
    apply(&mut model, &genesis(1));
    let order = writer.order_spare().expect("none is ready");
    let spare = prepare_spare(writer.disk_mut(), order).expect("there is room");
    writer.offer_spare(spare);
    assert_eq!(writer.order_spare(), None);
    let created =
        |disk: &MemDisk| disk.list().expect("in memory").iter().filter(|n| n.ends_with(".spare")).count();
    assert_eq!(created(writer.disk()), 1);
    churn(&mut writer, &mut model, 1, 30);
    assert_eq!(created(writer.disk()), 0);
    let order = writer.order_spare().expect("it was used");
    prepare_spare(writer.disk_mut(), order).expect("there is room");
    let (again, recovery) = open(writer.disk().clone());
    assert_eq!(created(again.disk()), 0);
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn a_failed_flush_ends_all_writing_and_is_never_retried() {
    let (mut writer, model) = begun(1);
    writer.disk_mut().fail_sync_after(0);
    let failed = Err(WriteError::Fault(WriteFault::SyncFailed));
    assert_eq!(writer.write(&[append(1, 2..=3, 1)]), failed);
    let operations = writer.disk().operations();
    assert_eq!(writer.write(&[append(1, 2..=3, 1)]), failed);
    assert_eq!(writer.disk().operations(), operations, "the disk is not asked again");
    let (again, recovery) = open(writer.disk().crash(|_| 0));
    check_equal(again.disk(), &recovery, &model);
    assert!(writer.close().is_err());
}

#[test]
fn a_full_disk_refuses_and_takes_the_same_write_later() {
    let (mut writer, mut model) = begun(1);
    writer.disk_mut().set_capacity(Some(super::SEGMENT_BYTES));
    let mut next = 2;
    let refused = loop {
        let write = append(1, next..=next + 9, 1);
        match writer.write(core::slice::from_ref(&write)) {
            Ok(_) => apply(&mut model, &write),
            Err(error) => break (write, error),
        }
        next += 10;
    };
    assert_eq!(refused.1, WriteError::Full);
    assert_eq!(writer.disk().list().expect("in memory").len(), 1, "nothing is left of the attempt");
    let (again, recovery) = open_within(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
    writer.disk_mut().set_capacity(None);
    writer.write(core::slice::from_ref(&refused.0)).expect("there is room");
    apply(&mut model, &refused.0);
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

fn open_within(mut disk: MemDisk) -> (WalWriter<MemDisk>, super::super::Recovery) {
    let full = WalWriter::open(disk.clone(), options()).map(|_| ());
    assert!(matches!(full, Err(OpenError::Disk { error: DiskError::Full, .. })), "{full:?}");
    disk.set_capacity(None);
    open(disk)
}

#[test]
fn a_disk_full_in_the_middle_of_a_segment_changes_nothing() {
    let (mut writer, mut model) = begun(1);
    writer.disk_mut().refuse_writes(true);
    let write = append(1, 2..=3, 1);
    assert_eq!(writer.write(core::slice::from_ref(&write)), Err(WriteError::Full));
    writer.disk_mut().refuse_writes(false);
    writer.write(core::slice::from_ref(&write)).expect("there is room");
    apply(&mut model, &write);
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn writes_that_do_not_continue_the_log_change_nothing() {
    let (mut writer, model) = begun(1);
    let operations = writer.disk().operations();
    let gap = append(1, 3..=4, 1);
    let behind = GroupWrite { purge: Some(meta(5, 1)), ..GroupWrite::of(GroupId(1)) };
    let before_start = GroupWrite { truncate_from: Some(Index(1)), ..GroupWrite::of(GroupId(1)) };
    for write in [gap, behind, before_start] {
        let refused = writer.write(&[vote(1, 9, 1), write]);
        assert!(matches!(refused, Err(WriteError::OutOfOrder { group: GroupId(1), .. })), "{refused:?}");
    }
    assert_eq!(writer.disk().operations(), operations);
    let (again, recovery) = open(writer.disk().clone());
    check_equal(again.disk(), &recovery, &model);
}

#[test]
fn a_log_keeps_its_id_and_refuses_segments_of_another() {
    let (writer, _) = begun(1);
    let other = LogId([9; 16]);
    let (again, recovery) =
        WalWriter::open(writer.disk().clone(), WalOptions { log_id: other, ..options() }).expect("it opens");
    assert_eq!((recovery.log_id, again.log_id(), recovery.created), (LOG, LOG, false));

    let (foreign, _) =
        WalWriter::open(MemDisk::new(), WalOptions { log_id: other, ..options() }).expect("it opens");
    let first = segment_name(SegmentNumber(1));
    let (mut pinned, _) = begun(1);
    pinned.write(&[append(1, 2..=2, 1)]).expect("a sound disk takes it");
    let (next, _) = open(pinned.disk().clone());
    let mut disk = next.disk().clone();
    disk.put(&first, foreign.disk().contents(&first).expect("it is there").to_vec());
    let opened = WalWriter::open(disk, options()).map(|_| ());
    assert_eq!(opened, Err(OpenError::Foreign { segment: SegmentNumber(1), found: other, expected: LOG }));
}

#[test]
fn an_unknown_format_is_named() {
    let (writer, _) = begun(1);
    let name = segment_name(SegmentNumber(1));
    let mut bytes = writer.disk().contents(&name).expect("it is there").to_vec();
    for copy in [0, 4096] {
        bytes[copy + 8] = 2;
        let header = &mut bytes[copy..copy + 128];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[..12]);
        hasher.update(&header[16..]);
        header[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    }
    let mut disk = writer.disk().clone();
    disk.put(&name, bytes);
    let opened = WalWriter::open(disk, options()).map(|_| ());
    assert_eq!(opened, Err(OpenError::Version { segment: SegmentNumber(1), found: 2 }));
}

#[test]
fn impossible_segment_lengths_are_refused() {
    for segment_bytes in [0, 16 << 10, 1 << 32] {
        let opened = WalWriter::open(MemDisk::new(), WalOptions { segment_bytes, ..options() }).map(|_| ());
        assert_eq!(opened, Err(OpenError::SegmentBytes(segment_bytes)));
    }
}

#[test]
fn one_flush_carries_all_groups() {
    let (mut writer, _) = begun(0);
    let before = writer.counters();
    let writes: Vec<_> = (1..=20).map(genesis).collect();
    writer.write(&writes).expect("a sound disk takes it");
    let after = writer.counters();
    assert_eq!((after.syncs - before.syncs, after.records - before.records), (1, 40));
    writer.write(&[]).expect("nothing to do");
    assert_eq!(writer.counters(), after);
    let mut disk = writer.close().expect("a sound disk takes it");
    disk.sync_dir().expect("a sound disk takes it");
}
