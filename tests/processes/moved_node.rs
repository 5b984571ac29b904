//! A node is its data directory, not its address: it may be started at another one, and is found there.

use std::{fs, path::Path};

use kotoba_db_cluster::client::v1;

use crate::{
    command::run,
    harness::{Cluster, Node, PATIENCE, eventually, free_address},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_be_started_at_another_address() {
    let mut cluster = Cluster::start(4).await;
    let created = cluster.command(&["node", "create", "--key", "kept", "name=Alice"]).await.success();
    let cid = created.stdout.split_whitespace().next().expect("a CID").to_owned();

    // The last one is dialled by the others, who know only where it was.
    cluster.kill(2);
    cluster.nodes[2].address = free_address();
    let mut line = cluster.command_line(2);
    line.push("--partitions=9".to_owned());
    line.retain(|arg| arg != "--partitions=4");
    cluster.launch_with(2, &line);
    until_known(&cluster).await;
    let told = cluster.log_of(2);
    assert!(told.contains("error[KDB-0002]: partitions 9 is ignored: the cluster began with 4"), "{told}");

    // All at once: nobody is where anybody knows, but for what they are told at their start.
    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.nodes[node].address = free_address();
    }
    for node in 0..3 {
        cluster.launch(node);
    }
    until_known(&cluster).await;
    cluster.command(&["node", "get", &cid]).await.success();
    cluster.check_digests().await;
    cluster.finish();
}

/// Every node takes part, under the address it runs at.
async fn until_known(cluster: &Cluster) {
    cluster.until_serving().await;
    for asked in 0..cluster.nodes.len() {
        eventually("the nodes' addresses", PATIENCE, async || {
            let status = cluster.status_of(asked).await?;
            let known = |node: &Node| {
                let is_it = |row: &v1::NodeStatus| row.id == node.id && row.address == node.address;
                status.nodes.iter().any(|row| is_it(row) && row.state == "up")
            };
            if cluster.nodes.iter().all(known) { Ok(()) } else { Err(format!("{:?}", status.nodes)) }
        })
        .await;
    }
    for node in 0..cluster.nodes.len() {
        cluster.until_caught_up(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_under_a_members_name_is_refused_and_harms_nobody() {
    let cluster = Cluster::start(4).await;
    let member = &cluster.nodes[0];
    let (elsewhere, fresh) = (free_address(), cluster.path("twin").display().to_string());
    let others = format!("{},{}", cluster.nodes[1].address, cluster.nodes[2].address);
    // Told of the first one or not, with a directory of its own or with a copy of the first one's.
    for peers in [others.clone(), format!("{},{others}", member.address)] {
        let line =
            ["--node-id", &member.id, "--address", &elsewhere, "--data-dir", &fresh, "--peers", &peers];
        ends_with(&line, "KDB-0032").await;
    }
    let copy = cluster.path("copy");
    copy_directory(&member.data_dir, &copy);
    let copy = copy.display().to_string();
    let line = ["--node-id", &member.id, "--address", &elsewhere, "--data-dir", &copy, "--peers", &others];
    ends_with(&line, "KDB-0032").await;

    let status = cluster.status().await.expect("it runs");
    assert_eq!(status.map_epoch, 1, "nobody was replaced");
    assert!(status.serving && status.nodes.iter().all(|node| node.state == "up"), "{status:?}");
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_was_replaced_stops_and_starts_no_more() {
    // One that dials most of the others, and one that is dialled by all of them.
    for replaced in [0, 2] {
        let mut cluster = Cluster::start(4).await;
        cluster.pause(replaced);
        let newer = cluster.add_second(replaced);
        cluster.launch(newer);
        let (id, address) = (cluster.nodes[newer].id.clone(), cluster.nodes[newer].address.clone());
        eventually("newer directory in the cluster", PATIENCE, async || {
            let status = cluster.status().await?;
            let there = status.nodes.iter().any(|node| node.id == id && node.address == address);
            if there && status.serving { Ok(()) } else { Err(format!("{:?}", status.nodes)) }
        })
        .await;
        cluster.resume(replaced);
        assert_eq!(cluster.ended(replaced).await, 1);
        let said = cluster.log_of(replaced);
        assert!(said.contains("error[KDB-0035]: "), "{said}");
        assert!(!said.contains('\u{1b}'), "no colours in a file: {said}");

        let line = cluster.command_line(replaced);
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        ends_with(&line, "KDB-0035").await;
        cluster.finish();
    }
}

/// The program ends by itself, and its last word is this error.
async fn ends_with(line: &[&str], code: &str) {
    let finished = run(line).await;
    assert_eq!(finished.code, 1, "{finished:?}");
    let last = finished.stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("error[{code}]: ")) && last.contains("; next: "), "{finished:?}");
}

fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a path of ours");
    for entry in fs::read_dir(from).expect("a directory of ours") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file of ours");
        }
    }
}
