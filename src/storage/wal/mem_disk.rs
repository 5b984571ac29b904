//! A disk in memory that breaks on request, as disks do.
//!
//! It keeps apart what was written and what is durable. A crash decides sector by sector which of
//! the writes since the last flush survived, and which changes of names.

use alloc::{
    borrow::ToOwned,
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};

use super::{Disk, DiskError, ReadDisk};

/// What survives or is lost as a whole, in bytes.
const SECTOR: usize = 512;

/// A directory in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemDisk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<String, u64>,
    names_durable: BTreeMap<String, u64>,
    /// Changes of names since the last flush of the directory.
    changes: Vec<NameChange>,
    created: u64,
    operations: u64,
    power_cut_at: Option<u64>,
    capacity: Option<u64>,
    refuse_writes: bool,
    failing_sync: Option<u64>,
    syncs: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    contents: Vec<u8>,
    /// For each sector written since the last flush: what was durable, then each later content.
    unsynced: BTreeMap<usize, Vec<Vec<u8>>>,
    unreadable: BTreeSet<usize>,
    /// Sectors whose flush failed: none makes them durable any more, unless they are written again.
    doomed: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl MemDisk {
    /// An empty disk without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many changes (writes, flushes, creations, renames, removals) were asked for.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.operations
    }

    /// Lets the power fail in the middle of that change, counted from now on; the first is 0. Its
    /// bytes may reach the disk, but nobody is told.
    pub const fn cut_power_at(&mut self, operation: u64) {
        self.power_cut_at = Some(self.operations + operation);
    }

    /// Lets the flush of a file fail that comes after this many others. As on real disks, later ones
    /// then claim to have succeeded, and what this one should have written may be lost all the same,
    /// though it is read until then.
    pub const fn fail_sync_after(&mut self, syncs: u64) {
        self.failing_sync = Some(self.syncs + syncs);
    }

    /// Limits the length of all files together; none lifts the limit.
    pub const fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Lets writes to existing files find the disk full, as on a disk that copies on write.
    pub const fn refuse_writes(&mut self, refuse: bool) {
        self.refuse_writes = refuse;
    }

    /// Changes one bit of a file, durably and unnoticed.
    pub fn flip_bit(&mut self, name: &str, offset: usize, bit: u32) {
        if let Some(byte) = self.file_mut(name).and_then(|file| file.contents.get_mut(offset)) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Makes the sector of a byte unreadable.
    pub fn lose_sector(&mut self, name: &str, offset: usize) {
        if let Some(file) = self.file_mut(name) {
            file.unreadable.insert(offset / SECTOR);
        }
    }

    /// The contents of a file.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<&[u8]> {
        self.names.get(name).map(|id| self.files[id].contents.as_slice())
    }

    /// Puts a file there, durably.
    pub fn put(&mut self, name: &str, contents: Vec<u8>) {
        self.created += 1;
        self.files.insert(self.created, File { contents, ..File::default() });
        self.names.insert(name.to_owned(), self.created);
        self.names_durable.insert(name.to_owned(), self.created);
    }

    /// The disk after a crash: `choose(n)` picks, from `0..n`, what becomes of each sector and name
    /// that was changed and not flushed. 0 always means that nothing of it survived.
    #[must_use]
    pub fn crash(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let mut after = Self { created: self.created, capacity: self.capacity, ..Self::default() };
        after.names.clone_from(&self.names_durable);
        let survived = choose(self.changes.len() + 1);
        for change in &self.changes[..survived] {
            change.apply(&mut after.names);
        }
        after.names_durable.clone_from(&after.names);
        for &id in after.names.values() {
            let mut file = self.files[&id].clone();
            for (sector, versions) in core::mem::take(&mut file.unsynced) {
                let version = &versions[choose(versions.len())];
                file.contents[sector * SECTOR..][..version.len()].copy_from_slice(version);
            }
            file.doomed.clear();
            after.files.insert(id, file);
        }
        after
    }

    /// The disk after its process died and the machine did not: everything that was written is read,
    /// whether or not it is durable, and what is not may still be lost.
    #[must_use]
    pub fn process_died(&self) -> Self {
        Self { power_cut_at: None, failing_sync: None, refuse_writes: false, ..self.clone() }
    }

    fn file(&self, name: &str) -> Result<&File, DiskError> {
        self.names.get(name).map(|id| &self.files[id]).ok_or(DiskError::NotFound)
    }

    fn file_mut(&mut self, name: &str) -> Option<&mut File> {
        self.names.get(name).and_then(|id| self.files.get_mut(id))
    }

    fn powered(&self) -> Result<(), DiskError> {
        if self.power_cut_at.is_some_and(|cut| self.operations > cut) {
            return Err(DiskError::Failed("the power is off".to_owned()));
        }
        Ok(())
    }

    /// Counts a change. Returns whether the power fails in the middle of it.
    fn begin(&mut self) -> Result<bool, DiskError> {
        self.powered()?;
        let cut = self.power_cut_at == Some(self.operations);
        self.operations += 1;
        Ok(cut)
    }

    fn end(cut: bool) -> Result<(), DiskError> {
        if cut { Err(DiskError::Failed("the power failed".to_owned())) } else { Ok(()) }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

impl File {
    fn sector(&self, sector: usize) -> Vec<u8> {
        let start = sector * SECTOR;
        self.contents[start..(start + SECTOR).min(self.contents.len())].to_vec()
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let sectors = offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR);
        for sector in sectors.clone() {
            let before = self.sector(sector);
            self.unsynced.entry(sector).or_insert_with(|| vec![before]);
        }
        self.contents[offset..offset + bytes.len()].copy_from_slice(bytes);
        for sector in sectors {
            let after = self.sector(sector);
            self.unreadable.remove(&sector);
            self.doomed.remove(&sector);
            self.unsynced.entry(sector).or_default().push(after);
        }
    }
}

