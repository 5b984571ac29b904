//! The meta group's state machine: who the nodes are and where the replicas live.
//!
//! It is replicated like any other group and changed only by committed [`MetaCommand`]s, so that
//! every node sees the same members and the same map. Applying is a pure function of the state and
//! the command.
//!
//! A node is known by its [`NodeId`], its data directory by an [`Incarnation`] and a [`PeerId`]
//! minted here. When a node returns with an empty disk it is a new peer with new replicas in the
//! place of the old ones ([`MetaCommand::ReplaceNode`]); numbers are never given out twice, so a
//! vote the old replica gave can never be taken for the new one's.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;

use serde::{Deserialize, Serialize};

use super::{
    ADDRESS_BYTES_MAX, ClusterId, Incarnation, MEMBERS_REMEMBERED_MAX, NodeId, PartitionMap, ReplicaPlace,
};
use crate::raft::{Configuration, GroupId, PeerId, ReplicaId};

/// Everything the meta group decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MetaState {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// Every data directory that ever was a member.
    pub members: BTreeMap<PeerId, Member>,
    /// Where the replicas are.
    pub map: PartitionMap,
    /// Replicas a partition should have, where there are that many nodes.
    pub replication_factor: u32,
    /// The next replica id to give out.
    pub next_replica: u64,
    /// The next peer number to give out.
    pub next_peer: u64,
}

/// One data directory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node it belongs to.
    pub node: NodeId,
    /// `HOST:PORT` at which other nodes reach it.
    pub address: String,
    /// The directory's own identity.
    pub incarnation: Incarnation,
    /// Whether it still counts.
    pub status: MemberStatus,
}

/// Whether a data directory still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberStatus {
    /// It is the node's current one.
    Active,
    /// The node came back with another one. It is refused for ever.
    Replaced,
}

/// A change of the meta group's state, as it enters the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MetaCommand {
    /// A known node came back with a new data directory. Answered by [`MetaOutcome::Member`],
    /// however often it is repeated.
    ReplaceNode {
        /// The node.
        node_id: NodeId,
        /// Where it is reached now.
        address: String,
        /// Its new data directory.
        incarnation: Incarnation,
    },
    /// A member is reached at another address.
    UpdateAddress {
        /// The member.
        peer: PeerId,
        /// Its new `HOST:PORT`.
        address: String,
    },
    /// A group's committed members: what it no longer holds need not be remembered.
    GroupChanged {
        /// The group.
        group: GroupId,
        /// Its voters and learners.
        members: Vec<ReplicaId>,
    },
}

/// What a command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaOutcome {
    /// The data directory is this member: now, or since an earlier, equal command.
    Member(PeerId),
    /// The state is as the command says: now, or since an earlier one.
    Done,
    /// The state is unchanged, and repeating the command will not help.
    Refused(MetaRefusal),
}

/// Why a command was refused. The state is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaRefusal {
    /// No member has this node id: joining a running cluster is not possible yet.
    UnknownNode,
    /// The data directory was replaced by a newer one of its node.
    Superseded,
    /// The data directory belongs to another node: it was copied, or the node renamed.
    OtherNodesDirectory,
    /// No active member has this number.
    UnknownPeer,
    /// There is no such group.
    UnknownGroup,
    /// The address is empty or too long.
    InvalidAddress,
    /// The cluster remembers as many data directories as it may.
    TooManyMembers,
}

impl fmt::Display for MetaRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownNode => "no member of the cluster has this node id",
            Self::Superseded => "this data directory was replaced by a newer one of the same node",
            Self::OtherNodesDirectory => "this data directory belongs to another node",
            Self::UnknownPeer => "no active member has this number",
            Self::UnknownGroup => "there is no such group",
            Self::InvalidAddress => "the address is empty or too long",
            Self::TooManyMembers => "the cluster remembers as many data directories as it may",
        })
    }
}

impl core::error::Error for MetaRefusal {}

impl MetaState {
    /// Carries out a committed command.
    pub fn apply(&mut self, command: MetaCommand) -> MetaOutcome {
        let result = match command {
            MetaCommand::ReplaceNode { node_id, address, incarnation } => {
                self.replace_node(&node_id, address, incarnation).map(MetaOutcome::Member)
            }
            MetaCommand::UpdateAddress { peer, address } => {
                self.update_address(peer, address).map(|()| MetaOutcome::Done)
            }
            MetaCommand::GroupChanged { group, members } => {
                self.forget_retired(group, &members).map(|()| MetaOutcome::Done)
            }
        };
        result.unwrap_or_else(MetaOutcome::Refused)
    }

