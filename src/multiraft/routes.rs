//! On which peer each replica of a group lives.

use alloc::vec::Vec;

use crate::raft::{PeerId, ReplicaId};

/// On which peer each replica of a group lives. Small: a group has a handful of replicas.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Routes(Vec<(ReplicaId, PeerId)>);

impl Routes {
    /// The peer a replica lives on.
    #[must_use]
    pub fn peer_of(&self, replica: ReplicaId) -> Option<PeerId> {
        self.0.iter().find(|(id, _)| *id == replica).map(|&(_, peer)| peer)
    }

    /// The newest replica that lives on a peer: ids rise, so the largest one.
    #[must_use]
    pub fn replica_on(&self, peer: PeerId) -> Option<ReplicaId> {
        self.0.iter().filter(|(_, on)| *on == peer).map(|&(id, _)| id).max()
    }

    /// Every replica and its peer.
    #[must_use]
    pub fn as_slice(&self) -> &[(ReplicaId, PeerId)] {
        &self.0
    }
}

impl FromIterator<(ReplicaId, PeerId)> for Routes {
    fn from_iter<I: IntoIterator<Item = (ReplicaId, PeerId)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}
