//! The system's files.

pub(crate) use std::{
    fs::{File, OpenOptions, TryLockError, create_dir_all, exists, read, read_dir, remove_file, rename},
    os::unix::fs::FileExt,
};
use std::{io, path::Path};

/// Bytes that may still be written to the disk of a directory.
pub(crate) fn free_bytes(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}
