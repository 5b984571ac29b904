//! One row of one node's graph store is changed behind its back: `verify` finds it.

use std::{ops::ControlFlow, path::Path, time::Duration};

use kotoba_db_cluster::storage::graph_store::{
    Batch, FjallStore, GraphStore as _, KeyRange, Order, ReadView as _, StoreOptions,
};

use crate::{harness::Cluster, load::counter_named};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_the_one_row_that_differs() {
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client(Duration::from_secs(30)).await;
    for number in 0..20 {
        let counter = counter_named(&format!("node {number}"));
        client.execute(counter, None).await.expect("a serving cluster");
    }
    let victim = client.execute(counter_named("altered"), None).await.expect("a serving cluster");
    let equal = cluster.command(&["verify"]).await.success();
    assert_eq!(equal.stdout, "equal: 4 partitions on 3 members\n");

    let altered = 1;
    assert_eq!(cluster.terminate(altered).await, 0);
    let key = alter_a_row(&cluster.nodes[altered].data_dir.join("graph"), victim.partition.0);
    cluster.launch(altered);
    cluster.until_caught_up(altered).await;

    let verified = cluster.command(&["verify", "--output", "json"]).await;
    assert_eq!(verified.code, 1, "{verified:?}");
    assert!(verified.stderr.starts_with("error[KDB-0040]: "), "{verified:?}");
    let verified = verified.json();
    assert_eq!(verified["equal"], false, "{verified}");
    let difference = &verified["first_difference"];
    assert_eq!(difference["partition"], victim.partition.0, "{verified}");
    assert_eq!(difference["key"], key, "{verified}");
    let members = &difference["members"];
    assert_eq!(members["n1"], members["n3"], "the others agree: {verified}");
    assert_ne!(members["n1"], members["n2"], "{verified}");
    assert!(members["n2"].is_string(), "the row is there, with another value: {verified}");
    let shown = cluster.command(&["verify"]).await;
    assert_eq!(shown.code, 1, "{shown:?}");
    let beginning = format!("DIFFERENT: partition {} at log index ", victim.partition.0);
    assert!(shown.stdout.starts_with(&beginning), "{}", shown.stdout);
    assert!(shown.stdout.contains(&format!("first at the row {key}\n  n1: ")), "{}", shown.stdout);

    // As the error's page says: with an empty directory it receives the others' state.
    cluster.kill(altered);
    cluster.wipe(altered);
    cluster.launch(altered);
    cluster.until_caught_up(altered).await;
    cluster.check_digests().await;
    cluster.finish();
}

/// Changes the value of one row of a partition, on the disk of a node that does not run: the row's key, hex.
fn alter_a_row(directory: &Path, partition: u32) -> String {
    /// The table of entities' first blocks (docs/graph-format.md).
    const FIRST_BLOCKS: u8 = 0x10;
    let store = FjallStore::open(directory, &StoreOptions::default()).expect("a store of ours");
    let mut prefix = (partition + 1).to_be_bytes().to_vec();
    prefix.push(FIRST_BLOCKS);
    let mut found = None;
    store
        .scan(&KeyRange::prefix(&prefix), Order::Ascending, &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })
        .expect("a store of ours");
    let (key, mut value) = found.expect("a node was created there");
    *value.last_mut().expect("a block has bytes") ^= 1;
    let mut batch = Batch::new();
    batch.put(key.clone(), value);
    store.commit(batch).expect("a store of ours");
    store.persist().expect("a store of ours");
    data_encoding::HEXLOWER.encode(&key[4..])
}
