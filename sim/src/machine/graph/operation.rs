//! What clients ask of a graph, in small numbers instead of CIDs.
//!
//! Nodes are numbered; a node's first block is always the same, so that creating it again after its
//! deletion begins its next life, and its CID is known beforehand. An edge is named by the life of
//! its source in which it was created. Clients do not know lives; they guess.

use std::{collections::BTreeMap, sync::LazyLock};

use bytes::Bytes;
use kotoba_db_cluster::graph::{self, Cid, EdgeBlock, Generation, NodeBlock, OperationDetails};
use serde::{Deserialize, Serialize};

use crate::choice::{Chooser, Topic};

/// Nodes there are: few, so that clients meet.
const NODES: u64 = 6;
/// Properties an entity may have.
const PROPERTIES: u64 = 3;
/// The last life of a source that clients guess.
const LIVES: u64 = 6;

const LABEL: &str = "knows";

/// A node or an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Entity {
    /// A node.
    Node(u64),
    /// An edge.
    Edge {
        /// The node it leaves.
        source: u64,
        /// The life of the source in which it was created; the first is 1.
        life: u64,
        /// The node it enters.
        target: u64,
    },
}

/// What can be asked of a graph. Every value that is written differs from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphOperation {
    /// Create a node, or give a deleted one its next life.
    CreateNode {
        /// Which.
        node: u64,
    },
    /// Create an edge in the current life of its source.
    CreateEdge {
        /// The node it leaves.
        source: u64,
        /// The node it enters.
        target: u64,
    },
    /// Set a property.
    Update {
        /// Of what.
        entity: Entity,
        /// Which.
        property: u64,
        /// Its new value.
        value: u64,
    },
    /// End a life.
    Delete {
        /// Whose.
        entity: Entity,
    },
    /// Read an entity as it is.
    Read {
        /// Which.
        entity: Entity,
    },
    /// Read all versions of an entity.
    History {
        /// Which.
        entity: Entity,
    },
    /// Read the edges that leave a node.
    Neighbors {
        /// The node.
        node: u64,
    },
}

/// What a graph answers. A version's CID stands for all that happened to its entity before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GraphAnswer {
    /// It was done, or was so already: the entity's current version.
    Version(Cid),
    /// It was refused.
    Refused(Refusal),
    /// The entity; `None` where there never was one.
    Found(Option<Found>),
    /// All versions of the entity, oldest first; none where there never was one.
    Versions(Vec<Cid>),
    /// The edges, by the number of the node they enter.
    Neighbors(Vec<Neighbor>),
}

/// Why a change was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// There never was such an entity.
    NotFound,
    /// Its life is over, or its source's.
    Deleted,
    /// The source of a new edge never was.
    SourceMissing,
    /// The source of a new edge is deleted.
    SourceDeleted,
    /// A refusal that nothing asked here can deserve: its code in the product.
    Undeserved {
        /// See `GraphError::code`.
        code: u8,
    },
}

/// An entity as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its current version.
    pub version: Cid,
    /// Counts its lives.
    pub life: u64,
    /// Whether that life is over.
    pub deleted: bool,
    /// Its properties, as the product prints them.
    pub properties: BTreeMap<String, String>,
}

/// An edge that leaves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbor {
    /// The node it enters; `None`: one that nobody created.
    pub target: Option<u64>,
    /// The edge's identity.
    pub edge: Cid,
}

