//! A client that is told "unknown outcome" repeats the request, and learns the first outcome.

use std::time::Duration;

use kotoba_db_cluster_proto::v1;
use tokio::time::timeout;

use crate::{
    harness::{Cluster, Group, PATIENCE, eventually, service},
    load::{count_to, counter_named},
};

/// Longer than a node goes on trying one request.
const ANSWER: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_learns_the_first_outcome() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client(Duration::from_secs(20)).await;
    let counter = client.execute(counter_named("asked twice"), None).await.expect("a serving cluster");
    let leader = cluster.leader_of(Group::Partition(counter.partition.0)).await;
    let request = v1::ClientRequest {
        client_id: "patient".into(),
        request_id: 7,
        operation: Some(count_to(&counter.cid, 1)),
        partition: Some(counter.partition.0),
        ..Default::default()
    };

    // The leader takes the request, and nobody is there to acknowledge it.
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    for &other in &others {
        cluster.pause(other);
    }
    let told = ask(&cluster.nodes[leader].address, request.clone()).await.expect_err("no majority");
    for &other in &others {
        cluster.resume(other);
    }
    assert!(["KDB-0013", "KDB-0015", "KDB-0016"].contains(&told.as_str()), "{told}");

    let mut receipts = Vec::new();
    for node in [leader, others[0], others[1]] {
        let receipt = eventually("outcome", PATIENCE, async || {
            ask(&cluster.nodes[node].address, request.clone()).await
        });
        receipts.push(receipt.await);
    }
    let first = (receipts[0].version_cid.clone(), receipts[0].log_index);
    for receipt in &receipts {
        assert_eq!((receipt.version_cid.clone(), receipt.log_index), first, "the first outcome");
    }
    let history = cluster.command(&["node", "history", &counter.cid, "--output", "json"]).await.success();
    let counted = history.stdout.matches("\"seq\":1").count();
    assert_eq!(counted, 1, "it took effect once: {}", history.stdout);

    let mut other = request;
    other.operation = Some(count_to(&counter.cid, 2));
    let refused = ask(&cluster.nodes[leader].address, other).await.expect_err("the id was used");
    assert_eq!(refused, "KDB-0012");
    cluster.check_digests().await;
    cluster.finish();
}

/// The receipt, or the code of the error.
async fn ask(address: &str, request: v1::ClientRequest) -> Result<v1::ClientResponse, String> {
    let mut service = service(address);
    let answer = timeout(ANSWER, service.execute_operation(request)).await.expect("an answer in time");
    match answer {
        Ok(answer) if answer.get_ref().success => Ok(answer.into_inner()),
        Ok(answer) => Err(answer.into_inner().error_code),
        Err(status) => {
            let code = status.metadata().get("kdb-error-code").and_then(|code| code.to_str().ok());
            Err(code.map_or_else(|| status.to_string(), str::to_owned))
        }
    }
}
