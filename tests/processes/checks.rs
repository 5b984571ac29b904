//! What must hold when a cluster has come to rest.

use std::{collections::BTreeSet, time::Duration};

use kotoba_db_cluster::client::v1;
use tokio::time::timeout;

use crate::{
    harness::{Cluster, PATIENCE, eventually, service},
    load::{Ledger, seq_of},
};

/// What `cargo metadata` says of a program with some 200 packages.
const GRAPH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/demo/cargo_metadata.json");
const ASK: Duration = Duration::from_secs(10);

impl Cluster {
    /// Everything acknowledged is on every member, once and in order, and the members' states are equal.
    pub(crate) async fn check_all(&self, ledgers: &[Ledger]) {
        self.until_serving().await;
        for node in 0..self.nodes.len() {
            self.until_caught_up(node).await;
        }
        let acknowledged: usize = ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum();
        let unknown: usize = ledgers.iter().map(|ledger| ledger.unknown.len()).sum();
        eprintln!("{acknowledged} writes acknowledged, {unknown} unknown");
        assert!(acknowledged > 0, "the load did nothing");
        for node in &self.nodes {
            for ledger in ledgers {
                let history = history_at(&node.address, ledger).await;
                ledger.check(&node.id, &history);
            }
        }
        self.check_digests().await;
    }

    /// Every member's state is the same at one log position of each partition.
    pub(crate) async fn check_digests(&self) {
        let verified = self.command(&["verify", "--output", "json"]).await.success().json();
        assert_eq!(verified["equal"], true, "{verified}");
        assert_eq!(verified["members"], self.nodes.len(), "{verified}");
        assert_eq!(verified["first_difference"], serde_json::Value::Null, "{verified}");
    }

    /// Imports the graph of a real program's dependencies: every line of it, as exported.
    pub(crate) async fn import_graph(&self) -> BTreeSet<String> {
        let line = ["import", "--format", "cargo-metadata", GRAPH, "--output", "json"];
        let imported = self.command(&line).await.success().json();
        let there = self.export().await;
        assert_eq!(imported["operations"], there.len(), "{imported}");
        assert_eq!(imported["acknowledged"], there.len(), "{imported}");
        there
    }

    /// All entities and edges as `export` writes them, one line each.
    pub(crate) async fn export(&self) -> BTreeSet<String> {
        let exported = self.command(&["export"]).await.success();
        let lines: Vec<&str> = exported.stdout.lines().collect();
        let set: BTreeSet<String> = lines.iter().map(|line| canonical(line)).collect();
        assert_eq!(set.len(), lines.len(), "an entity was exported twice");
        set
    }
}

/// A JSON text in one fixed form.
pub(crate) fn canonical(line: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    value.to_string()
}

/// The numbers in a counter's history as one member has it, up to its last acknowledged write at least.
async fn history_at(address: &str, ledger: &Ledger) -> Vec<u64> {
    let options = v1::ReadOptions {
        consistency: v1::Consistency::Session.into(),
        min_index: ledger.index,
        partition: Some(ledger.counter.partition.0),
        forwarded: false,
    };
    let (cid, options) = (ledger.counter.cid.clone(), Some(options));
    eventually(&format!("history from {address}"), PATIENCE, async || {
        let mut service = service(address);
        let seq = |version: &v1::Version| seq_of(&version.properties).expect("every version counts");
        let mut numbers = Vec::new();
        loop {
            let skip = numbers.len() as u64;
            let request = v1::HistoryRequest { cid: cid.clone(), options, skip };
            let answer = timeout(ASK, service.history(request)).await.map_err(|_| "no answer")?;
            let history = answer.map_err(|status| status.to_string())?.into_inner();
            if !history.found || history.versions.is_empty() {
                return Err("it is not there".to_owned());
            }
            numbers.extend(history.versions.iter().map(seq));
            if numbers.len() as u64 >= history.total {
                return Ok(numbers);
            }
        }
    })
    .await
}
