//! Reads of partitions this node has no replica of: passed on, once, to a node that has one.

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;

use super::{
    convert, errors,
    neighbors::{NeighborPage, Place, Question},
    reads::{Found, Page, Reads, Terms},
};
use crate::{
    api::{Consistency, Direction, Entity, EntityKind, Neighbor, Query, Version},
    error::{ClusterError, ErrorCode},
    graph::Cid,
    placement::PartitionId,
    raft::Index,
    runtime::{net, tasks},
};

/// The terms of a read for the node it is passed on to.
pub(crate) fn options(partition: PartitionId, terms: Terms) -> v1::ReadOptions {
    let (consistency, min_index) = match terms.consistency {
        Consistency::Strong => (v1::Consistency::Strong, 0),
        Consistency::Session(index) => (v1::Consistency::Session, index),
        Consistency::Eventual => (v1::Consistency::Eventual, 0),
    };
    v1::ReadOptions {
        consistency: consistency.into(),
        min_index,
        partition: Some(partition.0),
        forwarded: true,
    }
}

/// Asks a node that has the partition: `$call` of the service that applications use.
macro_rules! ask {
    ($reads:expr, $partition:expr, $call:ident, $request:expr) => {{
        let (coordinator, request) = (&$reads.coordinator, $request);
        coordinator
            .ask($partition, |address| {
                let (client, request) = (coordinator.channels.cluster(&address), request.clone());
                async move {
                    let mut client = client?;
                    let call = |request| async move { client.$call(request).await };
                    let answer = net::within(coordinator.deadline, request, call).await;
                    answer.map(tonic::Response::into_inner).map_err(|status| errors::of_status(&status))
                }
            })
            .await
    }};
}

pub(super) async fn entity(
    reads: &Reads,
    partition: PartitionId,
    cid: Cid,
    terms: Terms,
) -> Result<Option<Found<Entity>>, ClusterError> {
    let request = v1::GetEntityRequest { cid: cid.to_string(), options: Some(options(partition, terms)) };
    let response = ask!(reads, partition, get_entity, request)?;
    let Some(entity) = response.entity.filter(|_| response.found) else { return Ok(None) };
    let value = entity_from_wire(entity, partition)?;
    Ok(Some(Found { value, partition, index: Index(response.log_index) }))
}

pub(super) async fn block(
    reads: &Reads,
    partition: PartitionId,
    cid: Cid,
    terms: Terms,
) -> Result<Option<Found<Bytes>>, ClusterError> {
    let request = v1::GetBlockRequest { cid: cid.to_string(), options: Some(options(partition, terms)) };
    let response = ask!(reads, partition, get_block, request)?;
    Ok(response.found.then_some(Found { value: response.block, partition, index: Index::ZERO }))
}

pub(super) async fn history(
    reads: &Reads,
    partition: PartitionId,
    cid: Cid,
    terms: Terms,
) -> Result<Option<Found<Vec<Version>>>, ClusterError> {
    let mut request = v1::HistoryRequest {
        cid: cid.to_string(),
        options: Some(options(partition, terms)),
        ..v1::HistoryRequest::default()
    };
    let mut versions = Vec::new();
    loop {
        let response = ask!(reads, partition, history, &request)?;
        if !response.found {
            return Ok(None);
        }
        let last = response.versions.is_empty();
        for version in response.versions {
            versions.push(version_from_wire(version)?);
        }
        request.skip = versions.len() as u64;
        if last || request.skip >= response.total {
            return Ok(Some(Found { value: versions, partition, index: Index::ZERO }));
        }
    }
}

pub(super) async fn neighbors(
    reads: &Reads,
    question: Question<'_>,
    place: &Place,
    limit: usize,
    terms: Terms,
) -> Result<NeighborPage, ClusterError> {
    let partition = place.partition();
    let request = v1::NeighborsRequest {
        cid: question.node.to_string(),
        direction: direction_to_wire(question.direction).into(),
        label: question.label.unwrap_or_default().to_owned(),
        options: Some(options(partition, terms)),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        resume: place.to_bytes(),
    };
    let response = ask!(reads, partition, neighbors, &request)?;
    let neighbors = response.neighbors.into_iter().map(neighbor_from_wire);
    Ok(NeighborPage {
        neighbors: neighbors.collect::<Result<_, _>>()?,
        resume: Place::from_bytes(&response.resume)?,
    })
}

pub(super) async fn search(
    reads: &Reads,
    partition: PartitionId,
    query: &Query,
    limit: usize,
    terms: Terms,
) -> Result<(Vec<Entity>, bool), ClusterError> {
    let request = v1::QueryRequest {
        query: Some(query_to_wire(query)),
        options: Some(options(partition, terms)),
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
    };
    let response = ask!(reads, partition, query, request)?;
    let entities = response.entities.into_iter().map(|entity| entity_from_wire(entity, partition));
    Ok((entities.collect::<Result<_, _>>()?, response.cut))
}

pub(super) async fn page(
    reads: &Reads,
    partition: PartitionId,
    resume: Bytes,
    limit: usize,
    terms: Terms,
) -> Result<Page, ClusterError> {
    let request = v1::ScanRequest {
        partition: partition.0,
        resume,
        limit: u32::try_from(limit).unwrap_or(u32::MAX),
        options: Some(options(partition, terms)),
    };
    let response = ask!(reads, partition, scan, request)?;
    let entities = response.entities.into_iter().map(|entity| entity_from_wire(entity, partition));
    Ok(Page {
        entities: entities.collect::<Result<_, _>>()?,
        resume: (!response.done).then_some(response.resume),
    })
}

