//! Where a request for a group goes.
//!
//! Everything here is a hint: the partition map says who holds replicas, the driver's hints say who
//! leads the groups this node takes part in, and answers of other nodes say it for the rest. A
//! wrong hint costs a hop, never correctness: only the group's leader can commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{
    error::ClusterError,
    node::handle::{GroupHint, NodeHandle, Shared},
    placement::{MetaState, PartitionId},
    raft::{GroupId, PeerId},
};

/// Where to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// This node leads the group.
    Here,
    /// That node leads it, or may know who does.
    Peer(PeerId),
    /// Nobody is known to lead: an election is under way.
    Nobody,
}

/// Who leads what, as far as this node knows.
#[derive(Debug)]
pub(crate) struct Routing {
    pub(super) handle: NodeHandle,
    /// Leaders of groups this node has no replica of, learnt from answers.
    learnt: Mutex<BTreeMap<GroupId, PeerId>>,
}

impl Routing {
    pub(crate) fn new(handle: NodeHandle) -> Self {
        Self { handle, learnt: Mutex::default() }
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    pub(crate) fn meta(&self) -> Arc<MetaState> {
        self.handle.meta()
    }

    /// This node's replica of the group, while it is in service. One that is not counts for nothing:
    /// its requests go to other nodes, as if it were not there.
    fn own(&self, group: GroupId) -> Option<Arc<GroupHint>> {
        self.handle.hint(group).filter(|hint| hint.fault().is_none())
    }

    /// Whether this node holds a replica of the group that is in service.
    pub(crate) fn is_here(&self, group: GroupId) -> bool {
        self.own(group).is_some()
    }

    /// Why this node's replica of the group is out of service, where it is.
    pub(crate) fn fault(&self, group: GroupId) -> Option<ClusterError> {
        Some(self.handle.hint(group)?.fault()?.error(group))
    }

    /// Why nobody can answer for the group: this node's replica is out of service, and no other node
    /// has one. Waiting would not help.
    pub(crate) fn dead_end(&self, group: GroupId) -> Option<ClusterError> {
        self.fault(group).filter(|_| self.replicas(group).is_empty())
    }

    /// Whether this node believes to lead the group.
    pub(crate) fn leads(&self, group: GroupId) -> bool {
        self.own(group).is_some_and(|hint| hint.leads())
    }

    /// The node believed to lead the group.
    pub(crate) fn leader(&self, group: GroupId) -> Option<PeerId> {
        match self.own(group) {
            Some(hint) if hint.leads() => Some(self.shared().peer),
            Some(hint) => hint.leader(),
            None => self.learnt().get(&group).copied(),
        }
    }

    /// Where to send the given attempt (counted from 0) of a request.
    pub(crate) fn route(&self, group: GroupId, attempt: u32) -> Route {
        let own = self.shared().peer;
        if let Some(hint) = self.own(group) {
            return match hint.leader() {
                _ if hint.leads() => Route::Here,
                // The hint's two halves are read apart: a leader that is this node but does not
                // lead has just stepped down.
                Some(peer) if peer != own => Route::Peer(peer),
                Some(_) | None => Route::Nobody,
            };
        }
        // Every second attempt distrusts what was learnt: the node may be gone.
        if let (Some(&peer), 0) = (self.learnt().get(&group), attempt % 2) {
            return Route::Peer(peer);
        }
        let others = self.replicas(group);
        match others.len() {
            0 => Route::Nobody,
            count => Route::Peer(others[attempt as usize % count]),
        }
    }

    /// The other nodes that hold a replica of the group, in the ring's order.
    pub(crate) fn replicas(&self, group: GroupId) -> Vec<PeerId> {
        let own = self.shared().peer;
        let meta = self.meta();
        let Some(descriptor) = meta.map.group(group) else { return Vec::new() };
        descriptor.replicas.iter().map(|place| place.peer).filter(|&peer| peer != own).collect()
    }

    /// Remembers what another node said about the leader of a group.
    pub(crate) fn learn(&self, group: GroupId, leader_address: &str) {
        if leader_address.is_empty() || self.is_here(group) {
            return;
        }
        let meta = self.meta();
        let peer = meta.active().find(|(_, member)| member.address == leader_address).map(|(peer, _)| peer);
        if let Some(peer) = peer {
            self.learnt().insert(group, peer);
        }
    }

    /// Forgets a leader that did not answer as one.
    pub(crate) fn distrust(&self, group: GroupId, peer: PeerId) {
        let mut learnt = self.learnt();
        if learnt.get(&group) == Some(&peer) {
            learnt.remove(&group);
        }
    }

    /// `HOST:PORT` of a member, replaced ones included.
    pub(crate) fn address(&self, peer: PeerId) -> Option<String> {
        self.meta().members.get(&peer).map(|member| member.address.clone())
    }

    /// `HOST:PORT` of the node believed to lead the group; empty where nobody is.
    pub(crate) fn leader_address(&self, group: GroupId) -> String {
        self.leader(group).and_then(|peer| self.address(peer)).unwrap_or_default()
    }

    /// The group's term as this node knows it; 0 where it has no replica.
    pub(crate) fn term(&self, group: GroupId) -> u64 {
        self.handle.hint(group).map_or(0, |hint| hint.term().0)
    }

    /// Every partition of the cluster.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.meta().map.partition_count).map(PartitionId)
    }

    fn learnt(&self) -> std::sync::MutexGuard<'_, BTreeMap<GroupId, PeerId>> {
        self.learnt.lock().expect("no holder of this lock panics")
    }
}
