use std::{future, net::SocketAddr, sync::Mutex, time::Duration};

use tempfile::TempDir;
use tokio::{runtime::Runtime, time::timeout};
use tonic::service::Routes;

use super::*;
use crate::{
    error::ErrorCode,
    multiraft::GroupMessage,
    node::{
        identity::{Genesis, Identity},
        serve::Listener,
        wire::{InboundPayload, chunk_to_wire, message_to_wire},
    },
    placement::{GenesisMember, NodeId},
    raft::{
        Body, Configuration, GroupId, Index, Message, Position, ReplicaId, SnapshotChunk, SnapshotDescriptor,
        SnapshotId, SnapshotMeta, SnapshotReply, Term,
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A node with nothing but its streams.
struct Node {
    peers: Peers,
    server: PeerServer,
    commands: mpsc::Receiver<Command>,
    listener: Option<Listener>,
    identity: Identity,
    /// Its tasks: dropping it is a `kill -9`, as far as the other side can see.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Serves, and dials whom it has to.
    fn start(&mut self, records: &[PeerRecord]) {
        let runtime = self.runtime.as_ref().expect("is alive");
        let _entered = runtime.enter();
        let listener = self.listener.take().expect("starts once");
        let routes = Routes::new(self.server.clone().into_service());
        self.server.attach(self.peers.clone());
        runtime.spawn(async move {
            let network = NetworkTuning::default();
            listener.serve(routes, None, &network, future::pending()).await
        });
        self.peers.set_members(records.iter().cloned(), BTreeMap::new());
    }

    async fn command(&mut self) -> Command {
        timeout(PATIENCE, self.commands.recv()).await.expect("in time").expect("its peers are alive")
    }

    async fn frame(&mut self) -> (PeerId, InboundFrame) {
        match self.command().await {
            Command::Frame { peer, frame } => (peer, frame),
            other => panic!("a frame, not {other:?}"),
        }
    }

    async fn connected_to(&self, expected: &[PeerId]) {
        let connected = async {
            while self.peers.connected() != expected {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, connected).await.expect("connects in time");
    }
}

/// Nodes of one cluster, numbered from 1; none is started yet.
async fn nodes(dir: &TempDir, count: usize) -> (Vec<Node>, Vec<PeerRecord>) {
    let mut begun = Vec::new();
    for number in 1..=count {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let bound = runtime.spawn(Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))));
        let listener = bound.await.expect("does not panic").expect("binds");
        let name = NodeId(format!("n{number}"));
        let identity = Identity::open(&dir.path().join(&name.0), &name).expect("begins");
        begun.push((runtime, listener, identity));
    }
    let members: Vec<_> = begun
        .iter()
        .map(|(_, listener, identity)| GenesisMember {
            node_id: identity.node_id().clone(),
            address: listener.address().to_string(),
            incarnation: identity.incarnation(),
        })
        .collect();
    let records = (1..)
        .map(PeerId)
        .zip(&members)
        .map(|(peer, member)| PeerRecord {
            peer,
            node_id: member.node_id.clone(),
            address: member.address.clone(),
            incarnation: member.incarnation,
        })
        .collect();
    let genesis = Genesis { members, partition_count: 2, replication_factor: 3 };
    let nodes = begun.into_iter().map(|begun| node(begun, genesis.clone())).collect();
    (nodes, records)
}

fn node((runtime, listener, mut identity): (Runtime, Listener, Identity), genesis: Genesis) -> Node {
    let membership = identity.found(genesis).expect("founds").clone();
    let address = listener.address().to_string();
    let hello = LocalHello::new(&identity, address.clone(), vec![address], 2, 3);
    let (to, commands) = mpsc::channel(64);
    // What the node starts ends with its own runtime.
    let entered = runtime.enter();
    let peers = Peers::new(PeersConfig {
        own: membership.peer,
        cluster_id: membership.cluster_id,
        hello: hello.clone(),
        tls: None,
        network: NetworkTuning::default(),
        commands: to,
        listed: Vec::new(),
    });
    drop(entered);
    let server = PeerServer::new(hello);
    Node { peers, server, commands, listener: Some(listener), identity, runtime: Some(runtime) }
}

