//! The bytes of version 1, for ever.

use alloc::vec::Vec;
use std::path::PathBuf;

use super::{
    super::{MemDisk, SegmentNumber, recovery::segment_name},
    append,
    model::{Model, apply, check_equal},
    open, script,
};

/// Two segments: the script, a restart, and two batches more.
fn write_golden() -> (MemDisk, Model) {
    let mut model = Model::new();
    let (mut writer, _) = open(MemDisk::new());
    for writes in script() {
        writer.write(&writes).expect("a sound disk takes it");
        writes.iter().for_each(|write| apply(&mut model, write));
    }
    let (mut writer, _) = open(writer.close().expect("a sound disk takes it"));
    for write in [append(1, 13..=14, 5), append(2, 7..=7, 2)] {
        writer.write(core::slice::from_ref(&write)).expect("a sound disk takes it");
        apply(&mut model, &write);
    }
    (writer.close().expect("a sound disk takes it"), model)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wal").join(name)
}

fn names() -> Vec<alloc::string::String> {
    [1, 2].map(|segment| segment_name(SegmentNumber(segment))).to_vec()
}

#[test]
fn writing_gives_the_golden_bytes() {
    let (disk, _) = write_golden();
    for name in names() {
        let written = disk.contents(&name).expect("it is there");
        if std::env::var_os("KOTOBA_WRITE_GOLDEN").is_some() {
            std::fs::write(path(&name), written).expect("the repository is writable");
        }
        let golden = std::fs::read(path(&name)).expect("golden files are part of the repository");
        let differs = written.iter().zip(&golden).position(|(written, golden)| written != golden);
        assert_eq!((differs, written.len()), (None, golden.len()), "{name}");
    }
}

#[test]
fn golden_files_open() {
    let (_, model) = write_golden();
    let mut disk = MemDisk::new();
    for name in names() {
        disk.put(&name, std::fs::read(path(&name)).expect("golden files are part of the repository"));
    }
    let (writer, recovery) = open(disk);
    assert_eq!((recovery.boot.0, recovery.log_id), (3, super::LOG));
    check_equal(writer.disk(), &recovery, &model);
}
