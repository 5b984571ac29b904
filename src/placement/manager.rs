//! [`PartitionManager`]: placement as an application sees it.
//!
//! A cheap handle; clones share one view. By itself it answers from a ring that the application
//! fills. In a running node it follows the meta group's map: then the map answers, the ring only
//! proposes, and [`PartitionManager::rebalance`] says where the two disagree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    num::NonZeroU32,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{HashRing, MetaState, NodeId, PartitionId, RingError, partition_of};
use crate::limits::VIRTUAL_NODES;

/// Which nodes are responsible for which keys.
#[derive(Clone, Debug)]
pub struct PartitionManager {
    view: Arc<RwLock<View>>,
}

#[derive(Debug)]
struct View {
    partition_count: NonZeroU32,
    replication_factor: usize,
    ring: HashRing,
    /// The committed map: the nodes of each partition in order. `None` without a cluster.
    decided: Option<Decided>,
}

#[derive(Debug)]
struct Decided {
    epoch: u64,
    members: BTreeSet<NodeId>,
    partitions: Vec<Vec<NodeId>>,
}

/// A placement that could not be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// The ring refused a node. Nothing changed.
    Ring(RingError),
    /// There is no node to place anything on. Nothing changed.
    NoNodes,
}

impl fmt::Display for PlacementError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::NoNodes => f.write_str("there is no node to place partitions on"),
        }
    }
}

impl std::error::Error for PlacementError {}

impl From<RingError> for PlacementError {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl PartitionManager {
    /// A manager without nodes. Replicas are a target: with fewer nodes there are as many as nodes.
    #[must_use]
    pub fn new(partition_count: NonZeroU32, replication_factor: usize) -> Self {
        let ring = HashRing::default();
        Self {
            view: Arc::new(RwLock::new(View { partition_count, replication_factor, ring, decided: None })),
        }
    }

    /// Takes over what the meta group decided. An older map than the one known changes nothing.
    /// Members that the ring does not hold yet are added to it with the default weight.
    ///
    /// # Errors
    /// Where the ring has no room for the members; then nothing changed.
    pub fn adopt(&self, state: &MetaState) -> Result<(), PlacementError> {
        let mut view = self.write();
        if view.decided.as_ref().is_some_and(|decided| decided.epoch > state.map.epoch) {
            return Ok(());
        }
        let decided = Decided::of(state);
        let mut ring = view.ring.clone();
        for node in decided.members.iter().filter(|node| !view.ring.contains(node)) {
            ring.add(node.clone(), VIRTUAL_NODES)?;
        }
        view.ring = ring;
        view.partition_count = NonZeroU32::new(state.map.partition_count).unwrap_or(view.partition_count);
        view.replication_factor = state.replication_factor as usize;
        view.decided = Some(decided);
        Ok(())
    }

    /// Puts a node on the ring with this many virtual nodes: its weight. In a running cluster this
    /// changes what [`PartitionManager::rebalance`] proposes, not where data is.
    ///
    /// # Errors
    /// Where the node is there with another weight, or a limit is broken; then nothing changed.
    pub async fn add_node(&self, node: NodeId, virtual_nodes: usize) -> Result<(), PlacementError> {
        Ok(self.write().ring.add(node, virtual_nodes)?)
    }

    /// Takes a node off the ring. In a running cluster this changes what
    /// [`PartitionManager::rebalance`] proposes, not where data is.
    ///
    /// # Errors
    /// Where the node is not on the ring.
    pub async fn remove_node(&self, node: &NodeId) -> Result<(), PlacementError> {
        Ok(self.write().ring.remove(node)?)
    }

    /// The nodes for `key`, the preferred one first: exactly `min(count, nodes)` distinct ones. The
    /// first ones are those that hold the key's partition.
    #[must_use]
    pub fn get_nodes_for_key(&self, key: &(impl AsRef<[u8]> + ?Sized), count: usize) -> Vec<NodeId> {
        let view = self.read();
        view.nodes_for_partition(view.partition_for_key(key.as_ref()), count)
    }

    /// The partition that `key` belongs to.
    #[must_use]
    pub fn get_partition_for_key(&self, key: &(impl AsRef<[u8]> + ?Sized)) -> PartitionId {
        self.read().partition_for_key(key.as_ref())
    }

    /// The partitions that `node` holds a replica of, in order.
    #[must_use]
    pub fn get_partitions_for_node(&self, node: &NodeId) -> Vec<PartitionId> {
        let view = self.read();
        view.partitions().filter(|&partition| view.replicas(partition).contains(node)).collect()
    }

    /// Whether `node` holds a replica of the partition that `key` belongs to.
    pub async fn is_node_responsible(&self, node: &NodeId, key: &(impl AsRef<[u8]> + ?Sized)) -> bool {
        let view = self.read();
        view.replicas(view.partition_for_key(key.as_ref())).contains(node)
    }

    /// How evenly the replicas are spread.
    pub async fn get_distribution_stats(&self) -> DistributionStats {
        let view = self.read();
        let mut loads: BTreeMap<NodeId, usize> = view.nodes().map(|node| (node.clone(), 0)).collect();
        for partition in view.partitions() {
            for node in view.replicas(partition) {
                *loads.entry(node).or_default() += 1;
            }
        }
        DistributionStats { loads }
    }

    /// What would have to move for the replicas to be where the ring proposes them: a plan as
    /// data, empty where map and ring agree. **Nothing is moved**: that needs live reconfiguration,
    /// which this version does not have.
    ///
    /// # Errors
    /// Where the ring is empty.
    pub async fn rebalance(&self) -> Result<RebalancePlan, PlacementError> {
        let view = self.read();
        if view.ring.nodes().len() == 0 {
            return Err(PlacementError::NoNodes);
        }
        Ok(RebalancePlan {
            moves: view.partitions().filter_map(|partition| view.planned_move(partition)).collect(),
        })
    }

