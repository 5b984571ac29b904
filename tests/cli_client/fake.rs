//! A cluster of scripted nodes that share one memory of outcomes, as a partition's replicas do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use kotoba_db_cluster::{client::v1, error::ErrorCode};
use kotoba_db_cluster_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::{
    Stream, StreamExt as _,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

/// What a node does with one arrival of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Carries it out, or finds it done, and answers.
    Answer,
    /// Carries it out, then the answer gets lost with the connection.
    LoseAnswer,
    /// Does nothing and says that the other node leads.
    Redirect,
    /// Does nothing and says so.
    NotNow,
    /// Refuses it for good.
    Refuse,
}

/// One arrival of a request at a node.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) node: usize,
    pub(crate) client_id: String,
    pub(crate) request_id: u64,
    pub(crate) acked_below: u64,
}

/// Decides by the node and how many times the request has arrived anywhere before.
pub(crate) type Script = Box<dyn Fn(usize, &v1::ClientRequest, usize) -> Act + Send>;

#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) arrivals: Vec<Arrival>,
    /// The requests that took effect.
    pub(crate) effects: BTreeSet<(String, u64)>,
    times: BTreeMap<u64, usize>,
    addresses: Vec<SocketAddr>,
    script: Option<Script>,
}

pub(crate) struct Cluster {
    pub(crate) memory: Arc<Mutex<Memory>>,
    pub(crate) endpoints: Vec<String>,
}

