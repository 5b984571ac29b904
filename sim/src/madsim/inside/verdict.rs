//! What must hold in the end, when everything was healed.

use std::time::Duration;

use kotoba_db_cluster::{
    client::{Client, ReadFrom, v1},
    placement::PartitionId,
};
use madsim::time::{TimeHandle, sleep};

use super::{
    clients::{Book, Register, value_of},
    registers::{self, Fate},
};
use crate::madsim::outcome::Failure;

/// How long the cluster may take to serve, and its members to hold the same, once all is healed.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

fn failure(check: &str, message: impl Into<String>) -> Failure {
    Failure { check: check.into(), message: message.into() }
}

/// Waits until the cluster says that it serves and no replica says that something is wrong.
///
/// # Errors
/// Where it does not within [`PATIENCE`].
pub(super) async fn serves(client: &Client) -> Result<(), Failure> {
    let began = TimeHandle::current().elapsed();
    loop {
        let problem = match client.status_now().await {
            Ok(status) => match wrong_with(&status) {
                None => return Ok(()),
                Some(problem) => problem,
            },
            Err(error) => error.to_string(),
        };
        if TimeHandle::current().elapsed() - began >= PATIENCE {
            return Err(failure("liveness", format!("{PATIENCE:?} after everything was healed: {problem}")));
        }
        sleep(POLL).await;
    }
}

fn wrong_with(status: &v1::StatusResponse) -> Option<String> {
    if !status.serving {
        return Some(format!("the cluster does not serve: {:?}", status.waiting_for));
    }
    let partitions =
        |node: &v1::NodeStatus| node.partitions.iter().chain(&node.meta).cloned().collect::<Vec<_>>();
    status.nodes.iter().find_map(|node| {
        if node.state != "up" {
            return Some(format!("node {} is {}", node.id, node.state));
        }
        let faulted = partitions(node).into_iter().find(|partition| !partition.fault.is_empty())?;
        Some(format!("node {}, partition {}: {}", node.id, faulted.partition, faulted.fault))
    })
}

/// All members of all partitions hold the same state at one position of the log.
///
/// # Errors
/// Where they do not, or do not get there.
pub(super) async fn converges(client: &Client) -> Result<(), Failure> {
    let cluster = client.refresh().await.map_err(|error| failure("liveness", error.to_string()))?;
    for partition in &cluster.partitions {
        let id = PartitionId(partition.partition);
        let index = client.start_verify(id).await.map_err(|error| failure("liveness", error.to_string()))?;
        let mut first: Option<(String, String)> = None;
        for node in cluster.nodes.iter().filter(|node| partition.nodes.contains(&node.id)) {
            let digest = digest(client, &format!("{}:{}", node.address, node.port), id, index).await?;
            match &first {
                None => first = Some((node.id.clone(), digest)),
                Some((_, same)) if *same == digest => {}
                Some((other, _)) => {
                    let what = format!("partition {} at {index}: {} and {other} differ", id.0, node.id);
                    return Err(failure("convergence", what));
                }
            }
        }
    }
    Ok(())
}

async fn digest(
    client: &Client,
    address: &str,
    partition: PartitionId,
    index: u64,
) -> Result<String, Failure> {
    let began = TimeHandle::current().elapsed();
    loop {
        let problem = match client.verify_digest(address, partition, index).await {
            Ok(answer) if answer.ready => return Ok(answer.digest),
            Ok(_) => format!("{address} has not applied partition {} up to {index}", partition.0),
            Err(error) => error.to_string(),
        };
        if TimeHandle::current().elapsed() - began >= PATIENCE {
            return Err(failure("convergence", problem));
        }
        sleep(POLL).await;
    }
}

/// What clients were told has a sequential explanation, and nothing acknowledged is lost.
///
/// # Errors
/// The first thing that has none.
pub(super) async fn explains(client: &Client, registers: &[Register], book: &Book) -> Result<(), Failure> {
    let unread = |error: kotoba_db_cluster::error::ClusterError| failure("liveness", error.to_string());
    for (at, register) in registers.iter().enumerate() {
        let from = ReadFrom { partition: Some(register.partition), ..ReadFrom::default() };
        let history = client.history(&register.cid, from).await.map_err(unread)?;
        let history = history.ok_or_else(|| failure("durability", format!("register {at} is lost")))?;
        let versions: Vec<String> = history.iter().map(|version| value_of(&version.properties)).collect();
        let operations = book.operations.get(&at).map_or(&[][..], Vec::as_slice);
        registers::check(&versions, operations)
            .map_err(|problem| failure("linearizability", format!("register {at}: {problem}")))?;
    }
    let there = all_keys(client).await.map_err(unread)?;
    for (key, fate) in &book.created {
        let count = there.iter().filter(|found| *found == key).count();
        let fits = match fate {
            Fate::Done => count == 1,
            Fate::Unknown => count <= 1,
            Fate::Refused => count == 0,
        };
        if !fits {
            let what = format!("node {key} is there {count} times; its client was told {fate:?}");
            return Err(failure("exactly-once", what));
        }
    }
    Ok(())
}

async fn all_keys(client: &Client) -> Result<Vec<String>, kotoba_db_cluster::error::ClusterError> {
    let mut keys = Vec::new();
    for partition in 0..client.partitions().await? {
        let mut resume = bytes::Bytes::new();
        loop {
            let page = client.scan(PartitionId(partition), resume, 1_000, v1::Consistency::Strong).await?;
            keys.extend(page.entities.into_iter().map(|entity| entity.key));
            if page.done {
                break;
            }
            resume = page.resume;
        }
    }
    Ok(keys)
}
