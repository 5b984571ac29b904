use super::*;
use crate::api::types::NodeRole;

#[test]
fn defaults_are_the_specification_s_and_can_work() {
    let cluster = ClusterConfig::default();
    assert_eq!((cluster.nodes.len(), cluster.replication_factor, cluster.partition_count), (0, 3, 64));
    assert_eq!(cluster.check(), Ok(()));

    let membership = MembershipConfig {
        heartbeat_interval: Duration::from_secs(1),
        failure_detection_interval: Duration::from_secs(5),
        max_missed_heartbeats: 3,
        failure_timeout: Duration::from_secs(15),
        gossip_interval: Duration::from_secs(2),
    };
    assert_eq!(membership, MembershipConfig::default());
    assert_eq!(membership.check(), Ok(()));

    let replication = ReplicationConfig {
        replication_factor: 3,
        max_retries: 3,
        status_check_interval: Duration::from_secs(5),
        queue_processing_interval: Duration::from_millis(100),
        full_sync_interval: Duration::from_secs(300),
        node_failure_timeout: Duration::from_secs(30),
        failure_rate: 0.01,
    };
    assert_eq!(replication, ReplicationConfig::default());
    assert_eq!(replication.check(), Ok(()));
    assert_eq!(Tuning::default().check(), Ok(()));
}

#[test]
fn a_cluster_that_cannot_begin_is_refused_with_the_setting_s_name() {
    let entry = |key: &str, id: &str| {
        let info = NodeInfo {
            id: id.into(),
            address: "127.0.0.1".into(),
            port: 8080,
            role: NodeRole::Follower,
            partitions: vec![],
        };
        HashMap::from([(key.into(), info)])
    };
    let default = ClusterConfig::default;
    let cases = [
        ("partition_count", ClusterConfig { partition_count: 0, ..default() }),
        ("partition_count", ClusterConfig { partition_count: usize::MAX, ..default() }),
        ("replication_factor", ClusterConfig { replication_factor: 0, ..default() }),
        ("replication_factor", ClusterConfig { replication_factor: 16, ..default() }),
        ("nodes", ClusterConfig { nodes: entry("", ""), ..default() }),
        ("nodes", ClusterConfig { nodes: entry("a", "b"), ..default() }),
    ];
    for (setting, config) in cases {
        assert_eq!(config.check().map_err(|error| error.setting), Err(setting), "{config:?}");
    }
    assert_eq!(ClusterConfig { nodes: entry("a", "a"), ..default() }.check(), Ok(()));
}

#[test]
fn figures_that_do_not_fit_together_are_refused() {
    let with = |change: fn(&mut Tuning)| {
        let mut tuning = Tuning::default();
        change(&mut tuning);
        tuning.check().map_err(|error| error.setting)
    };
    assert_eq!(with(|t| t.raft.heartbeat_interval = Duration::ZERO), Err("raft.heartbeat_interval"));
    assert_eq!(with(|t| t.raft.election_timeout = Duration::from_millis(299)), Err("raft.election_timeout"));
    assert_eq!(with(|t| t.raft.election_timeout = Duration::from_millis(300)), Ok(()));
    assert_eq!(with(|t| t.log.segment_bytes = 1), Err("log.segment_bytes"));
    assert_eq!(with(|t| t.log.disk_budget_bytes = t.log.segment_bytes), Err("log.disk_budget_bytes"));
    assert_eq!(with(|t| t.store.compaction_threads = 0), Err("store.compaction_threads"));
    assert_eq!(
        with(|t| t.network.reconnect_backoff_max = Duration::ZERO),
        Err("network.reconnect_backoff_max")
    );
}

#[test]
fn membership_and_replication_figures_are_checked() {
    let membership = MembershipConfig { failure_timeout: Duration::from_millis(1), ..Default::default() };
    let error = membership.check().expect_err("shorter than a heartbeat");
    assert_eq!(
        error.to_string(),
        "membership.failure_timeout: 1ms is not longer than heartbeat_interval (1s)"
    );
    for rate in [-0.1, 1.1, f32::NAN] {
        let replication = ReplicationConfig { failure_rate: rate, ..Default::default() };
        assert_eq!(replication.check().map_err(|error| error.setting), Err("replication.failure_rate"));
    }
}

#[test]
fn tls_needs_all_three_files() {
    let path = || Some(PathBuf::from("x.pem"));
    assert_eq!(TlsConfig::from_parts(None, None, None), Ok(None));
    assert!(TlsConfig::from_parts(path(), path(), path()).is_ok_and(|tls| tls.is_some()));
    for (cert, key, ca) in [(path(), None, None), (path(), path(), None), (None, path(), path())] {
        assert_eq!(TlsConfig::from_parts(cert, key, ca).map_err(|error| error.setting), Err("tls"));
    }
}