impl Cluster {
    /// Starts so many nodes. The first is shown as the leader of the only partition.
    pub(crate) async fn start(nodes: usize, script: Script) -> Self {
        let memory = Arc::new(Mutex::new(Memory { script: Some(script), ..Memory::default() }));
        for index in 0..nodes {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            memory.lock().unwrap().addresses.push(listener.local_addr().unwrap());
            let node = Node { index, memory: Arc::clone(&memory) };
            let server = tonic::transport::Server::builder().add_service(ClusterServiceServer::new(node));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        let endpoints = memory.lock().unwrap().addresses.iter().map(ToString::to_string).collect();
        Self { memory, endpoints }
    }

    /// Forgets the script: every request is answered.
    pub(crate) fn answer_from_now_on(&self) {
        self.memory().script = Some(Box::new(|_, _, _| Act::Answer));
    }

    /// Starts one node that speaks TLS.
    pub(crate) async fn start_secure(tls: tonic::transport::ServerTlsConfig) -> Self {
        let memory = Arc::new(Mutex::new(Memory {
            script: Some(Box::new(|_, _, _| Act::Answer)),
            ..Memory::default()
        }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        memory.lock().unwrap().addresses.push(listener.local_addr().unwrap());
        let node = Node { index: 0, memory: Arc::clone(&memory) };
        let mut server = tonic::transport::Server::builder().tls_config(tls).unwrap();
        let server = server.add_service(ClusterServiceServer::new(node));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoints = memory.lock().unwrap().addresses.iter().map(ToString::to_string).collect();
        Self { memory, endpoints }
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }
}

struct Node {
    index: usize,
    memory: Arc<Mutex<Memory>>,
}

impl Node {
    /// The answer, or nothing where it got lost.
    fn take(&self, request: &v1::ClientRequest) -> Option<v1::ClientResponse> {
        let mut memory = self.memory.lock().unwrap();
        let times = memory.times.entry(request.request_id).or_default();
        let before = *times;
        *times += 1;
        memory.arrivals.push(Arrival {
            node: self.index,
            client_id: request.client_id.clone(),
            request_id: request.request_id,
            acked_below: request.acked_below,
        });
        let act = (memory.script.as_ref().unwrap())(self.index, request, before);
        let answer = v1::ClientResponse {
            client_id: request.client_id.clone(),
            request_id: request.request_id,
            ..Default::default()
        };
        let failed = |code: ErrorCode| v1::ClientResponse {
            error_code: code.to_string(),
            error_message: format!("scripted, here; next: {}", code.next()),
            ..answer.clone()
        };
        match act {
            Act::Answer | Act::LoseAnswer => {
                // Exactly once: a repeat finds the first outcome.
                memory.effects.insert((request.client_id.clone(), request.request_id));
                let index = request.request_id;
                let done = v1::ClientResponse {
                    success: true,
                    result_cid: format!("cid-{index}"),
                    version_cid: format!("version-{index}"),
                    log_index: index,
                    ..answer
                };
                (act == Act::Answer).then_some(done)
            }
            Act::Redirect => {
                let other = memory.addresses[(self.index + 1) % memory.addresses.len()].to_string();
                Some(v1::ClientResponse { leader_address: other, ..failed(ErrorCode::NotLeader) })
            }
            Act::NotNow => Some(failed(ErrorCode::Unavailable)),
            Act::Refuse => Some(failed(ErrorCode::EndpointMissing)),
        }
    }
}

/// Calls that these nodes do not have, as `async_trait` writes them: it does not look into macros.
macro_rules! unused {
    ($($method:ident: $request:ident => $response:ident),* $(,)?) => {
        $(fn $method<'life0, 'async_trait>(
            &'life0 self,
            _: Request<v1::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        })*
    };
}

#[tonic::async_trait]
impl ClusterService for Node {
    type ExecuteStreamStream = Pin<Box<dyn Stream<Item = Result<v1::ClientResponse, Status>> + Send>>;

    async fn execute_operation(
        &self,
        request: Request<v1::ClientRequest>,
    ) -> Result<Response<v1::ClientResponse>, Status> {
        let answer = self.take(request.get_ref());
        answer.map(Response::new).ok_or_else(|| Status::unavailable("the connection broke"))
    }

    async fn execute_stream(
        &self,
        request: Request<Streaming<v1::ClientRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        let (answers, out) = mpsc::channel(64);
        let node = Node { index: self.index, memory: Arc::clone(&self.memory) };
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let answer = node.take(&request).ok_or_else(|| Status::unavailable("the stream broke"));
                let broken = answer.is_err();
                if answers.send(answer).await.is_err() || broken {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(out))))
    }

    async fn get_cluster_config(
        &self,
        _: Request<v1::GetClusterConfigRequest>,
    ) -> Result<Response<v1::ClusterConfig>, Status> {
        let addresses = self.memory.lock().unwrap().addresses.clone();
        let node = |(index, address): (usize, &SocketAddr)| v1::NodeId {
            id: format!("n{index}"),
            address: address.ip().to_string(),
            port: address.port().into(),
            ..Default::default()
        };
        let partition = v1::PartitionReplicas {
            partition: 0,
            nodes: vec!["n0".into(), "n1".into()],
            leader: "n0".into(),
        };
        Ok(Response::new(v1::ClusterConfig {
            nodes: addresses.iter().enumerate().map(node).collect(),
            version: 1,
            partition_count: 1,
            partitions: vec![partition],
            ..Default::default()
        }))
    }

    async fn get_entity(
        &self,
        request: Request<v1::GetEntityRequest>,
    ) -> Result<Response<v1::GetEntityResponse>, Status> {
        if self.index == 0 {
            return Err(Status::unavailable("starting"));
        }
        let entity = v1::Entity { cid: request.into_inner().cid, ..Default::default() };
        Ok(Response::new(v1::GetEntityResponse { found: true, entity: Some(entity), ..Default::default() }))
    }

    unused! {
        request_vote: VoteRequest => VoteResponse,
        append_entries: AppendEntriesRequest => AppendEntriesResponse,
        heartbeat: HeartbeatRequest => HeartbeatResponse,
        join_cluster: JoinRequest => JoinResponse,
        leave_cluster: LeaveRequest => LeaveResponse,
        get_block: GetBlockRequest => GetBlockResponse,
        neighbors: NeighborsRequest => NeighborsResponse,
        history: HistoryRequest => HistoryResponse,
        query: QueryRequest => QueryResponse,
        status: StatusRequest => StatusResponse,
        start_verify: StartVerifyRequest => StartVerifyResponse,
        verify_digest: VerifyDigestRequest => VerifyDigestResponse,
        verify_scan: VerifyScanRequest => VerifyScanResponse,
        scan: ScanRequest => ScanResponse,
    }
}