// ---------------------------------------------------------------- messages

pub(super) fn entity_to_wire(entity: Entity) -> v1::Entity {
    let mut wire = v1::Entity {
        cid: entity.cid.to_string(),
        version: entity.version.to_string(),
        deleted: entity.deleted,
        properties: convert::properties_to_wire(entity.properties),
        generation: entity.generation,
        ..v1::Entity::default()
    };
    match entity.kind {
        EntityKind::Node { key } => {
            wire.kind = "node".into();
            wire.key = key.unwrap_or_default();
        }
        EntityKind::Edge { label, source, target } => {
            wire.kind = "edge".into();
            wire.label = label;
            wire.source = source.to_string();
            wire.target = target.to_string();
        }
    }
    wire
}

pub(crate) fn entity_from_wire(wire: v1::Entity, partition: PartitionId) -> Result<Entity, ClusterError> {
    let kind = match wire.kind.as_str() {
        "node" => EntityKind::Node { key: (!wire.key.is_empty()).then_some(wire.key) },
        "edge" => EntityKind::Edge {
            label: wire.label,
            source: convert::cid(&wire.source)?,
            target: convert::cid(&wire.target)?,
        },
        other => {
            let what = format!("a node answered with an entity of kind {other:?}");
            return Err(ClusterError::new(ErrorCode::ProtocolVersion, what));
        }
    };
    Ok(Entity {
        cid: convert::cid(&wire.cid)?,
        version: convert::cid(&wire.version)?,
        deleted: wire.deleted,
        generation: wire.generation,
        properties: convert::properties_from_wire(wire.properties)?,
        kind,
        partition,
    })
}

pub(super) fn version_to_wire(version: Version) -> v1::Version {
    v1::Version {
        version: version.version.to_string(),
        deleted: version.deleted,
        generation: version.generation,
        properties: convert::properties_to_wire(version.properties),
        log_index: version.index,
    }
}

fn version_from_wire(wire: v1::Version) -> Result<Version, ClusterError> {
    Ok(Version {
        version: convert::cid(&wire.version)?,
        deleted: wire.deleted,
        generation: wire.generation,
        properties: convert::properties_from_wire(wire.properties)?,
        index: wire.log_index,
    })
}

pub(super) fn neighbor_to_wire(neighbor: Neighbor) -> v1::Neighbor {
    let direction = if neighbor.incoming { v1::Direction::In } else { v1::Direction::Out };
    v1::Neighbor {
        edge: neighbor.edge.to_string(),
        label: neighbor.label,
        direction: direction.into(),
        node: neighbor.node.to_string(),
    }
}

fn neighbor_from_wire(wire: v1::Neighbor) -> Result<Neighbor, ClusterError> {
    Ok(Neighbor {
        incoming: wire.direction() == v1::Direction::In,
        edge: convert::cid(&wire.edge)?,
        label: wire.label,
        node: convert::cid(&wire.node)?,
    })
}

pub(super) fn direction_from_wire(direction: i32) -> Result<Direction, ClusterError> {
    Ok(match convert::known(direction, "direction")? {
        v1::Direction::Out => Direction::Out,
        v1::Direction::In => Direction::In,
        v1::Direction::Both => Direction::Both,
    })
}

fn direction_to_wire(direction: Direction) -> v1::Direction {
    match direction {
        Direction::Out => v1::Direction::Out,
        Direction::In => v1::Direction::In,
        Direction::Both => v1::Direction::Both,
    }
}

pub(super) fn query_from_wire(query: v1::query_request::Query) -> Result<Query, ClusterError> {
    Ok(match query {
        v1::query_request::Query::Get(cid) => Query::Get(convert::cid(&cid)?),
        v1::query_request::Query::ByLabel(label) => Query::ByLabel(label),
        v1::query_request::Query::ByProperty(wanted) => {
            let value = wanted.value.ok_or_else(|| errors::malformed("the query's property has no value"))?;
            Query::ByProperty { name: wanted.name, value: convert::property_from_wire(value)? }
        }
        v1::query_request::Query::Neighbors(request) => Query::Neighbors {
            direction: direction_from_wire(request.direction)?,
            cid: convert::cid(&request.cid)?,
            label: (!request.label.is_empty()).then_some(request.label),
        },
    })
}

fn query_to_wire(query: &Query) -> v1::query_request::Query {
    match query {
        Query::Get(cid) => v1::query_request::Query::Get(cid.to_string()),
        Query::ByLabel(label) => v1::query_request::Query::ByLabel(label.clone()),
        Query::ByProperty { name, value } => v1::query_request::Query::ByProperty(v1::PropertyEquals {
            name: name.clone(),
            value: Some(convert::value_to_wire(value.clone())),
        }),
        Query::Neighbors { cid, direction, label } => {
            v1::query_request::Query::Neighbors(v1::NeighborsRequest {
                cid: cid.to_string(),
                direction: direction_to_wire(*direction).into(),
                label: label.clone().unwrap_or_default(),
                ..v1::NeighborsRequest::default()
            })
        }
    }
}

/// Runs what may read much from the disk where it does not hold up other requests.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ClusterError> + Send + 'static,
) -> Result<T, ClusterError> {
    match tasks::blocking(work).await {
        Ok(result) => result,
        Err(panicked) => Err(ClusterError::new(ErrorCode::Internal, format!("a read failed: {panicked}"))),
    }
}
