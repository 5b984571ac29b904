//! `verify`: every member's state at one log position per partition, compared.
//!
//! A marker goes through each partition's log; every member keeps its state at the marker's position, so
//! what is compared is the same moment on all of them, also while the cluster takes writes. A replica that
//! is out of service and a member that does not answer keep no others from being compared; the verdict
//! names them, and is not "equal".

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep};

use super::{args::VerifyArgs, connect::connect, output};
use crate::{
    client::{Client, v1},
    error::{ClusterError, ErrorCode, ExitStatus},
    placement::PartitionId,
};

const POLL: Duration = Duration::from_millis(20);
/// How long a member may take to apply the log up to the marker.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a member that does not answer may be on its way back, where the cluster cannot reach it either.
const ABSENCE: Duration = Duration::from_secs(3);
const PAGE: u32 = 1000;

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode, ClusterError> {
    let client = connect(args.connect).await?;
    let verdict = verify(&client).await?;
    output::print(args.output.output, &verdict.json(), || verdict.sentence())?;
    let Some(error) = verdict.error() else { return Ok(ExitCode::SUCCESS) };
    output::talk(&error.report());
    Ok(ExitCode::from(error.code().exit_status().number()))
}

/// What a verification found.
#[derive(Debug)]
pub(super) struct Verdict {
    partitions: usize,
    members: usize,
    first_difference: Option<Difference>,
    not_compared: NotCompared,
}

/// Which partitions of which member were not compared, by the reason.
#[derive(Debug, Default)]
struct NotCompared(BTreeMap<(String, String), Vec<u32>>);

/// Partitions named of each line about what was not compared.
const PARTITIONS_NAMED: usize = 8;

impl NotCompared {
    fn note(&mut self, member: &str, reason: &str, partition: PartitionId) {
        self.0.entry((member.to_owned(), reason.to_owned())).or_default().push(partition.0);
    }

    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    fn first(&self) -> Option<(&str, u32)> {
        let ((member, _), partitions) = self.0.first_key_value()?;
        Some((member, *partitions.first()?))
    }

    fn json(&self) -> Json {
        let row = |((member, reason), partitions): (&(String, String), &Vec<u32>)| json!({ "member": member, "partitions": partitions, "reason": reason });
        self.0.iter().map(row).collect()
    }

    fn lines(&self) -> String {
        let line = |((member, reason), partitions): (&(String, String), &Vec<u32>)| {
            let named: Vec<_> = partitions.iter().take(PARTITIONS_NAMED).map(u32::to_string).collect();
            let more = match partitions.len() - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("\n  not compared: {member} in partition {}{more}: {reason}", named.join(", "))
        };
        self.0.iter().map(line).collect()
    }
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
    /// Every member's state of every partition was compared, and they are the same.
    pub(super) fn equal(&self) -> bool {
        self.first_difference.is_none() && self.not_compared.0.is_empty()
    }

    /// What to say where it is not equal.
    fn error(&self) -> Option<ClusterError> {
        if let Some(difference) = &self.first_difference {
            let mut what =
                format!("partition {} differs at log index {}", difference.partition.0, difference.log_index);
            if let Some(key) = &difference.key {
                what.push_str(&format!(", first at the row {}", data_encoding::HEXLOWER.encode(key)));
            }
            return Some(ClusterError::new(ErrorCode::StatesDiffer, what));
        }
        let (member, partition) = self.not_compared.first()?;
        let count = self.not_compared.count();
        let what =
            format!("replicas not compared: {count}, that of partition {partition} on {member} among them");
        Some(ClusterError::new(ErrorCode::Unavailable, what))
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
            "not_compared": self.not_compared.json(),
        })
    }

    fn sentence(&self) -> String {
        let Some(difference) = &self.first_difference else {
            let compared = if self.equal() { "equal" } else { "no difference found, but NOT ALL COMPARED" };
            let lines = self.not_compared.lines();
            return format!("{compared}: {} partitions on {} members{lines}", self.partitions, self.members);
        };
        let mut text =
            format!("DIFFERENT: partition {} at log index {}", difference.partition.0, difference.log_index);
        if let Some(key) = &difference.key {
            text.push_str(&format!(", first at the row {}", data_encoding::HEXLOWER.encode(key)));
        }
        for (member, value) in &difference.members {
            text.push_str(&format!("\n  {member}: {}", value.as_deref().unwrap_or("has no such row")));
        }
        text + &self.not_compared.lines()
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
        .filter_map(|node| Some((node.id.as_str(), crate::client::routes::address_of(node)?)))
        .collect();
    let mut verdict = Verdict {
        partitions: cluster.partitions.len(),
        members: cluster.nodes.len(),
        first_difference: None,
        not_compared: NotCompared::default(),
    };
    // Members that did not answer in time are not waited for a second time.
    let mut absent = BTreeMap::new();
    for partition in &cluster.partitions {
        let address = |id: &String| {
            let known = addresses.get(id.as_str()).cloned();
            known
                .map(|address| (id.clone(), address))
                .ok_or_else(|| ClusterError::Unavailable(format!("the address of member {id} is not known")))
        };
        let members = partition.nodes.iter().map(address).collect::<Result<Members, _>>()?;
        let comparison = Comparison {
            client,
            partition: PartitionId(partition.partition),
            absent: &mut absent,
            not_compared: &mut verdict.not_compared,
        };
        verdict.first_difference = comparison.run(members).await?;
        if verdict.first_difference.is_some() {
            break;
        }
    }
    Ok(verdict)
}

