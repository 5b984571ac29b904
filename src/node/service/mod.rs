//! The gRPC services of a node: what clients call, and what other nodes ask when they read.
//!
//! [`Services`] exists before the node has a cluster: until [`Services::open`] it answers a status
//! that says what it waits for, and everything else with `UNAVAILABLE`. One file per subject holds
//! what the calls do; here is only which call is which.

pub(crate) mod channels;
mod consensus;
pub(crate) mod convert;
pub(crate) mod errors;
pub(crate) mod local;
pub(crate) mod membership;
pub(crate) mod neighbors;
pub(crate) mod reads;
mod reads_service;
mod remote;
pub(crate) mod status;
mod stored;
pub(crate) mod verify;
mod writes;

use std::{
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
};

use kotoba_db_cluster_proto::{
    DESCRIPTORS,
    v1::{self, cluster_service_server::ClusterService, read_service_server::ReadService},
};
use tokio::sync::Notify;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::{errors::status as refused, membership::Hop, reads::Reads, verify::VerifyViews};
use crate::{
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    node::coordinator::Coordinator,
    placement::NodeId,
};

pub(crate) use stored::StoredReads;

/// The answers of a gRPC stream.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What a node's services need once it is in a cluster.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) coordinator: Arc<Coordinator>,
    pub(crate) reads: Reads,
    pub(crate) verify: Arc<dyn VerifyViews>,
}

impl Serving {
    pub(crate) fn new(coordinator: Arc<Coordinator>, verify: Arc<dyn VerifyViews>) -> Self {
        let reads = Reads::new(Arc::clone(&coordinator));
        Self { coordinator, reads, verify }
    }
}

/// A node's gRPC services. Clones are the same services.
#[derive(Clone, Debug)]
pub(crate) struct Services(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node_id: NodeId,
    address: String,
    serving: OnceLock<Serving>,
    waiting_for: Mutex<Vec<String>>,
    opened: Notify,
    /// Held while the meta group decides on one that wants to be a member.
    settling: tokio::sync::Mutex<()>,
}

impl Services {
    /// The services of a node that has no cluster yet.
    pub(crate) fn new(node_id: NodeId, address: String) -> Self {
        let waiting_for = Mutex::new(Vec::new());
        Self(Arc::new(Inner {
            node_id,
            address,
            serving: OnceLock::new(),
            waiting_for,
            opened: Notify::new(),
            settling: tokio::sync::Mutex::default(),
        }))
    }

    /// Says what the node waits for before it has a cluster, for people.
    pub(crate) fn wait_for(&self, what: Vec<String>) {
        *self.0.waiting_for.lock().expect("no holder of this lock panics") = what;
    }

    /// Begins to serve.
    pub(crate) fn open(&self, serving: Serving) {
        self.wait_for(Vec::new());
        let opened = self.0.serving.set(serving);
        assert!(opened.is_ok(), "a node begins to serve once");
        self.0.opened.notify_waiters();
    }

    /// Waits until the node has a cluster.
    pub(crate) async fn opened(&self) -> &Serving {
        loop {
            let opened = self.0.opened.notified();
            tokio::pin!(opened);
            // Listening before looking: an opening in between is not missed.
            opened.as_mut().enable();
            if let Some(serving) = self.0.serving.get() {
                return serving;
            }
            opened.await;
        }
    }

    /// What the calls work with.
    ///
    /// # Errors
    /// While the node has no cluster.
    pub(crate) fn serving(&self) -> Result<&Serving, ClusterError> {
        self.0.serving.get().ok_or_else(|| {
            let waiting = self.waiting_for();
            let reason = if waiting.is_empty() { "it is starting".to_owned() } else { waiting.join(", ") };
            let what = format!("node {} at {} does not serve yet: {reason}", self.0.node_id, self.0.address);
            ClusterError::new(ErrorCode::Unavailable, what)
        })
    }

    pub(crate) fn waiting_for(&self) -> Vec<String> {
        self.0.waiting_for.lock().expect("no holder of this lock panics").clone()
    }

    pub(crate) fn node_id(&self) -> &NodeId {
        &self.0.node_id
    }

    pub(crate) fn address(&self) -> &str {
        &self.0.address
    }

