//! `status`: nodes, leaders, positions, digests.

mod screen;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use self::screen::Screen;
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
    let screen = if output == Output::Table { Screen::take()? } else { None };
    let redraw = async {
        loop {
            let status = client.status_now().await;
            match (&screen, status) {
                (Some(screen), Ok(status)) => screen.draw(&fitting(&status, screen.size().0))?,
                (Some(screen), Err(error)) => screen.draw(&error.report())?,
                (None, Ok(status)) => show(&status, output)?,
                (None, Err(error)) => output::talk(&error.report()),
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
        let mut json = json!({
            "partition": row.partition,
            "role": row.role,
            "term": row.term,
            "commit": row.commit,
            "applied": row.applied,
            "lag": row.lag,
            "digest": row.digest,
        });
        if !row.fault.is_empty() {
            json["fault"] = row.fault.as_str().into();
        }
        json
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
    let partitions = by_partition(&status.nodes);
    let mut text = summary(status);
    text.push('\n');
    text.push_str(&columns(&partition_rows(&status.nodes, &partitions)));
    let faults: String = faults(&status.nodes).collect();
    if !faults.is_empty() {
        text.push('\n');
        text.push_str(&faults);
    }
    text
}

/// The same in so many lines: partitions that need attention first, then as many others as fit.
fn fitting(status: &v1::StatusResponse, lines: usize) -> String {
    let mut text = summary(status);
    text.extend(faults(&status.nodes));
    text.push('\n');
    // Below what is there: a head, rows, and a line about the rest.
    let room = lines.saturating_sub(text.lines().count() + 2).max(1);
    let mut partitions = by_partition(&status.nodes);
    partitions.sort_by_key(|(_, replicas)| !needs_attention(replicas));
    let (shown, rest) = partitions.split_at(partitions.len().min(room));
    text.push_str(&columns(&partition_rows(&status.nodes, shown)));
    if !rest.is_empty() {
        let troubled = rest.iter().filter(|(_, replicas)| needs_attention(replicas)).count();
        let of_them = if troubled == 0 {
            "all with a leader and every replica".to_owned()
        } else {
            format!("{troubled} of them without a leader or a replica")
        };
        text.push_str(&format!("… {} more partitions, {of_them}\n", rest.len()));
    }
    text
}

/// What there is to say of the whole cluster and of each node.
fn summary(status: &v1::StatusResponse) -> String {
    let serving = if status.serving { "serving" } else { "NOT serving" };
    let leader = if status.leader.is_empty() { "nobody" } else { &status.leader };
    let mut text = format!(
        "cluster {}  {serving}  meta group led by {leader}\n{} partitions, replication factor {}, map epoch {}\n",
        status.cluster_id, status.partition_count, status.replication_factor, status.map_epoch,
    );
    for what in &status.waiting_for {
        text.push_str(&format!("  waiting for {what}\n"));
    }
    text.push('\n');
    let mut rows = vec![row!["node", "address", "state", "leads", "replicas", "most behind", "fsyncs"]];
    for node in &status.nodes {
        let mut cells = row![node.id, node.address, node.state];
        if node.state == "unreachable" {
            // What it does is not known.
            cells.extend(row!["-", "-", "-", "-"]);
        } else {
            let leads = node.partitions.iter().filter(|row| row.role == "leader").count();
            let lag = node.partitions.iter().map(|row| row.lag).max().unwrap_or(0);
            cells.extend(row![leads, node.partitions.len(), lag, node.fsyncs]);
        }
        rows.push(cells);
    }
    text + &columns(&rows)
}

/// A partition and what each node says of its replica, in the nodes' order.
type Partition<'a> = (u32, Vec<Option<&'a v1::PartitionStatus>>);

fn by_partition(nodes: &[v1::NodeStatus]) -> Vec<Partition<'_>> {
    let mut by_partition: BTreeMap<u32, Vec<Option<&v1::PartitionStatus>>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        for row in &node.partitions {
            by_partition.entry(row.partition).or_insert_with(|| vec![None; nodes.len()])[at] = Some(row);
        }
    }
    by_partition.into_iter().collect()
}

