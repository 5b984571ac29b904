//! What a client asks for, and the canonical form of it that enters the log.
//!
//! [`Operation`] is the specification's type: easy to write, unordered, unchecked. A coordinator turns it
//! into a [`GraphOperation`], which is sorted, checked against every limit and complete: applying it needs
//! nothing but the partition's state.

#![allow(
    clippy::disallowed_types,
    reason = "the specification gives properties as a HashMap; they are sorted at once"
)]

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;

use crate::{
    graph::{
        Cid, Generation, Properties, Value,
        block::NodeBlock,
        value::{ValueError, canonical_properties},
    },
    limits::{CLIENT_ID_BYTES_MAX, LABEL_BYTES_MAX, OPERATION_BYTES_MAX},
};

/// A change of the graph, as a client writes it.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Creates a node.
    CreateNode {
        /// Its properties.
        properties: HashMap<String, Value>,
    },
    /// Replaces the named properties of a node; the others stay.
    UpdateNode {
        /// The node's identity.
        cid: Cid,
        /// The properties to replace or add.
        properties: HashMap<String, Value>,
    },
    /// Deletes a node. Its edges become invisible with it.
    DeleteNode {
        /// The node's identity.
        cid: Cid,
    },
    /// Creates an edge between two living nodes.
    CreateEdge {
        /// The node it leaves.
        source_cid: Cid,
        /// The node it enters.
        target_cid: Cid,
        /// What the edge means. Not empty.
        label: String,
        /// Its properties.
        properties: HashMap<String, Value>,
    },
    /// Replaces the named properties of an edge; the others stay.
    UpdateEdge {
        /// The edge's identity.
        cid: Cid,
        /// The properties to replace or add.
        properties: HashMap<String, Value>,
    },
    /// Deletes an edge.
    DeleteEdge {
        /// The edge's identity.
        cid: Cid,
    },
}

/// What an operation may say beside the specification's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationDetails {
    /// For `CreateNode`: part of the first block, so that equal nodes can be kept apart.
    pub key: Option<String>,
    /// For updates: the properties to remove.
    pub unset: Vec<String>,
    /// For operations on edges: the target's life as the coordinator read it, [`Generation::NONE`] where the
    /// target does not live.
    pub target_generation: Option<Generation>,
}

/// Why an operation cannot enter the log. Nothing was changed; repeating it will not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// A property has no canonical form.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The operation is larger than the limit.
    #[error("the operation has {0} bytes, more than {OPERATION_BYTES_MAX}")]
    TooLarge(usize),
    /// The edge has no label.
    #[error("an edge needs a label")]
    LabelEmpty,
    /// The label is longer than the limit.
    #[error("the label has {0} bytes, more than {LABEL_BYTES_MAX}")]
    LabelTooLong(usize),
    /// The node's key is longer than the limit.
    #[error("the key has {0} bytes, more than {LABEL_BYTES_MAX}")]
    KeyTooLong(usize),
    /// One update both sets and removes a property.
    #[error("the property {0:?} is both set and removed")]
    SetAndUnset(String),
    /// A detail was given that this kind of operation does not have.
    #[error("{0} does not belong to this kind of operation")]
    Detail(&'static str),
    /// The client's id is longer than the limit.
    #[error("the client id has {0} bytes, more than {CLIENT_ID_BYTES_MAX}")]
    ClientIdTooLong(usize),
    /// The target's generation is not known: read the target first.
    #[error("the edge's target was not looked up")]
    TargetUnknown,
}

/// The change an update makes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Replaced or added.
    pub set: Properties,
    /// Removed; removing what is not there is no error.
    pub unset: BTreeSet<String>,
}

impl Changes {
    pub(crate) fn apply_to(self, properties: &mut Properties) {
        for name in &self.unset {
            properties.remove(name);
        }
        properties.extend(self.set);
    }
}

/// A change of the graph as the log holds it: canonical, checked, complete. Made by
/// [`GraphOperation::new`] or read from a log.
#[derive(Clone, Debug, PartialEq)]
pub enum GraphOperation {
    /// Creates a node with this first block.
    CreateNode {
        /// The canonical first block.
        block: Bytes,
    },
    /// Changes a node's properties.
    #[non_exhaustive]
    UpdateNode {
        /// The node's identity.
        cid: Cid,
        /// The change.
        changes: Changes,
    },
    /// Deletes a node.
    DeleteNode {
        /// The node's identity.
        cid: Cid,
    },
    /// Creates an edge. Its first block is made when it is applied: it records the life of the source.
    #[non_exhaustive]
    CreateEdge {
        /// The node it leaves.
        source: Cid,
        /// The node it enters.
        target: Cid,
        /// What the edge means.
        label: String,
        /// Its properties.
        properties: Properties,
        /// The target's life as the coordinator read it. Not part of the operation's fingerprint: a
        /// repeat through another coordinator may have read a later one.
        target_generation: Generation,
    },
    /// Changes an edge's properties.
    #[non_exhaustive]
    UpdateEdge {
        /// The edge's identity.
        cid: Cid,
        /// The change.
        changes: Changes,
        /// The target's life as the coordinator read it; the edge lives only in the one it was created
        /// for. Not part of the operation's fingerprint, like that of a creation.
        target_generation: Generation,
    },
    /// Deletes an edge.
    #[non_exhaustive]
    DeleteEdge {
        /// The edge's identity.
        cid: Cid,
        /// The target's life as the coordinator read it, as in an update.
        target_generation: Generation,
    },
}