/// The comparison of one partition.
struct Comparison<'a> {
    client: &'a Client,
    partition: PartitionId,
    absent: &'a mut BTreeMap<String, String>,
    not_compared: &'a mut NotCompared,
}

impl Comparison<'_> {
    async fn run(mut self, mut members: Members) -> Result<Option<Difference>, ClusterError> {
        let (client, partition) = (self.client, self.partition);
        let log_index = client.start_verify(partition).await?;
        let digests = self.digests(log_index, &members).await;
        members.retain(|id, _| digests.contains_key(id));
        let mut distinct = digests.values();
        let first = distinct.next();
        if distinct.all(|digest| Some(digest) == first) {
            return Ok(None);
        }
        let mut difference = Difference { partition, log_index, key: None, members: digests };
        if let Some((key, values)) = first_row(client, partition, log_index, &members).await? {
            difference.key = Some(key);
            difference.members = values;
        }
        Ok(Some(difference))
    }

    /// The digests of the members that tell theirs; notes the others.
    async fn digests(&mut self, log_index: u64, members: &Members) -> BTreeMap<String, Option<String>> {
        let mut digests = BTreeMap::new();
        for (id, address) in members {
            let reason = match self.absent.get(id) {
                Some(reason) => reason.clone(),
                None => match digest(self.client, address, self.partition, log_index).await {
                    Ok(digest) => {
                        digests.insert(id.clone(), Some(digest));
                        continue;
                    }
                    Err(error) => {
                        if error.code().exit_status() == ExitStatus::Unavailable {
                            self.absent.insert(id.clone(), error.what());
                        }
                        error.what()
                    }
                },
            };
            self.not_compared.note(id, &reason, self.partition);
        }
        digests
    }
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
            Ok(_) => format!("node {address} has not applied the log of partition {} so far", partition.0),
            Err(error) if error.code().exit_status() == ExitStatus::Unavailable => {
                if began.elapsed() >= ABSENCE && is_unreachable(client, address).await {
                    let what = format!("a member is unreachable at {address}: {}", error.what());
                    return Err(ClusterError::new(ErrorCode::Unavailable, what));
                }
                error.what()
            }
            Err(error) => return Err(error),
        };
        if began.elapsed() >= PATIENCE {
            let what = format!("{last} within {} s", PATIENCE.as_secs());
            return Err(ClusterError::new(ErrorCode::Unavailable, what));
        }
        sleep(POLL).await;
    }
}

/// Whether the other members do not reach it either.
async fn is_unreachable(client: &Client, address: &str) -> bool {
    let is_it = |node: &v1::NodeStatus| node.address == address && node.state == "unreachable";
    client.status_now().await.is_ok_and(|status| status.nodes.iter().any(is_it))
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
    fn what_was_not_compared_is_not_equal() {
        let mut verdict = Verdict {
            partitions: 64,
            members: 3,
            first_difference: None,
            not_compared: NotCompared::default(),
        };
        assert!(verdict.equal() && verdict.error().is_none());
        assert_eq!(verdict.sentence(), "equal: 64 partitions on 3 members");
        (0..10).for_each(|partition| verdict.not_compared.note("b", "it is down", PartitionId(partition)));
        let code = |verdict: &Verdict| verdict.error().map(|error| error.code());
        assert_eq!((verdict.equal(), code(&verdict)), (false, Some(ErrorCode::Unavailable)));
        assert_eq!(
            verdict.sentence(),
            "no difference found, but NOT ALL COMPARED: 64 partitions on 3 members\n  \
             not compared: b in partition 0, 1, 2, 3, 4, 5, 6, 7 and 2 more: it is down"
        );
        assert_eq!(verdict.json()["not_compared"][0]["partitions"][9], 9);
        verdict.first_difference = Some(Difference {
            partition: PartitionId(3),
            log_index: 7,
            key: None,
            members: BTreeMap::from([("a".to_owned(), Some("1".to_owned())), ("c".to_owned(), None)]),
        });
        assert_eq!((verdict.equal(), code(&verdict)), (false, Some(ErrorCode::StatesDiffer)));
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
