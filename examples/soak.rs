//! Runs three real processes under full load for some minutes and counts the elections: a sound cluster
//! has none, however busy it is.
//!
//! ```text
//! cargo build --release && cargo run --release --example soak [MINUTES]
//! ```
#![allow(clippy::disallowed_methods, reason = "a measurement lives in real time")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(dead_code, reason = "what the tests need of the shared files, this program does not")]

#[path = "../tests/processes/command.rs"]
mod command;
#[path = "../tests/processes/harness.rs"]
mod harness;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use harness::{Cluster, PATIENCE, eventually, rows};

/// Partitions, as by default.
const PARTITIONS: u32 = 64;
const MINUTES: u64 = 10;
const CLIENTS: &str = "256";
const VALUE_BYTES: &str = "256";

/// The program that stands beside this one.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let target = own.parent().and_then(|examples| examples.parent()).expect("target/PROFILE/examples");
    let program = target.join("kotoba-cluster");
    assert!(program.exists(), "{} is not there; next: cargo build --release", program.display());
    program
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let minutes = std::env::args().nth(1).map_or(MINUTES, |text| text.parse().expect("a number of minutes"));
    let cluster = Cluster::start(PARTITIONS).await;
    let mut before = terms(&cluster).await;
    let mut elections = 0;
    for minute in 1..=minutes {
        let row = one_minute(&cluster).await;
        let after = terms(&cluster).await;
        let new = count(&before, &after);
        println!("minute {minute:2}: {} writes a second, {} errors, {new} elections", row["ops_per_s"], row["errors"]);
        elections += new;
        before = after;
    }
    println!("{minutes} minutes of full load: {elections} elections in {} groups", PARTITIONS + 1);
    cluster.finish();
    if elections == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A minute of as many writes as the cluster takes.
async fn one_minute(cluster: &Cluster) -> serde_json::Value {
    let endpoints = cluster.addresses().join(",");
    let line = [
        "bench", "--op", "put", "--mode", "stream", "--seconds", "60", "--clients", CLIENTS, "--value-bytes",
        VALUE_BYTES, "--output", "json", "--endpoints", &endpoints,
    ];
    command::run_within(&line, Duration::from_secs(180)).await.success().json()
}

/// The term of every group: each election begins a new one.
async fn terms(cluster: &Cluster) -> BTreeMap<Option<u32>, u64> {
    eventually("status of all nodes", PATIENCE, async || {
        let status = cluster.status().await?;
        if !status.serving || status.nodes.iter().any(|node| node.state != "up") {
            return Err(format!("{:?}", status.waiting_for));
        }
        let mut terms = BTreeMap::new();
        for (group, row) in status.nodes.iter().flat_map(rows) {
            let known = terms.entry(group).or_insert(0);
            *known = row.term.max(*known);
        }
        Ok(terms)
    })
    .await
}

fn count(before: &BTreeMap<Option<u32>, u64>, after: &BTreeMap<Option<u32>, u64>) -> u64 {
    after.iter().map(|(group, term)| term - before.get(group).copied().unwrap_or(*term)).sum()
}
