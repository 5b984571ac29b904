//! The graph: values, blocks, operations, and the deterministic state machine that applies a partition's
//! log to a graph store.
//!
//! An entity (node or edge) is named by the CID of its first block. Whatever changes it appends a block
//! that links the one before; nothing is overwritten but the row that names the current version. The same
//! log gives the same rows on every replica, and their sum ([`digest`]) proves it.

mod block;
mod cid;
mod command;
mod dag_cbor;
pub mod digest;
#[cfg(feature = "node")]
pub mod json;
mod machine;
mod operation;
mod outcome;
mod overlay;
pub mod read;
mod rows;
mod session;
pub mod snapshot;
mod value;

#[cfg(test)]
mod tests;

pub use self::{
    block::{Block, EdgeBlock, Generation, Kind, NodeBlock, VersionBlock},
    cid::{Cid, CidError},
    command::{Command, CommandError, Execute, RequestId, VerifyId},
    dag_cbor::{DagCborError, DagCborFault},
    machine::{ENTITY_BYTES_MAX, Effect, GraphMachine},
    operation::{
        Changes, GraphOperation, Operation, OperationDetails, OperationError, RoutingKey, routing_key,
    },
    outcome::{GraphError, Outcome, Receipt},
    rows::{Applied, applied, group_prefix},
    session::{CLIENTS_MAX, IDLE_ENTRIES},
    value::{Properties, Value, ValueError, canonical_properties},
};
