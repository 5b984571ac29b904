//! One replica of one Raft group, as a pure state machine.
mod configuration;
mod contract;
mod log;
mod message;
mod snapshot;
mod types;

pub use configuration::{Configuration, ConfigurationChange, ConfigurationEntry, ConfigurationError};
pub use contract::*;
pub use log::TermRuns;
pub use message::*;
pub use snapshot::{SnapshotDescriptor, SnapshotMeta};
pub use types::*;