impl ReadDisk for MemDisk {
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.powered()?;
        let file = self.file(name)?;
        let unreadable = DiskError::Unreadable { offset, length: into.len() as u64 };
        let Ok(start) = usize::try_from(offset) else { return Err(unreadable) };
        let Some(bytes) = file.contents.get(start..start.saturating_add(into.len())) else {
            return Err(unreadable);
        };
        let sectors = start / SECTOR..(start + into.len()).div_ceil(SECTOR);
        if file.unreadable.range(sectors).next().is_some() {
            return Err(unreadable);
        }
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        self.powered()?;
        Ok(self.file(name)?.contents.len() as u64)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        self.powered()?;
        Ok(self.names.keys().cloned().collect())
    }
}

impl Disk for MemDisk {
    fn create_zeroed(&mut self, name: &str, length: u64) -> Result<(), DiskError> {
        let cut = self.begin()?;
        let used: u64 = self.names.values().map(|id| self.files[id].contents.len() as u64).sum();
        if self.capacity.is_some_and(|capacity| used + length > capacity) {
            return Err(DiskError::Full);
        }
        let length = usize::try_from(length).map_err(|_| DiskError::Full)?;
        self.created += 1;
        self.files.insert(self.created, File { contents: vec![0; length], ..File::default() });
        self.change_name(NameChange::Create(name.to_owned(), self.created));
        Self::end(cut)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let cut = self.begin()?;
        if self.refuse_writes {
            return Err(DiskError::Full);
        }
        let file = self.file_mut(name).ok_or(DiskError::NotFound)?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start.saturating_add(bytes.len()) > file.contents.len() {
            return Err(DiskError::Failed("the write reaches behind the file's end".to_owned()));
        }
        file.write(start, bytes);
        Self::end(cut)
    }

    fn sync_data(&mut self, name: &str) -> Result<(), DiskError> {
        Self::end(self.begin()?)?;
        self.syncs += 1;
        let fails = self.failing_sync.is_some_and(|at| self.syncs == at + 1);
        let file = self.file_mut(name).ok_or(DiskError::NotFound)?;
        if fails {
            file.doomed.extend(file.unsynced.keys());
            return Err(DiskError::Failed("the flush failed".to_owned()));
        }
        let doomed = &file.doomed;
        file.unsynced.retain(|sector, _| doomed.contains(sector));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let cut = self.begin()?;
        self.file(from)?;
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Self::end(cut)
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let cut = self.begin()?;
        if self.names.contains_key(name) {
            self.change_name(NameChange::Remove(name.to_owned()));
        }
        Self::end(cut)
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        Self::end(self.begin()?)?;
        self.changes.clear();
        self.names_durable.clone_from(&self.names);
        Ok(())
    }
}
