//! A directory of real files.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::io::Errno;

use super::{Disk, DiskError, ReadDisk};
use crate::runtime::fs::{self, File, FileExt as _, OpenOptions};

/// Zeros written at a time when a file is created.
const ZERO_BYTES: usize = 256 << 10;
/// Zeros written between two flushes, so that the flushes of a busy log need not wait for all of
/// them at once.
const ZERO_BYTES_PER_SYNC: u64 = 2 << 20;

/// A directory of real files. Clones share the open files.
#[derive(Clone, Debug)]
pub struct OsDisk {
    directory: Arc<PathBuf>,
    reserve_bytes: u64,
    open: Arc<Mutex<BTreeMap<String, Arc<File>>>>,
}

impl OsDisk {
    /// The directory at `path`, created where it is not there.
    ///
    /// # Errors
    /// Where it cannot be created or opened.
    pub fn open(path: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(path).map_err(|error| failed(&error))?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_directory(parent)?;
        }
        Ok(Self { directory: Arc::new(path.to_owned()), reserve_bytes: 0, open: Arc::default() })
    }

    /// Takes the disk for full where a new file would leave less than this free.
    #[must_use]
    pub fn with_reserve(self, reserve_bytes: u64) -> Self {
        Self { reserve_bytes, ..self }
    }

    fn check_room(&self, length: u64) -> Result<(), DiskError> {
        if self.reserve_bytes == 0 {
            return Ok(());
        }
        let free = fs::free_bytes(&self.directory).map_err(|error| failed(&error))?;
        if free < length.saturating_add(self.reserve_bytes) { Err(DiskError::Full) } else { Ok(()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn open_files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<File>>> {
        // A thread that panicked with the lock held left a complete map of handles.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> Result<Arc<File>, DiskError> {
        if let Some(file) = self.open_files().get(name) {
            return Ok(Arc::clone(file));
        }
        let opened = OpenOptions::new().read(true).write(true).open(self.path(name));
        let file = Arc::new(opened.map_err(|error| failed(&error))?);
        Ok(Arc::clone(self.open_files().entry(name.to_owned()).or_insert(file)))
    }
}

impl ReadDisk for OsDisk {
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let length = into.len() as u64;
        self.file(name)?.read_exact_at(into, offset).map_err(|error| match errno(&error) {
            Some(Errno::IO) => DiskError::Unreadable { offset, length },
            _ if error.kind() == ErrorKind::UnexpectedEof => DiskError::Unreadable { offset, length },
            _ => failed(&error),
        })
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        Ok(self.file(name)?.metadata().map_err(|error| failed(&error))?.len())
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&*self.directory).map_err(|error| failed(&error))? {
            // Names that are no text are none of ours.
            names.extend(entry.map_err(|error| failed(&error))?.file_name().into_string().ok());
        }
        Ok(names)
    }
}

impl Disk for OsDisk {
    fn create_zeroed(&mut self, name: &str, length: u64) -> Result<(), DiskError> {
        self.check_room(length)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.path(name)).map_err(|error| failed(&error))?;
        let zeros = vec![0; ZERO_BYTES];
        let mut written = 0;
        while written < length {
            let piece = usize::try_from(length - written).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
            file.write_all_at(&zeros[..piece], written).map_err(|error| failed(&error))?;
            written += piece as u64;
            if written % ZERO_BYTES_PER_SYNC == 0 {
                file.sync_data().map_err(|error| failed(&error))?;
            }
        }
        file.sync_all().map_err(|error| failed(&error))?;
        self.open_files().insert(name.to_owned(), Arc::new(file));
        Ok(())
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file(name)?.write_all_at(bytes, offset).map_err(|error| failed(&error))
    }

    fn sync_data(&mut self, name: &str) -> Result<(), DiskError> {
        self.file(name)?.sync_data().map_err(|error| failed(&error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.path(from), self.path(to)).map_err(|error| failed(&error))?;
        let mut open = self.open_files();
        if let Some(file) = open.remove(from) {
            open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.open_files().remove(name);
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&error)),
            _ => Ok(()),
        }
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        sync_directory(&self.directory)
    }
}

fn sync_directory(path: &Path) -> Result<(), DiskError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| failed(&error))
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn failed(error: &io::Error) -> DiskError {
    match errno(error) {
        Some(Errno::NOSPC | Errno::DQUOT) => DiskError::Full,
        Some(Errno::NOENT) => DiskError::NotFound,
        _ => DiskError::Failed(error.to_string()),
    }
}
