//! Files of the simulated disk, by the names that `std::fs` has for the same.

use std::{
    ffi::OsString,
    fmt,
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::host::{Access, Disk, FileId, host};

/// Bytes that may still be written: a simulated disk is full all at once.
#[expect(clippy::unnecessary_wraps, reason = "the system's disks may not tell")]
pub(crate) fn free_bytes(_directory: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}

/// An open file.
pub(crate) struct File {
    disk: Arc<dyn Disk>,
    id: FileId,
    position: u64,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("File").field(&self.id).finish()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.disk.close(self.id);
    }
}

impl File {
    pub(crate) fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    pub(crate) fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    pub(crate) fn sync_all(&self) -> io::Result<()> {
        self.disk.sync(self.id)
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(self.id)
    }

    pub(crate) fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.set_length(self.id, length)
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        Ok(Metadata { length: self.disk.length(self.id)? })
    }

    pub(crate) fn try_lock(&self) -> Result<(), TryLockError> {
        match self.disk.lock(self.id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(TryLockError::WouldBlock),
            Err(error) => Err(TryLockError::Error(error)),
        }
    }
}

/// Reading and writing at an offset.
pub(crate) trait FileExt {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
}

impl FileExt for File {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if self.disk.read_at(self.id, offset, into)? == into.len() {
            return Ok(());
        }
        Err(ErrorKind::UnexpectedEof.into())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.write_at(self.id, offset, bytes)
    }
}

impl Read for File {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.disk.read_at(self.id, self.position, into)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write_at(self.id, self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(offset) => self.disk.length(self.id)?.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// Why a file could not be locked.
pub(crate) enum TryLockError {
    Error(io::Error),
    WouldBlock,
}

/// How a file is to be opened.
#[derive(Debug)]
pub(crate) struct OpenOptions(Access);

impl OpenOptions {
    pub(crate) fn new() -> Self {
        Self(Access::default())
    }

    pub(crate) fn read(&mut self, _read: bool) -> &mut Self {
        self
    }

    pub(crate) fn write(&mut self, write: bool) -> &mut Self {
        self.0.write = write;
        self
    }

    pub(crate) fn create(&mut self, create: bool) -> &mut Self {
        self.0.create = create;
        self
    }

    pub(crate) fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.0.truncate = truncate;
        self
    }

    pub(crate) fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let disk = host().disk();
        let id = disk.open(path.as_ref(), self.0)?;
        Ok(File { disk, id, position: 0 })
    }
}

/// What is known of a file.
pub(crate) struct Metadata {
    length: u64,
}

impl Metadata {
    pub(crate) fn len(&self) -> u64 {
        self.length
    }
}

/// A name in a directory.
pub(crate) struct DirEntry {
    directory: PathBuf,
    name: String,
}

impl DirEntry {
    pub(crate) fn file_name(&self) -> OsString {
        self.name.clone().into()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

pub(crate) fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    host().disk().create_dir_all(path.as_ref())
}

pub(crate) fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    Ok(host().disk().kind(path.as_ref())?.is_some())
}

pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.read_to_end(&mut contents)?;
    Ok(contents)
}

pub(crate) fn read_dir(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let directory = path.as_ref().to_owned();
    let names = host().disk().list(&directory)?;
    Ok(names.into_iter().map(move |name| Ok(DirEntry { directory: directory.clone(), name })))
}

pub(crate) fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    host().disk().remove_file(path.as_ref())
}

pub(crate) fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    host().disk().rename(from.as_ref(), to.as_ref())
}
