//! What can be asked of the graph, and how the answers look.

use crate::{
    graph::{Cid, Properties, Value},
    placement::PartitionId,
};

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Linearizable: includes everything that was acknowledged before the question.
    #[default]
    Strong,
    /// Includes at least this index of the partition's log (receipts tell it), from any replica: a
    /// client reads its own writes.
    Session(u64),
    /// Whatever the asked node has. It may not have heard of what exists; over the wire the answer tells
    /// the index.
    Eventual,
}

/// A node or an edge in its current version.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Its identity: the CID of its first version.
    pub cid: Cid,
    /// The CID of this version.
    pub version: Cid,
    /// It was deleted, or is an edge one of whose ends was.
    pub deleted: bool,
    /// Its life: 1 when first created, one more with each creation after a deletion.
    pub generation: u64,
    /// Its properties; none where it is deleted.
    pub properties: Properties,
    /// Whether it is a node or an edge, and what only that kind has.
    pub kind: EntityKind,
    /// The partition it lives in.
    pub partition: PartitionId,
}

/// What only one kind of entity has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityKind {
    /// A node.
    Node {
        /// The key it was created with, if any.
        key: Option<String>,
    },
    /// An edge.
    Edge {
        /// What it means.
        label: String,
        /// The node it leaves.
        source: Cid,
        /// The node it enters.
        target: Cid,
    },
}

/// Which edges of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Direction {
    /// Those that leave it.
    #[default]
    Out,
    /// Those that enter it.
    In,
    /// All of them.
    Both,
}

/// A node at the other end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Neighbor {
    /// The edge.
    pub edge: Cid,
    /// The edge's label.
    pub label: String,
    /// Whether the edge enters the node that was asked about, or else leaves it.
    pub incoming: bool,
    /// The node at the other end.
    pub node: Cid,
}

/// One version of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct Version {
    /// The CID of the version's block.
    pub version: Cid,
    /// It is the end of a life.
    pub deleted: bool,
    /// The life it belongs to.
    pub generation: u64,
    /// All properties as of this version.
    pub properties: Properties,
    /// Where in the partition's log the operation stands that made it.
    pub index: u64,
}

/// A question. Those that name no entity are answered by reading every partition: they take time
/// in proportion to the graph.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// One entity.
    Get(Cid),
    /// The edges with this label, and the nodes they leave.
    ByLabel(String),
    /// The nodes and edges that have this property with this value.
    ByProperty {
        /// The property.
        name: String,
        /// Its value.
        value: Value,
    },
    /// The nodes at the other ends of a node's edges.
    Neighbors {
        /// The node.
        cid: Cid,
        /// Which edges.
        direction: Direction,
        /// Only edges with this label.
        label: Option<String>,
    },
}

/// A question and where it is answered. (Strong consistency in both cases.)
#[derive(Clone, Debug, PartialEq)]
pub enum DistributedQuery {
    /// In the partition of the entity that the query names: [`Query::Get`] of a node, or the
    /// outgoing [`Query::Neighbors`] of one.
    SinglePartition {
        /// The question.
        query: Query,
    },
    /// In all partitions.
    MultiPartition {
        /// The question.
        query: Query,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// The nodes and edges found.
    pub entities: Vec<Entity>,
    /// The neighbours found.
    pub neighbors: Vec<Neighbor>,
    /// Whether more was found than one answer holds
    /// ([`ANSWER_ENTITIES_MAX`](crate::limits::ANSWER_ENTITIES_MAX),
    /// [`ANSWER_BYTES_MAX`](crate::limits::ANSWER_BYTES_MAX)).
    pub cut: bool,
}

impl QueryResult {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty() && self.neighbors.is_empty()
    }
}
