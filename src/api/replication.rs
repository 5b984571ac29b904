//! [`ReplicationManager`]: how the data gets to where it belongs, as an application sees it.
//!
//! Writes are replicated by the consensus engine before they are answered; there is no queue that
//! could lose one. What is here drives and observes that engine.

use std::{sync::Arc, time::Duration};

use kotoba_db_cluster_proto::v1;
use tokio::time::{Instant, sleep};

use super::{
    receipt::Receipt,
    shared::Shared,
    types::{ClusterEvent, ClusterStats, NodeId, ReplicationHealth},
};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Operation, OperationDetails},
    node::service::{Serving, convert, errors},
    placement::PartitionId,
    raft::GroupId,
    runtime::{net, tasks::JoinSet},
};

/// How often a node that is to catch up is asked how far it is.
const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// A handle on replication. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct ReplicationManager {
    shared: Arc<Shared>,
}

/// What replication is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicationStatus {
    /// Who is there.
    pub membership: ClusterStats,
    /// How far the replicas are behind.
    pub health: ReplicationHealth,
    /// Which version of the partition map this node has.
    pub map_epoch: u64,
}

impl ReplicationManager {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Proposes an operation and returns once a quorum of its partition has it on disk. The
    /// partition follows from the operation; `primary` must be a member of the cluster.
    ///
    /// # Errors
    /// Where `primary` is no member, or the operation is refused or cannot be carried out now.
    pub async fn replicate_operation(
        &self,
        operation: Operation,
        primary: &NodeId,
    ) -> Result<Receipt, ClusterError> {
        let services = self.shared.services()?;
        self.check_member(self.shared.opened(&services).await?, primary)?;
        let operation = convert::canonical(operation, OperationDetails::default())?;
        self.shared.execute(operation, None).await
    }

    /// Returns once `node` has applied everything that was acknowledged before the call, in every
    /// group it takes part in.
    ///
    /// # Errors
    /// Where `node` is no member, is not reachable, or has not caught up within the request
    /// time-out.
    pub async fn sync_with_node(&self, node: &NodeId) -> Result<(), ClusterError> {
        let services = self.shared.services()?;
        let serving = self.shared.opened(&services).await?;
        let address = self.check_member(serving, node)?;
        let until = Instant::now() + self.shared.tuning.network.request_timeout;
        let wanted = wanted_indexes(serving, node, self.shared.tuning.network.request_timeout).await?;
        loop {
            let behind = match self.applied_at(serving, node, &address).await {
                Ok(status) => wanted.iter().find(|(group, index)| applied(&status, *group) < *index).copied(),
                Err(error) if Instant::now() >= until => return Err(error),
                Err(_) => wanted.first().copied(),
            };
            let Some((group, index)) = behind else { return Ok(()) };
            if Instant::now() >= until {
                let what = format!(
                    "node {node} at {address} has not applied index {index} of group {} yet",
                    group.0
                );
                return Err(ClusterError::new(ErrorCode::Unavailable, what));
            }
            sleep(ASK_INTERVAL).await;
        }
    }

    /// How far the replicas are behind, as this node sees it.
    pub async fn check_health(&self) -> ReplicationHealth {
        self.shared.health()
    }

    /// What replication is doing, as this node sees it.
    pub async fn get_status(&self) -> ReplicationStatus {
        let config = &self.shared.config;
        let meta =
            self.shared.services().ok().and_then(|services| {
                services.serving().ok().map(|serving| serving.coordinator.routing.meta())
            });
        ReplicationStatus {
            membership: self.shared.members().stats(config.replication_factor, config.partition_count),
            health: self.shared.health(),
            map_epoch: meta.map_or(0, |meta| meta.map.epoch),
        }
    }

    /// Records that `node` is suspected to have failed: it counts as suspected until it is seen
    /// again. Its partitions keep their replicas; the others go on while a majority is left.
    ///
    /// # Errors
    /// Where `node` is no other member of the cluster.
    pub async fn handle_node_failure(&self, node: &NodeId) -> Result<(), ClusterError> {
        let news = self.shared.members().suspect(node);
        match news {
            Some(true) => self.shared.tell(ClusterEvent::NodeSuspected(node.clone())),
            Some(false) => {}
            None => {
                let what = format!("node {} knows no other member called {node}", self.shared.node_id);
                return Err(ClusterError::new(ErrorCode::NotFound, what));
            }
        }
        Ok(())
    }

    /// The address of a member.
    fn check_member(&self, serving: &Serving, node: &NodeId) -> Result<String, ClusterError> {
        let meta = serving.coordinator.routing.meta();
        let member = meta.active_peer(node).and_then(|peer| meta.members.get(&peer));
        member.map(|member| member.address.clone()).ok_or_else(|| {
            ClusterError::new(
                ErrorCode::NotFound,
                format!("no member of cluster {} is called {node}", meta.cluster_id),
            )
        })
    }

    async fn applied_at(
        &self,
        serving: &Serving,
        node: &NodeId,
        address: &str,
    ) -> Result<v1::NodeStatus, ClusterError> {
        let mut client = serving.coordinator.channels.cluster(address)?;
        let call = |request| async move { client.status(request).await };
        let deadline = self.shared.tuning.network.request_timeout;
        let answer = net::within(deadline, v1::StatusRequest { local: true }, call).await;
        let status = answer
            .map_err(|status| errors::of_status(&status))?
            .into_inner()
            .nodes
            .into_iter()
            .find(|status| status.id == node.0);
        status.ok_or_else(|| {
            ClusterError::new(ErrorCode::NodeIdMismatch, format!("the node at {address} is not {node}"))
        })
    }
}

/// What a node must have applied to hold everything acknowledged before the call.
async fn wanted_indexes(
    serving: &Serving,
    node: &NodeId,
    within: Duration,
) -> Result<Vec<(GroupId, u64)>, ClusterError> {
    let meta = serving.coordinator.routing.meta();
    let Some(peer) = meta.active_peer(node) else { return Ok(Vec::new()) };
    let mut rounds = JoinSet::new();
    for (group, _) in meta.map.replicas_of(peer) {
        let barriers = Arc::clone(&serving.coordinator.barriers);
        rounds.spawn(async move { (group, barriers.confirm(group, within).await) });
    }
    rounds.join_all().await.into_iter().map(|(group, index)| Ok((group, index?.0))).collect()
}

fn applied(status: &v1::NodeStatus, group: GroupId) -> u64 {
    let found = match PartitionId::of_group(group) {
        Some(partition) => status.partitions.iter().find(|status| status.partition == partition.0),
        None => status.meta.as_ref(),
    };
    found.map_or(0, |status| status.applied)
}
