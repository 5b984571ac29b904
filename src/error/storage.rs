//! Errors of what a node keeps on disk, as users see them.

use super::{ClusterError, ErrorCode};
use crate::storage::{
    graph_store::StoreError,
    wal::{DiskError, LockError, OpenError, WriteError},
};

impl From<StoreError> for ClusterError {
    fn from(error: StoreError) -> Self {
        let code = match error {
            StoreError::Damaged(_) | StoreError::NoState(_) => ErrorCode::DataDirDamaged,
            StoreError::Io { .. } => ErrorCode::DiskFailed,
            StoreError::Full { .. } => ErrorCode::DiskFull,
        };
        Self::new(code, error.to_string())
    }
}

impl From<DiskError> for ClusterError {
    fn from(error: DiskError) -> Self {
        let code = match error {
            DiskError::Full => ErrorCode::DiskFull,
            DiskError::NotFound | DiskError::Unreadable { .. } => ErrorCode::DataDirDamaged,
            DiskError::Failed(_) => ErrorCode::DiskFailed,
        };
        Self::new(code, format!("the log: {error}"))
    }
}

impl From<LockError> for ClusterError {
    fn from(error: LockError) -> Self {
        let code = match error {
            LockError::Held { .. } => ErrorCode::DataDirInUse,
            LockError::Io { .. } => ErrorCode::DataDirUnwritable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<OpenError> for ClusterError {
    fn from(error: OpenError) -> Self {
        let code = match &error {
            OpenError::Disk { error: DiskError::Full, .. } => ErrorCode::DiskFull,
            OpenError::Disk { error: DiskError::Failed(_), .. } => ErrorCode::DiskFailed,
            _ => ErrorCode::DataDirDamaged,
        };
        Self::new(code, error.to_string())
    }
}

impl From<WriteError> for ClusterError {
    fn from(error: WriteError) -> Self {
        let code = match error {
            WriteError::Full => ErrorCode::DiskFull,
            WriteError::Fault(_) => ErrorCode::DiskFailed,
            WriteError::Damaged(_) => ErrorCode::DataDirDamaged,
            WriteError::OutOfOrder { .. } => ErrorCode::Internal,
        };
        Self::new(code, format!("the log: {error}"))
    }
}
