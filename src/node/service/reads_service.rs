//! The calls that read, for clients and for other nodes.

use kotoba_db_cluster_proto::v1;
use prost::Message;

use super::{
    Services, convert, errors,
    neighbors::{Place, Question},
    reads::Terms,
    remote::{direction_from_wire, entity_to_wire, neighbor_to_wire, query_from_wire, version_to_wire},
};
use crate::{
    api::Consistency,
    error::{ClusterError, ErrorCode},
    limits::{ANSWER_BYTES_MAX, ANSWER_NEIGHBORS_MAX, GROUPS_PER_NODE_MAX, STREAM_IN_FLIGHT_MAX},
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
        let Some(found) = found else { return Ok(v1::HistoryResponse::default()) };
        let total = found.value.len() as u64;
        let skip = usize::try_from(request.skip).unwrap_or(usize::MAX);
        let rest = found.value.into_iter().skip(skip).map(version_to_wire);
        let (versions, _) = fill(rest, usize::MAX, Message::encoded_len);
        Ok(v1::HistoryResponse { found: true, versions, total })
    }

    pub(super) async fn do_neighbors(
        &self,
        request: v1::NeighborsRequest,
    ) -> Result<v1::NeighborsResponse, ClusterError> {
        let direction = direction_from_wire(request.direction)?;
        let (cid, terms) = (convert::cid(&request.cid)?, self.terms(request.options)?);
        let label = (!request.label.is_empty()).then_some(request.label.as_str());
        let limit = match request.limit as usize {
            0 => ANSWER_NEIGHBORS_MAX,
            limit => limit.min(ANSWER_NEIGHBORS_MAX),
        };
        let from = Place::from_bytes(&request.resume)?;
        let question = Question { node: cid, direction, label };
        let page = self.serving()?.reads.neighbors_page(question, from, limit, terms).await?;
        Ok(v1::NeighborsResponse {
            neighbors: page.neighbors.into_iter().map(neighbor_to_wire).collect(),
            resume: page.resume.as_ref().map(Place::to_bytes).unwrap_or_default(),
        })
    }

    pub(super) async fn do_query(
        &self,
        request: v1::QueryRequest,
    ) -> Result<v1::QueryResponse, ClusterError> {
        let query = request.query.ok_or_else(|| errors::malformed("the query is empty"))?;
        let (query, terms) = (query_from_wire(query)?, self.terms(request.options)?);
        let result = self.serving()?.reads.query(&query, request.limit as usize, terms).await?;
        let neighbors = result.neighbors.into_iter().map(neighbor_to_wire);
        let (neighbors, cut) = fill(neighbors, ANSWER_NEIGHBORS_MAX, Message::encoded_len);
        Ok(v1::QueryResponse {
            entities: result.entities.into_iter().map(entity_to_wire).collect(),
            neighbors,
            cut: cut || result.cut,
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
        let consistency = match convert::known(options.consistency, "consistency")? {
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

/// As many items as one answer holds, at least one; and whether some were left.
fn fill<T>(items: impl Iterator<Item = T>, limit: usize, size: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
    let (mut page, mut bytes) = (Vec::new(), 0_usize);
    for item in items {
        bytes += size(&item);
        if page.len() >= limit || (bytes > ANSWER_BYTES_MAX && !page.is_empty()) {
            return (page, true);
        }
        page.push(item);
    }
    (page, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_what_fits_and_at_least_one_item() {
        let fill = |sizes: &[usize], limit| fill(sizes.iter().copied(), limit, |size| *size);
        let half = ANSWER_BYTES_MAX / 2;
        assert_eq!(fill(&[], 9), (vec![], false));
        assert_eq!(fill(&[1, 2, 3], 3), (vec![1, 2, 3], false));
        assert_eq!(fill(&[1, 2, 3], 2), (vec![1, 2], true));
        assert_eq!(fill(&[half, half, 1], 9), (vec![half, half], true));
        assert_eq!(fill(&[3 * half, 1], 9), (vec![3 * half], true));
    }

    #[test]
    fn a_number_that_means_nothing_is_refused() {
        assert_eq!(convert::known(2, "direction"), Ok(v1::Direction::Both));
        let refused = convert::known::<v1::Direction>(9, "direction").map_err(|error| error.code());
        assert_eq!(refused, Err(ErrorCode::MalformedValue));
    }
}
