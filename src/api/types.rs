//! What the API says about a cluster.

use std::{fmt, time::Duration};

use crate::graph::Operation;
pub use crate::placement::{NodeId, PartitionId};

/// What a node is in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum NodeRole {
    /// Follows a leader or waits for one.
    #[default]
    Follower,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Receives the log and does not vote.
    Learner,
    /// Stopped after a fault of its disk.
    Faulted,
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
            Self::Faulted => "faulted",
        })
    }
}

/// A node as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub id: NodeId,
    /// The host other nodes reach it at, without the port.
    pub address: String,
    /// The port.
    pub port: u16,
    /// What it is in the meta group.
    pub role: NodeRole,
    /// The partitions it holds a replica of.
    pub partitions: Vec<PartitionId>,
}

/// An operation in the log of its partition.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry<O = Operation> {
    /// The term of the leader that took it.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
    /// The operation.
    pub operation: O,
}

/// The cluster at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterStats {
    /// Members of the cluster.
    pub total_nodes: usize,
    /// Members that are alive.
    pub active_nodes: usize,
    /// Members that have been silent for longer than usual.
    pub suspected_nodes: usize,
    /// Members that count as failed.
    pub failed_nodes: usize,
    /// Replicas each partition should have.
    pub replication_factor: usize,
    /// Partitions of the cluster.
    pub partition_count: usize,
}

impl ClusterStats {
    /// The share of members that are alive, a suspected one counting half: 1 is healthy, 0 is
    /// nobody there. A cluster without members has a score of 0.
    #[must_use]
    pub fn health_score(&self) -> f64 {
        if self.total_nodes == 0 {
            return 0.0;
        }
        let alive = self.active_nodes as f64 + 0.5 * self.suspected_nodes as f64;
        (alive / self.total_nodes as f64).clamp(0.0, 1.0)
    }

    /// Whether a majority of all members is alive. Suspected members do not count: a promise must
    /// not rest on them.
    #[must_use]
    pub fn has_quorum(&self) -> bool {
        self.active_nodes > self.total_nodes / 2
    }

    /// Whether everything keeps answering when any `failures` of the members that are alive now
    /// fail at once: a majority of all members is left, and of each partition's replicas even if
    /// all the failures, past and new, hit the same partition.
    #[must_use]
    pub fn can_tolerate_failures(&self, failures: usize) -> bool {
        let keeps_majority = |members: usize, gone: usize| gone < members && members - gone > members / 2;
        let gone = self.total_nodes.saturating_sub(self.active_nodes).saturating_add(failures);
        let replicas = self.replication_factor.min(self.total_nodes);
        keeps_majority(self.total_nodes, gone) && keeps_majority(replicas, gone)
    }
}

/// How far the replicas of the data are behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicationHealth {
    /// Writes that are queued and not yet delivered.
    pub total_queued_operations: usize,
    /// Members that count as failed.
    pub failed_nodes_count: usize,
    /// How long the replica that is furthest behind has been behind.
    pub replication_lag: Duration,
    /// Whether no member has failed and no replica is far behind.
    pub is_healthy: bool,
}

/// Something that happened in the cluster, as this node saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A node became a member, or came back with a new data directory.
    NodeJoined(NodeId),
    /// A node is no member any more.
    NodeLeft(NodeId),
    /// A node has been silent for longer than usual.
    NodeSuspected(NodeId),
    /// A node counts as failed.
    NodeFailed(NodeId),
    /// A node that was suspected or failed is back.
    NodeRecovered(NodeId),
    /// A node leads the meta group now.
    LeaderElected(NodeId),
    /// A node leads this partition now.
    PartitionLeaderElected(PartitionId, NodeId),
    /// The partition map changed: this is its epoch.
    ConfigChanged(u64),
}

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// The node that leads the meta group, where one is known.
    pub leader: Option<NodeId>,
    /// Who is there.
    pub membership: ClusterStats,
    /// How far the replicas are behind.
    pub replication: ReplicationHealth,
    /// Every node the cluster knows, in order of the ids.
    pub nodes: Vec<NodeInfo>,
    /// Which version of the partition map this node has.
    pub map_epoch: u64,
    /// Whether every group has a leader that answers.
    pub serving: bool,
}

#[cfg(test)]
#[path = "types_tests.rs"]
mod tests;
