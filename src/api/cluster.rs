//! [`KotobaCluster`]: one node of a cluster, inside an application.

use std::{
    fmt,
    future::Future,
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use tokio::task::JoinHandle;

use super::{
    config::{ClusterConfig, MembershipConfig, ReplicationConfig, TlsConfig, Tuning},
    events::ClusterEvents,
    network::ClusterNetwork,
    query::{Consistency, Direction, DistributedQuery, Entity, EntityKind, Neighbor, Query, QueryResult},
    receipt::Receipt,
    replication::ReplicationManager,
    shared::Shared,
    types::{ClusterStatus, NodeId, NodeInfo, NodeRole, ReplicationHealth},
};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Cid, Operation, OperationDetails},
    node::{
        coordinator::Session,
        service::{
            Services, Serving, channels::Channels, convert, membership::split_address, neighbors::Question,
            reads::Terms,
        },
        start::{self, NodeConfig, RunningNode},
        tls::Tls,
    },
    placement::{PartitionId, manager::PartitionManager},
    raft::GroupId,
    storage::graph_store::GraphStore,
};

/// Starts a node on a store of some type.
type Starter = Box<dyn FnOnce(NodeConfig) -> Starting + Send + Sync>;
type Starting = Pin<Box<dyn Future<Output = Result<RunningNode, ClusterError>> + Send>>;

/// One node of a cluster. It listens for the other nodes and for clients, holds its share of the
/// data, and takes any operation: what other nodes must do, they are asked to do.
///
/// Alone ([`ClusterConfig::nodes`] empty, no peers) it is a cluster of one that serves at once.
pub struct KotobaCluster {
    shared: Arc<Shared>,
    settings: Settings,
    network: ClusterNetwork,
    starter: Option<Starter>,
    running: Option<Running>,
}

/// What a node needs to know of itself.
#[derive(Clone, Debug)]
struct Settings {
    data_dir: PathBuf,
    peers: Vec<String>,
    tls: Option<TlsConfig>,
}

struct Running {
    node: RunningNode,
    watching: JoinHandle<()>,
}

impl fmt::Debug for KotobaCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, running) = (&self.shared.node_id, self.running.is_some());
        f.debug_struct("KotobaCluster").field("node", node).field("running", &running).finish_non_exhaustive()
    }
}

/// Sets up a [`KotobaCluster`]; what is not set has its default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct KotobaClusterBuilder {
    node_id: NodeId,
    config: ClusterConfig,
    membership: MembershipConfig,
    replication: ReplicationConfig,
    tuning: Tuning,
    tls: Option<TlsConfig>,
    data_dir: Option<PathBuf>,
    peers: Vec<String>,
}

impl KotobaClusterBuilder {
    /// The cluster as a whole: nodes, replication factor, partitions.
    pub fn config(mut self, config: ClusterConfig) -> Self {
        self.config = config;
        self
    }

    /// How signs of life are judged.
    pub fn membership(mut self, membership: MembershipConfig) -> Self {
        self.membership = membership;
        self
    }

    /// How replication is watched. The cluster's replication factor is that of
    /// [`KotobaClusterBuilder::config`].
    pub fn replication(mut self, replication: ReplicationConfig) -> Self {
        self.replication = replication;
        self
    }

    /// Elections, log, store and connections.
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// Mutual TLS, between nodes and for clients.
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Where the node keeps its data. The default is `./kotoba-data/NODE-ID`.
    pub fn data_dir(mut self, data_dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(data_dir.into());
        self
    }

    /// The other nodes to begin a cluster with, `HOST:PORT` each; their ids are learnt from them.
    pub fn peers<A: Into<String>>(mut self, peers: impl IntoIterator<Item = A>) -> Self {
        self.peers = peers.into_iter().map(Into::into).collect();
        self
    }

