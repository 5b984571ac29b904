//! A disk without room: a node does not begin there, and says why.

use std::{fs, path::Path};

use crate::harness::Cluster;

/// More than any disk has: a node that is to leave this much free has no room.
const NO_ROOM: &str = "1125899906842624";

fn settings(path: &Path, reserve: &str) {
    let text = format!("[log]\ndisk_reserve_bytes = {reserve}\ndisk_full_poll_interval = \"50ms\"\n");
    fs::write(path, text).expect("a file of ours");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_does_not_begin_on_a_full_disk() {
    let mut cluster = Cluster::prepare(1, 4);
    let config = cluster.nodes[0].data_dir.with_extension("toml");
    settings(&config, NO_ROOM);
    let mut line = cluster.command_line(0);
    line.push(format!("--config={}", config.display()));
    cluster.launch_with(0, &line);
    assert_eq!(cluster.ended(0).await, 3);
    assert!(cluster.log_of(0).contains("error[KDB-0025]"), "{}", cluster.log_of(0));
    settings(&config, "0");
    cluster.launch_with(0, &line);
    cluster.until_serving().await;
    cluster.finish();
}
