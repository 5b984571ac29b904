//! The numbers of the protocol, each a type of its own.
//!
//! Absence is always an [`Option`]; zero is a number like any other, except that the log's first
//! index is 1, so that [`Position::ZERO`] stands before every entry.

use core::{fmt, ops::Add, time::Duration};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

number! {
    /// A Raft group. Group 0 is the meta group; partition `p` is group `p + 1`.
    GroupId, u32, "g"
}
number! {
    /// One replica of one group, for ever: minted by the meta group, never reused. A node whose
    /// disk was wiped comes back under new numbers, because it forgot what the old ones promised.
    ReplicaId, u64, "r"
}
number! {
    /// One node's data directory: what a peer stream connects to. Minted like a [`ReplicaId`].
    PeerId, u64, "n"
}
number! {
    /// An election term (Raft paper, section 5.1).
    Term, u64, "t"
}
number! {
    /// The place of an entry in a group's log. The first entry has index 1.
    Index, u64, "i"
}
number! {
    /// A leader's own count of its read rounds (see the `read` module).
    Round, u64, "round "
}
number! {
    /// Names payload bytes that the embedder holds. The core only passes it through.
    PayloadId, u64, "payload "
}
number! {
    /// Names a read of the embedder. The core only passes it through.
    ReadId, u64, "read "
}
number! {
    /// Names a snapshot that the embedder built and holds.
    SnapshotId, u64, "snapshot "
}
number! {
    /// How often this data directory was opened. Grows by at least one with every start; part of
    /// each [`WriteToken`], so that a completion from an earlier life changes nothing.
    BootEpoch, u64, "boot "
}

impl GroupId {
    /// The meta group: node registry, partition map, cluster settings.
    pub const META: Self = Self(0);
}

impl Index {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The index after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The index before this one, or zero.
    #[must_use]
    pub const fn previous_or_zero(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index before this one. Must not be called on [`Index::ZERO`].
    #[must_use]
    pub const fn previous(self) -> Self {
        assert!(self.0 > 0, "there is no index before zero");
        Self(self.0 - 1)
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An entry's index and term. Two logs that hold the same position are equal up to it (Log
/// Matching, Raft paper section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Position {
    /// Where the entry stands.
    pub index: Index,
    /// The term of the leader that created it.
    pub term: Term,
}

impl Position {
    /// Before the first entry of every log.
    pub const ZERO: Self = Self { index: Index(0), term: Term(0) };

    /// The position of the entry at `index`, created in `term`.
    #[must_use]
    pub const fn new(index: Index, term: Term) -> Self {
        Self { index, term }
    }

    /// Whether a log that ends here is at least as up to date as one that ends at `other`: the
    /// later term wins, then the longer log (Raft paper, section 5.4.1).
    #[must_use]
    pub fn is_up_to_date_with(self, other: Self) -> bool {
        if mutant!(B02) {
            return self.index >= other.index;
        }
        (self.term, self.index) >= (other.term, other.index)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index.0, self.term)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A reading of the embedder's monotonic clock, in nanoseconds since a moment it chose. It never
/// runs backwards while the node lives and is compared only with readings of the same node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// How long ago `earlier` was; zero where it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// True time lies within these bounds: unix nanoseconds, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WallInterval {
    /// It is certainly not earlier than this.
    pub earliest: u64,
    /// It is certainly not later than this.
    pub latest: u64,
}

/// The time at which an input is handled. The core has no clock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Now {
    /// Decides time-outs.
    pub monotonic: Instant,
    /// Bounded wall time, where the embedder has it: needed for reads inherited by a new leader,
    /// for nothing else.
    pub wall: Option<WallInterval>,
}

/// What must survive a crash besides the log (Raft paper, figure 2: persistent state).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term this replica has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
}

/// Names one write; answered by `Persisted`.
#[must_use = "a write that is never reported durable stops its replica"]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteToken {
    /// The life of the process the write belongs to.
    pub boot: BootEpoch,
    /// Its place among the writes of that life. Writes of one replica are totally ordered.
    pub sequence: u64,
}

impl fmt::Debug for WriteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "write {}.{}", self.boot.0, self.sequence)
    }
}
