//! Comparing the members' states at one log position.
//!
//! A marker entry in a partition's log makes every member keep a view of its state at that entry.
//! Whoever compares asks each member for the digest of its view, and where two differ for the rows.

use std::sync::Arc;

use kotoba_db_cluster_proto::v1;

use super::{Services, errors, remote};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Command, VerifyId},
    limits::VERIFY_ROWS_MAX,
    node::{
        coordinator::{Route, of_request},
        handle::Applied,
    },
    placement::PartitionId,
    raft::{GroupId, Index},
    runtime::{net, random},
};

/// The states that members keep at markers. Kept by the applier.
pub(crate) trait VerifyViews: std::fmt::Debug + Send + Sync + 'static {
    /// The state of a group at the marker with this index; `None` where the marker has not been
    /// applied yet, or was so long ago that the state is not kept any more.
    fn view(&self, group: GroupId, index: Index) -> Option<Arc<dyn VerifyView>>;
}

/// A key and the hash of its value.
pub(crate) type HashedRow = (Vec<u8>, Vec<u8>);

/// The state of a group at a marker.
pub(crate) trait VerifyView: std::fmt::Debug + Send + Sync + 'static {
    /// The digest of the whole state, read from its rows, and how many rows there are.
    fn digest(&self) -> Result<(String, u64), ClusterError>;
    /// Rows in order of their keys, from behind `after_key` on: key and hash of the value.
    fn rows(&self, after_key: &[u8], limit: usize) -> Result<Vec<HashedRow>, ClusterError>;
}

impl Services {
    pub(super) async fn do_start_verify(
        &self,
        request: v1::StartVerifyRequest,
    ) -> Result<v1::StartVerifyResponse, ClusterError> {
        let serving = self.serving()?;
        let coordinator = &serving.coordinator;
        let partition = coordinator.checked_partition(request.partition)?;
        if coordinator.routing.route(partition.group(), 0) == Route::Here || request.forwarded {
            let mut id = [0; 8];
            random::fill(&mut id)
                .map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))?;
            let marker = Command::Verify(VerifyId(u64::from_le_bytes(id))).encode();
            let applied = coordinator.handle.propose(partition.group(), marker).await;
            let Applied { index, .. } = applied.map_err(|error| of_request(error, partition))?;
            return Ok(v1::StartVerifyResponse { log_index: index.0 });
        }
        let request = v1::StartVerifyRequest { forwarded: true, ..request };
        coordinator
            .ask(partition, |address| {
                let client = coordinator.channels.cluster(&address);
                async move {
                    let mut client = client?;
                    let call = |request| async move { client.start_verify(request).await };
                    let answer = net::within(coordinator.deadline, request, call).await;
                    answer.map(tonic::Response::into_inner).map_err(|status| errors::of_status(&status))
                }
            })
            .await
    }

    pub(super) async fn do_verify_digest(
        &self,
        request: v1::VerifyDigestRequest,
    ) -> Result<v1::VerifyDigestResponse, ClusterError> {
        let Some(view) = self.view(request.partition, request.log_index)? else {
            return Ok(v1::VerifyDigestResponse::default());
        };
        let (digest, keys) = remote::blocking(move || view.digest()).await?;
        Ok(v1::VerifyDigestResponse { ready: true, digest, keys })
    }

    pub(super) async fn do_verify_scan(
        &self,
        request: v1::VerifyScanRequest,
    ) -> Result<v1::VerifyScanResponse, ClusterError> {
        let Some(view) = self.view(request.partition, request.log_index)? else {
            let what = format!(
                "partition {} keeps no state at index {} on this node",
                request.partition, request.log_index
            );
            return Err(ClusterError::new(ErrorCode::NotFound, what));
        };
        let limit =
            if request.limit == 0 { VERIFY_ROWS_MAX } else { request.limit.min(VERIFY_ROWS_MAX) } as usize;
        let rows = remote::blocking(move || view.rows(&request.after_key, limit)).await?;
        let done = rows.len() < limit;
        let rows =
            rows.into_iter().map(|(key, hash)| v1::VerifyRow { key: key.into(), value_hash: hash.into() });
        Ok(v1::VerifyScanResponse { rows: rows.collect(), done })
    }

    fn view(&self, partition: u32, index: u64) -> Result<Option<Arc<dyn VerifyView>>, ClusterError> {
        let serving = self.serving()?;
        let partition: PartitionId = serving.coordinator.checked_partition(partition)?;
        if let Some(fault) = serving.coordinator.routing.fault(partition.group()) {
            return Err(fault);
        }
        if !serving.coordinator.routing.is_here(partition.group()) {
            let what = format!("this node has no replica of partition {}", partition.0);
            return Err(ClusterError::new(ErrorCode::NotFound, what));
        }
        Ok(serving.verify.view(partition.group(), Index(index)))
    }
}
