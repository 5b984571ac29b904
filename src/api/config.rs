//! How a cluster and a node are set up.
//!
//! [`ClusterConfig`], [`MembershipConfig`] and [`ReplicationConfig`] are the specification's; users
//! write them as full literals, so they never gain a field. Everything else that can be tuned is in
//! [`Tuning`] and [`TlsConfig`]. Every type has a `Default`, every duration and size says its unit,
//! and `check` says in one sentence what cannot work.
#![expect(clippy::disallowed_types, reason = "the specification gives ClusterConfig.nodes this type")]

use std::{collections::HashMap, fmt, path::PathBuf, time::Duration};

use super::types::{NodeId, NodeInfo};
use crate::{limits::PARTITIONS_MAX, placement::REPLICATION_FACTOR_MAX};

/// A setting that cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The setting, as in `raft.election_timeout`.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// The cluster as a whole. It takes effect when the cluster begins; afterwards the meta group
/// decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The nodes to begin with, this one included. Empty: this node is the cluster.
    pub nodes: HashMap<NodeId, NodeInfo>,
    /// Replicas of each partition. A target: with fewer nodes there are as many as nodes.
    pub replication_factor: usize,
    /// Partitions the data is spread over. Never changes while the cluster lives.
    pub partition_count: usize,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self { nodes: HashMap::new(), replication_factor: 3, partition_count: 64 }
    }
}

impl ClusterConfig {
    /// Whether a cluster can begin like this.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        within("partition_count", self.partition_count, 1, PARTITIONS_MAX as usize)?;
        within("replication_factor", self.replication_factor, 1, REPLICATION_FACTOR_MAX as usize)?;
        for (id, info) in &self.nodes {
            if !id.is_valid() {
                return Err(problem("nodes", format!("{:?} cannot be a node id", id.0)));
            }
            if info.id != *id {
                return Err(problem("nodes", format!("the entry of {id} says it is {}", info.id)));
            }
        }
        Ok(())
    }
}

/// Who is in the cluster and how alive. These figures decide about suspicion and placement in
/// seconds; leadership is decided by [`RaftTuning`] in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipConfig {
    /// How often a node shows the others that it lives.
    pub heartbeat_interval: Duration,
    /// How often the signs of life are looked at.
    pub failure_detection_interval: Duration,
    /// Signs of life in a row that may be missing before a node is suspected.
    pub max_missed_heartbeats: u32,
    /// How long a node must be silent to count as failed.
    pub failure_timeout: Duration,
    /// How often nodes tell each other what they know.
    pub gossip_interval: Duration,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(1),
            failure_detection_interval: Duration::from_secs(5),
            max_missed_heartbeats: 3,
            failure_timeout: Duration::from_secs(15),
            gossip_interval: Duration::from_secs(2),
        }
    }
}

impl MembershipConfig {
    /// Whether these figures can work together.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        positive("membership.heartbeat_interval", self.heartbeat_interval)?;
        positive("membership.failure_detection_interval", self.failure_detection_interval)?;
        positive("membership.gossip_interval", self.gossip_interval)?;
        if self.max_missed_heartbeats == 0 {
            return Err(problem("membership.max_missed_heartbeats", "must be at least 1".into()));
        }
        longer(
            "membership.failure_timeout",
            self.failure_timeout,
            "heartbeat_interval",
            self.heartbeat_interval,
        )
    }
}

/// How writes of the `Eventual` consistency level are queued and delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicationConfig {
    /// Replicas of each partition; [`ClusterConfig::replication_factor`] decides where both are given.
    pub replication_factor: usize,
    /// Attempts of one burst. Never a reason to discard a write: after a pause the next burst begins.
    pub max_retries: u32,
    /// How often the queue's health is computed.
    pub status_check_interval: Duration,
    /// How often queued writes are tried.
    pub queue_processing_interval: Duration,
    /// How often replicas are compared.
    pub full_sync_interval: Duration,
    /// How long a node must be silent before its replicas are reported as missing.
    pub node_failure_timeout: Duration,
    /// Fault injection: the share of replication messages that a simulator lets fail (`kotoba-sim run
    /// --failure-rate`). **A node ignores it**, in production and everywhere else; it is checked to be
    /// a share of 1 and nothing reads it.
    pub failure_rate: f32,
}

