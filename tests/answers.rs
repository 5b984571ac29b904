//! What a real node answers: in pages that fit into a message, cut where it says so, once for each request.
#![allow(clippy::disallowed_types, reason = "the specification's operations hold hash maps")]

use std::collections::HashMap;

use kotoba_db_cluster::{
    ClusterConfig, KotobaCluster, NodeId, Operation, Receipt, Value,
    client::{Client, ClientOptions, ReadFrom, v1},
    error::ErrorCode,
    graph::{Cid, OperationDetails},
    limits::{ANSWER_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX},
};
use kotoba_db_cluster_proto::v1::cluster_service_client::ClusterServiceClient;
use tempfile::TempDir;
use tonic::transport::Channel;

struct Alone {
    cluster: KotobaCluster,
    endpoint: String,
    _dir: TempDir,
}

impl Alone {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ClusterConfig { partition_count: 2, ..ClusterConfig::default() };
        let builder = KotobaCluster::builder(NodeId("n".to_owned())).config(config);
        let mut cluster = builder.data_dir(dir.path().join("data")).build().await.unwrap();
        cluster.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let endpoint = cluster.address().unwrap().to_string();
        Self { cluster, endpoint, _dir: dir }
    }

    async fn client(&self) -> Client {
        Client::connect(vec![self.endpoint.clone()], ClientOptions::default()).await.unwrap()
    }

    async fn raw(&self) -> ClusterServiceClient<Channel> {
        let client = ClusterServiceClient::connect(format!("http://{}", self.endpoint)).await.unwrap();
        client.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }

    async fn execute(&self, operation: Operation) -> Receipt {
        self.cluster.execute_operation(operation).await.unwrap()
    }

    async fn node(&self, number: i64) -> Cid {
        let properties = HashMap::from([("n".to_owned(), Value::Int(number))]);
        self.execute(Operation::CreateNode { properties }).await.cid
    }

    async fn edge(&self, source_cid: Cid, target_cid: Cid) -> Cid {
        let properties = HashMap::new();
        let create = Operation::CreateEdge { source_cid, target_cid, label: "l".to_owned(), properties };
        self.execute(create).await.cid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_come_in_pages() {
    let mut alone = Alone::start().await;
    let hub = alone.node(0).await;
    let mut edges = Vec::new();
    for number in 1..=5 {
        let other = alone.node(number).await;
        edges.push(alone.edge(hub, other).await.to_string());
    }
    // It leaves the node and enters it: two neighbours of one edge.
    let own = alone.edge(hub, hub).await.to_string();
    edges.extend([own.clone(), own]);
    edges.sort_unstable();
    let mut raw = alone.raw().await;
    let mut request = v1::NeighborsRequest {
        cid: hub.to_string(),
        direction: v1::Direction::Both.into(),
        limit: 2,
        ..Default::default()
    };
    let (mut found, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = raw.neighbors(request.clone()).await.unwrap().into_inner();
        sizes.push(page.neighbors.len());
        found.extend(page.neighbors.into_iter().map(|neighbor| neighbor.edge));
        if page.resume.is_empty() {
            break;
        }
        request.resume = page.resume;
    }
    found.sort_unstable();
    assert_eq!((found, sizes), (edges.clone(), vec![2, 2, 2, 1]));

    let client = alone.client().await;
    let from = ReadFrom::default();
    let all = client.neighbors(&hub.to_string(), v1::Direction::Both, "", from).await.unwrap();
    assert_eq!(all.len(), edges.len());

    let refused = |status: tonic::Status| status.metadata().get("kdb-error-code").cloned();
    request.direction = 9;
    let code = refused(raw.neighbors(request.clone()).await.unwrap_err());
    assert_eq!(code.unwrap(), "KDB-0004", "a direction that means nothing");
    request.direction = 0;
    request.resume = b"nowhere".to_vec().into();
    assert_eq!(refused(raw.neighbors(request).await.unwrap_err()).unwrap(), "KDB-0004");

    let query = |limit| v1::QueryRequest {
        query: Some(v1::query_request::Query::ByLabel("l".to_owned())),
        limit,
        ..Default::default()
    };
    // Six edges and their source.
    let (some, all) = (client.query(query(6)).await.unwrap(), client.query(query(7)).await.unwrap());
    assert_eq!((some.entities.len(), some.cut), (6, true));
    assert_eq!((all.entities.len(), all.cut), (7, false));
    alone.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_larger_than_a_message_is_read_whole() {
    let mut alone = Alone::start().await;
    let cid = alone.node(0).await;
    let text = "x".repeat(1_000_000);
    let updates = 2 * GRPC_MESSAGE_BYTES_MAX / text.len() / 2 + 2;
    assert!(updates * text.len() > GRPC_MESSAGE_BYTES_MAX);
    for number in 0..updates {
        let properties = HashMap::from([("t".to_owned(), Value::String(format!("{number}{text}")))]);
        alone.execute(Operation::UpdateNode { cid, properties }).await;
    }
    let client = alone.client().await;
    let history = client.history(&cid.to_string(), ReadFrom::default()).await.unwrap().unwrap();
    assert_eq!(history.len(), updates + 1);
    assert!(history.windows(2).all(|pair| pair[0].log_index < pair[1].log_index), "each once, in order");
    let request = v1::HistoryRequest { cid: cid.to_string(), skip: 1, ..Default::default() };
    let page = alone.raw().await.history(request).await.unwrap().into_inner();
    assert_eq!(page.total, updates as u64 + 1);
    assert_eq!(page.versions.len(), ANSWER_BYTES_MAX / text.len());
    assert_eq!(page.versions[0], history[1]);
    alone.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_named_request_takes_effect_once() {
    let mut alone = Alone::start().await;
    let cid = alone.node(0).await;
    let update = |number| Operation::UpdateNode {
        cid,
        properties: HashMap::from([("n".to_owned(), Value::Int(number))]),
    };
    let details = OperationDetails::default;
    let first = alone.cluster.execute_as("app", 7, update(1), details()).await.unwrap();
    alone.execute(update(2)).await;
    let again = alone.cluster.execute_as("app", 7, update(1), details()).await.unwrap();
    assert_eq!(first, again);
    let client = alone.client().await;
    let history = client.history(&cid.to_string(), ReadFrom::default()).await.unwrap().unwrap();
    assert_eq!(history.len(), 3);
    let reused = alone.cluster.execute_as("app", 7, update(3), details()).await;
    assert_eq!(reused.unwrap_err().code(), ErrorCode::RequestReused);
    for (client_id, request_id) in [("", 1), ("app", 0)] {
        let refused = alone.cluster.execute_as(client_id, request_id, update(3), details()).await;
        assert_eq!(refused.unwrap_err().code(), ErrorCode::MalformedValue);
    }
    alone.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_operation_on_an_edge_says_that_it_is_one() {
    let mut alone = Alone::start().await;
    let client = alone.client().await;
    let (a, b) = (alone.node(1).await, alone.node(2).await);
    let edge = alone.edge(a, b).await;
    let kinds = [
        v1::operation::Kind::UpdateNode(v1::UpdateNode { cid: edge.to_string(), ..Default::default() }),
        v1::operation::Kind::DeleteNode(v1::DeleteNode { cid: edge.to_string() }),
    ];
    for kind in kinds {
        let operation = v1::Operation { kind: Some(kind) };
        let error = client.execute(operation, None).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongKind, "{error}");
    }
    let nobody = v1::DeleteNode { cid: Cid::of(b"nobody").to_string() };
    let operation = v1::Operation { kind: Some(v1::operation::Kind::DeleteNode(nobody)) };
    assert_eq!(client.execute(operation, None).await.unwrap_err().code(), ErrorCode::NotFound);
    alone.cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_by_its_name_is_told_the_configuration() {
    let mut alone = Alone::start().await;
    let mut raw = alone.raw().await;
    let join = |name: &str| v1::JoinRequest {
        node: Some(v1::NodeId { id: name.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let config = raw.join_cluster(join("n")).await.unwrap().into_inner().config.unwrap();
    assert_eq!(config.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["n"]);
    let refused = raw.join_cluster(join("nobody")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
    alone.cluster.stop().await.unwrap();
}
