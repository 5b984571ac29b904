//! What travels between hosts: messages of the core with the bytes they refer to.

use std::sync::Arc;

use bytes::Bytes;
use kotoba_db_cluster::{
    multiraft::GroupMessage,
    raft::{Position, SnapshotMeta},
    storage::wal::EntryKind,
};

/// One transmission to a host.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    /// A message and its bytes.
    Message(Box<GroupMessage>, Cargo),
    /// Heartbeats and answers, of any groups.
    Beats(Vec<GroupMessage>),
}

impl Packet {
    /// Whether it carries entries or a part of a snapshot.
    pub(crate) fn replicates(&self) -> bool {
        matches!(self, Self::Message(_, Cargo::Entries(_) | Cargo::Chunk(_)))
    }
}

/// The bytes of a message.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    None,
    Entries(Arc<[(EntryKind, Bytes)]>),
    Chunk(Arc<Snapshot>),
}

/// A snapshot as its builder made it. Chunks refer to it, whatever part of it they are.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The last entry it holds the effect of.
    pub(crate) position: Position,
    pub(crate) data: Bytes,
    /// What it claims to be long.
    pub(crate) bytes: u64,
}

/// A snapshot that arrived in full, as it lies on the receiver's disk.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) meta: SnapshotMeta,
    pub(crate) snapshot: Arc<Snapshot>,
}
