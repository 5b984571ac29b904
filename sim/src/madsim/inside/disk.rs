//! The disks of the nodes.
//!
//! A disk outlives its node's process. What was not flushed when the process dies with its machine
//! is lost sector by sector, names that were not flushed are lost from the last one backwards. A
//! crash can also strike inside a disk operation: then part of that operation is done, and the
//! machine does nothing more, not even to the network, until it is killed for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kotoba_db_cluster::runtime::{Access, Disk, FileId, Kind};
use madsim::{
    Config,
    plugin::Simulator,
    rand::{GlobalRng, Rng as _},
    task::NodeId,
    time::TimeHandle,
};

use super::file::{Contents, Fate};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// The log's directory.
const LOG: &str = "wal";
const PAGE_BYTES: usize = 4096;

/// The disks of all nodes.
pub(super) struct Disks {
    disks: Arc<Mutex<BTreeMap<NodeId, Machine>>>,
    rng: GlobalRng,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process dies, the machine does not: what was written is read again.
    Killed,
    /// The machine loses its power.
    PowerLost,
}

/// For what there is no room any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// For the log: it waits.
    Log,
    /// For anything.
    Everything,
}

/// What was done to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    /// Writes and flushes.
    pub(super) operations: u64,
    /// Flushes that were made to fail.
    pub(super) failed_syncs: u64,
    /// Writes refused for want of room.
    pub(super) refused: u64,
}

/// A disk and how its machine fares.
#[derive(Debug, Default)]
struct Machine {
    files: BTreeMap<u64, Contents>,
    names: BTreeMap<PathBuf, u64>,
    directories: BTreeSet<PathBuf>,
    /// Changes of names that are not durable, oldest first.
    unsynced: Vec<Renaming>,
    open: BTreeMap<FileId, Opened>,
    locked: BTreeSet<u64>,
    last_id: u64,
    /// Counts the lives of the process: what an earlier one still does goes nowhere.
    life: u64,
    /// The crash struck; the kill follows.
    halted: bool,
    crash_in: Option<u64>,
    failing_syncs: u32,
    /// A flush of something else than the log failed: the machine is rebooted, not the process alone.
    distrusted: bool,
    full: Option<Full>,
    stalled_until: Option<Instant>,
    figures: Figures,
}

#[derive(Clone, Debug)]
enum Opened {
    File(u64),
    Directory(PathBuf),
}

/// A change of names, and how to take it back.
#[derive(Debug)]
struct Renaming {
    directory: PathBuf,
    before: Vec<(PathBuf, Option<u64>)>,
    created: Option<PathBuf>,
}

impl Simulator for Disks {
    fn new(rng: &GlobalRng, _: &TimeHandle, _: &Config) -> Self {
        Self { disks: Arc::default(), rng: rng.clone() }
    }
}