    /// Adds these services, gRPC health and reflection to a node's routes. Health says `SERVING`
    /// while every group has a leader that answers.
    ///
    /// # Errors
    /// Where the descriptors of reflection cannot be read, which is a mistake of the build.
    pub(crate) fn add_to(
        &self,
        routes: &mut tonic::service::RoutesBuilder,
    ) -> Result<tonic_health::server::HealthReporter, ClusterError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let broken = |error: tonic_reflection::server::Error| {
            ClusterError::new(ErrorCode::Internal, error.to_string())
        };
        routes
            .add_service(health)
            .add_service(reflection().build_v1().map_err(broken)?)
            // What older clients ask for; it answers the same.
            .add_service(reflection().build_v1alpha().map_err(broken)?)
            .add_service(
                v1::cluster_service_server::ClusterServiceServer::new(self.clone())
                    .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
            )
            .add_service(
                v1::read_service_server::ReadServiceServer::new(self.clone())
                    .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
            );
        Ok(reporter)
    }
}

/// The status of a call from the result of what it does.
fn answer<T>(result: Result<T, ClusterError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| refused(&error))
}

#[tonic::async_trait]
impl ClusterService for Services {
    type ExecuteStreamStream = Answers<v1::ClientResponse>;

    async fn execute_operation(
        &self,
        request: Request<v1::ClientRequest>,
    ) -> Result<Response<v1::ClientResponse>, Status> {
        answer(self.do_execute(request.into_inner()).await)
    }

    async fn execute_stream(
        &self,
        request: Request<Streaming<v1::ClientRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        answer(self.do_execute_stream(request.into_inner()))
    }

    async fn get_entity(
        &self,
        request: Request<v1::GetEntityRequest>,
    ) -> Result<Response<v1::GetEntityResponse>, Status> {
        answer(self.do_get_entity(request.into_inner()).await)
    }

    async fn get_block(
        &self,
        request: Request<v1::GetBlockRequest>,
    ) -> Result<Response<v1::GetBlockResponse>, Status> {
        answer(self.do_get_block(request.into_inner()).await)
    }

    async fn neighbors(
        &self,
        request: Request<v1::NeighborsRequest>,
    ) -> Result<Response<v1::NeighborsResponse>, Status> {
        answer(self.do_neighbors(request.into_inner()).await)
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        answer(self.do_history(request.into_inner()).await)
    }

    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        answer(self.do_query(request.into_inner()).await)
    }

    async fn scan(&self, request: Request<v1::ScanRequest>) -> Result<Response<v1::ScanResponse>, Status> {
        answer(self.do_scan(request.into_inner()).await)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        answer(self.do_status(request.into_inner()).await)
    }

    async fn get_cluster_config(
        &self,
        _request: Request<v1::GetClusterConfigRequest>,
    ) -> Result<Response<v1::ClusterConfig>, Status> {
        answer(self.cluster_config())
    }

    async fn join_cluster(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let hop = Hop::of(request.metadata());
        answer(self.do_join(request.into_inner(), hop).await)
    }

    async fn leave_cluster(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        answer(self.do_leave(&request.into_inner()))
    }

    async fn request_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        answer(self.do_request_vote(request.into_inner()).await)
    }

    async fn append_entries(
        &self,
        request: Request<v1::AppendEntriesRequest>,
    ) -> Result<Response<v1::AppendEntriesResponse>, Status> {
        answer(self.do_append_entries(request.into_inner()).await)
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        answer(self.do_heartbeat(&request.into_inner()).await)
    }

    async fn start_verify(
        &self,
        request: Request<v1::StartVerifyRequest>,
    ) -> Result<Response<v1::StartVerifyResponse>, Status> {
        answer(self.do_start_verify(request.into_inner()).await)
    }

    async fn verify_digest(
        &self,
        request: Request<v1::VerifyDigestRequest>,
    ) -> Result<Response<v1::VerifyDigestResponse>, Status> {
        answer(self.do_verify_digest(request.into_inner()).await)
    }

    async fn verify_scan(
        &self,
        request: Request<v1::VerifyScanRequest>,
    ) -> Result<Response<v1::VerifyScanResponse>, Status> {
        answer(self.do_verify_scan(request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl ReadService for Services {
    async fn confirm(
        &self,
        request: Request<v1::ConfirmRequest>,
    ) -> Result<Response<v1::ConfirmResponse>, Status> {
        answer(self.do_confirm(request.into_inner()).await)
    }

    async fn lookup(
        &self,
        request: Request<v1::LookupRequest>,
    ) -> Result<Response<v1::LookupResponse>, Status> {
        answer(self.do_lookup(request.into_inner()).await)
    }
}