    /// Checks the settings. Nothing is opened yet but the TLS files.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub async fn build(self) -> Result<KotobaCluster, ClusterError> {
        if !self.node_id.is_valid() {
            let what = format!("{:?} cannot be a node id: 1 to 128 printable characters", self.node_id.0);
            return Err(ClusterError::new(ErrorCode::Configuration, what));
        }
        self.config.check()?;
        self.membership.check()?;
        self.replication.check()?;
        self.tuning.check()?;
        let tls = self.tls.as_ref().map(Tls::load).transpose()?;
        let network = ClusterNetwork::new(Arc::new(Channels::new(tls, self.tuning.network.clone())));
        let partition_count = u32::try_from(self.config.partition_count).ok().and_then(NonZeroU32::new);
        let partition_count = partition_count.expect("the configuration was checked");
        let partitioning = PartitionManager::new(partition_count, self.config.replication_factor);
        let data_dir = self.data_dir.unwrap_or_else(|| Path::new("kotoba-data").join(&self.node_id.0));
        let shared = Shared::new(
            self.node_id,
            self.config,
            self.membership,
            self.replication,
            self.tuning,
            partitioning,
        );
        Ok(KotobaCluster {
            shared: Arc::new(shared),
            settings: Settings { data_dir, peers: self.peers, tls: self.tls },
            network,
            starter: Some(Box::new(start_on_disk)),
            running: None,
        })
    }
}

impl KotobaCluster {
    /// A node with default settings; its data is in `./kotoba-data/NODE-ID`. Nothing runs before
    /// [`KotobaCluster::start`].
    ///
    /// # Errors
    /// Where the configuration cannot work.
    pub async fn new(node_id: NodeId, config: ClusterConfig) -> Result<Self, ClusterError> {
        Self::builder(node_id).config(config).build().await
    }

    /// A node with settings of its own.
    pub fn builder(node_id: NodeId) -> KotobaClusterBuilder {
        KotobaClusterBuilder {
            node_id,
            config: ClusterConfig::default(),
            membership: MembershipConfig::default(),
            replication: ReplicationConfig::default(),
            tuning: Tuning::default(),
            tls: None,
            data_dir: None,
            peers: Vec::new(),
        }
    }

    /// Starts the node: it listens at `address` when this returns (port 0 takes any free one, see
    /// [`KotobaCluster::address`]). A cluster of one serves then, too; with other nodes operations
    /// wait until the cluster is there.
    ///
    /// # Errors
    /// Where the address, the data directory or the certificates cannot be used, or the node runs
    /// already.
    pub async fn start(&mut self, address: SocketAddr) -> Result<(), ClusterError> {
        let Some(starter) = self.starter.take() else {
            let what = format!("node {} was started before", self.shared.node_id);
            return Err(ClusterError::new(ErrorCode::Configuration, what));
        };
        let config = self.node_config(address);
        let alone = config.peers.is_empty();
        let node = starter(config).await?;
        let services = node.services.clone();
        self.shared.run(services.clone());
        let watching = tokio::spawn(watch(Arc::clone(&self.shared), services.clone()));
        self.running = Some(Running { node, watching });
        if alone { self.until_ready(&services).await } else { Ok(()) }
    }

