//! Every Rust snippet of the specification, as written there, with its placeholders filled in.
//!
//! The lines between `// as written` and `// end` are the specification's; what stands before them
//! fills in what they leave open.
#![allow(
    clippy::disallowed_types,
    clippy::print_stdout,
    missing_docs,
    reason = "the snippets stay as the specification writes them"
)]

use std::{
    collections::HashMap,
    error::Error,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use kotoba_db_cluster::*;

type Test = Result<(), Box<dyn Error>>;

/// A cluster of one in a temporary directory.
async fn one_node() -> Result<(KotobaCluster, tempfile::TempDir), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let config = ClusterConfig { partition_count: 4, ..ClusterConfig::default() };
    let mut cluster = KotobaCluster::builder(NodeId("node-1".to_string()))
        .config(config)
        .data_dir(dir.path())
        .build()
        .await?;
    cluster.start((Ipv4Addr::LOCALHOST, 0).into()).await?;
    Ok((cluster, dir))
}

/// Two nodes of one cluster, which serves.
async fn two_nodes() -> Result<(KotobaCluster, KotobaCluster, tempfile::TempDir), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let listeners =
        [TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?];
    let mut nodes = HashMap::new();
    let mut addresses = Vec::new();
    for (listener, name) in listeners.iter().zip(["node-1", "node-2"]) {
        let address = listener.local_addr()?;
        addresses.push(address);
        let id = NodeId(name.to_string());
        let info = NodeInfo {
            id: id.clone(),
            address: address.ip().to_string(),
            port: address.port(),
            role: NodeRole::Follower,
            partitions: Vec::new(),
        };
        nodes.insert(id, info);
    }
    drop(listeners);
    let mut started = Vec::new();
    for (name, address) in ["node-1", "node-2"].into_iter().zip(addresses) {
        let config = ClusterConfig { nodes: nodes.clone(), partition_count: 4, ..ClusterConfig::default() };
        let builder = KotobaCluster::builder(NodeId(name.to_string())).config(config);
        let mut cluster = builder.data_dir(dir.path().join(name)).build().await?;
        cluster.start(address).await?;
        started.push(cluster);
    }
    let (second, first) =
        (started.pop().expect("two were started"), started.pop().expect("two were started"));
    first.ready().await?;
    Ok((first, second, dir))
}

fn alice() -> Operation {
    let properties = HashMap::from([("name".to_string(), Value::String("Alice".to_string()))]);
    Operation::CreateNode { properties }
}

/// Quick Start, "Basic Cluster Setup". The whole program, run as a process of its own by the test
/// below, because it takes a port of its choice and ends with ctrl-c.
mod basic_cluster_setup {
    // as written
    use kotoba_db_cluster::*;
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    #[tokio::main]
    #[allow(unreachable_pub, reason = "the snippet stands as it is written")]
    pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
        // Create cluster configuration
        let config = ClusterConfig { replication_factor: 3, partition_count: 64, ..Default::default() };

        // Create and start cluster node
        let node_id = NodeId("node-1".to_string());
        let mut cluster = KotobaCluster::new(node_id, config).await?;

        // Start the cluster on a network address
        let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1)), 8080);
        cluster.start(addr).await?;

        println!("Cluster node started on {}", addr);

        // Add database instance
        // let db = /* your KotobaDB instance */;
        // cluster.add_database(db).await?;

        // Keep running
        tokio::signal::ctrl_c().await?;
        cluster.stop().await?;

        Ok(())
    }
    // end
}

const CHILD: &str = "KOTOBA_SPECIFICATION_QUICK_START";

#[test]
fn basic_cluster_setup_serves_at_once_and_ends_with_ctrl_c() -> Test {
    if std::env::var_os(CHILD).is_some() {
        return basic_cluster_setup::main();
    }
    let dir = tempfile::tempdir()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "basic_cluster_setup_serves_at_once_and_ends_with_ctrl_c", "--nocapture"])
        .env(CHILD, "1")
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    let started = lines
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("Cluster node started on 127.0.0.1:8080"));
    let pid = rustix::process::Pid::from_child(&child);
    let interrupted = rustix::process::kill_process(pid, rustix::process::Signal::INT);
    for _ in lines.map_while(Result::ok) {}
    let status = child.wait()?;
    assert!(started, "the node did not start (is port 8080 free?)");
    interrupted?;
    assert!(status.success(), "{status}");
    assert!(dir.path().join("kotoba-data/node-1").is_dir());
    Ok(())
}