    /// The lock protects plain data that no panic leaves half-written: a poisoned one is usable.
    fn read(&self) -> RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, View> {
        self.view.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partition_count.get()).map(PartitionId)
    }

    fn partition_for_key(&self, key: &[u8]) -> PartitionId {
        partition_of(key, self.partition_count.get())
    }

    /// The members of the cluster, or the nodes on the ring where there is no cluster.
    fn nodes(&self) -> Box<dyn Iterator<Item = &NodeId> + '_> {
        match &self.decided {
            Some(decided) => Box::new(decided.members.iter()),
            None => Box::new(self.ring.nodes().map(|(node, _)| node)),
        }
    }

    /// The nodes that hold `partition`, in order.
    fn replicas(&self, partition: PartitionId) -> Vec<NodeId> {
        match &self.decided {
            Some(decided) => decided.partitions.get(partition.0 as usize).cloned().unwrap_or_default(),
            None => self.proposed(partition, self.replication_factor),
        }
    }

    fn proposed(&self, partition: PartitionId, count: usize) -> Vec<NodeId> {
        self.ring.nodes_for_partition(partition, count).into_iter().cloned().collect()
    }

    fn nodes_for_partition(&self, partition: PartitionId, count: usize) -> Vec<NodeId> {
        let Some(decided) = &self.decided else { return self.proposed(partition, count) };
        let mut nodes = self.replicas(partition);
        if nodes.len() < count {
            let by_ring = self.proposed(partition, usize::MAX).into_iter();
            // A member that was taken off the ring is still there, as the last choice.
            for node in by_ring.chain(decided.members.iter().cloned()) {
                if decided.members.contains(&node) && !nodes.contains(&node) {
                    nodes.push(node);
                }
            }
        }
        nodes.truncate(count);
        nodes
    }

    fn planned_move(&self, partition: PartitionId) -> Option<PartitionMove> {
        let now = self.replicas(partition);
        let proposed = self.proposed(partition, self.replication_factor);
        let without = |list: &[NodeId], others: &[NodeId]| -> Vec<NodeId> {
            list.iter().filter(|node| !others.contains(node)).cloned().collect()
        };
        let (add, remove) = (without(&proposed, &now), without(&now, &proposed));
        (!add.is_empty() || !remove.is_empty()).then_some(PartitionMove { partition, add, remove })
    }
}

impl Decided {
    fn of(state: &MetaState) -> Self {
        let partitions = (0..state.map.partition_count).map(PartitionId).map(|partition| {
            let places = state.map.partition(partition).map_or(&[][..], |group| &group.replicas);
            places.iter().filter_map(|place| state.members.get(&place.peer)).map(|m| m.node.clone()).collect()
        });
        Self {
            epoch: state.map.epoch,
            members: state.active().map(|(_, member)| member.node.clone()).collect(),
            partitions: partitions.collect(),
        }
    }
}

/// How many partitions each node holds a replica of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistributionStats {
    /// Replicas by node; every node is listed, those without a replica too.
    pub loads: BTreeMap<NodeId, usize>,
}

impl DistributionStats {
    /// The variance of the number of replicas per node, in replicas squared. All replicas count,
    /// not only the first of each partition: three nodes that hold everything have variance 0.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.loads.is_empty() {
            return 0.0;
        }
        let nodes = self.loads.len() as f64;
        let mean = self.loads.values().sum::<usize>() as f64 / nodes;
        self.loads.values().map(|&load| (load as f64 - mean).powi(2)).sum::<f64>() / nodes
    }

    /// The node with the most replicas; of several the first by name.
    #[must_use]
    pub fn most_loaded_node(&self) -> Option<NodeId> {
        self.loads.iter().rev().max_by_key(|&(_, &load)| load).map(|(node, _)| node.clone())
    }

    /// The node with the fewest replicas; of several the first by name.
    #[must_use]
    pub fn least_loaded_node(&self) -> Option<NodeId> {
        self.loads.iter().min_by_key(|&(_, &load)| load).map(|(node, _)| node.clone())
    }
}

/// What would have to move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebalancePlan {
    /// One move for each partition whose replicas are not where the ring proposes them.
    pub moves: Vec<PartitionMove>,
}

impl RebalancePlan {
    /// Whether map and ring agree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }
}

/// The move of one partition's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMove {
    /// The partition.
    pub partition: PartitionId,
    /// Nodes that should hold it and do not.
    pub add: Vec<NodeId>,
    /// Nodes that hold it and should not.
    pub remove: Vec<NodeId>,
}

/// A half-open range of keys in byte order: `start` is in it, `end` is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: Vec<u8>,
    /// The first key behind the range.
    pub end: Vec<u8>,
}

impl KeyRange {
    /// The range from `start` up to and without `end`; empty unless `start < end`.
    #[must_use]
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { start: start.into(), end: end.into() }
    }

    /// Whether `key` is in the range.
    #[must_use]
    pub fn contains(&self, key: &(impl AsRef<[u8]> + ?Sized)) -> bool {
        let key = key.as_ref();
        *self.start <= *key && *key < *self.end
    }

    /// Whether no key is in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// The parts before and from `key` on, which together hold exactly the keys of this one.
    /// `None` where `key` is not strictly inside, so that a part would be empty.
    #[must_use]
    pub fn split(&self, key: &(impl AsRef<[u8]> + ?Sized)) -> Option<(Self, Self)> {
        let key = key.as_ref();
        if !self.contains(key) || *self.start == *key {
            return None;
        }
        Some((Self::new(&*self.start, key), Self::new(key, &*self.end)))
    }
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
