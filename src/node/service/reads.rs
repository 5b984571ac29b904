//! Reads of the graph, whichever nodes hold what is asked for.
//!
//! Where this node has a replica it answers from its own state, once that is as fresh as the caller
//! wants ([`Barriers`](crate::node::coordinator::Barriers)); else it passes the question on to a
//! node that has one, once. An edge is visible only while both its ends live the lives it was
//! created in, so the ends are looked up as well, batched by partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    local::{Ends, LocalEdge, LocalEntity, LocalKind},
    neighbors::Question,
    remote::{self, blocking},
};
use crate::{
    api::{Consistency, Entity, EntityKind, Query, QueryResult, Version},
    error::{ClusterError, ErrorCode},
    graph::{Cid, Properties},
    limits::{ANSWER_BYTES_MAX, ANSWER_ENTITIES_MAX, ANSWER_NEIGHBORS_MAX},
    node::coordinator::Coordinator,
    placement::PartitionId,
    raft::Index,
    runtime::tasks::JoinSet,
};

/// Entities read from a store at a time by a query.
const PAGE_ENTITIES: usize = 512;

/// How a read is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) consistency: Consistency,
    /// Where the entity is, if the caller knows.
    pub(crate) partition: Option<PartitionId>,
    /// The request was passed on by another node, and is not passed on again.
    pub(crate) forwarded: bool,
}

impl Terms {
    /// The same for a partition that the session's index is not of.
    pub(super) fn elsewhere(self) -> Self {
        match self.consistency {
            Consistency::Session(_) => Self { consistency: Consistency::Eventual, ..self },
            Consistency::Strong | Consistency::Eventual => self,
        }
    }
}

/// Something found, and the index it was read at.
#[derive(Clone, Debug)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) partition: PartitionId,
    pub(crate) index: Index,
}

/// A part of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) entities: Vec<Entity>,
    pub(crate) resume: Option<Bytes>,
}

/// Reads of the graph.
#[derive(Clone, Debug)]
pub(crate) struct Reads {
    pub(super) coordinator: Arc<Coordinator>,
}

impl Reads {
    pub(crate) fn new(coordinator: Arc<Coordinator>) -> Self {
        Self { coordinator }
    }

    /// An entity by its identity.
    pub(crate) async fn entity(&self, cid: Cid, terms: Terms) -> Result<Option<Found<Entity>>, ClusterError> {
        let first = self.first_place(&cid, terms).await?;
        if let Some(found) = self.entity_in(first, cid, terms).await? {
            return Ok(Some(found));
        }
        match self.other_place(cid, first, terms).await? {
            Some(partition) => self.entity_in(partition, cid, terms).await,
            None => Ok(None),
        }
    }

    /// The bytes of a block.
    pub(crate) async fn block(&self, cid: Cid, terms: Terms) -> Result<Option<Found<Bytes>>, ClusterError> {
        let first = self.first_place(&cid, terms).await?;
        if let Some(found) = self.block_in(first, cid, terms).await? {
            return Ok(Some(found));
        }
        match self.other_place(cid, first, terms).await? {
            Some(partition) => self.block_in(partition, cid, terms).await,
            None => Ok(None),
        }
    }

    /// All versions of an entity, oldest first.
    pub(crate) async fn history(
        &self,
        cid: Cid,
        terms: Terms,
    ) -> Result<Option<Found<Vec<Version>>>, ClusterError> {
        let first = self.first_place(&cid, terms).await?;
        if let Some(found) = self.history_in(first, cid, terms).await? {
            return Ok(Some(found));
        }
        match self.other_place(cid, first, terms).await? {
            Some(partition) => self.history_in(partition, cid, terms).await,
            None => Ok(None),
        }
    }

