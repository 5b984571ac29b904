//! The system's files.

pub(crate) use std::{
    fs::{File, OpenOptions, TryLockError, create_dir_all, exists, read, read_dir, remove_file, rename},
    os::unix::fs::FileExt,
};
