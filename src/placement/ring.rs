//! Consistent hashing with virtual nodes, and the hash that assigns keys to partitions.
//!
//! Each node stands on a circle of 2^64 places, as often as it has virtual nodes. A key's nodes
//! are the first distinct ones met when walking clockwise from the key's own place (Karger et al.,
//! 1997). A node that joins or leaves therefore moves only the keys next to its own places.
//!
//! The hashes are XXH3 with fixed seeds, written down by golden vectors in the tests: what every
//! node computes must never change, whatever a library's default becomes.

use alloc::{collections::BTreeMap, vec::Vec};
use core::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{NODES_MAX, NodeId, PartitionId, VIRTUAL_NODES_MAX};
use crate::limits::VIRTUAL_NODES;

const PARTITION_SEED: u64 = 0x6b6f_746f_6261_0001;
const POINT_SEED: u64 = 0x6b6f_746f_6261_0002;
const KEY_SEED: u64 = 0x6b6f_746f_6261_0003;

/// The partition that `key` belongs to. An entity's key is the 36 bytes of its identity CID, an
/// edge's that of its source.
///
/// # Panics
/// Where `partition_count` is zero, which no checked cluster has.
#[must_use]
pub fn partition_of(key: &[u8], partition_count: u32) -> PartitionId {
    assert!(partition_count > 0, "a cluster has at least one partition");
    let place = xxh3_64_with_seed(key, PARTITION_SEED) % u64::from(partition_count);
    PartitionId(u32::try_from(place).expect("a remainder of a u32 is a u32"))
}

/// Why a ring refuses a node. The ring is unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The node is already on the ring, with another number of virtual nodes.
    AlreadyThere(NodeId),
    /// The node is not on the ring.
    NotThere(NodeId),
    /// The name cannot be a node id.
    InvalidName(NodeId),
    /// The number of virtual nodes is not within 1 to [`VIRTUAL_NODES_MAX`].
    VirtualNodes(usize),
    /// The ring holds [`NODES_MAX`] nodes already.
    Full,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyThere(node) => {
                write!(f, "node {node} is on the ring with another number of virtual nodes")
            }
            Self::NotThere(node) => write!(f, "node {node} is not on the ring"),
            Self::InvalidName(node) => write!(f, "{:?} cannot be a node id", node.0),
            Self::VirtualNodes(count) => {
                write!(f, "{count} virtual nodes asked for, 1 to {VIRTUAL_NODES_MAX} are possible")
            }
            Self::Full => write!(f, "the ring holds {NODES_MAX} nodes already"),
        }
    }
}

impl core::error::Error for RingError {}

/// Nodes on the circle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HashRing {
    /// Every node and how often it stands on the circle: its weight.
    weights: BTreeMap<NodeId, usize>,
    /// The circle, clockwise. Follows from `weights`.
    points: Vec<Point>,
}

/// One virtual node. Two at the same place are ordered by node, so that all compute one circle.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Point {
    place: u64,
    node: NodeId,
}

impl HashRing {
    /// A ring of these nodes, each with the default number of virtual nodes.
    ///
    /// # Errors
    /// See [`HashRing::add`].
    pub fn of(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, RingError> {
        let mut ring = Self::default();
        for node in nodes {
            ring.add(node, VIRTUAL_NODES)?;
        }
        Ok(ring)
    }

    /// Puts a node on the ring as often as `virtual_nodes` says. Adding it again with the same
    /// number changes nothing.
    ///
    /// # Errors
    /// Where the node is there with another weight, or a limit is broken.
    pub fn add(&mut self, node: NodeId, virtual_nodes: usize) -> Result<(), RingError> {
        if !node.is_valid() {
            return Err(RingError::InvalidName(node));
        }
        if virtual_nodes == 0 || virtual_nodes > VIRTUAL_NODES_MAX {
            return Err(RingError::VirtualNodes(virtual_nodes));
        }
        match self.weights.get(&node) {
            Some(&weight) if weight == virtual_nodes => return Ok(()),
            Some(_) => return Err(RingError::AlreadyThere(node)),
            None if self.weights.len() >= NODES_MAX => return Err(RingError::Full),
            None => {}
        }
        self.points.extend(points_of(&node, virtual_nodes));
        self.points.sort_unstable();
        self.weights.insert(node, virtual_nodes);
        Ok(())
    }

    /// Takes a node off the ring.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn remove(&mut self, node: &NodeId) -> Result<(), RingError> {
        if self.weights.remove(node).is_none() {
            return Err(RingError::NotThere(node.clone()));
        }
        self.points.retain(|point| point.node != *node);
        Ok(())
    }

    /// The nodes on the ring in order of their ids, with their virtual nodes.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (&NodeId, usize)> {
        self.weights.iter().map(|(node, &weight)| (node, weight))
    }

    /// Whether `node` is on the ring.
    #[must_use]
    pub fn contains(&self, node: &NodeId) -> bool {
        self.weights.contains_key(node)
    }

    /// The nodes for `key`, nearest first: exactly as many distinct ones as asked for, or all
    /// there are.
    #[must_use]
    pub fn nodes_for_key(&self, key: &[u8], count: usize) -> Vec<&NodeId> {
        let wanted = count.min(self.weights.len());
        let place = xxh3_64_with_seed(key, KEY_SEED);
        let start = self.points.partition_point(|point| point.place < place);
        let (before, after) = self.points.split_at(start);
        let mut found: Vec<&NodeId> = Vec::with_capacity(wanted);
        for point in after.iter().chain(before) {
            if found.len() == wanted {
                break;
            }
            if !found.contains(&&point.node) {
                found.push(&point.node);
            }
        }
        assert_eq!(found.len(), wanted, "every node stands on the circle at least once");
        found
    }

    /// The nodes the ring proposes for a partition's replicas, nearest first.
    #[must_use]
    pub fn nodes_for_partition(&self, partition: PartitionId, count: usize) -> Vec<&NodeId> {
        self.nodes_for_key(&partition.0.to_be_bytes(), count)
    }
}

fn points_of(node: &NodeId, virtual_nodes: usize) -> impl Iterator<Item = Point> {
    (0_u32..).take(virtual_nodes).map(move |number| {
        let mut bytes = Vec::from(node.0.as_bytes());
        bytes.extend(number.to_be_bytes());
        Point { place: xxh3_64_with_seed(&bytes, POINT_SEED), node: node.clone() }
    })
}

#[cfg(test)]
mod tests;