    /// Where the node listens, while it runs.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.running.as_ref().map(|running| running.node.address)
    }

    /// Returns once the cluster serves: every group has a leader that answers.
    ///
    /// # Errors
    /// Where the node does not run, or stopped by itself.
    pub async fn ready(&self) -> Result<(), ClusterError> {
        let services = self.shared.services()?;
        tokio::select! {
            biased;
            () = services.ready() => Ok(()),
            () = self.until_ended() => {
                let what = format!("node {} has stopped by itself", self.shared.node_id);
                Err(ClusterError::new(ErrorCode::NotRunning, what))
            }
        }
    }

    /// Keeps the data in this store instead of one in the data directory. Before
    /// [`KotobaCluster::start`] only; the store must be empty, or this node's from before.
    ///
    /// # Errors
    /// Where the node was started already.
    pub async fn add_database(&mut self, database: impl GraphStore) -> Result<(), ClusterError> {
        if self.starter.is_none() {
            let what =
                format!("node {} was started before, its store cannot be changed", self.shared.node_id);
            return Err(ClusterError::new(ErrorCode::Configuration, what));
        }
        self.starter = Some(Box::new(move |config| Box::pin(start::start(config, move |_, _| Ok(database)))));
        Ok(())
    }

    /// Carries out an operation: returns once a quorum of its partition has it on disk. It takes
    /// effect exactly once, whatever fails on the way.
    ///
    /// # Errors
    /// See [`ClusterError`]: each says whether anything changed.
    pub async fn execute_operation(&self, operation: Operation) -> Result<Receipt, ClusterError> {
        self.execute_with(operation, OperationDetails::default(), None).await
    }

    /// The same with details: a node's key, the properties an update removes, the partition of an
    /// edge (a receipt told it; saves looking for it).
    ///
    /// # Errors
    /// See [`ClusterError`].
    pub async fn execute_with(
        &self,
        operation: Operation,
        details: OperationDetails,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        let operation = convert::canonical(operation, details)?;
        self.shared.execute(operation, partition).await
    }

    /// The same as one request of a client that outlives this call: `(client_id, request_id)` names it for
    /// ever. Repeating it, here or at another node, also after the application itself has crashed, takes
    /// effect at most once and gives the first outcome, as long as the partition remembers it
    /// ([`SESSION_OUTCOMES_MAX`](crate::limits::SESSION_OUTCOMES_MAX) requests of a client).
    ///
    /// # Errors
    /// See [`ClusterError`]; also where the ids cannot name a request, or name another operation.
    pub async fn execute_as(
        &self,
        client_id: &str,
        request_id: u64,
        operation: Operation,
        details: OperationDetails,
    ) -> Result<Receipt, ClusterError> {
        let operation = convert::canonical(operation, details)?;
        let session = Session { client_id: client_id.to_owned(), request_id, acked_below: 0 };
        self.shared.execute_as(session, operation, None).await
    }

    /// Answers a query, linearizably.
    ///
    /// # Errors
    /// Where the query concerns other partitions than it says, or cannot be answered now.
    pub async fn execute_query(&self, query: DistributedQuery) -> Result<QueryResult, ClusterError> {
        let services = self.shared.services()?;
        let serving = self.shared.opened(&services).await?;
        let (query, terms) = match query {
            DistributedQuery::MultiPartition { query } => (query, Terms::default()),
            DistributedQuery::SinglePartition { query } => {
                let partition = single_partition(serving, &query)?;
                (query, Terms { partition, ..Terms::default() })
            }
        };
        serving.reads.query(&query, 0, terms).await
    }

    /// A node by its identity, deleted or not; `None` where there is no such node.
    ///
    /// # Errors
    /// Where the question cannot be answered now.
    pub async fn get_node(&self, cid: &Cid) -> Result<Option<Entity>, ClusterError> {
        let entity = self.get_entity(cid, Consistency::Strong).await?;
        Ok(entity.filter(|entity| matches!(entity.kind, EntityKind::Node { .. })))
    }

    /// An edge by its identity, deleted or not; `None` where there is no such edge.
    ///
    /// # Errors
    /// Where the question cannot be answered now.
    pub async fn get_edge(&self, cid: &Cid) -> Result<Option<Entity>, ClusterError> {
        let entity = self.get_entity(cid, Consistency::Strong).await?;
        Ok(entity.filter(|entity| matches!(entity.kind, EntityKind::Edge { .. })))
    }

    /// A node or an edge by its identity, as fresh as asked for.
    ///
    /// # Errors
    /// Where the question cannot be answered now.
    pub async fn get_entity(
        &self,
        cid: &Cid,
        consistency: Consistency,
    ) -> Result<Option<Entity>, ClusterError> {
        let services = self.shared.services()?;
        let reads = &self.shared.opened(&services).await?.reads;
        let terms = Terms { consistency, ..Terms::default() };
        Ok(reads.entity(*cid, terms).await?.map(|found| found.value))
    }

    /// The nodes at the other ends of a node's edges, both those that leave it and those that
    /// enter it.
    ///
    /// # Errors
    /// Where there is no such node, it has more than [`NEIGHBORS_MAX`](crate::limits::NEIGHBORS_MAX) neighbours,
    /// or the question cannot be answered now.
    pub async fn neighbors(&self, cid: &Cid) -> Result<Vec<Neighbor>, ClusterError> {
        let services = self.shared.services()?;
        let reads = &self.shared.opened(&services).await?.reads;
        let question = Question { node: *cid, direction: Direction::Both, label: None };
        reads.neighbors(question, Terms::default()).await
    }

    /// The cluster as this node sees it.
    pub async fn get_status(&self) -> ClusterStatus {
        let config = &self.shared.config;
        let mut status = ClusterStatus {
            replication: self.shared.health(),
            membership: self.shared.members().stats(config.replication_factor, config.partition_count),
            ..ClusterStatus::default()
        };
        let Ok(services) = self.shared.services() else { return status };
        if let Ok(serving) = services.serving() {
            describe(serving, &mut status);
            status.serving = services.is_serving().await;
        }
        status
    }

    /// How far the replicas are behind, as this node sees it.
    pub async fn check_health(&self) -> ReplicationHealth {
        self.shared.health()
    }

    /// What happens in the cluster from now on.
    pub async fn subscribe_events(&self) -> ClusterEvents {
        ClusterEvents::new(self.shared.subscribe())
    }

    /// Which nodes are responsible for which keys.
    #[must_use]
    pub fn partitioning(&self) -> PartitionManager {
        self.shared.partitioning.clone()
    }

    /// How the data gets to where it belongs.
    #[must_use]
    pub fn replication(&self) -> ReplicationManager {
        ReplicationManager::new(Arc::clone(&self.shared))
    }

    /// The specification's calls to other nodes.
    #[must_use]
    pub fn network(&self) -> ClusterNetwork {
        self.network.clone()
    }

    /// Stops the node: what is under way is answered, everything is durable, the data directory is
    /// free. A node that does not run is left as it is.
    ///
    /// # Errors
    /// Where the node failed before or while it stopped.
    pub async fn stop(&mut self) -> Result<(), ClusterError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.watching.abort();
        self.shared.end();
        running.node.stop().await
    }

    /// Returns when the node has stopped by itself, which it only does where it failed; then
    /// [`KotobaCluster::stop`] says why.
    pub async fn until_ended(&self) {
        while self.running.as_ref().is_some_and(|running| !running.node.has_ended()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Waits until a cluster of one serves.
    async fn until_ready(&mut self, services: &Services) -> Result<(), ClusterError> {
        let ready = tokio::select! {
            biased;
            () = services.ready() => true,
            () = self.until_ended() => false,
        };
        if ready { Ok(()) } else { self.stop().await }
    }

    fn node_config(&self, listen: SocketAddr) -> NodeConfig {
        let config = &self.shared.config;
        let own = config.nodes.get(&self.shared.node_id).map(address_of);
        let others = config.nodes.values().filter(|node| node.id != self.shared.node_id);
        let expected: Vec<(String, NodeId)> =
            others.map(|node| (address_of(node), node.id.clone())).collect();
        let listed = expected.iter().map(|(address, _)| address.clone());
        let mut peers: Vec<String> = self.settings.peers.iter().cloned().chain(listed).collect();
        peers.sort_unstable();
        peers.dedup();
        NodeConfig {
            node_id: self.shared.node_id.clone(),
            listen,
            address: own,
            data_dir: self.settings.data_dir.clone(),
            peers,
            expected,
            partition_count: Some(u32::try_from(config.partition_count).unwrap_or(u32::MAX)),
            replication_factor: Some(u32::try_from(config.replication_factor).unwrap_or(u32::MAX)),
            tuning: self.shared.tuning.clone(),
            tls: self.settings.tls.clone(),
        }
    }
}

async fn watch(shared: Arc<Shared>, services: Services) {
    shared.watch(services).await;
}

fn start_on_disk(config: NodeConfig) -> Starting {
    Box::pin(start::start(config, start::open_on_disk))
}

fn address_of(node: &NodeInfo) -> String {
    format!("{}:{}", node.address, node.port)
}

/// The one partition that a query concerns.
fn single_partition(serving: &Serving, query: &Query) -> Result<Option<PartitionId>, ClusterError> {
    match query {
        Query::Get(cid) | Query::Neighbors { cid, direction: Direction::Out, .. } => {
            Ok(Some(serving.reads.home(cid)))
        }
        Query::Neighbors { .. } | Query::ByLabel(_) | Query::ByProperty { .. } => {
            let what = "a query for one partition names no node whose partition it could be";
            Err(ClusterError::new(ErrorCode::Usage, what))
        }
    }
}

/// Fills in what this node knows of the cluster.
fn describe(serving: &Serving, status: &mut ClusterStatus) {
    let routing = &serving.coordinator.routing;
    let meta = routing.meta();
    let leader = routing.leader(GroupId::META);
    status.leader = leader.and_then(|peer| meta.members.get(&peer)).map(|member| member.node.clone());
    status.map_epoch = meta.map.epoch;
    let mut nodes: Vec<NodeInfo> = meta
        .active()
        .map(|(peer, member)| {
            let (address, port) = split_address(&member.address);
            let role = if leader == Some(peer) { NodeRole::Leader } else { NodeRole::Follower };
            let partitions = meta.map.replicas_of(peer).filter_map(|(group, _)| PartitionId::of_group(group));
            NodeInfo {
                id: member.node.clone(),
                address,
                port: u16::try_from(port).unwrap_or_default(),
                role,
                partitions: partitions.collect(),
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    status.nodes = nodes;
}