impl Disks {
    fn machines(&self) -> MutexGuard<'_, BTreeMap<NodeId, Machine>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, node: NodeId, act: impl FnOnce(&mut Machine) -> T) -> T {
        act(self.machines().entry(node).or_default())
    }

    /// The disk as the process that runs now sees it.
    pub(super) fn disk(&self, node: NodeId) -> Arc<dyn Disk> {
        let life = self.with(node, |machine| machine.life);
        Arc::new(Handle { disks: Arc::clone(&self.disks), node, life })
    }

    /// The process ends: called with every kill.
    pub(super) fn end(&self, node: NodeId, end: End) {
        let mut rng = self.rng.clone();
        // All of it, none of it, or each sector by itself.
        let mode = rng.gen_range(0..4);
        let mut fate = move || match mode {
            0 => Fate::Lost,
            1 => Fate::Kept,
            _ if rng.gen_bool(0.5) => Fate::Lost,
            _ => Fate::Kept,
        };
        self.with(node, |machine| {
            machine.life += 1;
            machine.open.clear();
            machine.locked.clear();
            machine.crash_in = None;
            let distrusted = std::mem::take(&mut machine.distrusted);
            if std::mem::take(&mut machine.halted) || distrusted || end == End::PowerLost {
                machine.lose_power(&mut fate);
            }
        });
    }

    /// A directory of the node is lost with everything in it.
    pub(super) fn wipe(&self, node: NodeId, directory: &Path) {
        self.with(node, |machine| {
            machine.unsynced.clear();
            machine.names.retain(|name, _| !name.starts_with(directory));
            machine.directories.retain(|name| !name.starts_with(directory));
        });
    }

    /// Puts a file on a disk, durably.
    pub(super) fn put(&self, node: NodeId, path: &Path, bytes: &[u8]) {
        self.with(node, |machine| {
            let mut contents = Contents::default();
            contents.write(0, bytes);
            contents.sync();
            let inode = machine.next_id();
            machine.files.insert(inode, contents);
            machine.names.insert(path.to_owned(), inode);
            machine.directories.extend(path.ancestors().skip(1).map(Path::to_owned));
        });
    }

    /// The machine crashes inside one of its next disk operations.
    pub(super) fn crash_in(&self, node: NodeId, operations: u64) {
        self.with(node, |machine| machine.crash_in = Some(operations));
    }

    /// Whether the crash has struck.
    pub(super) fn has_halted(&self, node: NodeId) -> bool {
        self.with(node, |machine| machine.halted)
    }

    /// Damages a file of the log where that can be told from a torn tail: a segment that another one
    /// follows. `pick` chooses. Returns what was damaged, if there was anything.
    pub(super) fn damage(&self, node: NodeId, mut pick: impl FnMut(u64) -> u64) -> Option<String> {
        let mut choose = |below: usize| usize::try_from(pick(below as u64)).expect("below a length");
        self.with(node, |machine| {
            let is_segment = |name: &PathBuf| name.extension().is_some_and(|extension| extension == "wal");
            let mut segments: Vec<_> = machine.names.iter().filter(|(name, _)| is_segment(name)).collect();
            segments.pop();
            let (name, inode) = *segments.get(choose(segments.len().max(1)))?;
            let (name, contents) = (name.display().to_string(), machine.files.get_mut(inode)?);
            if !contents.is_synced() {
                return None;
            }
            let pages = contents.pages();
            let page = *pages.get(choose(pages.len().max(1)))?;
            let (at, what) = (choose(PAGE_BYTES), choose(9));
            if what < 8 {
                contents.flip(page, at, u32::try_from(what).expect("below 8"));
                return Some(format!("a bit of {name}, page {page} at {at}"));
            }
            contents.lose(page, at);
            Some(format!("a sector of {name}, page {page} at {at}"))
        })
    }

    /// The next flushes fail.
    pub(super) fn fail_syncs(&self, node: NodeId, count: u32) {
        self.with(node, |machine| machine.failing_syncs = count);
    }

    /// There is no room any more, or there is again.
    pub(super) fn set_full(&self, node: NodeId, full: Option<Full>) {
        self.with(node, |machine| machine.full = full);
    }

    /// Nothing is done before `until`.
    pub(super) fn stall(&self, node: NodeId, until: Instant) {
        self.with(node, |machine| machine.stalled_until = Some(until));
    }

    /// How long the disk still stalls.
    pub(super) fn stalled_for(&self, node: NodeId, now: Instant) -> Duration {
        let until = self.with(node, |machine| machine.stalled_until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Everything works again.
    pub(super) fn heal(&self, node: NodeId) {
        self.with(node, |machine| {
            (machine.crash_in, machine.failing_syncs, machine.full, machine.stalled_until) =
                (None, 0, None, None);
        });
    }

    /// What was done to a disk.
    pub(super) fn figures(&self, node: NodeId) -> Figures {
        self.with(node, |machine| machine.figures)
    }
}

/// A disk in the hands of one life of a process.
struct Handle {
    disks: Arc<Mutex<BTreeMap<NodeId, Machine>>>,
    node: NodeId,
    life: u64,
}

impl Handle {
    fn with<T>(&self, act: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        let mut disks = self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = disks.entry(self.node).or_default();
        if machine.life != self.life || machine.halted {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        act(machine)
    }
}

impl Disk for Handle {
    fn open(&self, path: &Path, access: Access) -> io::Result<FileId> {
        self.with(|machine| machine.open(path, access))
    }

    fn close(&self, file: FileId) {
        let closed = self.with(|machine| {
            if let Some(Opened::File(inode)) = machine.open.remove(&file) {
                machine.locked.remove(&inode);
            }
            Ok(())
        });
        // A file of an earlier life is closed already.
        drop(closed);
    }

    fn read_at(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        self.with(|machine| {
            let read = machine.file(file)?.read(offset, into);
            read.ok_or_else(|| io::Error::from_raw_os_error(EIO))
        })
    }

    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|machine| machine.write(file, offset, bytes))
    }

    fn length(&self, file: FileId) -> io::Result<u64> {
        self.with(|machine| Ok(machine.file(file)?.length()))
    }

    fn set_length(&self, file: FileId, length: u64) -> io::Result<()> {
        self.with(|machine| {
            machine.operate()?;
            if machine.has_no_room_for(file) && length > machine.file(file)?.length() {
                return machine.refuse();
            }
            machine.file(file)?.set_length(length);
            Ok(())
        })
    }

    fn sync(&self, file: FileId) -> io::Result<()> {
        self.with(|machine| machine.sync(file))
    }

    fn lock(&self, file: FileId) -> io::Result<bool> {
        self.with(|machine| match machine.open.get(&file) {
            Some(Opened::File(inode)) => Ok(machine.locked.insert(*inode)),
            Some(Opened::Directory(_)) | None => Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(|machine| {
            machine.create_dir_all(path);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|machine| {
            machine.operate()?;
            let inode = machine.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            let replaced = machine.names.insert(to.to_owned(), inode);
            machine.renamed(to, vec![(to.to_owned(), replaced), (from.to_owned(), Some(inode))]);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(|machine| {
            machine.operate()?;
            let inode = machine.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
            machine.renamed(path, vec![(path.to_owned(), Some(inode))]);
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.with(|machine| {
            if !machine.directories.contains(path) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = machine.names.keys().chain(&machine.directories);
            let inside = inside.filter(|name| name.parent() == Some(path));
            let names = inside.filter_map(|name| name.file_name()?.to_str().map(str::to_owned));
            let names: BTreeSet<String> = names.collect();
            Ok(names.into_iter().collect())
        })
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        self.with(|machine| {
            Ok(if machine.names.contains_key(path) {
                Some(Kind::File)
            } else {
                machine.directories.contains(path).then_some(Kind::Directory)
            })
        })
    }
}

impl Machine {
    fn open(&mut self, path: &Path, access: Access) -> io::Result<FileId> {
        let opened = if self.directories.contains(path) {
            Opened::Directory(path.to_owned())
        } else if let Some(&inode) = self.names.get(path) {
            if access.truncate {
                self.operate()?;
                self.files.get_mut(&inode).expect("a name has its file").set_length(0);
            }
            Opened::File(inode)
        } else if access.create {
            self.operate()?;
            if self.is_full_for(path) {
                return self.refuse();
            }
            let inode = self.next_id();
            self.files.insert(inode, Contents::default());
            self.names.insert(path.to_owned(), inode);
            self.renamed(path, vec![(path.to_owned(), None)]);
            Opened::File(inode)
        } else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let id = FileId(self.next_id());
        self.open.insert(id, opened);
        Ok(id)
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn file(&mut self, file: FileId) -> io::Result<&mut Contents> {
        match self.open.get(&file) {
            Some(Opened::File(inode)) => Ok(self.files.get_mut(inode).expect("an open file is there")),
            Some(Opened::Directory(_)) | None => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Counts an operation that changes the disk; the crash may strike before it.
    fn operate(&mut self) -> io::Result<()> {
        self.figures.operations += 1;
        match &mut self.crash_in {
            Some(0) => {
                self.halted = true;
                Err(io::Error::from_raw_os_error(EIO))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn is_full_for(&self, path: &Path) -> bool {
        match self.full {
            None => false,
            Some(Full::Everything) => true,
            Some(Full::Log) => is_log(path),
        }
    }

    fn has_no_room_for(&self, file: FileId) -> bool {
        self.full.is_some() && self.is_of(file, |path| self.is_full_for(path))
    }

    /// Whether an open file, or directory, has a name like that.
    fn is_of(&self, file: FileId, like: impl Fn(&Path) -> bool) -> bool {
        match self.open.get(&file) {
            Some(Opened::File(inode)) => self.names.iter().any(|(name, at)| at == inode && like(name)),
            Some(Opened::Directory(path)) => like(path),
            None => false,
        }
    }

    fn refuse<T>(&mut self) -> io::Result<T> {
        self.figures.refused += 1;
        Err(io::Error::from_raw_os_error(ENOSPC))
    }

    fn write(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let struck = self.operate();
        if self.has_no_room_for(file) && self.file(file)?.grows(offset, bytes.len()) {
            return self.refuse();
        }
        // A crash inside a write leaves it to the crash what becomes of its sectors.
        self.file(file)?.write(offset, bytes);
        struck
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        // A crash inside a flush strikes before it is done.
        self.operate()?;
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            self.figures.failed_syncs += 1;
            self.distrusted |= !self.is_of(file, |path| is_log(path));
            if let Ok(contents) = self.file(file) {
                contents.fail_sync();
            }
            return Err(io::Error::from_raw_os_error(EIO));
        }
        match self.open.get(&file).cloned() {
            Some(Opened::File(inode)) => self.files.get_mut(&inode).expect("an open file is there").sync(),
            Some(Opened::Directory(path)) => self.unsynced.retain(|change| change.directory != path),
            None => return Err(io::ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    fn create_dir_all(&mut self, path: &Path) {
        let missing: Vec<PathBuf> =
            path.ancestors().filter(|path| !self.directories.contains(*path)).map(Path::to_owned).collect();
        for directory in missing.into_iter().rev() {
            self.directories.insert(directory.clone());
            if let Some(parent) = directory.parent() {
                let directory_of = parent.to_owned();
                self.unsynced.push(Renaming {
                    directory: directory_of,
                    before: Vec::new(),
                    created: Some(directory),
                });
            }
        }
    }

    fn renamed(&mut self, path: &Path, before: Vec<(PathBuf, Option<u64>)>) {
        let directory = path.parent().unwrap_or(path).to_owned();
        self.unsynced.push(Renaming { directory, before, created: None });
    }

    fn lose_power(&mut self, fate: &mut impl FnMut() -> Fate) {
        while !self.unsynced.is_empty() && fate() == Fate::Lost {
            let Renaming { before, created, .. } = self.unsynced.pop().expect("looked at just now");
            for (name, inode) in before {
                match inode {
                    Some(inode) => self.names.insert(name, inode),
                    None => self.names.remove(&name),
                };
            }
            if let Some(directory) = created {
                self.directories.retain(|name| !name.starts_with(&directory));
                self.names.retain(|name, _| !name.starts_with(&directory));
            }
        }
        self.unsynced.clear();
        for contents in self.files.values_mut() {
            contents.crash(&mut *fate);
        }
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|inode, _| named.contains(inode));
    }
}

fn is_log(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == LOG)
}
