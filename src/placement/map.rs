//! Where the replicas are: the partition map.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::PartitionId;
use crate::raft::{GroupId, PeerId, ReplicaId};

/// A replica and the data directory it lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ReplicaPlace {
    /// The replica.
    pub replica: ReplicaId,
    /// The data directory.
    pub peer: PeerId,
}

/// Who replicates one group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupDescriptor {
    /// The group.
    pub group: GroupId,
    /// The replicas as they should be, in the ring's order. The first one is preferred as the
    /// group's first leader.
    pub replicas: Vec<ReplicaPlace>,
    /// Replicas that were replaced and may still be members of the group, oldest first, until the
    /// group reports that it has let go of them.
    pub retired: Vec<ReplicaPlace>,
}

impl GroupDescriptor {
    /// The replica that `peer` should hold, where it should hold one.
    #[must_use]
    pub fn replica_at(&self, peer: PeerId) -> Option<ReplicaId> {
        self.replicas.iter().find(|place| place.peer == peer).map(|place| place.replica)
    }

    /// Where `replica` lives or, if it was retired, lived.
    #[must_use]
    pub fn peer_of(&self, replica: ReplicaId) -> Option<PeerId> {
        let mut places = self.replicas.iter().chain(&self.retired);
        places.find(|place| place.replica == replica).map(|place| place.peer)
    }

    /// Whether a group with these members has let go of a replica that is remembered as retired.
    #[must_use]
    pub fn remembers_more_than(&self, members: &[ReplicaId]) -> bool {
        self.retired.iter().any(|place| !members.contains(&place.replica))
    }

    /// The ids of the replicas as they should be, ascending.
    #[must_use]
    pub fn voters(&self) -> Vec<ReplicaId> {
        let mut voters: Vec<_> = self.replicas.iter().map(|place| place.replica).collect();
        voters.sort_unstable();
        voters
    }
}

/// All groups of the cluster, under an epoch that grows with every change a router must know of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionMap {
    /// Which version of the map this is; the first is 1.
    pub epoch: u64,
    /// How many partitions there are. Never changes.
    pub partition_count: u32,
    /// The meta group, then every partition in order: the group's number is its place here.
    pub groups: Vec<GroupDescriptor>,
}

impl PartitionMap {
    /// Who replicates `group`.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&GroupDescriptor> {
        self.groups.get(usize::try_from(group.0).ok()?)
    }

    /// Who replicates `partition`.
    #[must_use]
    pub fn partition(&self, partition: PartitionId) -> Option<&GroupDescriptor> {
        self.group(GroupId(partition.0.checked_add(1)?))
    }

    /// Where the entity with this key lives.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> PartitionId {
        super::partition_of(key, self.partition_count)
    }

    /// Every replica that `peer` should hold, in order of the groups.
    pub fn replicas_of(&self, peer: PeerId) -> impl Iterator<Item = (GroupId, ReplicaId)> {
        self.groups.iter().filter_map(move |group| Some((group.group, group.replica_at(peer)?)))
    }
}