/// Quick Start, "Cluster Operations".
#[tokio::test(flavor = "multi_thread")]
async fn cluster_operations() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    // as written
    // Execute distributed operations
    let operation = Operation::CreateNode {
        properties: {
            let mut props = HashMap::new();
            props.insert("name".to_string(), Value::String("Alice".to_string()));
            props.insert("age".to_string(), Value::Int(30));
            props
        },
    };

    let result_cid = cluster.execute_operation(operation).await?;
    println!("Created node with CID: {}", result_cid);

    // Execute distributed queries
    let query = DistributedQuery::MultiPartition {
        query: Query::ByProperty { name: "name".to_string(), value: Value::String("Alice".to_string()) }, // Your query here
    };
    let results = cluster.execute_query(query).await?;

    // Monitor cluster health
    let status = cluster.get_status().await;
    println!("Cluster has {} active nodes", status.membership.active_nodes);
    println!("Replication health: {}", status.replication.is_healthy);

    // Subscribe to cluster events
    let mut events = cluster.subscribe_events().await;
    // The loop ends when the node is stopped.
    let node = cluster.get_node(&result_cid.cid).await?.expect("it was created");
    cluster.stop().await?;
    while let Ok(event) = events.recv().await {
        match event {
            ClusterEvent::NodeJoined(node) => println!("Node {} joined", node.0),
            ClusterEvent::NodeFailed(node) => println!("Node {} failed", node.0),
            _ => {}
        }
    }
    // end
    assert_eq!(results.entities, [node]);
    assert_eq!(result_cid.to_string(), results.entities[0].cid.to_string());
    assert_eq!((status.membership.active_nodes, status.replication.is_healthy), (1, true));
    Ok(())
}

/// "Cluster Configuration".
#[test]
fn cluster_configuration() {
    // as written
    let config = ClusterConfig {
        nodes: HashMap::new(), // Will be populated dynamically
        replication_factor: 3, // Number of data replicas
        partition_count: 64,   // Number of data partitions
    };
    // end
    assert_eq!(config, ClusterConfig::default());
}

/// "Membership Configuration".
#[test]
fn membership_configuration() {
    // as written
    let membership_config = MembershipConfig {
        heartbeat_interval: Duration::from_secs(1),
        failure_detection_interval: Duration::from_secs(5),
        max_missed_heartbeats: 3,
        failure_timeout: Duration::from_secs(15),
        gossip_interval: Duration::from_secs(2),
    };
    // end
    assert_eq!(membership_config, MembershipConfig::default());
}

/// "Replication Configuration".
#[test]
fn replication_configuration() {
    // as written
    let replication_config = ReplicationConfig {
        replication_factor: 3,
        max_retries: 3,
        status_check_interval: Duration::from_secs(5),
        queue_processing_interval: Duration::from_millis(100),
        full_sync_interval: Duration::from_secs(300),
        node_failure_timeout: Duration::from_secs(30),
        failure_rate: 0.01,
    };
    // end
    assert_eq!(replication_config, ReplicationConfig::default());
}

/// "Consistent Hashing", "Replication Strategy" and "Partition Management".
#[tokio::test(flavor = "multi_thread")]
async fn data_partitioning() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    let partitioning = cluster.partitioning();
    let (node_id, key) = (NodeId("node-2".to_string()), "some key".to_string());
    // as written
    // Each physical node gets multiple virtual nodes on the hash ring
    // This ensures even data distribution
    partitioning.add_node(node_id, 100).await?; // 100 virtual nodes
    // end
    let node_id = NodeId("node-1".to_string());
    // as written
    // For replication_factor = 3
    let nodes = partitioning.get_nodes_for_key(&key, 3);
    // Returns 3 closest nodes on the ring
    // end
    // as written
    // Check partition ownership
    let is_owner = partitioning.is_node_responsible(&node_id, &key).await;

    // Get partition statistics
    let stats = partitioning.get_distribution_stats().await;
    println!("Partition variance: {}", stats.variance());
    // end
    assert!(!nodes.is_empty() && is_owner);
    assert!(stats.variance().is_finite());
    cluster.stop().await?;
    Ok(())
}