async fn pair(dir: &TempDir) -> (Node, Node) {
    let (nodes, records) = nodes(dir, 2).await;
    let [mut a, mut b]: [Node; 2] = nodes.try_into().ok().expect("two nodes");
    a.start(&records);
    b.start(&records);
    a.connected_to(&[PeerId(2)]).await;
    b.connected_to(&[PeerId(1)]).await;
    (a, b)
}

fn message(next_offset: u64) -> Message {
    let position = Position::new(Index(4), Term(2));
    let body = Body::SnapshotReply(SnapshotReply { position, next_offset });
    Message { from: ReplicaId(1), to: ReplicaId(2), term: Term(3), body }
}

fn wire(next_offset: u64) -> v1::RaftMessage {
    message_to_wire(GroupId(1), &message(next_offset)).expect("has no payload")
}

fn arrived(frame: &InboundFrame) -> Vec<GroupMessage> {
    frame.messages.iter().map(|inbound| inbound.message.clone()).collect()
}

#[tokio::test]
async fn one_stream_carries_messages_both_ways() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut a, mut b) = pair(&dir).await;
    a.peers.send(PeerId(2), wire(1));
    let (from, frame) = b.frame().await;
    assert_eq!(from, PeerId(1));
    assert_eq!(arrived(&frame), [GroupMessage { group: GroupId(1), message: message(1) }]);
    let beat = v1::Beat { group: 1, ..v1::Beat::default() };
    b.peers.send_beats(PeerId(1), vec![beat], Vec::new());
    let (from, frame) = a.frame().await;
    assert_eq!((from, frame.beats.len()), (PeerId(2), 1));
    assert_eq!(a.peers.counters().messages_dropped + b.peers.counters().messages_dropped, 0);
}

#[tokio::test]
async fn messages_arrive_in_order_and_once() {
    let dir = TempDir::new().expect("a temporary directory");
    let (a, mut b) = pair(&dir).await;
    const COUNT: u64 = 5_000;
    for offset in 0..COUNT {
        a.peers.send(PeerId(2), wire(offset));
    }
    let mut received = Vec::new();
    let mut frames = 0;
    while (received.len() as u64) < COUNT {
        received.extend(arrived(&b.frame().await.1));
        frames += 1;
    }
    for (offset, got) in (0..).zip(received) {
        assert_eq!(got.message, message(offset));
    }
    assert!(frames < COUNT / 2, "batching falls out of draining: {frames} frames");
}

