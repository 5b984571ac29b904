//! The network client: what the command line and applications talk to a cluster with.
//!
//! Any node takes any request, so the client needs only one address to begin with. It learns the
//! partitions and their leaders from [`GetClusterConfig`](v1::ClusterConfig) and from every answer, and
//! sends a write straight to the node that leads its partition, which saves the cluster one hop.
//!
//! **Exactly once.** Every write carries `(client_id, request_id)`. The client repeats a write through
//! node failures with the *same* pair until it has an answer or its deadline has passed; the partition
//! remembers outcomes by that pair, so a repeat gives the first outcome and never a second effect. What
//! comes back is one of three things, told apart by [`ErrorCode`](crate::error::ErrorCode): the receipt
//! or a refusal (definite), *unknown outcome* (it was sent, nobody said what became of it; repeating it
//! is safe), or *unavailable* (no node ever took it).
//!
//! [`Client`] sends one request at a time per call; [`Pipeline`] keeps thousands of writes in flight
//! over one stream per node.

mod backoff;
mod channels;
mod codec;
mod connection;
pub(crate) mod failure;
mod options;
mod pipeline;
mod reads;
pub(crate) mod routes;
mod session;

pub use connection::{Client, Receipt};
pub use options::ClientOptions;
pub use pipeline::{Completion, Job, Pipeline, PipelineOptions, Refusals};
pub use reads::ReadFrom;

/// The messages of the wire, in which operations are sent and entities come back.
pub use kotoba_db_cluster_proto::v1;
