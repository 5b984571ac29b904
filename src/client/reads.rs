//! Reads. Each may be repeated at will, so each is tried on other nodes until the deadline.

use kotoba_db_cluster_proto::v1;

use super::{channels::Service, connection::Client};
use crate::{
    error::{ClusterError, ErrorCode},
    node::service::convert,
    placement::PartitionId,
};

/// How fresh a read must be, and where the entity lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadFrom {
    /// How fresh: strong unless told otherwise.
    pub consistency: v1::Consistency,
    /// For session consistency: the log index, of this partition, that the answer must include.
    pub min_index: u64,
    /// The partition the entity lives in, where known.
    pub partition: Option<PartitionId>,
}

impl ReadFrom {
    /// A read of this freshness.
    #[must_use]
    pub fn with(consistency: v1::Consistency) -> Self {
        Self { consistency, ..Self::default() }
    }

    fn options(self) -> Option<v1::ReadOptions> {
        Some(v1::ReadOptions {
            consistency: self.consistency.into(),
            min_index: self.min_index,
            partition: self.partition.map(|partition| partition.0),
            forwarded: false,
        })
    }

    /// Only a strong read gains from going to the leader.
    fn route(self) -> Option<PartitionId> {
        self.partition.filter(|_| self.consistency == v1::Consistency::Strong)
    }
}

macro_rules! call {
    ($method:ident, $request:expr) => {
        |mut service: Service| {
            let request = $request.clone();
            async move { service.$method(request).await }
        }
    };
}

impl Client {
    /// The entity as it is now; `None` where there is none of this CID.
    ///
    /// # Errors
    /// A malformed CID, or no answer within the deadline.
    pub async fn entity(&self, cid: &str, from: ReadFrom) -> Result<Option<v1::Entity>, ClusterError> {
        Ok(self.entity_at(cid, from).await?.0)
    }

    /// The same, and how far the log of the entity's partition was applied where it was read: a later read
    /// with session consistency of this index sees no less.
    ///
    /// # Errors
    /// A malformed CID, or no answer within the deadline.
    pub async fn entity_at(
        &self,
        cid: &str,
        from: ReadFrom,
    ) -> Result<(Option<v1::Entity>, u64), ClusterError> {
        let request = v1::GetEntityRequest { cid: cid.into(), options: from.options() };
        let answer = self.ask(from.route(), call!(get_entity, request)).await?;
        Ok((answer.entity.filter(|_| answer.found), answer.log_index))
    }

    /// The bytes of a block; `None` where there is none of this CID.
    ///
    /// # Errors
    /// A malformed CID, or no answer within the deadline.
    pub async fn block(&self, cid: &str, from: ReadFrom) -> Result<Option<bytes::Bytes>, ClusterError> {
        let request = v1::GetBlockRequest { cid: cid.into(), options: from.options() };
        let answer = self.ask(from.route(), call!(get_block, request)).await?;
        Ok(answer.found.then_some(answer.block))
    }

    /// The edges of a node and the nodes at their other ends, in order of the edges' CIDs. An empty label
    /// means any. Many come in several answers, each as fresh as asked for: what changes in between may be
    /// seen or not.
    ///
    /// # Errors
    /// A malformed CID, no such node, or no answer within the deadline.
    pub async fn neighbors(
        &self,
        cid: &str,
        direction: v1::Direction,
        label: &str,
        from: ReadFrom,
    ) -> Result<Vec<v1::Neighbor>, ClusterError> {
        let mut request = v1::NeighborsRequest {
            cid: cid.into(),
            direction: direction.into(),
            label: label.into(),
            options: from.options(),
            ..v1::NeighborsRequest::default()
        };
        let mut neighbors = Vec::new();
        loop {
            let answer = self.ask(from.route(), call!(neighbors, request)).await?;
            neighbors.extend(answer.neighbors);
            if answer.resume.is_empty() || answer.resume == request.resume {
                return Ok(neighbors);
            }
            request.resume = answer.resume;
        }
    }