/// Where an operation must be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoutingKey {
    /// In the partition of this identity.
    Identity(Cid),
    /// In the partition of this edge's source, which the edge's CID does not tell: a receipt told it, or
    /// the nodes must be asked (see [`crate::graph::read::contains`]).
    Edge(Cid),
}

/// The place of an operation.
#[must_use]
pub fn routing_key(operation: &GraphOperation) -> RoutingKey {
    match operation {
        GraphOperation::CreateNode { block } => RoutingKey::Identity(Cid::of(block)),
        GraphOperation::UpdateNode { cid, .. } | GraphOperation::DeleteNode { cid } => {
            RoutingKey::Identity(*cid)
        }
        GraphOperation::CreateEdge { source, .. } => RoutingKey::Identity(*source),
        GraphOperation::UpdateEdge { cid, .. } | GraphOperation::DeleteEdge { cid, .. } => {
            RoutingKey::Edge(*cid)
        }
    }
}

impl GraphOperation {
    /// Makes the canonical form.
    ///
    /// # Errors
    /// Names the limit or rule that the operation breaks.
    pub fn new(operation: Operation, details: OperationDetails) -> Result<Self, OperationError> {
        details.check_against(&operation)?;
        let canonical = match operation {
            Operation::CreateNode { properties } => {
                let block = NodeBlock { key: details.key, properties: canonical_properties(properties)? };
                Self::CreateNode { block: block.encode()? }
            }
            Operation::UpdateNode { cid, properties } => {
                Self::UpdateNode { cid, changes: changes(properties, details.unset)? }
            }
            Operation::DeleteNode { cid } => Self::DeleteNode { cid },
            Operation::CreateEdge { source_cid, target_cid, label, properties } => Self::CreateEdge {
                source: source_cid,
                target: target_cid,
                label,
                properties: canonical_properties(properties)?,
                target_generation: details.target_generation.ok_or(OperationError::TargetUnknown)?,
            },
            Operation::UpdateEdge { cid, properties } => Self::UpdateEdge {
                cid,
                changes: changes(properties, details.unset)?,
                target_generation: details.target_generation.ok_or(OperationError::TargetUnknown)?,
            },
            Operation::DeleteEdge { cid } => Self::DeleteEdge {
                cid,
                target_generation: details.target_generation.ok_or(OperationError::TargetUnknown)?,
            },
        };
        let bytes = canonical.encoded_len();
        if bytes > OPERATION_BYTES_MAX { Err(OperationError::TooLarge(bytes)) } else { Ok(canonical) }
    }
}

impl OperationDetails {
    fn check_against(&self, operation: &Operation) -> Result<(), OperationError> {
        let creates_node = matches!(operation, Operation::CreateNode { .. });
        let updates = matches!(operation, Operation::UpdateNode { .. } | Operation::UpdateEdge { .. });
        if let Operation::CreateEdge { label, .. } = operation {
            check_label(label)?;
        }
        match &self.key {
            Some(_) if !creates_node => return Err(OperationError::Detail("a key")),
            Some(key) if key.len() > LABEL_BYTES_MAX => return Err(OperationError::KeyTooLong(key.len())),
            Some(_) | None => {}
        }
        if !self.unset.is_empty() && !updates {
            return Err(OperationError::Detail("a list of properties to remove"));
        }
        Ok(())
    }
}

pub(crate) fn check_label(label: &str) -> Result<(), OperationError> {
    match label.len() {
        0 => Err(OperationError::LabelEmpty),
        length if length > LABEL_BYTES_MAX => Err(OperationError::LabelTooLong(length)),
        _ => Ok(()),
    }
}

fn changes(set: HashMap<String, Value>, unset: Vec<String>) -> Result<Changes, OperationError> {
    let set = canonical_properties(set)?;
    let unset: BTreeSet<String> = unset.into_iter().collect();
    match unset.iter().find(|name| set.contains_key(*name)) {
        Some(name) => Err(OperationError::SetAndUnset(name.clone())),
        None => Ok(Changes { set, unset }),
    }
}