    /// Whatever a query asks for, at most `limit` entities of it (0: as many as one answer may have).
    pub(crate) async fn query(
        &self,
        query: &Query,
        limit: usize,
        terms: Terms,
    ) -> Result<QueryResult, ClusterError> {
        match query {
            Query::Get(cid) => {
                let found = self.entity(*cid, terms).await?;
                Ok(QueryResult {
                    entities: found.map(|found| found.value).into_iter().collect(),
                    ..QueryResult::default()
                })
            }
            Query::Neighbors { cid, direction, label } => {
                let question = Question { node: *cid, direction: *direction, label: label.as_deref() };
                let limit = match limit {
                    0 => ANSWER_NEIGHBORS_MAX,
                    limit => limit.min(ANSWER_NEIGHBORS_MAX),
                };
                let (neighbors, cut) = self.first_neighbors(question, limit, terms).await?;
                Ok(QueryResult { neighbors, cut, ..QueryResult::default() })
            }
            Query::ByLabel(_) => self.search(query, limit, terms).await,
            Query::ByProperty { value, .. } => {
                value.check()?;
                self.search(query, limit, terms).await
            }
        }
    }

    /// The visible entities of one partition, page by page.
    pub(crate) async fn page(
        &self,
        partition: PartitionId,
        resume: Bytes,
        limit: usize,
        terms: Terms,
    ) -> Result<Page, ClusterError> {
        let limit = if limit == 0 { PAGE_ENTITIES } else { limit.min(ANSWER_ENTITIES_MAX) };
        if self.answers_here(partition, terms)? {
            self.freshen(partition, terms).await?;
            return self.local_page(partition, resume, limit, terms).await;
        }
        remote::page(self, partition, resume, limit, terms).await
    }

    /// Generations of nodes of one partition; 0 for one that does not live.
    pub(crate) async fn generations(
        &self,
        partition: PartitionId,
        cids: &[Cid],
        terms: Terms,
    ) -> Result<Vec<u64>, ClusterError> {
        if self.answers_here(partition, terms)? {
            self.freshen(partition, terms).await?;
            return self.coordinator.reads.generations(partition, cids);
        }
        self.coordinator.lookup(partition, cids, remote::options(partition, terms)).await
    }

    // ------------------------------------------------------------ where

    /// The partition of a node with this identity.
    pub(crate) fn home(&self, cid: &Cid) -> PartitionId {
        self.coordinator.routing.meta().map.partition_of(&cid.to_bytes())
    }

    /// Whether this node can answer for a partition; an error where it must and cannot.
    pub(super) fn answers_here(&self, partition: PartitionId, terms: Terms) -> Result<bool, ClusterError> {
        let here = self.coordinator.routing.is_here(partition.group());
        if here || !terms.forwarded {
            return Ok(here);
        }
        let what = match self.coordinator.routing.fault(partition.group()) {
            Some(fault) => fault.what(),
            None => format!("the node asked has no replica of partition {}", partition.0),
        };
        // Another node may have one.
        Err(ClusterError::new(ErrorCode::Unavailable, what))
    }

    /// Where to look first: where the caller says, or where the CID belongs if it is a node's.
    async fn first_place(&self, cid: &Cid, terms: Terms) -> Result<PartitionId, ClusterError> {
        if let Some(known) = terms.partition.or_else(|| self.coordinator.locations.get(cid)) {
            return Ok(known);
        }
        let home = self.home(cid);
        if terms.forwarded || !matches!(terms.consistency, Consistency::Session(_)) {
            return Ok(home);
        }
        // The session's index is of the partition that holds the entity: in another one it would be
        // waited for in vain.
        if self.coordinator.routing.is_here(home.group()) && self.coordinator.reads.holds(home, cid)? {
            return Ok(home);
        }
        let found = match self.coordinator.locate_here(cid)? {
            Some(found) => Some(found),
            None => self.coordinator.locate(*cid).await?,
        };
        Ok(found.unwrap_or(home))
    }

    /// Where else it is: edges and versions may be anywhere.
    async fn other_place(
        &self,
        cid: Cid,
        first: PartitionId,
        terms: Terms,
    ) -> Result<Option<PartitionId>, ClusterError> {
        if terms.forwarded {
            return Ok(None);
        }
        let found = match terms.consistency {
            Consistency::Strong => self.coordinator.locate(cid).await?,
            // Nothing is waited for: what this node does not hold yet, it has not heard of.
            Consistency::Session(_) | Consistency::Eventual => self.coordinator.locate_here(&cid)?,
        };
        Ok(found.filter(|partition| *partition != first))
    }

