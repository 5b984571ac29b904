//! What a leader knows of one follower.
//!
//! ```text
//!              accepted                         behind the purged log
//!   ┌───────┐ ───────────▶ ┌───────────┐ ───────────────────────────┐
//!   │ Probe │              │ Replicate │                            ▼
//!   └───────┘ ◀─────────── └───────────┘                     ┌──────────┐
//!       │   rejected, lost, closed    ▲                      │ Snapshot │
//!       │                             └───────────────────── └──────────┘
//!       └─────────── behind the purged log ──────────────────────▲  accepted at the snapshot
//! ```
//! *Probe* sends one message at a time until the logs are known to match; *Replicate* streams
//! within a window; *Snapshot* sends the state in chunks.

use alloc::collections::VecDeque;

use super::{
    limits::Limits,
    snapshot::SnapshotDescriptor,
    types::{Index, Instant, Round},
};

/// What a leader knows of one follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Progress {
    /// Every entry up to here equals the leader's and is durable there.
    pub(super) matched: Index,
    /// The next entry to send.
    pub(super) next: Index,
    /// How entries are sent.
    pub(super) stage: Stage,
    /// When the follower was last heard of in this term.
    pub(super) heard: Instant,
    /// The latest round it confirmed.
    pub(super) round: Round,
    /// The last index sent when the latest beat left.
    pub(super) sent_at_beat: Index,
    /// What it held at the last beat, where that was less than it had been sent.
    pub(super) behind_at_beat: Option<Index>,
}

/// How entries are sent to a follower.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// One message at a time, and the round in which the one whose answer is awaited was sent.
    Probe { waiting: Option<Round> },
    /// As many as the window allows.
    Replicate { inflight: Window },
    /// The state instead of the log.
    Snapshot(Sending),
}

/// A snapshot on its way to a follower. Without a snapshot yet, it waits for one to be built.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sending {
    pub(super) snapshot: Option<SnapshotDescriptor>,
    /// Every byte before this one is stored there.
    pub(super) acknowledged: u64,
    /// Every byte before this one was sent.
    pub(super) sent: u64,
    /// When `acknowledged` last moved, or sending last began again.
    pub(super) moved: Instant,
}

impl Progress {
    /// Of a follower nothing is known of, heard of at `now` so that it has a time-out's grace.
    pub(super) fn unknown(next: Index, now: Instant) -> Self {
        Self {
            matched: Index::ZERO,
            next,
            stage: Stage::Probe { waiting: None },
            heard: now,
            round: Round(0),
            sent_at_beat: Index::ZERO,
            behind_at_beat: None,
        }
    }

    /// Goes back to one message at a time, beginning behind what is known to match. Returns the
    /// whole window.
    pub(super) fn probe_from(&mut self, next: Index) {
        assert!(next > self.matched, "what is matched is never sent again");
        self.next = next;
        self.stage = Stage::Probe { waiting: None };
    }
}

/// What is sent and not yet answered, bounded by messages and bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Window {
    messages: VecDeque<(Index, u64)>,
    bytes: u64,
}

impl Window {
    /// Whether another message may leave.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.messages.len() < limits.inflight_messages && self.bytes < limits.inflight_bytes
    }

    /// Payload bytes in it.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets what is in it.
    #[cfg(feature = "model")]
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Adds a message that ends at `last`.
    pub(super) fn push(&mut self, last: Index, bytes: u64) {
        self.messages.push_back((last, bytes));
        self.bytes += bytes;
    }

    /// Returns the room of everything up to `index`.
    pub(super) fn free_to(&mut self, index: Index) {
        while let Some(&(last, bytes)) = self.messages.front() {
            if last > index || mutant!(M18) {
                return;
            }
            self.messages.pop_front();
            self.bytes -= bytes;
        }
        assert_eq!(self.bytes, 0, "an empty window holds no bytes");
    }
}
