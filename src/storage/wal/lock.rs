//! One process per data directory.

use std::{
    fmt,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::runtime::fs::{self, File, OpenOptions, TryLockError};

/// The file whose lock stands for the directory.
const LOCK_FILE: &str = "LOCK";

/// Holds a data directory for this process until dropped, or until the process ends however it may.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
    path: PathBuf,
}

/// Why a data directory could not be locked. Nothing changed.
#[derive(Debug)]
pub enum LockError {
    /// Another process uses the directory.
    Held {
        /// The directory.
        directory: PathBuf,
        /// That process, as it wrote its number down.
        process: Option<u32>,
    },
    /// The directory or its lock file cannot be written.
    Io {
        /// The directory.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { directory, process: Some(process) } => {
                write!(f, "the data directory {} is in use by process {process}", directory.display())
            }
            Self::Held { directory, process: None } => {
                write!(f, "the data directory {} is in use by another process", directory.display())
            }
            Self::Io { directory, error } => {
                write!(f, "the data directory {} cannot be used: {error}", directory.display())
            }
        }
    }
}

impl std::error::Error for LockError {}

impl DataDirLock {
    /// Locks a directory, which is created where it is not there.
    ///
    /// # Errors
    /// Where another process holds it, or it cannot be written.
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let io_error = |error| LockError::Io { directory: directory.to_owned(), error };
        fs::create_dir_all(directory).map_err(io_error)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(directory.join(LOCK_FILE)).map_err(io_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let process = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(LockError::Held { directory: directory.to_owned(), process });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(error)),
        }
        let note = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        note(&mut file).map_err(io_error)?;
        Ok(Self { _file: file, path: directory.to_owned() })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.path
    }
}
