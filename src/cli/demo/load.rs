//! Clients that update entities, each entity by one client, one update after the other, each with the
//! next serial number: so its history must hold every acknowledged number once, in order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinHandle, time::Instant};

use crate::{
    cli::import::identity_of_node,
    client::{Client, v1},
    error::{ClusterError, ErrorCode},
    graph::{Cid, Properties},
    placement::{PartitionId, partition_of},
};

/// The property that holds the serial number.
pub(super) const SERIAL: &str = "serial";

/// What one entity was told, and what was acknowledged of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) cid: Cid,
    pub(super) partition: PartitionId,
    pub(super) sent: i64,
    pub(super) acknowledged: Vec<i64>,
}

impl Written {
    fn nothing_yet(cid: Cid, partition: PartitionId) -> Self {
        Self { cid, partition, sent: 0, acknowledged: Vec::new() }
    }

    /// Sends the next number. An unknown outcome stays unknown: the number may or may not be there.
    async fn write_next(&mut self, client: &Client) -> Result<(), ClusterError> {
        self.sent += 1;
        match client.execute(update(self.cid, self.sent), Some(self.partition)).await {
            Ok(_) => self.acknowledged.push(self.sent),
            Err(error) if error.code() == ErrorCode::UnknownOutcome => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn update(cid: Cid, serial: i64) -> v1::Operation {
    let value = v1::Value { kind: Some(v1::value::Kind::IntValue(serial)) };
    let properties = [(SERIAL.to_owned(), value)].into();
    let update = v1::UpdateNode { cid: cid.to_string(), properties, unset: Vec::new() };
    v1::Operation { kind: Some(v1::operation::Kind::UpdateNode(update)) }
}

/// The clients at work.
#[derive(Debug)]
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<BTreeMap<PartitionId, u64>>>,
    writers: Vec<JoinHandle<Result<Vec<Written>, ClusterError>>>,
}

impl Load {
    /// Starts so many clients, each with a session and a share of the nodes of its own.
    pub(super) fn start(
        client: &Client,
        nodes: Vec<(String, Cid)>,
        writers: usize,
    ) -> Result<Self, ClusterError> {
        let count = partition_count(client)?;
        let mut shares: Vec<Vec<Written>> = vec![Vec::new(); writers];
        for (at, (_, cid)) in nodes.into_iter().enumerate() {
            shares[at % writers].push(Written::nothing_yet(cid, partition_of(&cid.to_bytes(), count)));
        }
        let (stop, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let mut load = Self { stop, writes, writers: Vec::new() };
        for share in shares.into_iter().filter(|share| !share.is_empty()) {
            let session = client.session(None)?;
            let work = work(session, share, Arc::clone(&load.stop), Arc::clone(&load.writes));
            load.writers.push(tokio::spawn(work));
        }
        Ok(load)
    }

    /// The partition with the most acknowledged writes so far, and how many.
    pub(super) fn busiest(&self) -> (PartitionId, u64) {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let busiest = writes.iter().max_by_key(|(_, count)| **count);
        busiest.map_or((PartitionId(0), 0), |(partition, count)| (*partition, *count))
    }

    /// Lets every client finish what it is doing.
    pub(super) async fn stop(mut self) -> Result<Vec<Written>, ClusterError> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        for writer in std::mem::take(&mut self.writers) {
            let ended =
                writer.await.map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))?;
            written.extend(ended?);
        }
        Ok(written)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.writers.iter().for_each(JoinHandle::abort);
    }
}

async fn work(
    client: Client,
    mut share: Vec<Written>,
    stop: Arc<AtomicBool>,
    writes: Arc<Mutex<BTreeMap<PartitionId, u64>>>,
) -> Result<Vec<Written>, ClusterError> {
    let count = share.len();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let entity = &mut share[turn % count];
        entity.write_next(&client).await?;
        *writes.lock().unwrap_or_else(PoisonError::into_inner).entry(entity.partition).or_default() += 1;
    }
    Ok(share)
}

fn partition_count(client: &Client) -> Result<u32, ClusterError> {
    client.partition_count().ok_or_else(|| ClusterError::Unavailable("the partitions are not known".into()))
}

/// A node of its own in one partition, written to measure how long that partition takes no writes.
#[derive(Debug)]
pub(super) struct Probe {
    client: Client,
    written: Written,
}

/// What a probe measured.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) failover: Duration,
    pub(super) written: Written,
}

impl Probe {
    pub(super) async fn prepare(client: &Client, partition: PartitionId) -> Result<Self, ClusterError> {
        let client = client.session(None)?;
        let count = partition_count(&client)?;
        // Keys are tried until one falls into the partition.
        for number in 0_u64.. {
            let key = format!("probe-{number}");
            let cid = identity_of_node(&key, Properties::new())?;
            if partition_of(&cid.to_bytes(), count) != partition {
                continue;
            }
            let create = v1::CreateNode { properties: [].into(), key };
            let operation = v1::Operation { kind: Some(v1::operation::Kind::CreateNode(create)) };
            client.execute(operation, Some(partition)).await?;
            return Ok(Self { client, written: Written::nothing_yet(cid, partition) });
        }
        Err(ClusterError::new(ErrorCode::Internal, "no key falls into the partition"))
    }

    /// Writes, from now on, until a write is acknowledged; measures from `killed_at`.
    pub(super) async fn write_until_acknowledged(
        mut self,
        killed_at: Instant,
    ) -> Result<Probed, ClusterError> {
        while self.written.acknowledged.is_empty() {
            self.written.write_next(&self.client).await?;
        }
        Ok(Probed { failover: killed_at.elapsed(), written: self.written })
    }
}
