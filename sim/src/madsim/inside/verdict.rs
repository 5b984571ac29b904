//! What must hold in the end, when everything was healed.

use std::{collections::BTreeMap, time::Duration};

use kotoba_db_cluster::{
    client::{Client, ReadFrom, v1},
    placement::PartitionId,
    raft::Index,
};
use madsim::time::{TimeHandle, sleep};

use super::{
    clients::{Book, Fate, Register, value_of},
    registers::{self, Ask, Version},
};
use crate::{
    check::{
        Check, Violation,
        linearizability::{self, Judgement, STEPS},
        sessions,
    },
    madsim::outcome::Failure,
};

/// How long the cluster may take to serve, and its members to hold the same, once all is healed.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

fn failure(check: Check, message: impl Into<String>) -> Failure {
    Violation::new(check, message).into()
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
            return Err(failure(
                Check::Liveness,
                format!("{PATIENCE:?} after everything was healed: {problem}"),
            ));
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
    let cluster = client.refresh().await.map_err(|error| failure(Check::Liveness, error.to_string()))?;
    for partition in &cluster.partitions {
        let id = PartitionId(partition.partition);
        let index =
            client.start_verify(id).await.map_err(|error| failure(Check::Liveness, error.to_string()))?;
        let mut first: Option<(String, String)> = None;
        for node in cluster.nodes.iter().filter(|node| partition.nodes.contains(&node.id)) {
            let digest = digest(client, &format!("{}:{}", node.address, node.port), id, index).await?;
            match &first {
                None => first = Some((node.id.clone(), digest)),
                Some((_, same)) if *same == digest => {}
                Some((other, _)) => {
                    let what = format!("partition {} at {index}: {} and {other} differ", id.0, node.id);
                    return Err(failure(Check::Convergence, what));
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
            return Err(failure(Check::Convergence, problem));
        }
        sleep(POLL).await;
    }
}

/// What clients were told has a sequential explanation, and nothing acknowledged is lost. Returns
/// whether the search that uses only what clients saw came to an end.
///
/// # Errors
/// The first thing that has none.
pub(super) async fn explains(
    client: &Client,
    registers: &[Register],
    book: &Book,
) -> Result<Judged, Failure> {
    if let Some(violation) = &book.violation {
        return Err(violation.clone().into());
    }
    let unread = |error: kotoba_db_cluster::error::ClusterError| failure(Check::Liveness, error.to_string());
    let mut effects = BTreeMap::new();
    for (at, register) in (0..).zip(registers) {
        let from = ReadFrom { partition: Some(register.partition), ..ReadFrom::default() };
        let history = client.history(&register.cid, from).await.map_err(unread)?;
        let history = history.ok_or_else(|| {
            failure(Check::CommitDurability, format!("register {at} was acknowledged and is lost"))
        })?;
        let version = |version: &v1::Version| Version {
            value: value_of(&version.properties),
            index: Index(version.log_index),
        };
        let versions: Vec<_> = history.iter().map(version).collect();
        let operations = book.history.operations.iter().filter(|of| of.operation.register() == at);
        let refused = book.refused.get(&at).map_or(&[][..], Vec::as_slice);
        registers::check(&versions, operations, refused)
            .map_err(|problem| failure(Check::Linearizability, format!("register {at}: {problem}")))?;
        effects.extend(versions.into_iter().map(|version| (version.value, version.index)));
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
            return Err(failure(Check::ExactlyOnce, what));
        }
    }
    judge(book, &effects)
}

/// What came of the search for a sequential explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// There is one.
    Explained,
    /// It took too long, which says nothing.
    Undecided,
}

/// The checks that use only what clients saw; `effects` is where values stand, for speed.
fn judge(book: &Book, effects: &BTreeMap<String, Index>) -> Result<Judged, Failure> {
    sessions::check::<registers::Register>(&book.sessions)
        .map_err(|anomaly| failure(Check::SessionGuarantees, anomaly.to_string()))?;
    let effect = |at: usize| match &book.history.operations[at].operation {
        Ask::Write { value, .. } => effects.get(value).copied(),
        Ask::Read { .. } => None,
    };
    match linearizability::check_guided::<registers::Register>(&book.history, STEPS, &effect) {
        Judgement::Linearizable => Ok(Judged::Explained),
        Judgement::Unknown { .. } => Ok(Judged::Undecided),
        Judgement::NotLinearizable(witness) => Err(failure(Check::Linearizability, witness.to_string())),
    }
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