impl Default for ReplicationConfig {
    fn default() -> Self {
        Self {
            replication_factor: 3,
            max_retries: 3,
            status_check_interval: Duration::from_secs(5),
            queue_processing_interval: Duration::from_millis(100),
            full_sync_interval: Duration::from_secs(300),
            node_failure_timeout: Duration::from_secs(30),
            failure_rate: 0.01,
        }
    }
}

impl ReplicationConfig {
    /// Whether these figures can work together.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        within(
            "replication.replication_factor",
            self.replication_factor,
            1,
            REPLICATION_FACTOR_MAX as usize,
        )?;
        positive("replication.status_check_interval", self.status_check_interval)?;
        positive("replication.queue_processing_interval", self.queue_processing_interval)?;
        positive("replication.full_sync_interval", self.full_sync_interval)?;
        positive("replication.node_failure_timeout", self.node_failure_timeout)?;
        if !(0.0..=1.0).contains(&self.failure_rate) {
            return Err(problem(
                "replication.failure_rate",
                format!("{} is no share of 1", self.failure_rate),
            ));
        }
        Ok(())
    }
}

/// Everything else that can be tuned on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Elections and replication.
    pub raft: RaftTuning,
    /// The write-ahead log.
    pub log: LogTuning,
    /// The graph store.
    pub store: StoreTuning,
    /// Connections and requests.
    pub network: NetworkTuning,
}

impl Tuning {
    /// Whether these figures can work together.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.raft.check()?;
        self.log.check()?;
        self.store.check()?;
        self.network.check()
    }
}

/// Elections and replication. All nodes of a cluster should have the same figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftTuning {
    /// How often a leader shows its followers that it lives (100 ms).
    pub heartbeat_interval: Duration,
    /// How long a follower waits for its leader before it asks for an election (500 ms). Each wait
    /// is drawn from this to twice this, so that not all stand at once.
    pub election_timeout: Duration,
    /// Payload bytes of applied entries that are kept for followers that lag, per group (4 MiB).
    /// One that lags further receives a snapshot.
    pub keep_bytes: u64,
}

impl Default for RaftTuning {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(500),
            keep_bytes: 4 << 20,
        }
    }
}

impl RaftTuning {
    fn check(&self) -> Result<(), ConfigError> {
        positive("raft.heartbeat_interval", self.heartbeat_interval)?;
        // One lost or late heartbeat must not cost a leader its office.
        if self.election_timeout < self.heartbeat_interval.saturating_mul(3) {
            let text = format!(
                "{:?} is less than three times the heartbeat interval of {:?}",
                self.election_timeout, self.heartbeat_interval
            );
            return Err(problem("raft.election_timeout", text));
        }
        Ok(())
    }
}

/// The write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTuning {
    /// Bytes of one segment file (16 MiB). Filled with zeros when it is created.
    pub segment_bytes: u64,
    /// Bytes of recent entries kept in memory for followers and the state machine (32 MiB, all
    /// groups together).
    pub cache_bytes: u64,
    /// Bytes the log may take on disk before the graph store is made durable out of turn, so that the
    /// log can forget (256 MiB).
    pub disk_budget_bytes: u64,
    /// Bytes of the disk that are left free: with less, the node takes no writes and leads nothing (256 MiB).
    pub disk_reserve_bytes: u64,
    /// How often a node without room looks whether there is some again (500 ms).
    pub disk_full_poll_interval: Duration,
}

impl Default for LogTuning {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            cache_bytes: 32 << 20,
            disk_budget_bytes: 256 << 20,
            disk_reserve_bytes: 256 << 20,
            disk_full_poll_interval: Duration::from_millis(500),
        }
    }
}

impl LogTuning {
    fn check(&self) -> Result<(), ConfigError> {
        in_bytes("log.segment_bytes", self.segment_bytes, 4 << 20, 1 << 30)?;
        in_bytes("log.cache_bytes", self.cache_bytes, 1 << 20, 1 << 40)?;
        in_bytes(
            "log.disk_budget_bytes",
            self.disk_budget_bytes,
            self.segment_bytes.saturating_mul(4),
            1 << 50,
        )?;
        in_bytes("log.disk_reserve_bytes", self.disk_reserve_bytes, 0, 1 << 50)?;
        positive("log.disk_full_poll_interval", self.disk_full_poll_interval)
    }
}