/// Nobody leads it, or a node that should tell of its replica does not, or has lost it.
fn needs_attention(replicas: &[Option<&v1::PartitionStatus>]) -> bool {
    let known = || replicas.iter().flatten();
    let wanted = known().map(|row| row.replicas.len()).max().unwrap_or(0);
    known().count() < wanted
        || known().all(|row| row.role != "leader")
        || known().any(|row| row.role == "faulted")
}

/// One row per partition, one column per node: what it applied, and the digest's beginning.
fn partition_rows(nodes: &[v1::NodeStatus], partitions: &[Partition<'_>]) -> Vec<Vec<String>> {
    let mut head = row!["partition", "leader", "term", "commit"];
    head.extend(nodes.iter().map(|node| format!("{} applied", node.id)));
    let cells = |replica: &Option<&v1::PartitionStatus>| match replica {
        None => "-".to_owned(),
        Some(row) => {
            let behind = if row.lag > 0 { format!(" -{}", row.lag) } else { String::new() };
            let digest = row.digest.get(..8).unwrap_or(&row.digest);
            format!("{}{behind} {}", row.applied, if row.role == "faulted" { "faulted" } else { digest })
        }
    };
    let rows = partitions.iter().map(|(partition, replicas)| {
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
        let partitions = node.partitions.iter().map(|row| (format!("partition {}", row.partition), row));
        let groups = node.meta.iter().map(|row| ("the meta group".to_owned(), row)).chain(partitions);
        let faulted = groups.filter(|(_, row)| !row.fault.is_empty());
        faulted.map(|(group, row)| format!("faulted: {group} on {}: {}\n", node.id, row.fault))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(partition: u32, role: &str, lag: u64) -> v1::PartitionStatus {
        v1::PartitionStatus {
            partition,
            role: role.into(),
            term: 2,
            commit: 9,
            applied: 9 - lag,
            lag,
            digest: "0123456789abcdef".into(),
            ..Default::default()
        }
    }

    fn node(id: &str, partitions: Vec<v1::PartitionStatus>) -> v1::NodeStatus {
        v1::NodeStatus { id: id.into(), partitions, ..Default::default() }
    }

    #[test]
    fn the_table_puts_each_partition_in_one_row() {
        let nodes = [
            node("a", vec![replica(3, "follower", 4)]),
            node("b", vec![replica(3, "leader", 0)]),
            node("c", vec![replica(3, "faulted", 8)]),
            node("d", vec![]),
        ];
        let rows = partition_rows(&nodes, &by_partition(&nodes));
        assert_eq!(rows[1], ["3", "b", "2", "9", "5 -4 01234567", "9 01234567", "1 -8 faulted", "-"]);
    }

    #[test]
    fn what_does_not_fit_on_the_screen_is_what_needs_no_attention() {
        let partitions = |role: &dyn Fn(u32) -> &'static str| {
            (0..64).map(|partition| replica(partition, role(partition), 0)).collect()
        };
        let status = v1::StatusResponse {
            nodes: vec![
                node("a", partitions(&|_| "leader")),
                node("b", partitions(&|partition| if partition == 50 { "faulted" } else { "follower" })),
            ],
            ..Default::default()
        };
        let text = fitting(&status, 24);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 24, "{text}");
        let head = lines.iter().position(|line| line.starts_with("partition")).expect("a head");
        assert!(lines[head + 1].starts_with("50 "), "{text}");
        assert!(lines[head + 2].starts_with("0 "), "{text}");
        assert!(lines[23].ends_with("more partitions, all with a leader and every replica"), "{text}");
        assert_eq!(fitting(&status, 200).lines().filter(|line| line.starts_with('…')).count(), 0);
    }
}
