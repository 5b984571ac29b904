//! Which node holds which replica of which partition.
//!
//! Three questions, three answers, kept strictly apart:
//!
//! 1. *Which partition does a key belong to?* [`partition_of`]: a hash fixed for ever, modulo the
//!    number of partitions. Every node and every client computes it alike.
//! 2. *Where should a partition's replicas be?* [`HashRing`]: consistent hashing with virtual nodes
//!    (Karger et al., 1997). The ring only **proposes**: genesis asks it once, a rebalancing plan
//!    asks it again.
//! 3. *Where are they?* [`PartitionMap`], kept by the meta group ([`MetaState`]) under an epoch.
//!    The map **decides**; nobody routes by a ring computed at home.
//!
//! Everything here but [`manager`] is pure: no clock, no randomness, no I/O, fixed iteration order.

mod codec;
mod genesis;
mod ids;
mod map;
mod meta;
mod ring;
mod step;

#[cfg(feature = "std")]
pub mod manager;

pub use codec::DecodeError;
pub use genesis::{GenesisError, GenesisMember};
pub use ids::{ClusterId, Incarnation, NodeId, PartitionId};
pub use map::{GroupDescriptor, PartitionMap, ReplicaPlace};
pub use meta::{Member, MemberStatus, MetaCommand, MetaOutcome, MetaRefusal, MetaState};
pub use ring::{HashRing, RingError, partition_of};
pub use step::next_step;

/// Nodes of one cluster, and of one ring.
pub const NODES_MAX: usize = 256;
/// Virtual nodes one node may have on the ring.
pub const VIRTUAL_NODES_MAX: usize = 4096;
/// Replicas of one partition.
pub const REPLICATION_FACTOR_MAX: u32 = 15;
/// Voters of the meta group. More would only make its quorum slower.
pub const META_VOTERS_MAX: usize = 7;
/// Bytes of a node id.
pub const NODE_ID_BYTES_MAX: usize = 128;
/// Bytes of a node's address, `HOST:PORT`.
pub const ADDRESS_BYTES_MAX: usize = 300;
/// Members the meta group remembers, those that were replaced included: a replaced data directory
/// must be known for ever, so that it is refused if it turns up again.
pub const MEMBERS_REMEMBERED_MAX: usize = 4096;