/// The graph store (an LSM tree). Its own flushes may be lazy: the log makes writes durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTuning {
    /// Bytes of blocks kept in memory (32 MiB).
    pub cache_bytes: u64,
    /// Bytes of writes gathered in memory before they become a table on disk (16 MiB).
    pub write_buffer_bytes: u64,
    /// Bits of bloom filter per key (10: about 1 % of look-ups of absent keys touch the disk).
    pub bloom_bits_per_key: u32,
    /// Threads that compact tables (1).
    pub compaction_threads: usize,
    /// How often the store is made durable, so that the log may forget what it holds (10 s).
    pub persist_interval: Duration,
}

impl Default for StoreTuning {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            write_buffer_bytes: 16 << 20,
            bloom_bits_per_key: 10,
            compaction_threads: 1,
            persist_interval: Duration::from_secs(10),
        }
    }
}

impl StoreTuning {
    fn check(&self) -> Result<(), ConfigError> {
        in_bytes("store.cache_bytes", self.cache_bytes, 1 << 20, 1 << 40)?;
        in_bytes("store.write_buffer_bytes", self.write_buffer_bytes, 1 << 20, 1 << 32)?;
        within("store.bloom_bits_per_key", self.bloom_bits_per_key as usize, 1, 64)?;
        within("store.compaction_threads", self.compaction_threads, 1, 64)?;
        positive("store.persist_interval", self.persist_interval)
    }
}

/// Connections and requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkTuning {
    /// How long a connection may take to come about (1 s).
    pub connect_timeout: Duration,
    /// How often a silent connection is asked for a sign of life (1 s).
    pub keep_alive_interval: Duration,
    /// How long that sign may take (2 s).
    pub keep_alive_timeout: Duration,
    /// The pause before the first new attempt to reach a peer (20 ms); it doubles with each.
    pub reconnect_backoff_min: Duration,
    /// The longest such pause (1 s).
    pub reconnect_backoff_max: Duration,
    /// How long a request may wait for its outcome before it is answered as unknown (5 s).
    pub request_timeout: Duration,
    /// How long a graceful stop waits for requests under way (5 s).
    pub shutdown_timeout: Duration,
}

impl Default for NetworkTuning {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(1),
            keep_alive_interval: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
            reconnect_backoff_min: Duration::from_millis(20),
            reconnect_backoff_max: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl NetworkTuning {
    fn check(&self) -> Result<(), ConfigError> {
        positive("network.connect_timeout", self.connect_timeout)?;
        positive("network.keep_alive_interval", self.keep_alive_interval)?;
        positive("network.keep_alive_timeout", self.keep_alive_timeout)?;
        positive("network.reconnect_backoff_min", self.reconnect_backoff_min)?;
        if self.reconnect_backoff_max < self.reconnect_backoff_min {
            let text =
                format!("must not be less than reconnect_backoff_min ({:?})", self.reconnect_backoff_min);
            return Err(problem("network.reconnect_backoff_max", text));
        }
        positive("network.request_timeout", self.request_timeout)?;
        positive("network.shutdown_timeout", self.shutdown_timeout)
    }
}

/// Mutual TLS, between nodes and for clients: both sides show a certificate of the same authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// This side's certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// The authority's certificate, PEM. Only what it signed is trusted.
    pub ca: PathBuf,
}

impl TlsConfig {
    /// All three files or none: `None` where none is given.
    ///
    /// # Errors
    /// Where only some are given.
    pub fn from_parts(
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Result<Option<Self>, ConfigError> {
        match (cert, key, ca) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), Some(ca)) => Ok(Some(Self { cert, key, ca })),
            _ => Err(problem(
                "tls",
                "certificate, key and authority belong together: give all three or none".into(),
            )),
        }
    }
}

fn problem(setting: &'static str, problem: String) -> ConfigError {
    ConfigError { setting, problem }
}

fn positive(setting: &'static str, value: Duration) -> Result<(), ConfigError> {
    if value.is_zero() { Err(problem(setting, "must be longer than zero".into())) } else { Ok(()) }
}

fn longer(setting: &'static str, value: Duration, than: &str, other: Duration) -> Result<(), ConfigError> {
    if value > other {
        return Ok(());
    }
    Err(problem(setting, format!("{value:?} is not longer than {than} ({other:?})")))
}

fn within(setting: &'static str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(problem(setting, format!("{value} is not within {min} to {max}")))
}

fn in_bytes(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(problem(setting, format!("{value} bytes are not within {min} to {max}")))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
