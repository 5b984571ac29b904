//! What an operation gives back.

use std::fmt;

use kotoba_db_cluster_proto::v1::ClientResponse;

use crate::{
    error::{ClusterError, ErrorCode},
    graph::Cid,
    node::service::convert,
    placement::PartitionId,
};

/// The answer to an operation that was carried out. Prints as the entity's CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The entity's identity.
    pub cid: Cid,
    /// The CID of its current version.
    pub version: Cid,
    /// The partition it lives in.
    pub partition: PartitionId,
    /// Where in the partition's log the operation stands. A read with
    /// [`Consistency::Session`](super::Consistency::Session) of this index sees it on any replica.
    pub index: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cid.fmt(f)
    }
}

impl Receipt {
    #[expect(clippy::needless_pass_by_value, reason = "an answer is read once")]
    pub(super) fn of(response: ClientResponse) -> Result<Self, ClusterError> {
        if !response.success {
            return Err(ClusterError::from_wire(&response.error_code, &response.error_message));
        }
        let malformed = |error: ClusterError| ClusterError::new(ErrorCode::Internal, error.what());
        Ok(Self {
            cid: convert::cid(&response.result_cid).map_err(malformed)?,
            version: convert::cid(&response.version_cid).map_err(malformed)?,
            partition: PartitionId(response.partition),
            index: response.log_index,
        })
    }
}
