//! KotobaDB Cluster: a content-addressed graph database made highly available.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

/// Whether a known bug is to be made here, to see that the tests find it (see `docs/testing.md`).
#[cfg(not(kotoba_mutants))]
macro_rules! mutant {
    ($id:ident) => {
        false
    };
}
#[cfg(kotoba_mutants)]
macro_rules! mutant {
    ($id:ident) => {
        $crate::mutants::is_active($crate::mutants::Mutant::$id)
    };
}

#[cfg(feature = "node")]
pub mod api;
#[cfg(all(feature = "node", not(madsim)))]
pub mod cli;
#[cfg(feature = "node")]
pub mod client;
#[cfg(feature = "node")]
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "graph")]
pub mod graph;
pub mod limits;
pub mod multiraft;
#[cfg(kotoba_mutants)]
pub mod mutants;
#[cfg(feature = "node")]
mod node;
pub mod placement;
pub mod raft;
#[cfg(all(feature = "node", not(madsim)))]
mod runtime;
#[cfg(all(feature = "node", madsim))]
pub mod runtime;
pub mod storage;
#[cfg(feature = "wire")]
mod wire;

#[cfg(feature = "node")]
pub use self::{
    api::{
        ClusterConfig, ClusterEvent, ClusterEvents, ClusterNetwork, ClusterStats, ClusterStatus, Consistency,
        Direction, DistributedQuery, Entity, EntityKind, EventsEnded, KotobaCluster, KotobaClusterBuilder,
        LogEntry, LogTuning, MembershipConfig, Neighbor, NetworkTuning, NodeId, NodeInfo, NodeRole,
        PartitionId, Query, QueryResult, RaftMessage, RaftReply, RaftTuning, Receipt, ReplicationConfig,
        ReplicationHealth, ReplicationManager, ReplicationStatus, StoreTuning, TlsConfig, Tuning, Version,
    },
    error::{ClusterError, ErrorCode},
    graph::{Cid, Operation, OperationDetails, Properties, Value},
    placement::manager::{DistributionStats, KeyRange, PartitionManager, RebalancePlan},
};