#[tokio::test]
async fn a_killed_peer_is_reported_and_connected_again() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut all, records) = nodes(&dir, 3).await;
    for node in &mut all {
        node.start(&records);
    }
    let [mut a, mut b, mut c]: [Node; 3] = all.try_into().ok().expect("three nodes");
    b.connected_to(&[PeerId(1), PeerId(3)]).await;
    a.connected_to(&[PeerId(2), PeerId(3)]).await;
    c.connected_to(&[PeerId(1), PeerId(2)]).await;
    // One of them was dialled by the killed node, the other had dialled it.
    b.kill();
    for node in [&mut a, &mut c] {
        assert!(matches!(node.command().await, Command::PeerClosed(PeerId(2))));
    }
    a.connected_to(&[PeerId(3)]).await;
    a.peers.send(PeerId(2), wire(1));
    assert_eq!(a.peers.counters().messages_dropped, 1);

    let address: SocketAddr = records[1].address.parse().expect("an address");
    let identity = Identity::open(&dir.path().join("n2"), &NodeId::from("n2")).expect("opens");
    let genesis = identity.membership().expect("a cluster").genesis.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let listener = loop {
        // The killed node's tasks end on their own time.
        if let Ok(listener) = runtime.spawn(Listener::bind(address)).await.expect("does not panic") {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let mut again = node((runtime, listener, identity), genesis);
    again.start(&records);
    again.connected_to(&[PeerId(1), PeerId(3)]).await;
    again.peers.send(PeerId(1), wire(7));
    let (from, frame) = a.frame().await;
    assert_eq!((from, arrived(&frame)[0].message.clone()), (PeerId(2), message(7)));
}

/// Answers every forward with its command, in reverse order.
struct Echo(Mutex<Vec<PeerId>>);

impl ForwardHandler for Echo {
    fn handle(&self, from: PeerId, forwards: Vec<v1::Forward>, reply: ForwardReplier) {
        self.0.lock().expect("nobody panics").push(from);
        for forward in forwards.into_iter().rev() {
            let client_id = String::from_utf8_lossy(&forward.command).into_owned();
            let partition = forward.partition;
            reply.reply(forward.id, v1::ClientResponse { client_id, partition, ..Default::default() });
        }
    }
}

/// One forward, and its answer.
fn forward(
    peers: &Peers,
    peer: PeerId,
    partition: u32,
    command: Bytes,
) -> impl Future<Output = ForwardResult> + use<> {
    let (to, mut answers) = mpsc::unbounded_channel();
    peers.forward_with(peer, partition, command, ForwardResponder { id: 7, to });
    async move { timeout(PATIENCE, answers.recv()).await.expect("in time").expect("is answered").1 }
}

#[tokio::test]
async fn a_forward_is_answered_by_the_other_side() {
    let dir = TempDir::new().expect("a temporary directory");
    let (a, b) = pair(&dir).await;
    let unready = forward(&a.peers, PeerId(2), 1, Bytes::from_static(b"x")).await.expect("is answered");
    assert_eq!(unready.error_code, ErrorCode::Unavailable.to_string());
    b.peers.set_forward_handler(Arc::new(Echo(Mutex::default())));
    let (to, mut answers) = mpsc::unbounded_channel();
    for id in 0..100 {
        let responder = ForwardResponder { id, to: to.clone() };
        a.peers.forward_with(PeerId(2), 5, Bytes::from(format!("command {id}")), responder);
    }
    for _ in 0..100 {
        let (id, answer) = timeout(PATIENCE, answers.recv()).await.expect("in time").expect("open");
        let answer = answer.expect("is answered");
        assert_eq!((answer.client_id, answer.partition), (format!("command {id}"), 5));
    }
    let nobody = forward(&a.peers, PeerId(9), 5, Bytes::new()).await;
    assert_eq!(nobody, Err(ForwardError::Unavailable));
}

/// Never answers.
struct Mute(mpsc::UnboundedSender<usize>);

impl ForwardHandler for Mute {
    fn handle(&self, _: PeerId, forwards: Vec<v1::Forward>, _: ForwardReplier) {
        let _ = self.0.send(forwards.len());
    }
}

#[tokio::test]
async fn a_forward_whose_peer_dies_has_an_unknown_outcome() {
    let dir = TempDir::new().expect("a temporary directory");
    let (a, mut b) = pair(&dir).await;
    let (heard, mut hears) = mpsc::unbounded_channel();
    b.peers.set_forward_handler(Arc::new(Mute(heard)));
    let answer = forward(&a.peers, PeerId(2), 1, Bytes::from_static(b"write"));
    assert_eq!(timeout(PATIENCE, hears.recv()).await.expect("in time"), Some(1));
    b.kill();
    assert_eq!(timeout(PATIENCE, answer).await.expect("in time"), Err(ForwardError::Unknown));
}

#[tokio::test]
async fn snapshots_travel_beside() {
    let dir = TempDir::new().expect("a temporary directory");
    let (a, mut b) = pair(&dir).await;
    let configuration = Configuration::of_voters([ReplicaId(1)]).expect("a voter");
    let meta = SnapshotMeta { position: Position::new(Index(9), Term(2)), configuration };
    let data = Bytes::from(vec![5; 1000]);
    let send_part = |part: u64| {
        let snapshot = SnapshotDescriptor { id: SnapshotId(1), meta: meta.clone(), bytes: 4000 };
        let chunk = SnapshotChunk { snapshot, offset: part * 1000, length: 1000 };
        let message =
            Message { from: ReplicaId(1), to: ReplicaId(2), term: Term(3), body: Body::SnapshotChunk(chunk) };
        a.peers.send_bulk(PeerId(2), chunk_to_wire(GroupId(1), &message, data.clone()));
    };
    // As a node does it: from a thread of its own, outside the runtime.
    std::thread::scope(|scope| {
        scope.spawn(|| (0..4).for_each(send_part));
    });
    for part in 0..4_u64 {
        let (from, mut frame) = b.frame().await;
        let inbound = frame.messages.pop().expect("one part a frame");
        assert_eq!((from, inbound.payload), (PeerId(1), InboundPayload::Chunk(data.clone())));
        let Body::SnapshotChunk(chunk) = inbound.message.message.body else { panic!("a chunk") };
        assert_eq!(chunk.offset, part * 1000);
    }
}

#[tokio::test]
async fn who_is_not_registered_is_refused_until_it_is() {
    let dir = TempDir::new().expect("a temporary directory");
    let (nodes, records) = nodes(&dir, 2).await;
    let [mut a, mut b]: [Node; 2] = nodes.try_into().ok().expect("two nodes");
    let mut stale = records.clone();
    stale[0].incarnation = crate::placement::Incarnation([9; 16]);
    b.start(&stale);
    a.start(&records);
    let refused = async {
        while a.peers.counters().refusals == 0 || b.peers.counters().refusals == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("is refused in time");
    assert!(a.peers.connected().is_empty() && b.peers.connected().is_empty());
    b.peers.set_members(records, BTreeMap::new());
    a.connected_to(&[PeerId(2)]).await;
    assert_eq!(a.identity.node_id(), &NodeId::from("n1"));
}

#[tokio::test]
async fn closing_ends_the_streams_and_is_no_news_to_the_own_driver() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut a, mut b) = pair(&dir).await;
    a.peers.close();
    assert!(matches!(b.command().await, Command::PeerClosed(PeerId(1))));
    assert!(a.peers.connected().is_empty());
    assert_eq!(forward(&a.peers, PeerId(2), 1, Bytes::new()).await, Err(ForwardError::Unavailable));
    a.peers.set_members([], BTreeMap::new());
    assert!(a.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_removed_member_is_not_talked_to() {
    let dir = TempDir::new().expect("a temporary directory");
    let (mut a, mut b) = pair(&dir).await;
    b.peers.set_members([], BTreeMap::new());
    assert!(matches!(a.command().await, Command::PeerClosed(PeerId(2))));
    assert!(b.peers.connected().is_empty());
    b.peers.send(PeerId(1), wire(1));
    assert_eq!(b.peers.counters().messages_dropped, 1);
    assert!(b.commands.try_recv().is_err());
}

#[tokio::test]
async fn a_replaced_directory_is_told_so_whoever_dials() {
    let dir = TempDir::new().expect("a temporary directory");
    for replaced in [0, 1] {
        let (nodes, records) = nodes(&dir, 2).await;
        let [mut a, mut b]: [Node; 2] = nodes.try_into().ok().expect("two nodes");
        for node in [&mut a, &mut b] {
            node.start(&records);
        }
        let (old, other) = if replaced == 0 { (&a, &b) } else { (&b, &a) };
        other.connected_to(&[records[replaced].peer]).await;
        let gone = BTreeMap::from([(records[replaced].peer, records[replaced].incarnation)]);
        other.peers.set_members([], gone);
        let error = timeout(PATIENCE, old.peers.ousted()).await.expect("is told in time");
        assert_eq!(error.code(), ErrorCode::Superseded, "{error}");
    }
}

#[tokio::test]
async fn a_member_that_moved_is_found_where_it_says_it_is() {
    let dir = TempDir::new().expect("a temporary directory");
    let (nodes, records) = nodes(&dir, 2).await;
    let [mut a, mut b]: [Node; 2] = nodes.try_into().ok().expect("two nodes");
    let mut stale = records.clone();
    stale[1].address = "127.0.0.1:1".into();
    a.start(&stale);
    b.start(&records);
    a.connected_to(&[PeerId(2)]).await;
    b.connected_to(&[PeerId(1)]).await;
}
