//! Measures failover: how long after `kill -9` of the node that leads a busy partition the next write
//! of that partition is acknowledged, with default settings, on three real processes.
//!
//! ```text
//! cargo build --release && cargo run --release --example failover [TRIALS]
//! ```
#![allow(clippy::disallowed_methods, reason = "a measurement lives in real time")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![allow(dead_code, reason = "what the tests need of the shared files, this program does not")]

#[path = "../tests/processes/command.rs"]
mod command;
#[path = "../tests/processes/harness.rs"]
mod harness;
#[path = "../tests/processes/load.rs"]
mod load;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use kotoba_db_cluster::placement::PartitionId;
use tokio::time::sleep;

use harness::{Cluster, Draws, Group};
use load::Load;

/// Partitions, as by default.
const PARTITIONS: u32 = 64;
const TRIALS: usize = 10;
const CLIENTS: usize = 8;
const COUNTERS_EACH: usize = 4;
/// An answer that was on its way when the leader died has arrived after this time.
const IN_FLIGHT: Duration = Duration::from_millis(2);
/// How exactly the moment of an acknowledgement is known.
const RESOLUTION: Duration = Duration::from_millis(1);
const GIVE_UP: Duration = Duration::from_secs(30);

/// The program that stands beside this one.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let target = own.parent().and_then(|examples| examples.parent()).expect("target/PROFILE/examples");
    let program = target.join("kotoba-cluster");
    assert!(program.exists(), "{} is not there; next: cargo build --release", program.display());
    program
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let trials = std::env::args().nth(1).map_or(TRIALS, |text| text.parse().expect("a number of trials"));
    let mut draws = Draws::new();
    let mut cluster = Cluster::start(PARTITIONS).await;
    let load = Load::start(&cluster, CLIENTS, COUNTERS_EACH).await;
    let mut gaps = Vec::new();
    for trial in 1..=trials {
        load.until_more(None, 500).await;
        sleep(Duration::from_millis(draws.below(500) as u64)).await;
        let partition = load.counters[draws.below(load.counters.len())].partition;
        let leader = cluster.leader_of(Group::Partition(partition.0)).await;
        let killed = Instant::now();
        cluster.kill(leader);
        let gap = until_acknowledged(&load, partition, killed).await;
        let node = cluster.nodes[leader].id.clone();
        println!("trial {trial:2}: {node} led partition {}; next write after {} ms", partition.0, gap.as_millis());
        gaps.push(gap);
        cluster.launch(leader);
        cluster.until_caught_up(leader).await;
        cluster.until_serving().await;
    }
    let ledgers = load.stop().await;
    let acknowledged: usize = ledgers.iter().map(|ledger| ledger.acknowledged.len()).sum();
    gaps.sort_unstable();
    let median = (gaps[(gaps.len() - 1) / 2] + gaps[gaps.len() / 2]) / 2;
    println!(
        "{trials} trials, {acknowledged} writes acknowledged: median {} ms, shortest {} ms, longest {} ms",
        median.as_millis(),
        gaps[0].as_millis(),
        gaps[gaps.len() - 1].as_millis()
    );
}

/// The time from the kill to the next acknowledged write of the partition.
async fn until_acknowledged(load: &Load, partition: PartitionId, killed: Instant) -> Duration {
    sleep(IN_FLIGHT).await;
    let before = load.acknowledged(Some(partition));
    while load.acknowledged(Some(partition)) == before {
        assert!(killed.elapsed() < GIVE_UP, "nothing was acknowledged for {GIVE_UP:?}");
        sleep(RESOLUTION).await;
    }
    killed.elapsed()
}
