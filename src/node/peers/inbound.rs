//! What other nodes send: the peer service, and the reading half of every stream.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use kotoba_db_cluster_proto::v1::{
    self,
    peer_service_server::{PeerService, PeerServiceServer},
};
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    ForwardReplier, HelloRefusal, LocalHello, Peers,
    bulk::HELLO_METADATA,
    count,
    queue::{ConnectionId, FrameStream, PeerQueue},
};
use crate::{
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    node::{
        handle::Command,
        wire::{InboundFrame, frame_from_wire, members_from_wire, message_from_wire},
    },
    raft::PeerId,
};

/// How long a node may take to introduce itself.
pub(super) const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The peer service. Answers introductions from the start; streams once the node is in a cluster.
#[derive(Clone, Debug)]
pub(crate) struct PeerServer {
    hello: LocalHello,
    peers: Arc<OnceLock<Peers>>,
}

impl PeerServer {
    /// A server that introduces itself and refuses streams.
    pub(crate) fn new(hello: LocalHello) -> Self {
        Self { hello, peers: Arc::default() }
    }

    /// Accepts streams from now on. A second call is ignored.
    pub(crate) fn attach(&self, peers: Peers) {
        let _ = self.peers.set(peers);
    }

    /// The service, for a server's routes.
    pub(crate) fn into_service(self) -> PeerServiceServer<Self> {
        PeerServiceServer::new(self)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    fn peers(&self) -> Result<&Peers, Status> {
        self.peers.get().ok_or_else(|| {
            let node = self.hello.current().node_id;
            HelloRefusal::new(ErrorCode::Unavailable, format!("node {node} is not ready for streams yet"))
                .status()
        })
    }
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type PeerStreamStream = Pin<Box<dyn Stream<Item = Result<v1::PeerFrame, Status>> + Send>>;
    type SnapshotStreamStream = ReceiverStream<Result<v1::RaftMessage, Status>>;

    /// Anybody is answered but a data directory that was replaced.
    async fn handshake(&self, request: Request<v1::Hello>) -> Result<Response<v1::Hello>, Status> {
        if let Some(peers) = self.peers.get()
            && let Err(refusal) = peers.listen_to(request.get_ref())
        {
            return Err(refusal.status());
        }
        Ok(Response::new(self.hello.current()))
    }

    async fn peer_stream(
        &self,
        request: Request<Streaming<v1::PeerFrame>>,
    ) -> Result<Response<Self::PeerStreamStream>, Status> {
        let peers = self.peers()?.clone();
        let mut inbound = request.into_inner();
        let first = timeout(HELLO_TIMEOUT, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the node does not introduce itself"))??;
        let hello = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::invalid_argument("the first frame of a stream introduces its node"))?;
        let member = peers.admit(&hello).map_err(|refusal| refusal.status())?;
        let queue = Arc::clone(&member.queue);
        let connection = queue.begin();
        // Lost only to a newer connection of the same peer; then this one's frames end at once.
        let _ = queue.establish(connection);
        let frames = FrameStream::new(Arc::clone(&queue), connection, self.hello.brief());
        let peer = member.record.peer;
        tokio::spawn(async move { receive(&peers, peer, &queue, connection, inbound).await });
        Ok(Response::new(Box::pin(frames.map(Ok))))
    }

    async fn snapshot_stream(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<Self::SnapshotStreamStream>, Status> {
        let peers = self.peers()?.clone();
        let hello = hello_of(request.metadata())?;
        let member = peers.admit(&hello).map_err(|refusal| refusal.status())?;
        let peer = member.record.peer;
        let inbound = request.into_inner();
        // Nothing is said on the way back; the channel closes when reading is over.
        let (open, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            receive_bulk(&peers, peer, inbound).await;
            drop(open);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn hello_of(metadata: &MetadataMap) -> Result<v1::Hello, Status> {
    let malformed = || Status::invalid_argument("a snapshot stream introduces its node in its metadata");
    let value = metadata.get_bin(HELLO_METADATA).ok_or_else(malformed)?;
    let bytes = value.to_bytes().map_err(|_| malformed())?;
    v1::Hello::decode(bytes).map_err(|_| malformed())
}

/// Hands on what arrives until the connection ends; then tells the driver, at once.
pub(super) async fn receive(
    peers: &Peers,
    peer: PeerId,
    queue: &Arc<PeerQueue>,
    connection: ConnectionId,
    mut inbound: Streaming<v1::PeerFrame>,
) {
    count(&peers.0.counters.connections, 1);
    tracing::debug!(peer = peer.0, "stream established");
    while let Ok(Some(frame)) = inbound.message().await {
        if !queue.is_current(connection) || !hand_on(peers, peer, queue, connection, frame).await {
            break;
        }
    }
    // A stream that a newer one replaced, or that this node ended, says nothing about the peer.
    if queue.close(connection) {
        tracing::debug!(peer = peer.0, counters = ?peers.counters(), "stream closed");
        let _ = peers.0.config.commands.send(Command::PeerClosed(peer)).await;
    }
}

/// Returns whether there is still somebody to hand frames to.
async fn hand_on(
    peers: &Peers,
    peer: PeerId,
    queue: &Arc<PeerQueue>,
    connection: ConnectionId,
    frame: v1::PeerFrame,
) -> bool {
    count(&peers.0.counters.frames_received, 1);
    let v1::PeerFrame { hello: _, messages, beats, beat_replies, forwards, forward_replies, group_members } =
        frame;
    for reply in forward_replies {
        queue.complete(connection, reply);
    }
    if !forwards.is_empty() {
        let replier = ForwardReplier { queue: Arc::clone(queue), connection };
        match peers.0.handler.get() {
            Some(handler) => handler.handle(peer, forwards, replier),
            None => refuse(&forwards, &replier),
        }
    }
    let (frame, mut errors) = frame_from_wire(messages, &beats, &beat_replies);
    let (reports, malformed): (Vec<_>, Vec<_>) =
        group_members.iter().map(members_from_wire).partition(Result::is_ok);
    errors.extend(malformed.into_iter().filter_map(Result::err));
    count(&peers.0.counters.messages_malformed, errors.len() as u64);
    for error in errors {
        tracing::debug!(peer = peer.0, "message dropped: {error}");
    }
    let reports: Vec<_> = reports.into_iter().flatten().collect();
    if !reports.is_empty() && peers.0.config.commands.send(Command::Members(reports)).await.is_err() {
        return false;
    }
    if frame.messages.is_empty() && frame.beats.is_empty() {
        return true;
    }
    peers.0.config.commands.send(Command::Frame { peer, frame }).await.is_ok()
}

fn refuse(forwards: &[v1::Forward], replier: &ForwardReplier) {
    let error = ClusterError::new(ErrorCode::Unavailable, "the node is starting");
    for forward in forwards {
        replier.reply(
            forward.id,
            v1::ClientResponse {
                error_code: error.code().to_string(),
                error_message: error.to_string(),
                partition: forward.partition,
                ..v1::ClientResponse::default()
            },
        );
    }
}

async fn receive_bulk(peers: &Peers, peer: PeerId, mut inbound: Streaming<v1::RaftMessage>) {
    while let Ok(Some(message)) = inbound.message().await {
        let message = match message_from_wire(message) {
            Ok(message) => message,
            Err(error) => {
                count(&peers.0.counters.messages_malformed, 1);
                tracing::debug!(peer = peer.0, "part of a snapshot dropped: {error}");
                continue;
            }
        };
        let frame = InboundFrame { messages: vec![message], beats: Vec::new() };
        if peers.0.config.commands.send(Command::Frame { peer, frame }).await.is_err() {
            return;
        }
    }
}
