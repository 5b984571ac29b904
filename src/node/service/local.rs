//! What this node's own replicas say, at whatever index they are.
//!
//! The boundary to the graph store: everything above it speaks of partitions and entities, and
//! decides itself how fresh a replica must be before it is asked.

use bytes::Bytes;

use crate::{
    error::ClusterError,
    graph::{
        Cid, Properties,
        read::{Page, PageOf},
    },
    placement::PartitionId,
};

/// Reads of this node's replicas. Point reads take microseconds; the others may read much and are
/// called where blocking is allowed.
pub(crate) trait LocalReads: std::fmt::Debug + Send + Sync + 'static {
    /// The current version of an entity by its identity, deleted or not.
    fn entity(&self, partition: PartitionId, cid: &Cid) -> Result<Option<LocalEntity>, ClusterError>;
    /// Generations of nodes; 0 for one that does not live.
    fn generations(&self, partition: PartitionId, cids: &[Cid]) -> Result<Vec<u64>, ClusterError>;
    /// Whether the partition holds a block or entity with this CID.
    fn holds(&self, partition: PartitionId, cid: &Cid) -> Result<bool, ClusterError>;
    /// The bytes of a block.
    fn block(&self, partition: PartitionId, cid: &Cid) -> Result<Option<Bytes>, ClusterError>;
    /// All versions of an entity, oldest first; `None` where there is no such entity.
    fn history(
        &self,
        partition: PartitionId,
        cid: &Cid,
    ) -> Result<Option<Vec<crate::api::Version>>, ClusterError>;
    /// A page of the undeleted edges that leave a node, whatever became of their ends.
    fn out_edges(
        &self,
        partition: PartitionId,
        node: &Cid,
        label: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError>;
    /// A page of the undeleted edges of this partition that enter a node, whatever became of their ends.
    fn in_edges(
        &self,
        partition: PartitionId,
        node: &Cid,
        label: Option<&str>,
        page: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError>;
    /// Undeleted entities in order of their keys, from behind `resume` on.
    fn page(&self, partition: PartitionId, resume: &[u8], limit: usize) -> Result<LocalPage, ClusterError>;
}

/// An entity as its partition holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocalEntity {
    pub(crate) cid: Cid,
    pub(crate) version: Cid,
    pub(crate) deleted: bool,
    pub(crate) generation: u64,
    pub(crate) properties: Properties,
    pub(crate) kind: LocalKind,
}

/// What only one kind of entity has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LocalKind {
    Node { key: Option<String> },
    Edge { label: String, ends: Ends },
}

/// The two ends of an edge and the lives of theirs it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) source: Cid,
    pub(crate) source_generation: u64,
    pub(crate) target: Cid,
    pub(crate) target_generation: u64,
}

/// An edge, without its properties.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocalEdge {
    pub(crate) cid: Cid,
    pub(crate) label: String,
    pub(crate) ends: Ends,
}

/// A part of a partition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LocalPage {
    pub(crate) entities: Vec<LocalEntity>,
    /// Where the next page begins; `None` after the last one.
    pub(crate) resume: Option<Bytes>,
}