    // ------------------------------------------------------------ how fresh

    /// Returns, with the index, once this node's replica is as fresh as the terms say.
    pub(super) async fn freshen(&self, partition: PartitionId, terms: Terms) -> Result<Index, ClusterError> {
        let barriers = &self.coordinator.barriers;
        match terms.consistency {
            Consistency::Strong => barriers.fresh(partition).await,
            Consistency::Session(index) => barriers.applied(partition, Index(index)).await,
            Consistency::Eventual => {
                let hint = self.coordinator.handle.hint(partition.group());
                Ok(hint.map_or(Index::ZERO, |hint| hint.applied()))
            }
        }
    }

    /// The same for several partitions at once. A session's index is one partition's: the others
    /// are read as they are.
    pub(super) async fn freshen_those_here(
        &self,
        partitions: impl Iterator<Item = PartitionId>,
        terms: Terms,
    ) -> Result<(), ClusterError> {
        let here = |partition: &PartitionId| self.coordinator.routing.is_here(partition.group());
        self.freshen_all(partitions.filter(here).collect(), terms).await
    }

    async fn freshen_all(&self, partitions: BTreeSet<PartitionId>, terms: Terms) -> Result<(), ClusterError> {
        if terms.consistency != Consistency::Strong {
            return Ok(());
        }
        let mut waiting = JoinSet::new();
        for partition in partitions {
            let barriers = Arc::clone(&self.coordinator.barriers);
            waiting.spawn(async move { barriers.fresh(partition).await });
        }
        while let Some(answer) = waiting.join_next().await {
            answer.map_err(|panicked| ClusterError::new(ErrorCode::Internal, panicked.to_string()))??;
        }
        Ok(())
    }

    // ------------------------------------------------------------ one partition

    async fn entity_in(
        &self,
        partition: PartitionId,
        cid: Cid,
        terms: Terms,
    ) -> Result<Option<Found<Entity>>, ClusterError> {
        if !self.answers_here(partition, terms)? {
            return remote::entity(self, partition, cid, terms).await;
        }
        let index = self.freshen(partition, terms).await?;
        let Some(entity) = self.coordinator.reads.entity(partition, &cid)? else { return Ok(None) };
        let value = self.shown(partition, vec![entity], terms).await?.pop();
        Ok(value.map(|value| Found { value, partition, index }))
    }

    async fn block_in(
        &self,
        partition: PartitionId,
        cid: Cid,
        terms: Terms,
    ) -> Result<Option<Found<Bytes>>, ClusterError> {
        if !self.answers_here(partition, terms)? {
            return remote::block(self, partition, cid, terms).await;
        }
        let index = self.freshen(partition, terms).await?;
        let block = self.coordinator.reads.block(partition, &cid)?;
        Ok(block.map(|value| Found { value, partition, index }))
    }

    async fn history_in(
        &self,
        partition: PartitionId,
        cid: Cid,
        terms: Terms,
    ) -> Result<Option<Found<Vec<Version>>>, ClusterError> {
        if !self.answers_here(partition, terms)? {
            return remote::history(self, partition, cid, terms).await;
        }
        let index = self.freshen(partition, terms).await?;
        let history = self.coordinator.reads.history(partition, &cid)?;
        Ok(history.map(|value| Found { value, partition, index }))
    }

    async fn local_page(
        &self,
        partition: PartitionId,
        resume: Bytes,
        limit: usize,
        terms: Terms,
    ) -> Result<Page, ClusterError> {
        let reads = Arc::clone(&self.coordinator.reads);
        let page = blocking(move || reads.page(partition, &resume, limit)).await?;
        let mut entities = self.shown(partition, page.entities, terms).await?;
        entities.retain(|entity| !entity.deleted);
        Ok(Page { entities, resume: page.resume })
    }

