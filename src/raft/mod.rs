//! One replica of one Raft group, as a pure state machine.
//!
//! Inputs go in, outputs come out; there is no clock, no randomness, no file, no socket and no
//! thread inside, and the core never sees a payload byte: it works on the log's metadata.
//! Everything about ordering and durability is decided here.
//!
//! # The loop of an embedder
//!
//! 1. Start: [`Replica::recover`] from what the disk holds.
//! 2. Wait for a message, a request, a completion, or [`Replica::deadline`].
//! 3. [`Replica::handle`] it, with the time it is.
//! 4. Drain [`Replica::poll_output`]: begin writes, send messages, apply what is committed.
//! 5. When a write is durable, feed back [`Input::Persisted`]; when entries are applied,
//!    [`Input::Applied`].
//! 6. Go to 2.
//!
//! `examples/embed.rs` is such a loop in full.
//!
//! # Where to read
//!
//! | file | subject |
//! |---|---|
//! | `contract` | inputs and outputs |
//! | `message` | what replicas say to each other |
//! | `replica` | state, restart, dispatch |
//! | `role`, `transition` | the roles, and every change between them |
//! | `receive` | what of a message may be believed |
//! | `election` | votes |
//! | `lead`, `follow` | the two sides of replication |
//! | `progress` | what a leader knows of a follower |
//! | `durability` | writes under way, and what waits for them |
//! | `read` | linearizable reads |
//! | `reconfigure`, `configuration`, `quorum` | members and majorities |
//! | `snapshot`, `snapshot_send`, `snapshot_receive`, `compaction` | state instead of log |
//! | `log` | which entry has which term |
//! | `limits` | how much is under way at once |
//! | `invariants` | what must always hold |
//! | `abstraction` | a replica without its history, for a model checker (feature `model`) |

#[cfg(feature = "model")]
mod abstraction;
mod compaction;
mod configuration;
mod contract;
mod durability;
mod election;
mod follow;
mod invariants;
mod lead;
mod limits;
mod log;
mod message;
mod progress;
mod quorum;
mod read;
mod receive;
mod reconfigure;
mod replica;
mod role;
mod snapshot;
mod snapshot_receive;
mod snapshot_send;
mod transition;
mod types;

pub use configuration::{Configuration, ConfigurationChange, ConfigurationEntry, ConfigurationError};
pub use contract::*;
pub use limits::Limits;
pub use log::TermRuns;
pub use message::*;
pub use replica::{Counters, RecoverError, Replica, Restored, Settings, Status, Timing};
pub use snapshot::{SnapshotDescriptor, SnapshotMeta};
pub use types::*;
