//! What a node reports about its groups.

use crate::raft::{GroupId, Index, PeerId, RoleKind, Term};

/// What one group of this node is doing.
#[derive(Clone, Debug)]
pub(crate) struct GroupStatus {
    pub(crate) group: GroupId,
    pub(crate) role: RoleKind,
    /// Not a voter (yet): the log is being sent to it.
    pub(crate) learner: bool,
    pub(crate) term: Term,
    pub(crate) leader: Option<PeerId>,
    pub(crate) last: Index,
    pub(crate) commit: Index,
    pub(crate) applied: Index,
    /// State digest at `applied`, hex.
    pub(crate) digest: String,
    /// What is damaged or failed.
    pub(crate) fault: Option<String>,
}

impl GroupStatus {
    /// Of a group that was taken out.
    pub(crate) fn stopped(group: GroupId, applied: Index, digest: String, fault: String) -> Self {
        Self {
            group,
            role: RoleKind::Faulted,
            learner: false,
            term: Term(0),
            leader: None,
            last: applied,
            commit: applied,
            applied,
            digest,
            fault: Some(fault),
        }
    }
}
