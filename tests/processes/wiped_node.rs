//! A node whose disk is gone is a new replica: it must catch up before it counts.

use std::time::{Duration, Instant};

use kotoba_db_cluster::{
    client::{ReadFrom, v1},
    error::Effect,
    placement::{MetaState, PartitionMap},
};
use tokio::time::sleep;
use tonic::Status;

use crate::{
    harness::{Cluster, Group, PATIENCE, POLL, eventually, peer_service, rows, service},
    load::{Load, count_to, counter_named, seq_of},
};

/// Eight of the longest waits of a follower before it asks for an election.
const SEVERAL_ELECTIONS: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_rejoins_under_the_same_command_line_and_takes_its_place() {
    let mut cluster = Cluster::start(16).await;
    let load = Load::start(&cluster, 4, 3).await;
    load.until_more(None, 100).await;
    let wiped = cluster.leader_of(Group::Partition(load.counters[0].partition.0)).await;
    cluster.kill(wiped);
    cluster.wipe(wiped);
    load.until_more(None, 50).await;
    cluster.launch(wiped);
    cluster.until_caught_up(wiped).await;
    load.until_more(None, 50).await;

    // It counts again: with another node gone, it is needed for every quorum.
    let other = (wiped + 1) % 3;
    cluster.kill(other);
    load.until_more(None, 50).await;
    cluster.launch(other);
    until_nothing_is_retired(&cluster).await;
    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    cluster.finish();
}

/// Node 2 sleeps through a write that 1 and 3 acknowledge. Then 3 loses its disk and 1 is down. Were the
/// empty node 3 to vote under its old name, it would elect 2, and the write would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_neither_votes_nor_counts_before_it_has_caught_up() {
    let (one, two, three) = (0, 1, 2);
    let mut cluster = Cluster::start(4).await;
    let client = cluster.client(Duration::from_secs(30)).await;
    let counter = client.execute(counter_named("endangered"), None).await.expect("a serving cluster");

    cluster.pause(two);
    let write = count_to(&counter.cid, 1);
    client.execute(write, Some(counter.partition)).await.expect("a majority runs");
    cluster.kill(three);
    cluster.wipe(three);
    cluster.kill(one);
    cluster.resume(two);
    cluster.launch(three);
    nobody_leads(&cluster, two).await;

    let hasty = cluster.client(Duration::from_secs(2)).await;
    let error =
        hasty.execute(count_to(&counter.cid, 2), Some(counter.partition)).await.expect_err("no majority");
    assert_eq!(error.code().exit_status().number(), 3, "{error}");
    let may_be_there = error.code().effect() == Effect::Unknown;
    let read = hasty.entity(&counter.cid, ReadFrom::default()).await.expect_err("no majority");
    assert_eq!(read.code().exit_status().number(), 3, "{read}");

    cluster.launch(one);
    cluster.until_serving().await;
    cluster.until_caught_up(three).await;
    let entity = client.entity(&counter.cid, ReadFrom::default()).await.expect("a serving cluster");
    let seq = seq_of(&entity.expect("it was acknowledged").properties);
    assert!(seq == Some(1) || may_be_there && seq == Some(2), "the acknowledged write is lost: {seq:?}");
    cluster.check_digests().await;
    cluster.finish();
}

/// On every node the map forgets the replicas that were replaced, once their groups let go of them.
async fn until_nothing_is_retired(cluster: &Cluster) {
    for node in &cluster.nodes {
        eventually(&format!("map without retired replicas on {}", node.id), PATIENCE, async || {
            let map = map_of(&node.address).await.map_err(|status| status.to_string())?;
            let retired: usize = map.groups.iter().map(|group| group.retired.len()).sum();
            if retired == 0 { Ok(()) } else { Err(format!("{retired} are remembered")) }
        })
        .await;
    }
}

/// The partition map as a node has applied it: what it answers a member that joins again.
async fn map_of(address: &str) -> Result<PartitionMap, Status> {
    let hello = peer_service(address).handshake(v1::Hello::default()).await?.into_inner();
    let request = v1::JoinRequest {
        node: Some(v1::NodeId { id: hello.node_id, address: hello.address, ..Default::default() }),
        cluster_id: hello.cluster_id,
        incarnation: hello.incarnation,
        protocol_version: hello.protocol_version,
    };
    let joined = service(address).join_cluster(request).await?.into_inner();
    Ok(MetaState::decode(&joined.meta_state).expect("a node's own state").map)
}

/// For several elections' time, this node knows no leader of any group.
async fn nobody_leads(cluster: &Cluster, node: usize) {
    let until = Instant::now() + SEVERAL_ELECTIONS;
    // A leader of before may need one election's time to notice that nobody follows.
    let noticed = Instant::now() + SEVERAL_ELECTIONS / 4;
    let mut looks = 0;
    while Instant::now() < until {
        if let Ok(status) = cluster.status_of(node).await {
            assert!(!status.serving, "a group elected with the vote of an empty node");
            let leaders: Vec<_> =
                status.nodes.iter().flat_map(rows).filter(|(_, row)| row.role == "leader").collect();
            assert!(leaders.is_empty() || Instant::now() < noticed, "{leaders:?}");
            looks += 1;
        }
        sleep(POLL).await;
    }
    assert!(looks > 2, "the node answered only {looks} times");
}
