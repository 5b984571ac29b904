//! Values that cannot be stored and operations that cannot be carried out, straight over gRPC and from
//! the command line: each is refused with its code, and the node goes on.

use std::time::Duration;

use kotoba_db_cluster_proto::v1::{self, operation::Kind, value};
use tokio::time::timeout;

use crate::harness::{Cluster, service};

const ANSWER: Duration = Duration::from_secs(20);
/// The CID of no entity.
const NOBODY: &str = "bafyr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// One client of one node; each request has a new id.
pub(crate) struct Asker {
    pub(crate) address: String,
    pub(crate) request_id: u64,
}

impl Asker {
    pub(crate) fn request(&mut self, kind: Kind) -> v1::ClientRequest {
        self.request_id += 1;
        v1::ClientRequest {
            client_id: "asker".into(),
            request_id: self.request_id,
            operation: Some(v1::Operation { kind: Some(kind) }),
            ..Default::default()
        }
    }

    async fn ask(&self, request: v1::ClientRequest) -> Result<v1::ClientResponse, tonic::Status> {
        let mut service = service(&self.address);
        let answer = timeout(ANSWER, service.execute_operation(request)).await.expect("an answer in time");
        answer.map(tonic::Response::into_inner)
    }

    pub(crate) async fn done(&mut self, kind: Kind) -> v1::ClientResponse {
        let request = self.request(kind);
        let answer = self.ask(request).await.expect("an answer");
        assert!(answer.success, "{answer:?}");
        answer
    }

    pub(crate) async fn refused(&mut self, kind: Kind, code: &str) {
        let request = self.request(kind);
        self.refused_request(request, code).await;
    }

    /// The same through the streaming call.
    async fn refused_in_a_stream(&mut self, kind: Kind, code: &str) {
        let requests = tokio_stream::once(self.request(kind));
        let mut service = service(&self.address);
        let answers = timeout(ANSWER, service.execute_stream(requests)).await.expect("an answer in time");
        let mut answers = answers.expect("a stream").into_inner();
        let answer = timeout(ANSWER, answers.message()).await.expect("an answer in time");
        let answer = answer.expect("a sound stream").expect("an answer");
        assert_eq!((answer.success, answer.error_code.as_str()), (false, code), "{answer:?}");
    }

    async fn refused_request(&self, request: v1::ClientRequest, code: &str) {
        assert_eq!(self.code_of(request).await, code);
    }

    /// The error's code; the message has advice.
    async fn code_of(&self, request: v1::ClientRequest) -> String {
        let (error_code, message) = match self.ask(request).await {
            Ok(answer) => {
                assert!(!answer.success, "{answer:?}");
                (answer.error_code, answer.error_message)
            }
            Err(status) => (code_in(&status), status.message().to_owned()),
        };
        assert!(message.contains("; next: "), "{error_code}: {message}");
        error_code
    }
}

/// The error's code in the metadata of a failed call.
pub(crate) fn code_in(status: &tonic::Status) -> String {
    let code = status.metadata().get("kdb-error-code").and_then(|code| code.to_str().ok());
    code.unwrap_or_default().to_owned()
}

pub(crate) fn create(value: value::Kind) -> Kind {
    let properties = [("value".to_owned(), v1::Value { kind: Some(value) })].into();
    Kind::CreateNode(v1::CreateNode { properties, key: String::new() })
}

pub(crate) fn named(name: &str) -> Kind {
    create(value::Kind::StringValue(name.into()))
}

fn update(cid: &str) -> Kind {
    let properties = [("value".to_owned(), v1::Value { kind: Some(value::Kind::IntValue(1)) })].into();
    Kind::UpdateNode(v1::UpdateNode { cid: cid.into(), properties, unset: Vec::new() })
}

pub(crate) fn update_edge(cid: &str) -> Kind {
    let properties = [("since".to_owned(), v1::Value { kind: Some(value::Kind::IntValue(1)) })].into();
    Kind::UpdateEdge(v1::UpdateEdge { cid: cid.into(), properties, unset: Vec::new() })
}

fn delete_edge(cid: &str) -> Kind {
    Kind::DeleteEdge(v1::DeleteEdge { cid: cid.into() })
}

