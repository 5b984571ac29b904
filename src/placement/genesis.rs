//! The first state of a cluster, computed by each of its first nodes alone.
//!
//! Bootstrap needs no leader: every node gathers the same *set* of members and computes the same
//! state from it, whatever order it learnt them in.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec::Vec,
};
use core::fmt;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{
    ClusterId, GroupDescriptor, HashRing, Incarnation, META_VOTERS_MAX, Member, MemberStatus, MetaState,
    NODES_MAX, NodeId, PartitionId, PartitionMap, REPLICATION_FACTOR_MAX, ReplicaPlace, meta::check_address,
};
use crate::{
    limits::PARTITIONS_MAX,
    raft::{GroupId, PeerId, ReplicaId},
};

/// Tells the places of the meta group's replicas from those of a partition, whose key is 4 bytes.
const META_RING_KEY: &[u8] = b"meta group";
const CLUSTER_ID_SEED: u64 = 0x6b6f_746f_6261_0004;

/// A node that takes part in the bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenesisMember {
    /// Its name.
    pub node_id: NodeId,
    /// Its `HOST:PORT`.
    pub address: String,
    /// Its data directory.
    pub incarnation: Incarnation,
}

/// Why a cluster cannot begin like this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GenesisError {
    /// There is no node, or there are more than [`NODES_MAX`].
    NodeCount(usize),
    /// A name cannot be a node id.
    InvalidName(NodeId),
    /// Two nodes have the same name.
    SameName(NodeId),
    /// Two nodes have the same data directory: it was copied.
    SameIncarnation(Incarnation),
    /// A node's address is empty or too long.
    InvalidAddress(NodeId),
    /// The number of partitions is not within 1 to [`PARTITIONS_MAX`].
    PartitionCount(u32),
    /// The replication factor is not within 1 to [`REPLICATION_FACTOR_MAX`].
    ReplicationFactor(u32),
}

impl fmt::Display for GenesisError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeCount(count) => write!(f, "a cluster has 1 to {NODES_MAX} nodes, not {count}"),
            Self::InvalidName(node) => write!(f, "{:?} cannot be a node id", node.0),
            Self::SameName(node) => write!(f, "two nodes are called {node}"),
            Self::SameIncarnation(incarnation) => {
                write!(f, "two nodes have copies of one data directory ({incarnation})")
            }
            Self::InvalidAddress(node) => write!(f, "the address of node {node} is empty or too long"),
            Self::PartitionCount(count) => {
                write!(f, "a cluster has 1 to {PARTITIONS_MAX} partitions, not {count}")
            }
            Self::ReplicationFactor(factor) => {
                write!(f, "the replication factor is 1 to {REPLICATION_FACTOR_MAX}, not {factor}")
            }
        }
    }
}

impl core::error::Error for GenesisError {}

impl MetaState {
    /// The first state of a cluster of these members, in whatever order they are given.
    ///
    /// Peers are numbered from 1 in order of the node ids. The meta group has all nodes as its
    /// voters, at most [`META_VOTERS_MAX`]; each partition has `min(replication_factor, nodes)`
    /// replicas where the ring proposes them. Replica ids are minted group by group.
    ///
    /// # Errors
    /// Where a limit is broken or two members cannot be told apart.
    pub fn genesis(
        members: &[GenesisMember],
        partition_count: u32,
        replication_factor: u32,
    ) -> Result<Self, GenesisError> {
        check(members, partition_count, replication_factor)?;
        let mut sorted: Vec<&GenesisMember> = members.iter().collect();
        sorted.sort_unstable();
        let ring = HashRing::of(sorted.iter().map(|member| member.node_id.clone()))
            .expect("names and their number were checked");
        let peers: BTreeMap<&NodeId, PeerId> =
            (1..).map(PeerId).zip(&sorted).map(|(peer, member)| (&member.node_id, peer)).collect();

        let mut mint = Mint { next: 1, peers: &peers };
        let mut groups =
            alloc::vec![mint.group(GroupId::META, &ring.nodes_for_key(META_RING_KEY, META_VOTERS_MAX))];
        for partition in (0..partition_count).map(PartitionId) {
            let nodes = ring.nodes_for_partition(partition, replication_factor as usize);
            groups.push(mint.group(partition.group(), &nodes));
        }
        Ok(Self {
            cluster_id: cluster_id(&sorted),
            next_replica: mint.next,
            next_peer: sorted.len() as u64 + 1,
            members: (1..).map(PeerId).zip(sorted.into_iter().map(Member::first)).collect(),
            map: PartitionMap { epoch: 1, partition_count, groups },
            replication_factor,
        })
    }
}

impl Member {
    fn first(member: &GenesisMember) -> Self {
        Self {
            node: member.node_id.clone(),
            address: member.address.clone(),
            incarnation: member.incarnation,
            status: MemberStatus::Active,
        }
    }
}

struct Mint<'a> {
    next: u64,
    peers: &'a BTreeMap<&'a NodeId, PeerId>,
}

impl Mint<'_> {
    fn group(&mut self, group: GroupId, nodes: &[&NodeId]) -> GroupDescriptor {
        let first = self.next;
        self.next += nodes.len() as u64;
        let places = (first..).map(ReplicaId).zip(nodes);
        let replicas =
            places.map(|(replica, node)| ReplicaPlace { replica, peer: self.peers[node] }).collect();
        GroupDescriptor { group, replicas, retired: Vec::new() }
    }
}

/// Names the cluster after its first members. It tells clusters apart that were never meant to
/// meet; nobody gains anything by forging it (mutual TLS decides who may speak), so the hash needs
/// no cryptographic strength.
fn cluster_id(sorted: &[&GenesisMember]) -> ClusterId {
    let mut bytes = Vec::new();
    for member in sorted {
        bytes.extend((member.node_id.0.len() as u64).to_be_bytes());
        bytes.extend(member.node_id.0.as_bytes());
        bytes.extend(member.incarnation.0);
    }
    ClusterId(xxh3_128_with_seed(&bytes, CLUSTER_ID_SEED).to_be_bytes())
}

fn check(
    members: &[GenesisMember],
    partition_count: u32,
    replication_factor: u32,
) -> Result<(), GenesisError> {
    if members.is_empty() || members.len() > NODES_MAX {
        return Err(GenesisError::NodeCount(members.len()));
    }
    if !(1..=PARTITIONS_MAX).contains(&partition_count) {
        return Err(GenesisError::PartitionCount(partition_count));
    }
    if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
        return Err(GenesisError::ReplicationFactor(replication_factor));
    }
    let (mut names, mut incarnations) = (BTreeSet::new(), BTreeSet::new());
    for member in members {
        if !member.node_id.is_valid() {
            return Err(GenesisError::InvalidName(member.node_id.clone()));
        }
        if check_address(&member.address).is_err() {
            return Err(GenesisError::InvalidAddress(member.node_id.clone()));
        }
        if !names.insert(&member.node_id) {
            return Err(GenesisError::SameName(member.node_id.clone()));
        }
        if !incarnations.insert(member.incarnation) {
            return Err(GenesisError::SameIncarnation(member.incarnation));
        }
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::placement) mod tests;
