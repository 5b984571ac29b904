//! `verify`: every member's state at one log position per partition, compared.
//!
//! A marker goes through each partition's log; every member keeps its state at the marker's position, so
//! what is compared is the same moment on all of them, also while the cluster takes writes.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::{args::VerifyArgs, connect::connect, output};
use crate::{
    client::{Client, v1},
    error::{ClusterError, ErrorCode},
    placement::PartitionId,
};

const POLL: Duration = Duration::from_millis(20);
/// How long a member may take to apply the log up to the marker.
const PATIENCE: Duration = Duration::from_secs(30);
const PAGE: u32 = 1000;

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, ClusterError> {
    let client = connect(args.connect).await?;
    let verdict = verify(&client).await?;
    output::print(args.output.output, &verdict.json(), || verdict.sentence())?;
    Ok(if verdict.equal() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a verification found.
#[derive(Debug)]
pub(super) struct Verdict {
    partitions: usize,
    members: usize,
    first_difference: Option<Difference>,
}

#[derive(Debug)]
struct Difference {
    partition: PartitionId,
    log_index: u64,
    /// The first row that is not the same everywhere; `None` where the digests differ and the rows do not.
    key: Option<Bytes>,
    /// What each member says of that row, or of all.
    members: BTreeMap<String, Option<String>>,
}

impl Verdict {
    pub(super) fn equal(&self) -> bool {
        self.first_difference.is_none()
    }

    fn json(&self) -> Json {
        let difference = self.first_difference.as_ref().map(|difference| {
            json!({
                "partition": difference.partition.0,
                "index": difference.log_index,
                "key": difference.key.as_ref().map(|key| data_encoding::HEXLOWER.encode(key)),
                "members": difference.members,
            })
        });
        json!({
            "equal": self.equal(),
            "partitions": self.partitions,
            "members": self.members,
            "first_difference": difference,
        })
    }

    fn sentence(&self) -> String {
        let Some(difference) = &self.first_difference else {
            return format!("equal: {} partitions on {} members", self.partitions, self.members);
        };
        let mut text =
            format!("DIFFERENT: partition {} at log index {}", difference.partition.0, difference.log_index);
        if let Some(key) = &difference.key {
            text.push_str(&format!(", first at the row {}", data_encoding::HEXLOWER.encode(key)));
        }
        for (member, value) in &difference.members {
            text.push_str(&format!("\n  {member}: {}", value.as_deref().unwrap_or("has no such row")));
        }
        text
    }
}

/// A member of a partition: the node's name and where to ask it.
type Members = BTreeMap<String, String>;

/// Compares all members of all partitions.
pub(super) async fn verify(client: &Client) -> Result<Verdict, ClusterError> {
    let cluster = client.refresh().await?;
    let addresses: BTreeMap<&str, String> = cluster
        .nodes
        .iter()
        .filter_map(|node| Some((node.id.as_str(), crate::client::address_of(node)?)))
        .collect();
    let mut verdict = Verdict {
        partitions: cluster.partitions.len(),
        members: cluster.nodes.len(),
        first_difference: None,
    };
    for partition in &cluster.partitions {
        let address = |id: &String| {
            let known = addresses.get(id.as_str()).cloned();
            known
                .map(|address| (id.clone(), address))
                .ok_or_else(|| ClusterError::Unavailable(format!("the address of member {id} is not known")))
        };
        let members = partition.nodes.iter().map(address).collect::<Result<Members, _>>()?;
        verdict.first_difference = compare(client, PartitionId(partition.partition), &members).await?;
        if verdict.first_difference.is_some() {
            break;
        }
    }
    Ok(verdict)
}

async fn compare(
    client: &Client,
    partition: PartitionId,
    members: &Members,
) -> Result<Option<Difference>, ClusterError> {
    let log_index = client.start_verify(partition).await?;
    let mut digests = BTreeMap::new();
    for (id, address) in members {
        digests.insert(id.clone(), Some(digest(client, address, partition, log_index).await?));
    }
    let mut distinct = digests.values();
    let first = distinct.next();
    if distinct.all(|digest| Some(digest) == first) {
        return Ok(None);
    }
    let mut difference = Difference { partition, log_index, key: None, members: digests };
    if let Some((key, values)) = first_row(client, partition, log_index, members).await? {
        difference.key = Some(key);
        difference.members = values;
    }
    Ok(Some(difference))
}

async fn digest(
    client: &Client,
    address: &str,
    partition: PartitionId,
    log_index: u64,
) -> Result<String, ClusterError> {
    let began = Instant::now();
    loop {
        let last = match client.verify_digest(address, partition, log_index).await {
            Ok(answer) if answer.ready => return Ok(answer.digest),
            Ok(_) => format!("node {address} has not applied partition {} up to {log_index}", partition.0),
            Err(error) if error.code().exit_status() == crate::error::ExitStatus::Unavailable => error.what(),
            Err(error) => return Err(error),
        };
        if began.elapsed() >= PATIENCE {
            let what = format!("{last} within {} s", PATIENCE.as_secs());
            return Err(ClusterError::new(ErrorCode::Unavailable, what));
        }
        sleep(POLL).await;
    }
}

type Row = (Bytes, BTreeMap<String, Option<String>>);

/// Walks through all members' rows in key order, up to the first that is not the same everywhere.
async fn first_row(
    client: &Client,
    partition: PartitionId,
    log_index: u64,
    members: &Members,
) -> Result<Option<Row>, ClusterError> {
    let mut after_key = Bytes::new();
    loop {
        let mut pages = BTreeMap::new();
        for (id, address) in members {
            let request = v1::VerifyScanRequest {
                partition: partition.0,
                log_index,
                after_key: after_key.clone(),
                limit: PAGE,
            };
            pages.insert(id.clone(), client.verify_scan(address, request).await?);
        }
        if let Some(row) = first_difference_of(&pages) {
            return Ok(Some(row));
        }
        let Some(page) = pages.values().next().filter(|page| !page.done) else { return Ok(None) };
        match page.rows.last() {
            Some(row) => after_key = row.key.clone(),
            None => return Ok(None),
        }
    }
}

/// The first row that is not the same on all pages. Pages that are equal hold the same keys, so the next
/// ones begin at the same key too.
fn first_difference_of(pages: &BTreeMap<String, v1::VerifyScanResponse>) -> Option<Row> {
    let longest = pages.values().map(|page| page.rows.len()).max()?;
    (0..longest).find_map(|at| {
        let rows = || pages.values().map(|page| page.rows.get(at));
        let first = rows().next()?;
        if rows().all(|row| row == first) {
            return None;
        }
        let key = rows().flatten().map(|row| row.key.clone()).min()?;
        let value = |page: &v1::VerifyScanResponse| {
            let row = page.rows.iter().find(|row| row.key == key)?;
            Some(data_encoding::HEXLOWER.encode(&row.value_hash))
        };
        Some((key.clone(), pages.iter().map(|(id, page)| (id.clone(), value(page))).collect()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(rows: &[(&'static str, &'static str)]) -> v1::VerifyScanResponse {
        let row = |(key, hash): &(&'static str, &'static str)| v1::VerifyRow {
            key: Bytes::from_static(key.as_bytes()),
            value_hash: Bytes::from_static(hash.as_bytes()),
        };
        v1::VerifyScanResponse { rows: rows.iter().map(row).collect(), done: true }
    }

    #[test]
    fn the_first_row_that_differs_is_found() {
        let difference = |a: &[_], b: &[_]| {
            let pages = BTreeMap::from([("a".to_owned(), page(a)), ("b".to_owned(), page(b))]);
            first_difference_of(&pages)
                .map(|(key, members)| (key, members["a"].clone(), members["b"].clone()))
        };
        let hex = |text: &str| Some(data_encoding::HEXLOWER.encode(text.as_bytes()));
        assert_eq!(difference(&[("k", "1"), ("l", "2")], &[("k", "1"), ("l", "2")]), None);
        assert_eq!(difference(&[("k", "1")], &[("k", "2")]), Some(("k".into(), hex("1"), hex("2"))));
        assert_eq!(difference(&[("k", "1")], &[("k", "1"), ("l", "2")]), Some(("l".into(), None, hex("2"))));
        assert_eq!(difference(&[("j", "1"), ("k", "1")], &[("k", "1")]), Some(("j".into(), hex("1"), None)));
    }
}
