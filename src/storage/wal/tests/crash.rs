//! Crashes at every change the log makes on disk: nothing acknowledged is lost, nothing is invented.

use alloc::{format, rc::Rc, string::String, vec::Vec};
use core::cell::RefCell;

use super::{
    super::{Disk, DiskError, GroupId, GroupWrite, MemDisk, ReadDisk, Recovery, WalWriter},
    append, genesis,
    model::{Model, apply, read_all},
    open, options, script,
};
use crate::raft::HardState;

/// The script, and enough after it to begin new segments and remove old ones.
fn long_script() -> Vec<Vec<GroupWrite>> {
    let mut script = script();
    for round in 0..5_u64 {
        let first = 13 + round * 40;
        script.push(alloc::vec![append(1, first..=first + 39, 6), super::vote(2, 10 + round, 1)]);
    }
    script
}

/// What may come back: the state when the last write was acknowledged, or also the next write.
fn run_until_power_fails(disk: MemDisk) -> (MemDisk, Model, Model) {
    let (mut before, mut after) = (Model::new(), Model::new());
    let shared = SharedDisk(Rc::new(RefCell::new(disk)));
    if let Ok((mut writer, _)) = WalWriter::open(shared.clone(), options()) {
        for writes in long_script() {
            writes.iter().for_each(|write| apply(&mut after, write));
            if writer.write(&writes).is_err() {
                break;
            }
            before.clone_from(&after);
        }
    }
    let disk = shared.0.borrow().clone();
    (disk, before, after)
}

fn is_allowed(found: &Model, before: &Model, after: &Model) -> bool {
    if found == before || found == after {
        return true;
    }
    // A vote that was about to be promised may come back alone, from its second copy.
    let promised =
        |id: &GroupId, hard: HardState| after.get(id).is_some_and(|group| group.hard_state == hard);
    found.len() == before.len()
        && found.iter().zip(before).all(|((id, found), (before_id, before))| {
            let hard_state = found.hard_state == before.hard_state || promised(id, found.hard_state);
            id == before_id && hard_state && found.start == before.start && found.entries == before.entries
        })
}

fn check_sound(recovery: &Recovery) {
    assert_eq!(recovery.damage, [], "a crash is no damage");
    assert!(recovery.groups.values().all(|group| group.damage.is_none()));
}

/// A small generator: the test needs variety, not quality.
fn chooser(mut state: u64) -> impl FnMut(usize) -> usize {
    move |n| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    }
}

#[test]
fn power_may_fail_at_every_change() {
    let mut whole = MemDisk::new();
    whole.cut_power_at(u64::MAX - 1);
    let (disk, _, _) = run_until_power_fails(whole);
    let operations = disk.operations();
    assert!(operations > 80, "the script makes many changes: {operations}");
    for cut in 0..operations {
        let mut disk = MemDisk::new();
        disk.cut_power_at(cut);
        let (disk, before, after) = run_until_power_fails(disk);
        let crashed = [disk.crash(|_| 0), disk.crash(|n| n - 1)].into_iter();
        let random = (0..6).map(|seed| disk.crash(chooser(cut * 100 + seed)));
        for crashed in crashed.chain(random) {
            let (mut writer, recovery) = open(crashed);
            check_sound(&recovery);
            let found = read_all(writer.disk(), &recovery);
            assert!(is_allowed(&found, &before, &after), "cut at {cut}: {found:?}\n{before:?}\n{after:?}");
            // And it goes on from there.
            writer.write(&[genesis(9), append(9, 2..=3, 1)]).expect("a sound disk takes it");
            let (again, recovery) = open(writer.disk().crash(|_| 0));
            check_sound(&recovery);
            let mut expected = found;
            apply(&mut expected, &genesis(9));
            apply(&mut expected, &append(9, 2..=3, 1));
            assert_eq!(read_all(again.disk(), &recovery), expected);
        }
    }
}

#[test]
fn power_may_fail_while_a_log_is_opened() {
    let mut model = Model::new();
    let (mut writer, _) = open(MemDisk::new());
    for writes in long_script() {
        writer.write(&writes).expect("a sound disk takes it");
        writes.iter().for_each(|write| apply(&mut model, write));
    }
    let sound = writer.disk().crash(|_| 0);
    // More changes than an opening makes: at the last ones the power does not fail.
    for cut in 0..20 {
        for choice in 0..4 {
            let mut disk = sound.clone();
            disk.cut_power_at(cut);
            let left = disk_after_opening(disk);
            let (again, recovery) = open(left.crash(chooser(cut * 10 + choice)));
            check_sound(&recovery);
            assert_eq!(read_all(again.disk(), &recovery), model);
        }
    }
}

/// Restarts on a disk whose process died and whose machine did not, then lets the power fail: what
/// the restart read must be found again.
fn check_restart_then_power_failure(left: &MemDisk, before: &Model, after: &Model, what: &str) {
    let (writer, recovery) = open(left.process_died());
    check_sound(&recovery);
    let found = read_all(writer.disk(), &recovery);
    assert!(is_allowed(&found, before, after), "{what}: {found:?}\n{before:?}\n{after:?}");
    let random = (0..4).map(|seed| writer.disk().crash(chooser(seed)));
    for crashed in [writer.disk().crash(|_| 0)].into_iter().chain(random) {
        let (again, recovery) = open(crashed);
        check_sound(&recovery);
        assert_eq!(read_all(again.disk(), &recovery), found, "{what}");
    }
}

#[test]
fn what_a_restart_reads_from_the_cache_survives_a_later_power_failure() {
    let (disk, _, _) = run_until_power_fails(MemDisk::new());
    for cut in 0..disk.operations() {
        let mut disk = MemDisk::new();
        disk.cut_power_at(cut);
        let (left, before, after) = run_until_power_fails(disk);
        check_restart_then_power_failure(&left, &before, &after, &format!("death in operation {cut}"));
    }
    for flush in 0..disk.operations() {
        let mut disk = MemDisk::new();
        disk.fail_sync_after(flush);
        let (left, before, after) = run_until_power_fails(disk);
        check_restart_then_power_failure(&left, &before, &after, &format!("flush {flush} fails"));
    }
}

/// Opens a log on a disk that may fail, and gives the disk back whatever happens.
fn disk_after_opening(disk: MemDisk) -> MemDisk {
    let shared = SharedDisk(Rc::new(RefCell::new(disk)));
    let _ = WalWriter::open(shared.clone(), options());
    shared.0.take()
}

/// A disk that outlives the writer that failed on it.
#[derive(Clone)]
struct SharedDisk(Rc<RefCell<MemDisk>>);

impl ReadDisk for SharedDisk {
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.0.borrow().read_at(name, offset, into)
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        self.0.borrow().length(name)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.0.borrow().list()
    }
}

impl Disk for SharedDisk {
    fn create_zeroed(&mut self, name: &str, length: u64) -> Result<(), DiskError> {
        self.0.borrow_mut().create_zeroed(name, length)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.0.borrow_mut().write_at(name, offset, bytes)
    }

    fn sync_data(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.borrow_mut().sync_data(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.0.borrow_mut().rename(from, to)
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.0.borrow_mut().remove(name)
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        self.0.borrow_mut().sync_dir()
    }
}
