//! Snapshots: sending a replica the state instead of the log (Raft paper, section 7).
//!
//! The core decides who needs one, orders the chunks and installs the result; it never sees a
//! byte. The embedder builds the snapshot from its state machine, holds it under a
//! [`SnapshotId`], reads chunks from it and stores chunks that arrive.

use super::{
    configuration::Configuration,
    types::{Position, SnapshotId},
};

/// What stands for the log up to a position.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct SnapshotMeta {
    /// The last entry whose effect the snapshot holds.
    pub position: Position,
    /// The members in force at that entry.
    pub configuration: Configuration,
}

/// A snapshot that can be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotDescriptor {
    /// The sender's name for it.
    pub id: SnapshotId,
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// Its length in bytes; never zero.
    pub bytes: u64,
}