    /// The voters `group` should have; `None` where there is no such group.
    #[must_use]
    pub fn desired(&self, group: GroupId) -> Option<Configuration> {
        let voters = self.map.group(group)?.voters();
        Some(Configuration { voters, ..Configuration::default() })
    }

    /// The members that count, in order of their numbers.
    pub fn active(&self) -> impl Iterator<Item = (PeerId, &Member)> {
        self.members
            .iter()
            .filter(|(_, member)| member.status == MemberStatus::Active)
            .map(|(&peer, member)| (peer, member))
    }

    /// The node's current data directory.
    #[must_use]
    pub fn active_peer(&self, node: &NodeId) -> Option<PeerId> {
        self.active().find(|(_, member)| member.node == *node).map(|(peer, _)| peer)
    }

    /// The member with this data directory, replaced ones included.
    #[must_use]
    pub fn member_by_incarnation(&self, incarnation: Incarnation) -> Option<(PeerId, &Member)> {
        let mut members = self.members.iter();
        members.find(|(_, member)| member.incarnation == incarnation).map(|(&peer, member)| (peer, member))
    }

    /// The node in which `replica` of `group` lives or lived.
    #[must_use]
    pub fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<&NodeId> {
        let peer = self.map.group(group)?.peer_of(replica)?;
        self.members.get(&peer).map(|member| &member.node)
    }

    fn replace_node(
        &mut self,
        node: &NodeId,
        address: String,
        incarnation: Incarnation,
    ) -> Result<PeerId, MetaRefusal> {
        let old = self.active_peer(node).ok_or(MetaRefusal::UnknownNode)?;
        match self.member_by_incarnation(incarnation) {
            Some((peer, _)) if peer == old => return Ok(peer),
            Some((_, member)) if member.node == *node => return Err(MetaRefusal::Superseded),
            Some(_) => return Err(MetaRefusal::OtherNodesDirectory),
            None => {}
        }
        check_address(&address)?;
        if self.members.len() >= MEMBERS_REMEMBERED_MAX {
            return Err(MetaRefusal::TooManyMembers);
        }
        let new = PeerId(self.next_peer);
        self.next_peer += 1;
        self.members.get_mut(&old).expect("it was found above").status = MemberStatus::Replaced;
        let member = Member { node: node.clone(), address, incarnation, status: MemberStatus::Active };
        let previous = self.members.insert(new, member);
        assert!(previous.is_none(), "peer numbers are given out once");
        self.replace_replicas(old, new);
        Ok(new)
    }

    /// Mints a new replica at `new` in the place of each one at `old`.
    fn replace_replicas(&mut self, old: PeerId, new: PeerId) {
        for group in &mut self.map.groups {
            let Some(place) = group.replicas.iter_mut().find(|place| place.peer == old) else { continue };
            group.retired.push(*place);
            *place = ReplicaPlace { replica: ReplicaId(self.next_replica), peer: new };
            self.next_replica += 1;
        }
        self.map.epoch += 1;
    }

    fn update_address(&mut self, peer: PeerId, address: String) -> Result<(), MetaRefusal> {
        check_address(&address)?;
        let member = self.members.get_mut(&peer).filter(|member| member.status == MemberStatus::Active);
        let member = member.ok_or(MetaRefusal::UnknownPeer)?;
        if member.address != address {
            member.address = address;
            // Routers hold addresses, too: they must learn that theirs is stale.
            self.map.epoch += 1;
        }
        Ok(())
    }

    fn forget_retired(&mut self, group: GroupId, members: &[ReplicaId]) -> Result<(), MetaRefusal> {
        let place = usize::try_from(group.0).map_err(|_| MetaRefusal::UnknownGroup)?;
        let descriptor = self.map.groups.get_mut(place).ok_or(MetaRefusal::UnknownGroup)?;
        // Only bookkeeping: a retired replica that a late report makes us forget is still not
        // among the desired ones, so the group lets go of it all the same.
        descriptor.retired.retain(|place| members.contains(&place.replica));
        Ok(())
    }
}

pub(super) fn check_address(address: &str) -> Result<(), MetaRefusal> {
    if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
        return Err(MetaRefusal::InvalidAddress);
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::placement) mod tests;
