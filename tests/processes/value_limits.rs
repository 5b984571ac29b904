//! Values as large and as deep as the limits say go every way; deeper ones are refused with their code,
//! also where the decoder of the message refuses them before any service sees them.

use std::{collections::BTreeSet, fs};

use kotoba_db_cluster::limits::{GRPC_MESSAGE_BYTES_MAX, OPERATION_BYTES_MAX, VALUE_DEPTH_MAX};
use kotoba_db_cluster_proto::v1::{self, value};
use tonic::Status;

use crate::{
    command::run,
    harness::{Cluster, service},
    refused_values::{Asker, code_in, create},
};

/// More than a decoder of protobuf reads.
const UNREADABLE: usize = 200;

/// A value of maps within maps. `tag` tells it from others.
fn nested(depth: usize, tag: i64) -> value::Kind {
    (0..depth).fold(value::Kind::IntValue(tag), |inner, _| {
        let entries = [("m".to_owned(), v1::Value { kind: Some(inner) })].into();
        value::Kind::MapValue(v1::MapValue { entries })
    })
}

/// The same as JSON.
fn json(depth: usize, tag: i64) -> String {
    format!("{}{tag}{}", r#"{"m":"#.repeat(depth), "}".repeat(depth))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deepest_value_goes_every_way() {
    let cluster = Cluster::start(4).await;
    let mut tag = 0;
    for (number, address) in (0..).zip(cluster.addresses()) {
        let mut asker = Asker { address, request_id: number * 100 };
        // With as many as these some are led by another node than the one asked.
        for _ in 0..8 {
            tag += 1;
            let cid = asker.done(create(nested(VALUE_DEPTH_MAX, tag))).await.result_cid;
            let found = cluster.command(&["node", "get", &cid, "--output", "json"]).await.success().json();
            assert_eq!(found["properties"]["value"].to_string(), json(VALUE_DEPTH_MAX, tag));
            let past = cluster.command(&["node", "history", &cid, "--output", "json"]).await.success().json();
            assert_eq!(past[0]["properties"]["value"].to_string(), json(VALUE_DEPTH_MAX, tag));
        }
    }
    let line = format!(r#"{{"node":"deep","properties":{{"v":{}}}}}"#, json(VALUE_DEPTH_MAX, 0));
    let file = cluster.path("deep.jsonl");
    fs::write(&file, &line).expect("a file of ours");
    cluster.command(&["import", &file.display().to_string()]).await.success();
    let exported = cluster.export().await;
    assert!(exported.contains(&crate::checks::canonical(&line)), "it comes back as it went in");
    assert_eq!(exported.len(), usize::try_from(tag).expect("a few") + 1);
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeper_values_are_refused_with_their_code_on_every_way() {
    let mut cluster = Cluster::prepare(1, 4);
    cluster.launch(0);
    cluster.until_serving().await;
    let mut asker = Asker { address: cluster.nodes[0].address.clone(), request_id: 0 };
    for depth in [VALUE_DEPTH_MAX + 1, UNREADABLE] {
        asker.refused(create(nested(depth, 0)), "KDB-0005").await;
        let streamed = streamed(&mut asker, depth).await;
        assert_eq!(streamed, "KDB-0005", "depth {depth}");

        let deep = json(depth, 0);
        cluster.command(&["node", "create", &format!("v:={deep}")]).await.refused(1, "KDB-0005");
        let line = format!(r#"{{"node":"deep","properties":{{"v":{deep}}}}}"#);
        let file = cluster.path("deep.jsonl");
        fs::write(&file, line).expect("a file of ours");
        cluster.command(&["import", &file.display().to_string()]).await.refused(1, "KDB-0005");
        let client = cluster.client(std::time::Duration::from_secs(5)).await;
        let operation = v1::Operation { kind: Some(create(nested(depth, 0))) };
        let error = client.execute(operation, None).await.expect_err("it is too deep");
        assert_eq!(error.code().to_string(), "KDB-0005", "{error}");
    }
    assert!(cluster.export().await.is_empty(), "nothing was written");
    cluster.finish();
}

/// The code that a stream of writes answers a value of this depth with.
async fn streamed(asker: &mut Asker, depth: usize) -> String {
    let requests = tokio_stream::iter([asker.request(create(nested(depth, 0)))]);
    let mut answers = service(&asker.address).execute_stream(requests).await.expect("a stream").into_inner();
    let answer: Result<_, Status> = answers.message().await;
    match answer {
        Ok(answer) => answer.expect("an answer").error_code,
        Err(status) => {
            assert!(status.message().contains("; next: "), "{status}");
            code_in(&status)
        }
    }
}

/// More of the largest values than a message may have, all in one partition.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_of_large_values_is_exported_as_it_was_imported() {
    let mut cluster = Cluster::prepare(1, 1);
    cluster.launch(0);
    cluster.until_serving().await;
    let bytes = (OPERATION_BYTES_MAX - 1000).to_string();
    let line = ["generate", "--nodes", "20", "--edges", "0", "--value-bytes", &bytes];
    let graph = run(&line).await.success().stdout;
    assert!(graph.len() > GRPC_MESSAGE_BYTES_MAX);
    let file = cluster.path("large.jsonl");
    fs::write(&file, &graph).expect("a file of ours");
    cluster.command(&["import", &file.display().to_string()]).await.success();
    let expected: BTreeSet<String> = graph.lines().map(crate::checks::canonical).collect();
    assert!(cluster.export().await == expected, "it comes back as it went in");
    cluster.finish();
}
