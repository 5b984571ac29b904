//! Directories, ports, peers and command lines that cannot work: each gives one clear sentence, and no
//! panic or hang.

use std::{fs, time::Duration};

use kotoba_db_cluster_proto::v1;

use crate::{
    command::{run, run_within},
    harness::{Cluster, PATIENCE, eventually, free_address, peer_service, service, touch},
    load::Load,
    refused_values::code_in,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn directories_and_ports_that_cannot_be_used_are_refused_with_a_sentence() {
    let mut cluster = Cluster::prepare(1, 4);
    cluster.launch(0);
    cluster.until_serving().await;
    let own = &cluster.nodes[0];
    let (address, taken) = (free_address(), own.address.clone());
    let data_dir = own.data_dir.display().to_string();
    let other_dir = cluster.path("other").display().to_string();
    let file = cluster.path("file");
    touch(&file);
    let below_a_file = file.join("data").display().to_string();

    start(&own.id, &address, &data_dir).await.refused(1, "KDB-0019");
    start("n2", &taken, &other_dir).await.refused(1, "KDB-0027");
    assert!(!cluster.path("other").exists(), "a start at a wrong address leaves nothing behind");
    start("n2", &address, &below_a_file).await.refused(1, "KDB-0022");
    assert_eq!(cluster.terminate(0).await, 0);
    start("n2", &address, &data_dir).await.refused(1, "KDB-0020");

    // None of that has harmed the directory.
    cluster.launch(0);
    cluster.until_serving().await;
    cluster.finish();
}

async fn start(id: &str, address: &str, data_dir: &str) -> crate::command::Finished {
    run(&["--node-id", id, "--address", address, "--data-dir", data_dir]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_command_lines_end_with_2_and_one_sentence() {
    let address = free_address();
    let lines: &[&[&str]] = &[
        &["--no-such-flag"],
        &["no-such-command"],
        &["--node-id", "n1", "--address", &address, "--no-such-flag"],
        &["--node-id", "n1", "--address", "no address"],
        &["--node-id", "n1", "--address", &address, "--partitions", "0"],
        &["--node-id", "n1", "--address", &address, "--partitions", "many"],
        &["--node-id", "n1", "--address", &address, "--replication-factor", "0"],
        &["--node-id", "n1", "--address", &address, "--tls-cert", "only-one-of-three.pem"],
        &["--node-id", "n1", "--address", &address, "status"],
        &["--node-id", "n1", "--address", &address, "--peers", "nowhere"],
        &["--node-id", "n1", "--address", &address, "--config", "does-not-exist.toml"],
        &["node", "get"],
        &["node", "get", "not-a-cid"],
        &["node", "create", "age:={"],
        &["node", "create", "age:=1e999"],
        &["node", "create", "nothing"],
        &["neighbors", "not-a-cid"],
        &["neighbors", "not-a-cid", "--direction", "sideways"],
        &["block", "get", "bafy"],
        &["edge", "create", "a", "knows", "b"],
        &["status", "--output", "xml"],
        &["status", "--endpoints", "nowhere"],
    ];
    for line in lines {
        let finished = run(line).await;
        let expected = if line.contains(&"does-not-exist.toml") { 1..=2 } else { 2..=2 };
        assert!(expected.contains(&finished.code), "{line:?}: {finished:?}");
        assert!(!finished.stderr.contains("panicked"), "{line:?}: {finished:?}");
        let sentences = finished.stderr.lines().filter(|line| line.starts_with("error")).count();
        assert_eq!(sentences, 1, "{line:?}: {finished:?}");
        assert_eq!(finished.stdout, "", "{line:?}: stdout is for data");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_is_unavailable() {
    let nobody = free_address();
    for command in [&["status"][..], &["export"], &["verify"]] {
        let mut line = command.to_vec();
        line.extend(["--endpoints", &nobody]);
        let finished = run(&line).await;
        assert_eq!(finished.code, 3, "{command:?}: {finished:?}");
        assert!(finished.stderr.contains(&nobody), "it says whom it asked: {finished:?}");
        assert!(finished.stderr.contains("; next: "), "{finished:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_peers_are_down_waits_and_says_for_whom() {
    let mut cluster = Cluster::prepare(3, 4);
    cluster.launch(0);
    until_it_waits(&cluster, 0, &cluster.nodes[2].address).await;
    cluster.launch(1);
    until_it_waits(&cluster, 1, &cluster.nodes[2].address).await;

    let status = cluster.command(&["status"]).await;
    assert_eq!(status.code, 3, "{status:?}");
    let written = cluster.command(&["node", "create", "name=Alice"]).await;
    assert_eq!(written.code, 3, "{written:?}");
    let said = cluster.log_of(0);
    let line =
        said.lines().find(|line| line.contains(&cluster.nodes[2].address)).expect("the log says so, too");
    assert!(line.contains("error[KDB-0028]: nobody answers at ") && !line.contains("metadata"), "{line}");

    cluster.launch(2);
    cluster.until_serving().await;
    cluster.command(&["status"]).await.success();
    cluster.command(&["node", "create", "name=Alice"]).await.success();
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_down_is_named_and_not_waited_for() {
    let mut cluster = Cluster::start(4).await;
    cluster.kill(2);
    let endpoints = cluster.addresses()[..2].join(",");
    let verified = run_within(&["verify", "--endpoints", &endpoints], Duration::from_secs(20)).await;
    assert_eq!(verified.code, 3, "{verified:?}");
    let said = format!("{}{}", verified.stdout, verified.stderr);
    assert!(said.contains(&format!("unreachable at {}", cluster.nodes[2].address)), "{said}");
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_leaves_a_running_cluster() {
    let mut cluster = Cluster::prepare(1, 4);
    cluster.launch(0);
    cluster.until_serving().await;
    for id in [cluster.nodes[0].id.as_str(), "n9", ""] {
        let request = v1::LeaveRequest { node_id: id.to_owned() };
        let refused =
            service(&cluster.nodes[0].address).leave_cluster(request).await.expect_err("is refused");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{id:?}: {refused}");
        assert!(refused.message().contains(id), "{refused}");
    }
    cluster.finish();
}

/// The node says that it waits, and its reasons hold this text.
async fn until_it_waits(cluster: &Cluster, node: usize, reason: &str) {
    eventually(&format!("waiting for {reason}"), PATIENCE, async || {
        let status = cluster.status_of(node).await?;
        assert!(!status.serving, "it cannot serve alone");
        let told = status.waiting_for.iter().any(|told| told.contains(reason));
        if told { Ok(()) } else { Err(format!("{:?}", status.waiting_for)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_not_let_into_a_cluster() {
    let mut cluster = Cluster::prepare(2, 4);
    // The first node was told of nobody, so it is a cluster of its own.
    cluster.launch_alone(0);
    cluster.until_serving().await;
    cluster.launch(1);
    until_it_waits(&cluster, 1, "n2 is not a member").await;
    let refused = cluster.log_of(1);
    assert!(refused.contains("not a member"), "{refused}");
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_another_cluster_neither_joins_nor_harms() {
    let mut cluster = Cluster::start(4).await;
    let load = Load::start(&cluster, 2, 2).await;
    load.until_more(None, 20).await;
    // The last node: the others are the ones that dial it, and so meet the stranger.
    let (last, id) = (2, cluster.nodes[2].id.clone());
    cluster.kill(last);
    let (own, kept) = (cluster.nodes[last].data_dir.clone(), cluster.path("kept"));
    fs::rename(&own, &kept).expect("directories of ours");
    // Under the same name and address, a cluster of its own.
    cluster.launch_alone(last);
    eventually("lone cluster", PATIENCE, async || {
        let status = cluster.status_of(last).await?;
        if status.serving { Ok(()) } else { Err(format!("{:?}", status.waiting_for)) }
    })
    .await;
    eventually("log line about another cluster", PATIENCE, async || {
        let told = |line: &str| line.contains("in cluster") && line.contains(&id);
        let said = |node| cluster.log_of(node).lines().any(|line| line.contains("no stream") && told(line));
        if said(0) && said(1) { Ok(()) } else { Err("the others say nothing".to_owned()) }
    })
    .await;
    let seen = cluster.status_of(0).await.expect("it runs");
    let stranger = seen.nodes.iter().find(|node| node.id == id).expect("a member");
    assert_eq!(stranger.state, "unreachable", "what answers there is not the member: {stranger:?}");

    // Told of the others, the directory is refused by its own node, too.
    cluster.kill(last);
    let line = cluster.command_line(last);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    run(&line).await.refused(1, "KDB-0021");

    fs::remove_dir_all(&own).expect("a directory of ours");
    fs::rename(&kept, &own).expect("directories of ours");
    cluster.launch(last);
    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_that_dial_are_refused_and_the_operator_is_told_once() {
    let mut cluster = Cluster::prepare(2, 4);
    cluster.launch(0);
    cluster.launch(1);
    cluster.until_serving().await;
    let other = handshake(&cluster.nodes[1].address).await;
    let of_another_cluster = v1::Hello { cluster_id: "0123456789abcdef".repeat(2), ..other.clone() };
    let of_another_version = v1::Hello { protocol_version: other.protocol_version + 1, ..other.clone() };
    let with_another_disk = v1::Hello { incarnation: vec![7; 16].into(), ..other };
    for _ in 0..3 {
        assert_eq!(dial(&cluster, &of_another_cluster).await, "KDB-0029");
        assert_eq!(dial(&cluster, &of_another_version).await, "KDB-0030");
        assert_eq!(dial(&cluster, &with_another_disk).await, "KDB-0032");
    }
    let log = cluster.log_of(0);
    let told: Vec<_> = log.lines().filter(|line| line.contains("a node that dialled is refused")).collect();
    assert_eq!(told.len(), 3, "each reason once: {told:#?}");
    for code in ["KDB-0029", "KDB-0030", "KDB-0032"] {
        assert!(told.iter().any(|line| line.contains("WARN") && line.contains(code)), "{told:#?}");
    }
    cluster.finish();
}

/// How a node introduces itself.
async fn handshake(address: &str) -> v1::Hello {
    let hello = peer_service(address).handshake(v1::Hello::default()).await;
    hello.expect("a running node").into_inner()
}

/// Opens a stream as a node would that introduces itself so: the code of the refusal.
async fn dial(cluster: &Cluster, hello: &v1::Hello) -> String {
    let frame = v1::PeerFrame { hello: Some(hello.clone()), ..Default::default() };
    let mut service = peer_service(&cluster.nodes[0].address);
    let refused = service.peer_stream(tokio_stream::iter([frame])).await.expect_err("a stranger");
    code_in(&refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_were_told_different_things_wait_and_say_what_differs() {
    let mut cluster = Cluster::prepare(2, 4);
    cluster.launch(0);
    let line = cluster.command_line(1);
    let line = line.iter().map(|arg| if arg == "--partitions=4" { "--partitions=8" } else { arg.as_str() });
    cluster.launch_with(1, &line.collect::<Vec<_>>());
    until_it_waits(&cluster, 0, "8 partitions").await;
    until_it_waits(&cluster, 1, "4 partitions").await;
    cluster.kill(1);
    cluster.launch(1);
    cluster.until_serving().await;
    cluster.finish();
}
