//! `status`: nodes, leaders, positions, digests.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::{
    args::{Output, StatusArgs},
    connect::connect_briefly,
    output::{self, columns, row},
    serve::stop_signal,
};
use crate::{
    client::{Client, v1},
    error::ClusterError,
};

const REDRAW: Duration = Duration::from_secs(1);
const NOT_SERVING: u8 = 3;

pub(super) async fn run(args: StatusArgs) -> Result<ExitCode, ClusterError> {
    let client = connect_briefly(args.connect).await?;
    if args.watch {
        return watch(&client, args.output.output).await;
    }
    let status = client.status_now().await?;
    show(&status, args.output.output)?;
    Ok(if status.serving { ExitCode::SUCCESS } else { ExitCode::from(NOT_SERVING) })
}

async fn watch(client: &Client, output: Output) -> Result<ExitCode, ClusterError> {
    let redraw = async {
        loop {
            let status = client.status_now().await;
            if output == Output::Table && io::stdout().is_terminal() {
                output::write(b"\x1b[2J\x1b[H")?;
            }
            match status {
                Ok(status) => show(&status, output)?,
                Err(error) => output::talk(&error.report()),
            }
            sleep(REDRAW).await;
        }
    };
    tokio::select! {
        () = stop_signal()? => Ok(ExitCode::SUCCESS),
        ended = redraw => ended,
    }
}

fn show(status: &v1::StatusResponse, output: Output) -> Result<(), ClusterError> {
    output::print(output, &status_json(status), || table(status))
}

fn status_json(status: &v1::StatusResponse) -> Json {
    json!({
        "cluster_id": status.cluster_id,
        "serving": status.serving,
        "leader": status.leader,
        "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>(),
    })
}

fn node_json(node: &v1::NodeStatus) -> Json {
    let partition = |row: &v1::PartitionStatus| {
        json!({
            "partition": row.partition,
            "role": row.role,
            "term": row.term,
            "commit": row.commit,
            "applied": row.applied,
            "lag": row.lag,
            "digest": row.digest,
        })
    };
    json!({
        "id": node.id,
        "address": node.address,
        "state": node.state,
        "fsyncs": node.fsyncs,
        "partitions": node.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn table(status: &v1::StatusResponse) -> String {
    let serving = if status.serving { "serving" } else { "NOT serving" };
    let leader = if status.leader.is_empty() { "nobody" } else { &status.leader };
    let mut text = format!(
        "cluster {}  {serving}  meta group led by {leader}  {} partitions, replication factor {}, map epoch {}\n",
        status.cluster_id, status.partition_count, status.replication_factor, status.map_epoch,
    );
    for what in &status.waiting_for {
        text.push_str(&format!("  waiting for {what}\n"));
    }
    text.push('\n');
    let mut rows = vec![row!["node", "address", "state", "leads", "replicas", "most behind", "fsyncs"]];
    for node in &status.nodes {
        let leads = node.partitions.iter().filter(|row| row.role == "leader").count();
        let lag = node.partitions.iter().map(|row| row.lag).max().unwrap_or(0);
        let cells = row![node.id, node.address, node.state, leads, node.partitions.len(), lag, node.fsyncs];
        rows.push(cells);
    }
    text.push_str(&columns(&rows));
    text.push('\n');
    text.push_str(&columns(&partition_rows(&status.nodes)));
    for fault in faults(&status.nodes) {
        text.push_str(&fault);
    }
    text
}

/// One row per partition, one column per node: what it applied, and the digest's beginning.
fn partition_rows(nodes: &[v1::NodeStatus]) -> Vec<Vec<String>> {
    let mut head = row!["partition", "leader", "term", "commit"];
    head.extend(nodes.iter().map(|node| format!("{} applied", node.id)));
    let mut by_partition: BTreeMap<u32, Vec<Option<&v1::PartitionStatus>>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for row in &node.partitions {
            by_partition.entry(row.partition).or_insert_with(|| vec![None; nodes.len()])[at] = Some(row);
        }
    }
    let cells = |replica: &Option<&v1::PartitionStatus>| match replica {
        None => "-".to_owned(),
        Some(row) => {
            let behind = if row.lag > 0 { format!(" -{}", row.lag) } else { String::new() };
            format!("{}{behind} {}", row.applied, row.digest.get(..8).unwrap_or(&row.digest))
        }
    };
    let rows = by_partition.iter().map(|(partition, replicas)| {
        let leader = replicas.iter().position(|row| row.is_some_and(|row| row.role == "leader"));
        let known = || replicas.iter().flatten();
        let mut row = row![
            partition,
            leader.map_or("nobody", |at| nodes[at].id.as_str()),
            known().map(|row| row.term).max().unwrap_or(0),
            known().map(|row| row.commit).max().unwrap_or(0),
        ];
        row.extend(replicas.iter().map(cells));
        row
    });
    std::iter::once(head).chain(rows).collect()
}

fn faults(nodes: &[v1::NodeStatus]) -> impl Iterator<Item = String> {
    nodes.iter().flat_map(|node| {
        let faulted = node.partitions.iter().filter(|row| !row.fault.is_empty());
        faulted.map(|row| format!("{} partition {}: {}\n", node.id, row.partition, row.fault))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_puts_each_partition_in_one_row() {
        let replica = |role: &str, lag| v1::PartitionStatus {
            partition: 3,
            role: role.into(),
            term: 2,
            commit: 9,
            applied: 9 - lag,
            lag,
            digest: "0123456789abcdef".into(),
            ..Default::default()
        };
        let node = |id: &str, partitions| v1::NodeStatus { id: id.into(), partitions, ..Default::default() };
        let nodes = [
            node("a", vec![replica("follower", 4)]),
            node("b", vec![replica("leader", 0)]),
            node("c", vec![]),
        ];
        let rows = partition_rows(&nodes);
        assert_eq!(rows[1], ["3", "b", "2", "9", "5 -4 01234567", "9 01234567", "-"]);
    }
}