    // ------------------------------------------------------------ all partitions

    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        self.coordinator.routing.partitions()
    }

    /// The partitions a read of everything concerns: those with a replica here, and the others.
    fn all_partitions(
        &self,
        terms: Terms,
    ) -> Result<(BTreeSet<PartitionId>, Vec<PartitionId>), ClusterError> {
        if let Some(partition) = terms.partition.filter(|_| terms.forwarded) {
            self.answers_here(partition, terms)?;
            return Ok((BTreeSet::from([partition]), Vec::new()));
        }
        let routing = &self.coordinator.routing;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            routing.partitions().partition(|partition| routing.is_here(partition.group()));
        Ok((here.into_iter().collect(), elsewhere))
    }

    async fn search(&self, query: &Query, limit: usize, terms: Terms) -> Result<QueryResult, ClusterError> {
        let limit = if limit == 0 { ANSWER_ENTITIES_MAX } else { limit.min(ANSWER_ENTITIES_MAX) };
        let (here, elsewhere) = self.all_partitions(terms)?;
        self.freshen_all(here.clone(), terms).await?;
        let mut found = Matches::at_most(limit);
        for partition in here {
            if found.cut {
                break;
            }
            found.extend(self.search_here(partition, query, found.room(), terms).await?);
        }
        for partition in elsewhere {
            if found.cut {
                break;
            }
            let (entities, cut) =
                remote::search(self, partition, query, found.room().entities, terms).await?;
            found.extend(entities);
            found.cut |= cut;
        }
        Ok(QueryResult { entities: found.entities, neighbors: Vec::new(), cut: found.cut })
    }

    async fn search_here(
        &self,
        partition: PartitionId,
        query: &Query,
        room: Room,
        terms: Terms,
    ) -> Result<Vec<Entity>, ClusterError> {
        let mut found: BTreeMap<Cid, Entity> = BTreeMap::new();
        let mut bytes = 0;
        let mut resume = Bytes::new();
        loop {
            let page = self.local_page(partition, resume, PAGE_ENTITIES, terms).await?;
            for entity in page.entities.into_iter().filter(|entity| matches(query, entity)) {
                if let EntityKind::Edge { source, .. } = &entity.kind
                    && matches!(query, Query::ByLabel(_))
                    && !found.contains_key(source)
                    && let Some(node) = self.coordinator.reads.entity(partition, source)?
                {
                    found.extend(
                        self.shown(partition, vec![node], terms)
                            .await?
                            .into_iter()
                            .map(|node| (node.cid, node)),
                    );
                }
                bytes += weight(&entity);
                found.insert(entity.cid, entity);
            }
            match page.resume {
                Some(next) if found.len() < room.entities && bytes < room.bytes => resume = next,
                Some(_) | None => break,
            }
        }
        Ok(found.into_values().collect())
    }

    // ------------------------------------------------------------ what is visible

    pub(super) async fn visible_edges(
        &self,
        edges: Vec<LocalEdge>,
        terms: Terms,
    ) -> Result<Vec<LocalEdge>, ClusterError> {
        let ends: Vec<Ends> = edges.iter().map(|edge| edge.ends).collect();
        let lives = self.ends_live(&ends, terms).await?;
        Ok(edges.into_iter().zip(lives).filter_map(|(edge, lives)| lives.then_some(edge)).collect())
    }

    /// Entities as callers see them: an edge whose ends do not live as it knew them is deleted.
    async fn shown(
        &self,
        partition: PartitionId,
        entities: Vec<LocalEntity>,
        terms: Terms,
    ) -> Result<Vec<Entity>, ClusterError> {
        let ends: Vec<Ends> = entities.iter().filter_map(LocalEntity::ends).collect();
        let mut lives = self.ends_live(&ends, terms).await?.into_iter();
        let show = |entity: LocalEntity| {
            let dangling = entity.ends().is_some() && !lives.next().unwrap_or(false);
            Entity {
                cid: entity.cid,
                version: entity.version,
                deleted: entity.deleted || dangling,
                generation: entity.generation,
                properties: if dangling { Properties::new() } else { entity.properties },
                kind: entity.kind.into(),
                partition,
            }
        };
        Ok(entities.into_iter().map(show).collect())
    }

    /// For each pair of ends whether both live the lives named.
    async fn ends_live(&self, ends: &[Ends], terms: Terms) -> Result<Vec<bool>, ClusterError> {
        let mut wanted: BTreeMap<PartitionId, BTreeSet<Cid>> = BTreeMap::new();
        for cid in ends.iter().flat_map(|ends| [ends.source, ends.target]) {
            wanted.entry(self.home(&cid)).or_default().insert(cid);
        }
        self.freshen_those_here(wanted.keys().copied(), terms).await?;
        let terms = terms.elsewhere();
        let mut generations: BTreeMap<Cid, u64> = BTreeMap::new();
        for (partition, cids) in wanted {
            let cids: Vec<Cid> = cids.into_iter().collect();
            let found = if self.coordinator.routing.is_here(partition.group()) {
                self.coordinator.reads.generations(partition, &cids)?
            } else {
                // Looking ends up is a question of its own: it may be asked while answering one
                // that was passed on, and is itself never passed on.
                self.coordinator.lookup(partition, &cids, remote::options(partition, terms)).await?
            };
            generations.extend(cids.into_iter().zip(found));
        }
        let lives = |cid: &Cid, generation: u64| generations.get(cid) == Some(&generation);
        Ok(ends
            .iter()
            .map(|ends| {
                lives(&ends.source, ends.source_generation) && lives(&ends.target, ends.target_generation)
            })
            .collect())
    }
}