    /// All versions of an entity, oldest first; `None` where there is none of this CID.
    ///
    /// # Errors
    /// A malformed CID, or no answer within the deadline.
    pub async fn history(&self, cid: &str, from: ReadFrom) -> Result<Option<Vec<v1::Version>>, ClusterError> {
        let mut request =
            v1::HistoryRequest { cid: cid.into(), options: from.options(), ..v1::HistoryRequest::default() };
        let mut versions = Vec::new();
        loop {
            let answer = self.ask(from.route(), call!(history, request)).await?;
            if !answer.found {
                return Ok(None);
            }
            let last = answer.versions.is_empty();
            versions.extend(answer.versions);
            request.skip = versions.len() as u64;
            if last || request.skip >= answer.total {
                return Ok(Some(versions));
            }
        }
    }

    /// What a query finds; `cut` in the answer says that there is more than one answer holds.
    ///
    /// # Errors
    /// A malformed query, or no answer within the deadline.
    pub async fn query(&self, request: v1::QueryRequest) -> Result<v1::QueryResponse, ClusterError> {
        if let Some(v1::query_request::Query::ByProperty(wanted)) = &request.query {
            wanted.value.as_ref().map_or(Ok(()), convert::check_value_depth)?;
        }
        self.ask(None, call!(query, request)).await
    }

    /// One page of a partition's living entities, in key order. `resume` is empty to begin with.
    ///
    /// # Errors
    /// No answer within the deadline.
    pub async fn scan(
        &self,
        partition: PartitionId,
        resume: bytes::Bytes,
        limit: u32,
        consistency: v1::Consistency,
    ) -> Result<v1::ScanResponse, ClusterError> {
        let from = ReadFrom { partition: Some(partition), ..ReadFrom::with(consistency) };
        let request = v1::ScanRequest { partition: partition.0, resume, limit, options: from.options() };
        self.ask(from.route(), call!(scan, request)).await
    }

    /// The cluster's state, from any node.
    ///
    /// # Errors
    /// No answer within the deadline.
    pub async fn status(&self) -> Result<v1::StatusResponse, ClusterError> {
        let request = v1::StatusRequest { local: false };
        self.ask(None, call!(status, request)).await
    }

    /// What every known node says of the cluster when asked once; no retries.
    ///
    /// # Errors
    /// Where no node answers: what the last one failed with.
    pub async fn status_now(&self) -> Result<v1::StatusResponse, ClusterError> {
        let request = v1::StatusRequest { local: false };
        let mut last = None;
        for address in self.addresses_to_try() {
            match self.ask_node(&address, &call!(status, request)).await {
                Ok(status) => return Ok(status),
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last.as_ref().filter(|error| error.code() == ErrorCode::Tls) {
            return Err(error.clone());
        }
        let what = last.map_or_else(String::new, |error| error.what());
        Err(ClusterError::Unavailable(format!("no node answers: {what}")))
    }

    /// Marks a position in a partition's log at which every member keeps its state for a while.
    ///
    /// # Errors
    /// No answer within the deadline.
    pub async fn start_verify(&self, partition: PartitionId) -> Result<u64, ClusterError> {
        let request = v1::StartVerifyRequest { partition: partition.0, forwarded: false };
        Ok(self.ask(Some(partition), call!(start_verify, request)).await?.log_index)
    }

    /// One member's digest at such a position: asked of the node at `address`, once.
    ///
    /// # Errors
    /// Where that node does not answer or no longer keeps that state.
    pub async fn verify_digest(
        &self,
        address: &str,
        partition: PartitionId,
        log_index: u64,
    ) -> Result<v1::VerifyDigestResponse, ClusterError> {
        let request = v1::VerifyDigestRequest { partition: partition.0, log_index };
        self.ask_node(address, &call!(verify_digest, request)).await
    }

    /// One page of one member's state at such a position: asked of the node at `address`, once.
    ///
    /// # Errors
    /// Where that node does not answer or no longer keeps that state.
    pub async fn verify_scan(
        &self,
        address: &str,
        request: v1::VerifyScanRequest,
    ) -> Result<v1::VerifyScanResponse, ClusterError> {
        self.ask_node(address, &call!(verify_scan, request)).await
    }
}
