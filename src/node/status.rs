//! What a node reports about its groups.

use std::fmt;

use crate::{
    error::{ClusterError, ErrorCode},
    placement::PartitionId,
    raft::{GroupId, Index, PeerId, RoleKind, Term},
};

/// Why a replica of this node is out of service: it takes part in nothing until the node restarts or
/// its directory is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupFault {
    code: ErrorCode,
    what: String,
}

impl GroupFault {
    pub(crate) fn new(code: ErrorCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    /// The error of whoever needs this replica.
    pub(crate) fn error(&self, group: GroupId) -> ClusterError {
        let what = format!("this node's replica of {} is out of service: {}", name_of(group), self.what);
        ClusterError::new(self.code, what)
    }
}

impl fmt::Display for GroupFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.what)
    }
}

/// A group as people know it.
pub(crate) fn name_of(group: GroupId) -> String {
    PartitionId::of_group(group)
        .map_or_else(|| "the meta group".to_owned(), |partition| format!("partition {}", partition.0))
}

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
    pub(crate) fault: Option<GroupFault>,
}

impl GroupStatus {
    /// Of a group that was taken out.
    pub(crate) fn stopped(group: GroupId, applied: Index, digest: String, fault: GroupFault) -> Self {
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
