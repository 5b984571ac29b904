//! What the log asks of a disk. Synchronous; names are plain file names in one directory.

use alloc::{string::String, vec::Vec};
use core::fmt;

/// How a disk failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// There is no room.
    Full,
    /// There is no such file.
    NotFound,
    /// These bytes cannot be read; others of the file may be.
    Unreadable {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        length: u64,
    },
    /// Anything else, in the system's words.
    Failed(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full"),
            Self::NotFound => f.write_str("there is no such file"),
            Self::Unreadable { offset, length } => {
                write!(f, "{length} bytes at offset {offset} cannot be read")
            }
            Self::Failed(reason) => f.write_str(reason),
        }
    }
}

impl core::error::Error for DiskError {}

/// A directory of files that can be read.
pub trait ReadDisk {
    /// Fills `into` from `offset` of a file.
    ///
    /// # Errors
    /// `Unreadable` where some of the bytes are lost, also behind the file's end.
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// The length of a file in bytes.
    ///
    /// # Errors
    /// Where there is no such file, or the disk fails.
    fn length(&self, name: &str) -> Result<u64, DiskError>;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// Where the disk fails.
    fn list(&self) -> Result<Vec<String>, DiskError>;
}

impl<D: ReadDisk + ?Sized> ReadDisk for &D {
    fn read_at(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        (**self).read_at(name, offset, into)
    }

    fn length(&self, name: &str) -> Result<u64, DiskError> {
        (**self).length(name)
    }

    fn list(&self) -> Result<Vec<String>, DiskError> {
        (**self).list()
    }
}

/// A directory of files that can be written.
///
/// What is written may be lost in a crash, sector by sector and in any order, until `sync_data` of
/// its file returned; a file's name may be, until `sync_dir` returned.
pub trait Disk: ReadDisk {
    /// Creates a file of zeros, or replaces one, and makes its contents durable.
    ///
    /// # Errors
    /// `Full` where there is no room; whatever was created then is removed by the caller.
    fn create_zeroed(&mut self, name: &str, length: u64) -> Result<(), DiskError>;

    /// Writes bytes inside a file.
    ///
    /// # Errors
    /// Where the disk fails; some of the bytes may then be written.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes a file's contents durable.
    ///
    /// # Errors
    /// Where the disk fails: then nothing is known of what was written since the last success.
    fn sync_data(&mut self, name: &str) -> Result<(), DiskError>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// Where the disk fails.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file. One that is not there is no error.
    ///
    /// # Errors
    /// Where the disk fails.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;

    /// Makes the names of the files durable.
    ///
    /// # Errors
    /// Where the disk fails.
    fn sync_dir(&mut self) -> Result<(), DiskError>;
}