/// "Replication Queue" and "Failure Handling".
#[tokio::test(flavor = "multi_thread")]
async fn replication_and_failure_handling() -> Test {
    let (mut first, mut second, _dir) = two_nodes().await?;
    let (replication, partitioning) = (first.replication(), first.partitioning());
    let mut events = first.subscribe_events().await;
    let (operation, primary_node, failed_node) =
        (alice(), NodeId("node-1".to_string()), NodeId("node-2".to_string()));
    // as written
    // Queue operation for replication
    replication.replicate_operation(operation, &primary_node).await?;

    // Check replication health
    let health = replication.check_health().await;
    if !health.is_healthy {
        println!("Warning: High replication lag");
    }
    // end
    replication.sync_with_node(&failed_node).await?;
    // as written
    // Node failure detected
    replication.handle_node_failure(&failed_node).await?;

    // Partitions redistributed
    partitioning.rebalance().await?;
    // end
    assert!(health.is_healthy);
    assert!(partitioning.rebalance().await?.is_empty(), "the map is where the ring would put it");
    let suspected = ClusterEvent::NodeSuspected(failed_node);
    while events.recv().await? != suspected {}
    first.stop().await?;
    second.stop().await?;
    Ok(())
}

/// "Connection Management".
#[tokio::test(flavor = "multi_thread")]
async fn connection_management() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    let network = cluster.network();
    let address = cluster.address().expect("it runs").to_string();
    let (node_id, target_node) = (NodeId("node-1".to_string()), NodeId("node-1".to_string()));
    let message =
        RaftMessage::Heartbeat(api::wire::HeartbeatRequest { from_node: "node-1".to_string(), timestamp: 0 });
    // as written, the address being that of the node under test
    // Connect to cluster node
    network.connect_to_node(node_id, address).await?;

    // Send Raft message
    network.send_raft_message(&target_node, message.clone()).await?;
    // end
    let RaftReply::Heartbeat(reply) = network.send_raft_message(&target_node, message).await? else {
        panic!("a heartbeat is answered by a heartbeat");
    };
    assert_eq!(reply.node_id, "node-1");
    cluster.stop().await?;
    Ok(())
}

/// "Cluster Metrics" and "Health Checks".
#[tokio::test(flavor = "multi_thread")]
async fn monitoring() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    // as written
    let status = cluster.get_status().await;

    println!("Cluster Status:");
    println!("  Leader: {:?}", status.leader.map(|n| n.0));
    println!("  Active Nodes: {}", status.membership.active_nodes);
    println!("  Failed Nodes: {}", status.membership.failed_nodes);
    println!("  Replication Lag: {:?}", status.replication.replication_lag);
    // end
    // as written
    // Check cluster health
    let health = cluster.check_health().await;
    if !health.is_healthy {
        // Alert or take corrective action
        println!("Cluster unhealthy: {} failed nodes", health.failed_nodes_count);
    }
    // end
    assert!(status.serving && health.is_healthy);
    assert_eq!((status.membership.active_nodes, status.membership.failed_nodes), (1, 0));
    assert_eq!(cluster.get_status().await.leader, Some(NodeId("node-1".to_string())));
    cluster.stop().await?;
    Ok(())
}

/// "Event Subscription".
#[tokio::test(flavor = "multi_thread")]
async fn event_subscription() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    // as written
    // Subscribe to cluster events
    let mut events = cluster.subscribe_events().await;
    // The loop ends when the node is stopped.
    cluster.stop().await?;
    while let Ok(event) = events.recv().await {
        match event {
            ClusterEvent::NodeJoined(node) => log::info!("Node joined: {}", node.0),
            ClusterEvent::NodeFailed(node) => log::error!("Node failed: {}", node.0),
            ClusterEvent::LeaderElected(node) => log::info!("New leader: {}", node.0),
            _ => {}
        }
    }
    // end
    assert_eq!(events.recv().await, Err(EventsEnded));
    Ok(())
}

/// "Common Errors".
#[tokio::test(flavor = "multi_thread")]
async fn error_handling() -> Test {
    let (mut cluster, _dir) = one_node().await?;
    let operation = alice();
    // as written
    match cluster.execute_operation(operation).await {
        Ok(cid) => println!("Success: {}", cid),
        Err(ClusterError::NotLeader(leader)) => {
            // Redirect to leader
            println!("Redirect to leader: {}", leader);
        }
        Err(ClusterError::NoLeader) => {
            // Wait for leader election
            println!("Waiting for leader election...");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(ClusterError::NetworkError(e)) => {
            // Retry with backoff
            println!("Network error, retrying: {}", e);
        }
        _ => println!("Other error occurred"),
    }
    // end
    let again = cluster.execute_operation(alice()).await?;
    assert!(cluster.get_node(&again.cid).await?.is_some());
    let gone = Operation::DeleteNode { cid: again.cid };
    cluster.execute_operation(gone.clone()).await?;
    let error = cluster.execute_operation(gone).await.expect_err("it is deleted already");
    assert_eq!(error.code(), ErrorCode::Deleted);
    cluster.stop().await?;
    Ok(())
}
