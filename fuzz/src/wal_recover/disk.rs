//! A disk that outlives the writer that failed on it.

use std::{cell::RefCell, rc::Rc};

use kotoba_db_cluster::storage::wal::{Disk, DiskError, MemDisk, ReadDisk};

/// Clones share one disk.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedDisk(Rc<RefCell<MemDisk>>);

impl SharedDisk {
    /// A copy of it as it is.
    pub(super) fn copy(&self) -> MemDisk {
        self.0.borrow().clone()
    }

    /// Puts another disk in its place.
    pub(super) fn replace(&self, disk: MemDisk) {
        *self.0.borrow_mut() = disk;
    }

    /// Lets it break.
    pub(super) fn with(&self, change: impl FnOnce(&mut MemDisk)) {
        change(&mut self.0.borrow_mut());
    }
}

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