pub(crate) fn edge(source: &str, target: &str, label: &str) -> Kind {
    Kind::CreateEdge(v1::CreateEdge {
        source_cid: source.into(),
        target_cid: target.into(),
        label: label.into(),
        ..Default::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_values_and_operations_are_refused_with_their_code() {
    let mut cluster = Cluster::prepare(1, 4);
    cluster.launch(0);
    cluster.until_serving().await;
    let mut asker = Asker { address: cluster.nodes[0].address.clone(), request_id: 0 };

    asker.refused(create(value::Kind::FloatValue(f64::NAN)), "KDB-0006").await;
    asker.refused(create(value::Kind::FloatValue(f64::INFINITY)), "KDB-0006").await;
    asker.refused(named(&"x".repeat(2 << 20)), "KDB-0005").await;
    asker.refused(create(value::Kind::LinkValue("not-a-cid".into())), "KDB-0003").await;
    asker.refused(update("not-a-cid"), "KDB-0003").await;
    asker.refused(update(""), "KDB-0003").await;

    let alice = asker.done(named("Alice")).await.result_cid;
    let bob = asker.done(named("Bob")).await.result_cid;
    let knows = asker.done(edge(&alice, &bob, "knows")).await.result_cid;
    asker.refused(edge(&alice, &bob, ""), "KDB-0004").await;
    asker.refused(edge(&alice, &bob, &"x".repeat(2000)), "KDB-0005").await;
    asker.refused(delete_edge(&alice), "KDB-0010").await;
    asker.refused(update(&knows), "KDB-0010").await;
    asker.refused(update_edge(&bob), "KDB-0010").await;
    asker.done(update_edge(&knows)).await;
    asker.refused_in_a_stream(update(&knows), "KDB-0010").await;
    asker.refused_in_a_stream(delete_edge(NOBODY), "KDB-0009").await;
    let deleted = asker.done(Kind::DeleteNode(v1::DeleteNode { cid: bob.clone() })).await;
    asker.refused(update(&deleted.version_cid), "KDB-0010").await;
    asker.refused(update(&bob), "KDB-0008").await;
    asker.refused(update_edge(&knows), "KDB-0008").await;
    asker.refused(delete_edge(&knows), "KDB-0008").await;
    asker.refused(edge(&alice, &bob, "knows"), "KDB-0007").await;
    asker.refused(edge(&bob, &alice, "knows"), "KDB-0007").await;
    // Bob lives again; his edges of before do not.
    asker.done(named("Bob")).await;
    asker.refused(update_edge(&knows), "KDB-0008").await;
    asker.done(edge(&alice, &bob, "knows")).await;
    asker.done(Kind::DeleteNode(v1::DeleteNode { cid: bob.clone() })).await;

    let mut without_operation = asker.request(named("nobody"));
    without_operation.operation = None;
    asker.refused_request(without_operation, "KDB-0004").await;
    let mut of_no_consistency = asker.request(named("nobody"));
    of_no_consistency.consistency = 99;
    asker.refused_request(of_no_consistency, "KDB-0004").await;
    let mut of_nobody = asker.request(named("nobody"));
    of_nobody.client_id = "x".repeat(300);
    asker.refused_request(of_nobody, "KDB-0005").await;
    let mut used = asker.request(named("something"));
    used.client_id = "twice".into();
    assert!(asker.ask(used.clone()).await.expect("an answer").success);
    used.operation = Some(v1::Operation { kind: Some(named("something else")) });
    asker.refused_request(used, "KDB-0012").await;

    // More than a message may have.
    asker.refused(named(&"x".repeat(20 << 20)), "KDB-0005").await;

    from_the_command_line(&cluster, &alice, &bob).await;
    assert!(asker.done(named("Carol")).await.success, "the node goes on");
    cluster.finish();
}

async fn from_the_command_line(cluster: &Cluster, alice: &str, bob: &str) {
    let missing =
        cluster.command(&["node", "create", "name=ghost", "--output", "json"]).await.success().json();
    let missing = missing["cid"].as_str().expect("a CID").to_owned();
    cluster.command(&["node", "delete", &missing]).await.success();
    cluster.command(&["edge", "create", alice, "knows", &missing]).await.refused(1, "KDB-0007");
    cluster.command(&["node", "update", bob, "age:=1"]).await.refused(1, "KDB-0008");
    cluster.command(&["node", "get", "not-a-cid"]).await.refused(2, "KDB-0003");
    cluster.command(&["node", "create", "age:={"]).await.refused(2, "KDB-0004");
    cluster.command(&["block", "get", "not-a-cid"]).await.refused(2, "KDB-0003");
    let found = cluster.command(&["node", "get", alice, "--output", "json"]).await.success().json();
    assert_eq!(found["cid"], alice, "{found}");
    assert_eq!(found["properties"]["value"], "Alice", "{found}");
}
