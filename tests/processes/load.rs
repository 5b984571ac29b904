//! A load that shows *exactly once, in order*: clients count in properties of entities of their own.
//!
//! Each update sets the entity's `seq` to the next number, whatever became of the one before. So the
//! history of an entity must hold every acknowledged number once, in order; none that was refused; and of
//! those with an unknown outcome, each at most once.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kotoba_db_cluster::{
    client::{Client, v1},
    error::{ClusterError, Effect},
    placement::PartitionId,
};
use tokio::task::JoinHandle;

use crate::harness::{Cluster, eventually};

/// How long a client goes on trying one write; every outage of these tests is shorter.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a load may take to show progress once the cluster can answer.
pub(crate) const PROGRESS: Duration = Duration::from_secs(20);

/// An entity that one client counts in.
#[derive(Debug)]
pub(crate) struct Counter {
    pub(crate) cid: String,
    pub(crate) partition: PartitionId,
    /// The highest acknowledged number.
    pub(crate) acknowledged: AtomicU64,
}

/// What became of every number of one counter.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) counter: Arc<Counter>,
    pub(crate) acknowledged: Vec<u64>,
    /// May be there or not.
    pub(crate) unknown: Vec<u64>,
    /// Position in the partition's log of the last acknowledged write.
    pub(crate) index: u64,
    next: u64,
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) counters: Vec<Arc<Counter>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Ledger>>>,
}

/// A write that sets `seq`, with some bytes beside it.
pub(crate) fn count_to(cid: &str, seq: u64) -> v1::Operation {
    let properties = [("seq".to_owned(), int(seq)), ("padding".to_owned(), text(&"x".repeat(64)))].into();
    let update = v1::UpdateNode { cid: cid.into(), properties, unset: Vec::new() };
    v1::Operation { kind: Some(v1::operation::Kind::UpdateNode(update)) }
}

/// A new node with `seq` 0.
pub(crate) fn counter_named(key: &str) -> v1::Operation {
    let create = v1::CreateNode { properties: [("seq".to_owned(), int(0))].into(), key: key.into() };
    v1::Operation { kind: Some(v1::operation::Kind::CreateNode(create)) }
}

fn int(value: u64) -> v1::Value {
    let value = i64::try_from(value).expect("tests count less far");
    v1::Value { kind: Some(v1::value::Kind::IntValue(value)) }
}

fn text(value: &str) -> v1::Value {
    v1::Value { kind: Some(v1::value::Kind::StringValue(value.into())) }
}

/// The number in the property `seq`.
pub(crate) fn seq_of<'a>(properties: impl IntoIterator<Item = (&'a String, &'a v1::Value)>) -> Option<u64> {
    let value = properties.into_iter().find(|(name, _)| *name == "seq")?.1;
    match value.kind.as_ref()? {
        v1::value::Kind::IntValue(seq) => u64::try_from(*seq).ok(),
        _ => None,
    }
}

impl Load {
    /// Starts so many clients with so many counters each.
    pub(crate) async fn start(cluster: &Cluster, clients: usize, counters_each: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = Self { counters: Vec::new(), stop, clients: Vec::new() };
        for number in 0..clients {
            let client = cluster.client(DEADLINE).await;
            let mut ledgers = Vec::new();
            for counter in 0..counters_each {
                let counter = Arc::new(create(&client, &format!("load-{number}-{counter}")).await);
                load.counters.push(Arc::clone(&counter));
                ledgers.push(Ledger {
                    counter,
                    acknowledged: Vec::new(),
                    unknown: Vec::new(),
                    index: 0,
                    next: 1,
                });
            }
            load.clients.push(tokio::spawn(work(client, ledgers, Arc::clone(&load.stop))));
        }
        load
    }

    /// Acknowledged writes so far, of one partition or of all.
    pub(crate) fn acknowledged(&self, partition: Option<PartitionId>) -> u64 {
        let counted = |counter: &&Arc<Counter>| partition.is_none_or(|partition| counter.partition == partition);
        self.counters.iter().filter(counted).map(|counter| counter.acknowledged.load(Ordering::Acquire)).sum()
    }

    /// Waits for so many further acknowledged writes, of one partition or of all.
    pub(crate) async fn until_more(&self, partition: Option<PartitionId>, more: u64) {
        let before = self.acknowledged(partition);
        eventually("progress of the load", PROGRESS, async || {
            let now = self.acknowledged(partition);
            if now >= before + more { Ok(()) } else { Err(format!("{} of {more} writes", now - before)) }
        })
        .await;
    }

    /// Lets every client finish the write it is at: what became of all of them.
    pub(crate) async fn stop(self) -> Vec<Ledger> {
        self.stop.store(true, Ordering::Release);
        let mut ledgers = Vec::new();
        for client in self.clients {
            ledgers.extend(client.await.expect("a client's assertion failed"));
        }
        ledgers
    }
}

async fn create(client: &Client, key: &str) -> Counter {
    let receipt = client.execute(counter_named(key), None).await.expect("a serving cluster");
    Counter { cid: receipt.cid, partition: receipt.partition, acknowledged: AtomicU64::new(0) }
}

async fn work(client: Client, mut ledgers: Vec<Ledger>, stop: Arc<AtomicBool>) -> Vec<Ledger> {
    let count = ledgers.len();
    let mut turn = 0;
    while !stop.load(Ordering::Acquire) {
        ledgers[turn % count].write_next(&client).await;
        turn += 1;
    }
    ledgers
}

impl Ledger {
    async fn write_next(&mut self, client: &Client) {
        let seq = self.next;
        self.next += 1;
        match client.execute(count_to(&self.counter.cid, seq), Some(self.counter.partition)).await {
            Ok(receipt) => {
                assert_eq!(receipt.cid, self.counter.cid);
                assert!(receipt.index > self.index, "{receipt:?} after {}", self.index);
                self.index = receipt.index;
                self.acknowledged.push(seq);
                self.counter.acknowledged.store(seq, Ordering::Release);
            }
            Err(error) => self.note_failure(seq, &error),
        }
    }

    fn note_failure(&mut self, seq: u64, error: &ClusterError) {
        assert_eq!(error.code().exit_status().number(), 3, "write {seq} was refused: {error}");
        if error.code().effect() == Effect::Unknown {
            self.unknown.push(seq);
        }
    }

    /// Asserts that a history holds what it must, and nothing else.
    pub(crate) fn check(&self, member: &str, history: &[u64]) {
        let cid = &self.counter.cid;
        assert_eq!(history.first(), Some(&0), "{member}, {cid}: the creation");
        for pair in history.windows(2) {
            assert!(pair[0] < pair[1], "{member}, {cid}: {} before {}: not once, not in order", pair[0], pair[1]);
        }
        let acknowledged = count(&self.acknowledged);
        let unknown = count(&self.unknown);
        let there = count(history);
        let lost: Vec<&u64> = acknowledged.keys().filter(|seq| !there.contains_key(*seq)).copied().collect();
        assert!(lost.is_empty(), "{member}, {cid}: acknowledged and lost: {lost:?}");
        let known = |seq: &u64| *seq == 0 || acknowledged.contains_key(seq) || unknown.contains_key(seq);
        let invented: Vec<&u64> = history.iter().filter(|seq| !known(seq)).collect();
        assert!(invented.is_empty(), "{member}, {cid}: refused and yet there: {invented:?}");
    }
}

fn count(numbers: &[u64]) -> BTreeMap<&u64, usize> {
    let mut counts = BTreeMap::new();
    for number in numbers {
        *counts.entry(number).or_insert(0) += 1;
    }
    counts
}
