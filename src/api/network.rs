//! [`ClusterNetwork`]: talking to other nodes by hand, with the calls of the specification.
//!
//! The node's own traffic does not go through here: it has one stream to each peer. This is for
//! tools that speak the specification's protocol themselves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use kotoba_db_cluster_proto::v1;

use super::types::NodeId;
use crate::{
    error::{ClusterError, ErrorCode},
    node::service::{channels::Channels, errors},
};

pub use kotoba_db_cluster_proto::v1 as wire;

/// A message of the specification's consensus calls.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RaftMessage {
    /// A candidate asks for a vote.
    RequestVote(wire::VoteRequest),
    /// A leader extends a log.
    AppendEntries(wire::AppendEntriesRequest),
    /// A sign of life.
    Heartbeat(wire::HeartbeatRequest),
}

/// The answer to a [`RaftMessage`] of the same name.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RaftReply {
    /// Whether the vote is given.
    RequestVote(wire::VoteResponse),
    /// Whether the log was extended.
    AppendEntries(wire::AppendEntriesResponse),
    /// What the node is.
    Heartbeat(wire::HeartbeatResponse),
}

/// Connections to nodes by their ids. Clones are the same connections.
#[derive(Clone, Debug)]
pub struct ClusterNetwork {
    channels: Arc<Channels>,
    addresses: Arc<Mutex<BTreeMap<NodeId, String>>>,
}

impl ClusterNetwork {
    pub(super) fn new(channels: Arc<Channels>) -> Self {
        Self { channels, addresses: Arc::default() }
    }

    /// Connects to the node at `address` (`HOST:PORT`) and checks that it is `node`. The
    /// connection is kept and comes back by itself when it breaks.
    ///
    /// # Errors
    /// Where nobody answers there, or another node does.
    pub async fn connect_to_node(&self, node: NodeId, address: String) -> Result<(), ClusterError> {
        let mut client = self.channels.cluster(&address)?;
        let answer = client.status(v1::StatusRequest { local: true }).await;
        let nodes = answer.map_err(|status| unreachable_at(&address, &status))?.into_inner().nodes;
        let Some(found) = nodes.first() else {
            return Err(ClusterError::new(
                ErrorCode::Internal,
                format!("the node at {address} does not say who it is"),
            ));
        };
        if found.id != node.0 {
            let what = format!("the node at {address} is {}, not {node}", found.id);
            return Err(ClusterError::new(ErrorCode::NodeIdMismatch, what));
        }
        self.addresses().insert(node, address);
        Ok(())
    }

    /// Sends a message to a node connected before, and returns its answer.
    ///
    /// # Errors
    /// Where the node was not connected, cannot be reached, or refuses the message.
    pub async fn send_raft_message(
        &self,
        node: &NodeId,
        message: RaftMessage,
    ) -> Result<RaftReply, ClusterError> {
        let address = self.addresses().get(node).cloned().ok_or_else(|| {
            let what = format!("no connection to node {node} was asked for");
            ClusterError::new(ErrorCode::NotFound, what)
        })?;
        let mut client = self.channels.cluster(&address)?;
        let failed = |status: tonic::Status| errors::of_status(&status);
        Ok(match message {
            RaftMessage::RequestVote(request) => {
                RaftReply::RequestVote(client.request_vote(request).await.map_err(failed)?.into_inner())
            }
            RaftMessage::AppendEntries(request) => {
                RaftReply::AppendEntries(client.append_entries(request).await.map_err(failed)?.into_inner())
            }
            RaftMessage::Heartbeat(request) => {
                RaftReply::Heartbeat(client.heartbeat(request).await.map_err(failed)?.into_inner())
            }
        })
    }

    /// The nodes connected so far.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.addresses().keys().cloned().collect()
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.addresses.lock().expect("no holder of this lock panics")
    }
}

fn unreachable_at(address: &str, status: &tonic::Status) -> ClusterError {
    let error = errors::of_status(status);
    ClusterError::new(error.code(), format!("no node answers at {address}: {}", error.what()))
}
