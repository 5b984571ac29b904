//! The write-ahead log: one per node, for all its groups.
//!
//! Everything a group's replica must not forget (term, vote, entries, where its log begins) is one
//! record each. Whatever waits at the same moment, of any group, becomes one [batch](codec): one
//! write at the tail of the current segment file, one `fdatasync`, many answers.
//!
//! The difficult half is reading it back, because two very different things look alike: the tail
//! that a crash tore (never acknowledged, to be cut) and acknowledged bytes that the disk lost or
//! changed (to be reported, never cut). [`recovery`] tells them apart, using evidence that lies
//! elsewhere on the disk than the damage: each batch is written together with the mark of the one
//! before it; each segment's header says where the previous segment ends; each record counts the
//! records of its group, so that a missing one is missed; each hard state has a second copy.
//! `docs/wal-format.md` draws the bytes.
//!
//! * [`WalWriter`] is the sans-thread writer, over any [`Disk`].
//! * [`LogIndex`] is the driver's side: recent entries in memory, places of older ones.
//! * `WalHandle` (feature `node`) runs a writer on a thread of its own.

mod batch;
pub mod codec;
pub mod disk;
mod index;
mod log;
mod mem_disk;
mod reader;
pub mod recovery;
mod replay;
mod scan;
mod state;
mod writer;

#[cfg(feature = "node")]
mod lock;
#[cfg(feature = "node")]
mod os_disk;
#[cfg(feature = "node")]
mod thread;

#[cfg(test)]
mod tests;

use core::fmt;

use bytes::Bytes;

pub use crate::raft::{BootEpoch, GroupId};
use crate::raft::{HardState, Index, Position, SnapshotMeta, WriteFault};

pub use disk::{Disk, DiskError, ReadDisk};
pub use index::{EntryIndex, Place};
#[cfg(feature = "node")]
pub use lock::{DataDirLock, LockError};
pub use log::{GatherError, Gathered, LogIndex, PlannedRead, ReadPlan};
pub use mem_disk::MemDisk;
#[cfg(feature = "node")]
pub use os_disk::OsDisk;
pub use reader::{LogReader, ReadError};
pub use recovery::{Damage, DamageKind, OpenError, RecoveredGroup, RecoveredRun, Recovery, TornTail};
#[cfg(feature = "node")]
pub use thread::{Completion, WalClosed, WalEvent, WalHandle, WalHooks, WalMetrics, WalRequest};
pub use writer::{PinnedGroup, SpareOrder, SpareReady, WalCounters, WalWriter, WriteReceipt, prepare_spare};

/// Names one log for ever: drawn at random when the log is created, part of every checksum, so
/// that bytes of another log never pass for this one's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 16]);

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The number of a segment file. Grows by one with each; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNumber(pub u32);

impl SegmentNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.checked_add(1).expect("a log of 4 billion segments outlives every disk"))
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a batch. Grows by one with each batch of the log, over all segments and restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchSequence(pub u64);

impl BatchSequence {
    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What an entry is to the consensus engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// A command of the state machine.
    Normal,
    /// The entry without payload that a new leader commits.
    Empty,
    /// An encoded [`Configuration`](crate::raft::Configuration).
    Configuration,
}

/// One entry of a group's log, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: crate::raft::Term,
    /// What it is.
    pub kind: EntryKind,
    /// Its bytes. Clones share them.
    pub payload: Bytes,
}

impl Entry {
    /// Its index and term.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position::new(self.index, self.term)
    }
}

/// Durable change of one group, carried out as a whole or not at all. The parts take effect in the
/// order of the fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupWrite {
    /// The group.
    pub group: GroupId,
    /// Forget everything the log holds of the group, damage included. What follows in this write
    /// belongs to a new replica.
    pub remove: bool,
    /// A new term or vote.
    pub hard_state: Option<HardState>,
    /// A snapshot takes the place of the log up to its position.
    pub install: Option<SnapshotMeta>,
    /// Entries from this index on are void.
    pub truncate_from: Option<Index>,
    /// Entries to add at the end, without a gap.
    pub entries: alloc::vec::Vec<Entry>,
    /// Entries up to this position are no longer needed.
    pub purge: Option<SnapshotMeta>,
}

impl GroupWrite {
    /// A write that changes nothing yet.
    #[must_use]
    pub const fn of(group: GroupId) -> Self {
        Self {
            group,
            remove: false,
            hard_state: None,
            install: None,
            truncate_from: None,
            entries: alloc::vec::Vec::new(),
            purge: None,
        }
    }
}

/// Settings of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalOptions {
    /// The id of a log that is created; one that exists keeps its own.
    pub log_id: LogId,
    /// Length of a segment file in bytes. A write that needs more gets a larger one.
    pub segment_bytes: u64,
    /// Bytes of live entries that may be rewritten with each new segment, so that groups with few
    /// of them let old segments go.
    pub rewrite_bytes_max: u64,
}

impl WalOptions {
    /// The defaults, for a log of this id: 16 MiB segments, 2 MiB rewritten per segment.
    #[must_use]
    pub const fn new(log_id: LogId) -> Self {
        Self { log_id, segment_bytes: 16 << 20, rewrite_bytes_max: 2 << 20 }
    }
}

/// Why a write was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The disk has no room. Nothing changed; the same write may be tried again when there is room.
    Full,
    /// The disk failed: what is on it from here on is unknown. The log takes no further write
    /// until it is opened again.
    Fault(WriteFault),
    /// The group's log is damaged and takes no write but its removal. Nothing changed.
    Damaged(GroupId),
    /// Entries leave a gap, or the write names a place the group's log does not have. Nothing changed.
    OutOfOrder {
        /// The group.
        group: GroupId,
        /// The index that could have been written.
        expected: Index,
        /// The index that was asked for.
        found: Index,
    },
}

impl WriteError {
    /// What the consensus engine is told.
    #[must_use]
    pub const fn as_fault(&self) -> WriteFault {
        match self {
            Self::Fault(fault) => *fault,
            Self::Damaged(_) => WriteFault::Damaged,
            Self::Full | Self::OutOfOrder { .. } => WriteFault::WriteFailed,
        }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the disk is full; nothing was written"),
            Self::Fault(WriteFault::SyncFailed) => f.write_str("the log could not be flushed to the disk"),
            Self::Fault(WriteFault::WriteFailed) => f.write_str("the log could not be written to the disk"),
            Self::Fault(WriteFault::Damaged) => f.write_str("the log is damaged"),
            Self::Damaged(group) => write!(f, "the log of group {} is damaged; nothing was written", group.0),
            Self::OutOfOrder { group, expected, found } => write!(
                f,
                "group {}: index {} does not continue a log whose next index is {}; nothing was written",
                group.0, found.0, expected.0
            ),
        }
    }
}

impl core::error::Error for WriteError {}
