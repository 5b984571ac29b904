//! This node's replicas as the graph store holds them.

use std::fmt;

use bytes::Bytes;

use super::local::{Ends, LocalEdge, LocalEntity, LocalKind, LocalPage, LocalReads};
use crate::{
    api::Version,
    error::{ClusterError, ErrorCode},
    graph::{
        Cid,
        read::{self, Detail, EdgeEnds, EdgeRef, Page, PageOf, VersionRecord},
    },
    limits::ANSWER_BYTES_MAX,
    placement::PartitionId,
    storage::graph_store::{GraphStore, StoreError},
};

/// Reads from a graph store.
pub(crate) struct StoredReads<S>(S);

impl<S> fmt::Debug for StoredReads<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredReads")
    }
}

impl<S: GraphStore> StoredReads<S> {
    /// Reads from the store that the applier writes to.
    pub(crate) fn new(store: S) -> Self {
        Self(store)
    }
}

impl<S: GraphStore> LocalReads for StoredReads<S> {
    fn entity(&self, partition: PartitionId, cid: &Cid) -> Result<Option<LocalEntity>, ClusterError> {
        // Several rows make an entity: they must be of one moment.
        let entity = read::entity(&self.0.group_view(partition.group()), partition.group(), *cid)
            .map_err(|error| failed(&error, partition))?;
        Ok(entity.map(LocalEntity::from))
    }

    fn generations(&self, partition: PartitionId, cids: &[Cid]) -> Result<Vec<u64>, ClusterError> {
        // No view: a node's life is one row, and its first block, which is read behind it, never changes.
        let generation = |cid: &Cid| {
            let generation = read::living_generation(&self.0, partition.group(), *cid);
            generation
                .map(|found| found.map_or(0, |generation| generation.0))
                .map_err(|error| failed(&error, partition))
        };
        cids.iter().map(generation).collect()
    }

    fn holds(&self, partition: PartitionId, cid: &Cid) -> Result<bool, ClusterError> {
        read::contains(&self.0, partition.group(), *cid).map_err(|error| failed(&error, partition))
    }

    fn block(&self, partition: PartitionId, cid: &Cid) -> Result<Option<Bytes>, ClusterError> {
        read::block(&self.0, partition.group(), *cid).map_err(|error| failed(&error, partition))
    }

    fn history(&self, partition: PartitionId, cid: &Cid) -> Result<Option<Vec<Version>>, ClusterError> {
        let history = read::history(&self.0.group_view(partition.group()), partition.group(), *cid)
            .map_err(|error| failed(&error, partition))?;
        Ok(history.map(|versions| versions.into_iter().map(Version::from).collect()))
    }

    fn out_edges(
        &self,
        partition: PartitionId,
        node: &Cid,
        label: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError> {
        let edges =
            read::out_edges(&self.0.group_view(partition.group()), partition.group(), *node, label, page);
        edges.map(local_edges).map_err(|error| failed(&error, partition))
    }

    fn in_edges(
        &self,
        partition: PartitionId,
        node: &Cid,
        label: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError> {
        let edges =
            read::in_edges(&self.0.group_view(partition.group()), partition.group(), *node, label, page);
        edges.map(local_edges).map_err(|error| failed(&error, partition))
    }

    fn page(&self, partition: PartitionId, resume: &[u8], limit: usize) -> Result<LocalPage, ClusterError> {
        let after = (!resume.is_empty()).then(|| resume.to_vec());
        let page = Page { after, bytes: ANSWER_BYTES_MAX, ..Page::first(limit) };
        let page = read::living(&self.0.group_view(partition.group()), partition.group(), &page)
            .map_err(|error| failed(&error, partition))?;
        Ok(LocalPage {
            entities: page.items.into_iter().map(LocalEntity::from).collect(),
            resume: page.resume.map(Bytes::from),
        })
    }
}

impl From<read::Entity> for LocalEntity {
    fn from(entity: read::Entity) -> Self {
        Self {
            cid: entity.cid,
            version: entity.version,
            deleted: entity.deleted,
            generation: entity.generation.0,
            properties: entity.properties,
            kind: match entity.detail {
                Detail::Node { key } => LocalKind::Node { key },
                Detail::Edge(ends) => LocalKind::Edge { ends: Ends::from(&ends), label: ends.label },
            },
        }
    }
}

impl From<&EdgeEnds> for Ends {
    fn from(ends: &EdgeEnds) -> Self {
        Self {
            source: ends.source,
            source_generation: ends.source_generation.0,
            target: ends.target,
            target_generation: ends.target_generation.0,
        }
    }
}

impl From<EdgeRef> for LocalEdge {
    fn from(edge: EdgeRef) -> Self {
        Self { cid: edge.edge, ends: Ends::from(&edge.ends), label: edge.ends.label }
    }
}

impl From<VersionRecord> for Version {
    fn from(record: VersionRecord) -> Self {
        Self {
            version: record.version,
            deleted: record.deleted,
            generation: record.generation.0,
            properties: record.properties,
            index: record.index.0,
        }
    }
}

/// A node's edges, unless they are more than a read looks at.
fn local_edges(page: PageOf<EdgeRef>) -> PageOf<LocalEdge> {
    PageOf { items: page.items.into_iter().map(LocalEdge::from).collect(), resume: page.resume }
}

fn failed(error: &StoreError, partition: PartitionId) -> ClusterError {
    let code = match error {
        StoreError::Io { .. } => ErrorCode::DiskFailed,
        StoreError::Full { .. } => ErrorCode::DiskFull,
        StoreError::Damaged(_) => ErrorCode::DataDirDamaged,
        StoreError::NoState(_) => ErrorCode::Unavailable,
    };
    ClusterError::new(code, format!("partition {} cannot be read on this node: {error}", partition.0))
}
