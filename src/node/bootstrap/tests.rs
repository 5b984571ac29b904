use std::{net::SocketAddr, path::Path};

use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::service::Routes;

use super::*;
use crate::{
    node::{identity::Membership, peers::PeerServer, serve::Listener},
    placement::NodeId,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn connector() -> Connector {
    Connector { tls: None, network: NetworkTuning::default() }
}

async fn listener() -> Listener {
    Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("binds")
}

/// A node that answers introductions while it comes to its cluster.
struct Starting {
    done: JoinHandle<Result<(Outcome, Membership), ClusterError>>,
    waiting: watch::Receiver<Vec<String>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    address: String,
}

fn start(dir: &Path, name: &str, listener: Listener, peers: &[String], partitions: u32) -> Starting {
    let mut identity = Identity::open(dir, &NodeId::from(name)).expect("opens");
    let address = listener.address().to_string();
    let plan = Plan::new(address.clone(), peers.to_vec(), partitions, 3);
    let hello = LocalHello::new(&identity, address.clone(), plan.addresses(), partitions, 3);
    let routes = Routes::new(PeerServer::new(hello.clone()).into_service());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        let network = NetworkTuning::default();
        let shutdown = async { drop(stopped.await) };
        listener.serve(routes, None, &network, shutdown).await.expect("serves");
    });
    let (tell, waiting) = watch::channel(Vec::new());
    let done = tokio::spawn(async move {
        let outcome = run(&mut identity, &plan, &hello, &connector(), &tell).await?;
        Ok((outcome, identity.membership().expect("is in a cluster").clone()))
    });
    Starting { done, waiting, stop, server, address }
}

impl Starting {
    async fn outcome(&mut self) -> Result<(Outcome, Membership), ClusterError> {
        timeout(PATIENCE, &mut self.done).await.expect("in time").expect("does not panic")
    }

    async fn waits_because(&mut self, of: &str) {
        let told = self.waiting.wait_for(|reasons| reasons.iter().any(|reason| reason.contains(of)));
        timeout(PATIENCE, told).await.expect("in time").expect("still waiting");
    }
}

#[tokio::test]
async fn three_nodes_find_to_one_cluster() {
    let dir = TempDir::new().expect("a temporary directory");
    let listeners = [listener().await, listener().await, listener().await];
    let addresses = listeners.each_ref().map(|listener| listener.address().to_string());
    let mut nodes = Vec::new();
    for (number, listener) in listeners.into_iter().enumerate() {
        let name = format!("n{number}");
        nodes.push(start(&dir.path().join(&name), &name, listener, &addresses, 8));
    }
    let mut memberships = Vec::new();
    for node in &mut nodes {
        let (outcome, membership) = node.outcome().await.expect("comes to its cluster");
        assert_eq!(outcome, Outcome::Founded);
        assert!(node.waiting.borrow().is_empty());
        memberships.push(membership);
    }
    assert_eq!(memberships[0].genesis.members.len(), 3);
    for (number, membership) in (1..).zip(&memberships) {
        assert_eq!(membership.cluster_id, memberships[0].cluster_id);
        assert_eq!(membership.genesis, memberships[0].genesis);
        assert_eq!(membership.peer, PeerId(number), "peers are numbered in order of their ids");
    }
}

#[tokio::test]
async fn a_node_says_for_whom_it_waits_and_goes_on_when_they_come() {
    let dir = TempDir::new().expect("a temporary directory");
    let (first, second) = (listener().await, listener().await);
    let addresses = [first.address().to_string(), second.address().to_string()];
    let mut a = start(&dir.path().join("a"), "a", first, &addresses, 8);
    let mut wrong = start(&dir.path().join("b"), "b", second, &addresses, 9);
    a.waits_because("was started with 9 partitions, this node with 8").await;
    wrong.waits_because("was started with 8 partitions, this node with 9").await;
    wrong.done.abort();
    wrong.stop.send(()).expect("still serves");
    wrong.server.await.expect("stops");
    let address: SocketAddr = addresses[1].parse().expect("an address");
    let again = Listener::bind(address).await.expect("binds again");
    let mut b = start(&dir.path().join("b"), "b", again, &addresses, 8);
    let (of_a, of_b) = (a.outcome().await.expect("founds").1, b.outcome().await.expect("founds").1);
    assert_eq!(of_a.cluster_id, of_b.cluster_id);
}

#[tokio::test]
async fn a_node_with_a_cluster_waits_for_nobody() {
    let dir = TempDir::new().expect("a temporary directory");
    let mut alone = start(dir.path(), "a", listener().await, &[], 4);
    let (outcome, founded) = alone.outcome().await.expect("founds");
    assert_eq!(outcome, Outcome::Founded);
    // While it runs, a copy of it must not.
    let first = [alone.address.clone()];
    let mut copy = start(dir.path(), "a", listener().await, &first, 4);
    assert_eq!(copy.outcome().await.expect_err("it runs already").code(), ErrorCode::NodeIdMismatch);
    alone.stop.send(()).expect("still serves");
    alone.server.await.expect("stops");
    let unreachable = ["127.0.0.1:1".to_owned()];
    let mut again = start(dir.path(), "a", listener().await, &unreachable, 4);
    assert_eq!(again.outcome().await.expect("resumes"), (Outcome::Resumed, founded));
}

#[tokio::test]
async fn a_twin_is_refused() {
    let dir = TempDir::new().expect("a temporary directory");
    let (first, second) = (listener().await, listener().await);
    let addresses = [first.address().to_string(), second.address().to_string()];
    let mut a = start(&dir.path().join("a"), "same", first, &addresses, 8);
    let mut b = start(&dir.path().join("b"), "same", second, &addresses, 8);
    for node in [&mut a, &mut b] {
        let error = node.outcome().await.expect_err("another node has its id");
        assert_eq!(error.code(), ErrorCode::NodeIdMismatch);
    }
}

#[tokio::test]
async fn a_wiped_node_waits_to_be_let_in_and_says_so() {
    let dir = TempDir::new().expect("a temporary directory");
    let (first, second) = (listener().await, listener().await);
    let addresses = [first.address().to_string(), second.address().to_string()];
    let mut a = start(&dir.path().join("a"), "a", first, &addresses, 8);
    let mut b = start(&dir.path().join("b"), "b", second, &addresses, 8);
    a.outcome().await.expect("founds");
    b.outcome().await.expect("founds");
    // The peer has begun the cluster but its cluster service, which would let the node in, is not
    // part of this test: the node goes on asking, and never begins a cluster of its own.
    let mut wiped = start(&dir.path().join("b-wiped"), "b", listener().await, &addresses[..1], 8);
    wiped.waits_because("does not let node b in again").await;
    assert!(!wiped.done.is_finished());
}
