//! Real files, the writer's thread, and the lock.

use std::{
    sync::mpsc::{Receiver, channel},
    time::Duration,
    vec::Vec,
};

use super::{
    super::{
        Completion, DataDirLock, GroupId, GroupWrite, LockError, LogReader, MemDisk, OsDisk, WalEvent,
        WalHandle, WalHooks, WalRequest, WalWriter, WriteError,
    },
    append, genesis,
    model::{Model, apply},
    open, options,
};
use crate::{raft::WriteFault, storage::wal::LogIndex};

/// Long enough for the slowest machine; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn start(writer: WalWriter<MemDisk>, spare: MemDisk) -> (WalHandle<u64>, Receiver<WalEvent<u64>>) {
    let (events, received) = channel();
    let mut hooks = WalHooks::new(move |event| drop(events.send(event)));
    hooks.full_poll_interval = Duration::from_millis(1);
    (WalHandle::start(writer, spare, hooks).expect("threads are to be had"), received)
}

fn answers(received: &Receiver<WalEvent<u64>>, count: usize) -> Vec<Completion<u64>> {
    let mut completions = Vec::new();
    let mut tags = 0;
    while tags < count {
        if let WalEvent::Completed(completion) = received.recv_timeout(PATIENCE).expect("it is answered") {
            tags += completion.tags.len();
            completions.push(completion);
        }
    }
    completions
}

#[tokio::test]
async fn requests_on_real_files_come_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = OsDisk::open(&directory.path().join("wal")).expect("it can be created");
    let (writer, recovery) = WalWriter::open(disk.clone(), options()).expect("an empty directory opens");
    let mut index = LogIndex::of_recovery(&recovery, 0);
    let (events, received) = channel();
    let hooks = WalHooks::new(move |event| drop(events.send(event)));
    let handle = WalHandle::start(writer, disk.clone(), hooks).expect("threads are to be had");
    let mut model = Model::new();
    let mut submit = |tag: u64, write: GroupWrite| {
        apply(&mut model, &write);
        index.submitted(&write);
        handle.submit(WalRequest { writes: vec![write], tag }).expect("it runs");
    };
    submit(0, genesis(1));
    for tag in 1..=200_u64 {
        let first = 2 + (tag - 1) * 5;
        submit(tag, append(1, first..=first + 4, 1));
    }
    let mut tags = Vec::new();
    for completion in answers(&received, 201) {
        tags.extend(completion.tags);
        index.written(&completion.result.expect("the disk is sound"));
    }
    assert_eq!(tags, (0..=200).collect::<Vec<_>>(), "answered once each, in order");
    let syncs = handle.metrics().syncs.load(std::sync::atomic::Ordering::Relaxed);
    assert!(syncs > 1 && handle.metrics().records.load(std::sync::atomic::Ordering::Relaxed) >= 1002);
    handle.close().await.expect("the disk is sound");

    let (_, recovery) = WalWriter::open(disk.clone(), options()).expect("it opens again");
    assert_eq!((recovery.damage.len(), recovery.torn), (0, None));
    let group = &recovery.groups[&GroupId(1)];
    let index = LogIndex::of_recovery(&recovery, 0);
    let first = group.start.position.index.next();
    let Err(super::super::GatherError::OnDisk(plan)) =
        index.entries(GroupId(1), first, group.last().index, u64::MAX)
    else {
        panic!("nothing is in memory");
    };
    let entries = LogReader::new(disk, recovery.log_id).read(&plan).expect("they are there");
    assert_eq!(entries, model[&GroupId(1)].entries);
}

