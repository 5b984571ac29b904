//! The shell around the pure core: one driver loop per node, streams to its peers, gRPC services.

pub(crate) mod applier;
pub(crate) mod bootstrap;
pub(crate) mod coordinator;
pub(crate) mod driver;
pub(crate) mod handle;
pub(crate) mod identity;
pub(crate) mod machine;
pub(crate) mod peers;
pub(crate) mod room;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod snapshots;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod views;
pub(crate) mod worker;

pub(crate) use crate::wire;

/// Reads entries back from the log's files.
pub(crate) type NodeLogReader = crate::storage::wal::LogReader<crate::storage::wal::OsDisk>;
