//! One byte of a node's log is flipped while it is stopped, in the middle of what it had acknowledged: that
//! one replica stays out of service and says why; its group goes on with the others, also for those who ask
//! the damaged node.

use std::{fs, path::Path, time::Duration};

use kotoba_db_cluster::client::v1;
use tokio::time::timeout;

use crate::{
    harness::{Cluster, Group, rows, service},
    load::{count_to, counter_named, seq_of},
};

/// A text by which the damaged entry is found in the files of the log.
const MARK: &str = "an-entry-that-will-be-damaged";
/// Far less than a node goes on trying one request.
const AT_ONCE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_damaged_log_stays_out_and_its_group_serves_on() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client(Duration::from_secs(30)).await;
    let counter = client.execute(counter_named(MARK), None).await.expect("a serving cluster");
    let damaged = counter.partition.0;
    // What comes behind it shows that it is not the tail.
    for seq in 1..=20 {
        client
            .execute(count_to(&counter.cid, seq), Some(counter.partition))
            .await
            .expect("a serving cluster");
    }
    let victim = cluster.leader_of(Group::Partition(damaged)).await;
    let id = cluster.nodes[victim].id.clone();
    cluster.kill(victim);
    flip_a_byte_of(MARK, &cluster.nodes[victim].data_dir.join("wal"));
    cluster.launch(victim);
    cluster.until_serving().await;

    check_status(&cluster, victim, damaged).await;
    asked_itself_it_passes_requests_on(&cluster, victim, &counter.cid, counter.partition.0).await;
    let log = cluster.log_of(victim);
    let told: Vec<_> = log.lines().filter(|line| line.contains("error[KDB-0023]")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(&format!("partition {damaged}")) && told[0].contains("; next: "), "{told:?}");

    let verified = cluster.command(&["verify", "--output", "json"]).await;
    assert_eq!(verified.code, 3, "{verified:?}");
    assert!(verified.stderr.starts_with("error[KDB-0016]: replicas not compared: 1,"), "{verified:?}");
    let verified = verified.json();
    assert_eq!(verified["equal"], false, "{verified}");
    assert_eq!(verified["first_difference"], serde_json::Value::Null, "{verified}");
    assert_eq!(verified["not_compared"].as_array().map(Vec::len), Some(1), "{verified}");
    assert_eq!(verified["not_compared"][0]["member"], id, "{verified}");
    assert_eq!(verified["not_compared"][0]["partitions"], serde_json::json!([damaged]), "{verified}");
    assert!(verified["not_compared"][0]["reason"].to_string().contains("out of service"), "{verified}");
    let shown = cluster.command(&["verify"]).await;
    assert!(shown.stdout.contains(&format!("not compared: {id} in partition {damaged}")), "{shown:?}");

    // As the error's page says: with an empty directory it comes back as a new replica.
    cluster.kill(victim);
    cluster.wipe(victim);
    cluster.launch(victim);
    cluster.until_caught_up(victim).await;
    cluster.check_digests().await;
    cluster.finish();
}

/// The status names the damaged replica and what is damaged, and no other.
async fn check_status(cluster: &Cluster, victim: usize, damaged: u32) {
    let id = &cluster.nodes[victim].id;
    for asked in 0..3 {
        let status = cluster.status_of(asked).await.expect("it runs");
        assert!(status.serving, "{:?}", status.waiting_for);
        for node in &status.nodes {
            assert_eq!(node.state, if node.id == *id { "faulted" } else { "up" }, "{}", node.id);
            for (partition, row) in rows(node) {
                let is_damaged = node.id == *id && partition == Some(damaged);
                assert_eq!(row.role == "faulted", is_damaged, "{}: {row:?}", node.id);
                let told = row.fault.starts_with("KDB-0023: entry ") && row.fault.contains("cannot be read");
                assert_eq!(told, is_damaged, "{}: {row:?}", node.id);
            }
        }
    }
    let shown = cluster.command(&["status"]).await.success();
    let line = format!("faulted: partition {damaged} on {id}: KDB-0023: entry ");
    assert!(shown.stdout.contains(&line), "{}", shown.stdout);
}

/// Reads and writes of the damaged partition that the damaged node takes are answered by the others.
async fn asked_itself_it_passes_requests_on(cluster: &Cluster, victim: usize, cid: &str, partition: u32) {
    let mut service = service(&cluster.nodes[victim].address);
    for seq in 21..=40 {
        let write = v1::ClientRequest {
            client_id: "of the damaged node".into(),
            request_id: seq,
            operation: Some(count_to(cid, seq)),
            partition: Some(partition),
            ..Default::default()
        };
        let written = timeout(AT_ONCE, service.execute_operation(write)).await.expect("an answer at once");
        let written = written.expect("an answer").into_inner();
        assert!(written.success, "{written:?}");
        let read = v1::GetEntityRequest { cid: cid.into(), options: None };
        let read = timeout(AT_ONCE, service.get_entity(read)).await.expect("an answer at once");
        let entity = read.expect("an answer").into_inner().entity.expect("it was acknowledged");
        assert_eq!(seq_of(&entity.properties), Some(seq), "a strong read shows what was acknowledged");
    }
}

/// Flips one bit in the middle of each place in the log's files where this text stands.
fn flip_a_byte_of(text: &str, wal: &Path) {
    let mut flipped = 0;
    for file in fs::read_dir(wal).expect("the log's directory") {
        let path = file.expect("a file of the log").path();
        let mut bytes = fs::read(&path).expect("a file of ours");
        let found: Vec<_> =
            bytes.windows(text.len()).enumerate().filter(|(_, window)| *window == text.as_bytes()).collect();
        let places: Vec<usize> = found.into_iter().map(|(at, _)| at).collect();
        for at in &places {
            bytes[at + text.len() / 2] ^= 1;
        }
        flipped += places.len();
        if !places.is_empty() {
            fs::write(&path, bytes).expect("a file of ours");
        }
    }
    assert!(flipped > 0, "the entry is in the log");
}
