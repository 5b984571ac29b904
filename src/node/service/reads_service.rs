//! The calls that read, for clients and for other nodes.

use kotoba_db_cluster_proto::v1;

use super::{
    Services, convert, errors,
    reads::Terms,
    remote::{direction_from_wire, entity_to_wire, neighbor_to_wire, query_from_wire, version_to_wire},
};
use crate::{
    api::Consistency,
    error::{ClusterError, ErrorCode},
    limits::{GROUPS_PER_NODE_MAX, STREAM_IN_FLIGHT_MAX},
    raft::GroupId,
    runtime::tasks::JoinSet,
};

impl Services {
    pub(super) async fn do_get_entity(
        &self,
        request: v1::GetEntityRequest,
    ) -> Result<v1::GetEntityResponse, ClusterError> {
        let (cid, terms) = (convert::cid(&request.cid)?, self.terms(request.options)?);
        let found = self.serving()?.reads.entity(cid, terms).await?;
        Ok(found.map_or_else(v1::GetEntityResponse::default, |found| v1::GetEntityResponse {
            found: true,
            entity: Some(entity_to_wire(found.value)),
            partition: found.partition.0,
            log_index: found.index.0,
        }))
    }

    pub(super) async fn do_get_block(
        &self,
        request: v1::GetBlockRequest,
    ) -> Result<v1::GetBlockResponse, ClusterError> {
        let (cid, terms) = (convert::cid(&request.cid)?, self.terms(request.options)?);
        let found = self.serving()?.reads.block(cid, terms).await?;
        Ok(found.map_or_else(v1::GetBlockResponse::default, |found| v1::GetBlockResponse {
            found: true,
            block: found.value,
        }))
    }

    pub(super) async fn do_history(
        &self,
        request: v1::HistoryRequest,
    ) -> Result<v1::HistoryResponse, ClusterError> {
        let (cid, terms) = (convert::cid(&request.cid)?, self.terms(request.options)?);
        let found = self.serving()?.reads.history(cid, terms).await?;
        Ok(found.map_or_else(v1::HistoryResponse::default, |found| v1::HistoryResponse {
            found: true,
            versions: found.value.into_iter().map(version_to_wire).collect(),
        }))
    }

    pub(super) async fn do_neighbors(
        &self,
        request: v1::NeighborsRequest,
    ) -> Result<v1::NeighborsResponse, ClusterError> {
        let direction = direction_from_wire(request.direction());
        let (cid, terms) = (convert::cid(&request.cid)?, self.terms(request.options)?);
        let label = (!request.label.is_empty()).then_some(request.label.as_str());
        let neighbors = self.serving()?.reads.neighbors(cid, direction, label, terms).await?;
        Ok(v1::NeighborsResponse { neighbors: neighbors.into_iter().map(neighbor_to_wire).collect() })
    }

    pub(super) async fn do_query(
        &self,
        request: v1::QueryRequest,
    ) -> Result<v1::QueryResponse, ClusterError> {
        let query = request.query.ok_or_else(|| errors::malformed("the query is empty"))?;
        let (query, terms) = (query_from_wire(query)?, self.terms(request.options)?);
        let result = self.serving()?.reads.query(&query, request.limit as usize, terms).await?;
        Ok(v1::QueryResponse {
            entities: result.entities.into_iter().map(entity_to_wire).collect(),
            neighbors: result.neighbors.into_iter().map(neighbor_to_wire).collect(),
        })
    }

    pub(super) async fn do_scan(&self, request: v1::ScanRequest) -> Result<v1::ScanResponse, ClusterError> {
        let terms = self.terms(request.options)?;
        let serving = self.serving()?;
        let partition = serving.coordinator.checked_partition(request.partition)?;
        let page = serving.reads.page(partition, request.resume, request.limit as usize, terms).await?;
        Ok(v1::ScanResponse {
            entities: page.entities.into_iter().map(entity_to_wire).collect(),
            done: page.resume.is_none(),
            resume: page.resume.unwrap_or_default(),
        })
    }

    /// Confirms leadership of many groups, all at once.
    pub(super) async fn do_confirm(
        &self,
        request: v1::ConfirmRequest,
    ) -> Result<v1::ConfirmResponse, ClusterError> {
        if request.groups.len() > GROUPS_PER_NODE_MAX {
            return Err(errors::malformed("more groups than a node has are to be confirmed"));
        }
        let coordinator = &self.serving()?.coordinator;
        let mut rounds = JoinSet::new();
        for (place, &group) in request.groups.iter().enumerate() {
            let handle = coordinator.handle.clone();
            let leads = coordinator.routing.leads(GroupId(group));
            rounds.spawn(async move {
                let index = if leads { handle.read(GroupId(group)).await.ok() } else { None };
                (place, index)
            });
        }
        let mut confirmations: Vec<_> = request
            .groups
            .iter()
            .map(|&group| v1::Confirmation { group, ..v1::Confirmation::default() })
            .collect();
        while let Some(round) = rounds.join_next().await {
            let (place, index) =
                round.map_err(|panicked| ClusterError::new(ErrorCode::Internal, panicked.to_string()))?;
            match index {
                Some(index) => confirmations[place].index = index.0,
                None => {
                    let group = GroupId(confirmations[place].group);
                    confirmations[place].leader_address = coordinator.routing.leader_address(group);
                }
            }
        }
        Ok(v1::ConfirmResponse { confirmations })
    }

    pub(super) async fn do_lookup(
        &self,
        request: v1::LookupRequest,
    ) -> Result<v1::LookupResponse, ClusterError> {
        if request.cids.len() > STREAM_IN_FLIGHT_MAX * 4 {
            let what = format!("{} nodes are to be looked up at once", request.cids.len());
            return Err(ClusterError::new(ErrorCode::TooLarge, what));
        }
        let serving = self.serving()?;
        let partition = serving.coordinator.checked_partition(request.partition)?;
        let terms = Terms { forwarded: true, ..self.terms(request.options)? };
        let cids = request.cids.iter().map(|text| convert::cid(text)).collect::<Result<Vec<_>, _>>()?;
        let generations = serving.reads.generations(partition, &cids, terms).await?;
        Ok(v1::LookupResponse { generations })
    }

    /// What a request says about how it is to be read.
    fn terms(&self, options: Option<v1::ReadOptions>) -> Result<Terms, ClusterError> {
        let Some(options) = options else { return Ok(Terms::default()) };
        let consistency = match options.consistency() {
            v1::Consistency::Strong => Consistency::Strong,
            v1::Consistency::Session => Consistency::Session(options.min_index),
            v1::Consistency::Eventual => Consistency::Eventual,
        };
        let coordinator = &self.serving()?.coordinator;
        let partition =
            options.partition.map(|partition| coordinator.checked_partition(partition)).transpose()?;
        Ok(Terms { consistency, partition, forwarded: options.forwarded })
    }
}