impl GraphOperation {
    /// See [`Machine::draw`](crate::machine::Machine::draw).
    pub(super) fn draw(choices: &mut Chooser, client: u32, serial: u64) -> Self {
        let mut below = |bound| choices.below(Topic::Client, client, bound);
        let (kind, node) = (below(16), below(NODES));
        let mut edge = || Entity::Edge { source: node, life: 1 + below(LIVES), target: below(NODES) };
        match kind {
            0 | 1 => Self::CreateNode { node },
            2..=5 => Self::Update { entity: Entity::Node(node), property: below(PROPERTIES), value: serial },
            6 => {
                let entity = edge();
                Self::Update { entity, property: below(PROPERTIES), value: serial }
            }
            7 | 8 => Self::CreateEdge { source: node, target: below(NODES) },
            9 => Self::Delete { entity: Entity::Node(node) },
            10 => Self::Delete { entity: edge() },
            11 | 12 => Self::Read { entity: Entity::Node(node) },
            13 => Self::Read { entity: edge() },
            14 => Self::Neighbors { node },
            // Mostly of edges: a node's history grows with the run.
            _ if below(8) == 7 => Self::History { entity: Entity::Node(node) },
            _ => {
                let edge = Entity::Edge { source: node, life: 1 + below(LIVES), target: below(NODES) };
                Self::History { entity: edge }
            }
        }
    }

    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::History { .. } | Self::Neighbors { .. })
    }

    /// The node whose life decides: edges live with their source.
    pub(super) fn key(&self) -> u64 {
        match *self {
            Self::CreateNode { node } | Self::Neighbors { node } => node,
            Self::CreateEdge { source, .. } => source,
            Self::Update { entity, .. }
            | Self::Delete { entity }
            | Self::Read { entity }
            | Self::History { entity } => match entity {
                Entity::Node(node) => node,
                Entity::Edge { source, .. } => source,
            },
        }
    }

    /// The change as the product's log holds it; `None` for a read.
    pub(super) fn canonical(&self) -> Option<graph::GraphOperation> {
        let (operation, details) = match *self {
            Self::CreateNode { node } => {
                return Some(graph::GraphOperation::CreateNode { block: identity(node).block.clone() });
            }
            Self::Delete { entity: entity @ Entity::Node(_) } => {
                return Some(graph::GraphOperation::DeleteNode { cid: entity.cid() });
            }
            Self::Delete { entity: entity @ Entity::Edge { .. } } => {
                (graph::Operation::DeleteEdge { cid: entity.cid() }, in_first_life())
            }
            Self::CreateEdge { source, target } => {
                let operation = graph::Operation::CreateEdge {
                    source_cid: identity(source).cid,
                    target_cid: identity(target).cid,
                    label: LABEL.to_owned(),
                    properties: [].into(),
                };
                (operation, in_first_life())
            }
            Self::Update { entity, property, value } => {
                let (cid, properties) = (entity.cid(), [(name(property), number(value))].into());
                match entity {
                    Entity::Node(_) => {
                        (graph::Operation::UpdateNode { cid, properties }, OperationDetails::default())
                    }
                    Entity::Edge { .. } => {
                        (graph::Operation::UpdateEdge { cid, properties }, in_first_life())
                    }
                }
            }
            Self::Read { .. } | Self::History { .. } | Self::Neighbors { .. } => return None,
        };
        Some(graph::GraphOperation::new(operation, details).expect("operations drawn here are valid"))
    }
}

impl Entity {
    /// The CID of its first block.
    pub(super) fn cid(self) -> Cid {
        match self {
            Self::Node(node) => identity(node).cid,
            Self::Edge { source, life, target } => {
                let block = EdgeBlock {
                    label: LABEL.to_owned(),
                    source: identity(source).cid,
                    target: identity(target).cid,
                    source_generation: Generation(life),
                    target_generation: Generation::FIRST,
                    properties: graph::Properties::new(),
                };
                Cid::of(&block.encode().expect("an edge without properties has a block"))
            }
        }
    }
}

/// Edges of one partition's machine take their target to be in its first life: targets are other
/// partitions' matter.
fn in_first_life() -> OperationDetails {
    OperationDetails { target_generation: Some(Generation::FIRST), ..OperationDetails::default() }
}

/// A property's name.
pub(super) fn name(property: u64) -> String {
    format!("p{property}")
}

/// A property's value.
pub(super) fn number(value: u64) -> graph::Value {
    graph::Value::Int(i64::try_from(value).expect("serials are small"))
}

struct Identity {
    block: Bytes,
    cid: Cid,
}

fn identity(node: u64) -> &'static Identity {
    static IDENTITIES: LazyLock<Vec<Identity>> = LazyLock::new(|| {
        let identity = |node| {
            let key = Some(format!("node {node}"));
            let block = NodeBlock { key, properties: graph::Properties::new() };
            let block = block.encode().expect("a node without properties has a block");
            Identity { cid: Cid::of(&block), block }
        };
        (0..NODES).map(identity).collect()
    });
    &IDENTITIES[usize::try_from(node).expect("nodes are few")]
}

/// The node of a CID.
pub(super) fn node_of(cid: Cid) -> Option<u64> {
    (0..NODES).find(|&node| identity(node).cid == cid)
}
