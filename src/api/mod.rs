//! The API of the specification.

pub mod config;
pub mod types;

pub use config::{
    ClusterConfig, ConfigError, LogTuning, MembershipConfig, NetworkTuning, RaftTuning, ReplicationConfig,
    StoreTuning, TlsConfig, Tuning,
};
pub use types::{
    ClusterEvent, ClusterStats, ClusterStatus, LogEntry, NodeId, NodeInfo, NodeRole, PartitionId,
    ReplicationHealth,
};