#[test]
fn a_request_that_is_refused_takes_no_other_with_it() {
    let (writer, _) = open(MemDisk::new());
    let (handle, received) = start(writer, MemDisk::new());
    for (tag, write) in [(0, genesis(1)), (1, append(1, 5..=6, 1)), (2, append(1, 2..=3, 1))] {
        handle.submit(WalRequest { writes: vec![write], tag }).expect("it runs");
    }
    let mut results: Vec<_> = answers(&received, 3)
        .into_iter()
        .flat_map(|completion| {
            let ok = completion.result.is_ok();
            completion.tags.into_iter().map(move |tag| (tag, ok))
        })
        .collect();
    results.sort_unstable();
    assert_eq!(results, [(0, true), (1, false), (2, true)]);
}

#[tokio::test]
async fn after_a_failed_flush_every_request_is_told() {
    let (mut writer, _) = open(MemDisk::new());
    writer.disk_mut().fail_sync_after(0);
    let (handle, received) = start(writer, MemDisk::new());
    for tag in 0..3 {
        handle
            .submit(WalRequest { writes: vec![genesis(u32::try_from(tag).unwrap())], tag })
            .expect("it runs");
    }
    for completion in answers(&received, 3) {
        assert_eq!(completion.result, Err(WriteError::Fault(WriteFault::SyncFailed)));
    }
    assert!(handle.close().await.is_err());
}

/// A full disk that gets room when it was tried a few times.
#[derive(Debug)]
struct FullForAWhile {
    disk: MemDisk,
    refusals: u32,
}

impl super::super::ReadDisk for FullForAWhile {
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), super::super::DiskError> {
        self.disk.read_at(name, offset, into)
    }

    fn length(&self, name: &str) -> Result<u64, super::super::DiskError> {
        self.disk.length(name)
    }

    fn list(&self) -> Result<Vec<std::string::String>, super::super::DiskError> {
        self.disk.list()
    }
}

impl super::super::Disk for FullForAWhile {
    fn create_zeroed(&mut self, name: &str, length: u64) -> Result<(), super::super::DiskError> {
        self.disk.create_zeroed(name, length)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), super::super::DiskError> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(super::super::DiskError::Full);
        }
        self.disk.write_at(name, offset, bytes)
    }

    fn sync_data(&mut self, name: &str) -> Result<(), super::super::DiskError> {
        self.disk.sync_data(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), super::super::DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&mut self, name: &str) -> Result<(), super::super::DiskError> {
        self.disk.remove(name)
    }

    fn sync_dir(&mut self) -> Result<(), super::super::DiskError> {
        self.disk.sync_dir()
    }
}

#[test]
fn a_full_disk_is_reported_and_waited_for() {
    let disk = FullForAWhile { disk: MemDisk::new(), refusals: 0 };
    let (mut writer, _) = WalWriter::open(disk, options()).expect("it opens");
    writer.disk_mut().refusals = 3;
    let (events, received) = channel();
    let mut hooks = WalHooks::new(move |event| drop(events.send(event)));
    hooks.full_poll_interval = Duration::from_millis(1);
    let spare = FullForAWhile { disk: MemDisk::new(), refusals: 0 };
    let handle = WalHandle::start(writer, spare, hooks).expect("threads are to be had");
    for tag in 0..2_u64 {
        handle
            .submit(WalRequest { writes: vec![genesis(u32::try_from(tag).unwrap())], tag })
            .expect("it runs");
    }
    let (mut transitions, mut answered) = (Vec::new(), 0);
    while answered < 2 {
        match received.recv_timeout(PATIENCE).expect("it is answered") {
            WalEvent::Full(full) => transitions.push(full),
            WalEvent::Completed(completion) => {
                assert!(completion.result.is_ok());
                answered += completion.tags.len();
            }
        }
    }
    assert_eq!(transitions, [true, false]);
}

#[test]
fn a_directory_in_use_names_its_process() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let lock = DataDirLock::acquire(directory.path()).expect("nobody holds it");
    assert_eq!(lock.directory(), directory.path());
    match DataDirLock::acquire(directory.path()) {
        Err(LockError::Held { process, .. }) => assert_eq!(process, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    drop(lock);
    DataDirLock::acquire(directory.path()).expect("it was given back");
}