/// What a search may still find: one entity more than it returns, to know whether it is cut.
#[derive(Clone, Copy, Debug)]
struct Room {
    entities: usize,
    bytes: usize,
}

/// What a search found.
#[derive(Debug)]
struct Matches {
    entities: Vec<Entity>,
    limit: usize,
    bytes: usize,
    cut: bool,
}

impl Matches {
    fn at_most(limit: usize) -> Self {
        Self { entities: Vec::new(), limit, bytes: 0, cut: false }
    }

    fn room(&self) -> Room {
        Room {
            entities: self.limit + 1 - self.entities.len(),
            bytes: ANSWER_BYTES_MAX.saturating_sub(self.bytes),
        }
    }

    /// Takes in as many as the answer holds; one is always held.
    fn extend(&mut self, found: Vec<Entity>) {
        for entity in found {
            let bytes = self.bytes + weight(&entity);
            let full =
                self.entities.len() >= self.limit || (bytes > ANSWER_BYTES_MAX && !self.entities.is_empty());
            if self.cut || full {
                self.cut = true;
                return;
            }
            self.bytes = bytes;
            self.entities.push(entity);
        }
    }
}

/// Bytes that an entity's properties take in a message, about.
fn weight(entity: &Entity) -> usize {
    entity.properties.iter().map(|(name, value)| name.len() + value.size()).sum()
}

impl LocalEntity {
    fn ends(&self) -> Option<Ends> {
        match &self.kind {
            LocalKind::Edge { ends, .. } => Some(*ends),
            LocalKind::Node { .. } => None,
        }
    }
}

impl From<LocalKind> for EntityKind {
    fn from(kind: LocalKind) -> Self {
        match kind {
            LocalKind::Node { key } => Self::Node { key },
            LocalKind::Edge { label, ends } => Self::Edge { label, source: ends.source, target: ends.target },
        }
    }
}

fn matches(query: &Query, entity: &Entity) -> bool {
    match query {
        Query::ByLabel(wanted) => matches!(&entity.kind, EntityKind::Edge { label, .. } if label == wanted),
        Query::ByProperty { name, value } => entity.properties.get(name) == Some(value),
        Query::Get(cid) => entity.cid == *cid,
        Query::Neighbors { .. } => false,
    }
}
