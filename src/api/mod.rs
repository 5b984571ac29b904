//! The API of the specification: a node of a cluster inside an application.

mod cluster;
pub mod config;
mod events;
mod members;
mod network;
mod query;
mod receipt;
mod replication;
mod shared;
pub mod types;

pub use self::{
    cluster::{KotobaCluster, KotobaClusterBuilder},
    config::*,
    events::{ClusterEvents, EventsEnded},
    network::{ClusterNetwork, RaftMessage, RaftReply, wire},
    query::{
        Consistency, Direction, DistributedQuery, Entity, EntityKind, Neighbor, Query, QueryResult, Version,
    },
    receipt::Receipt,
    replication::{ReplicationManager, ReplicationStatus},
    types::*,
};
