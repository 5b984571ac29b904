//! What the cluster is doing, as one node tells it.

use std::{sync::atomic::Ordering, time::Duration};

use kotoba_db_cluster_proto::v1;
use tokio::time::{Instant, sleep};

use super::{Services, Serving};
use crate::{
    error::ClusterError,
    node::{handle::Shared, status::GroupStatus},
    placement::{MetaState, PartitionId},
    raft::{GroupId, PeerId, RoleKind},
    runtime::{net, tasks::JoinSet},
};

/// How long another node may take to say what it is doing before it is shown as unreachable.
const NODE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a group may take to confirm its leader before the cluster is shown as not serving.
const LEADER_TIMEOUT: Duration = Duration::from_millis(800);
/// How often health looks whether the cluster serves.
const HEALTH_INTERVAL: Duration = Duration::from_secs(2);
/// How often the start looks whether the cluster serves.
const READY_INTERVAL: Duration = Duration::from_millis(50);

impl Services {
    pub(super) async fn do_status(
        &self,
        request: v1::StatusRequest,
    ) -> Result<v1::StatusResponse, ClusterError> {
        let Ok(serving) = self.serving() else { return Ok(self.starting()) };
        let mut response = self.local_status(serving).await?;
        if request.local {
            return Ok(response);
        }
        let (others, waiting_for) = tokio::join!(other_nodes(serving), groups_without_leader(serving));
        response.nodes.extend(others);
        response.nodes.sort_by(|a, b| a.id.cmp(&b.id));
        fill_lags(&mut response.nodes);
        response.serving = waiting_for.is_empty();
        response.waiting_for = waiting_for;
        Ok(response)
    }

    /// The status of a node that has no cluster yet.
    fn starting(&self) -> v1::StatusResponse {
        let waiting_for = self.waiting_for();
        let state = if waiting_for.is_empty() { "starting" } else { "joining" };
        let node = v1::NodeStatus {
            id: self.node_id().0.clone(),
            address: self.address().to_owned(),
            state: state.into(),
            ..v1::NodeStatus::default()
        };
        v1::StatusResponse { nodes: vec![node], waiting_for, ..v1::StatusResponse::default() }
    }

    async fn local_status(&self, serving: &Serving) -> Result<v1::StatusResponse, ClusterError> {
        let coordinator = &serving.coordinator;
        let groups = coordinator.handle.status().await;
        let groups = groups.map_err(|error| crate::node::coordinator::of_request(error, PartitionId(0)))?;
        let meta = coordinator.routing.meta();
        let mut node = v1::NodeStatus {
            id: self.node_id().0.clone(),
            address: self.address().to_owned(),
            state: state_of(&coordinator.handle.shared, &groups).into(),
            fsyncs: coordinator.handle.shared.log.syncs.load(Ordering::Relaxed),
            ..v1::NodeStatus::default()
        };
        for group in groups {
            let partition = PartitionId::of_group(group.group);
            let status = group_status(&meta, group);
            match partition {
                Some(_) => node.partitions.push(status),
                None => node.meta = Some(status),
            }
        }
        let leader = coordinator.routing.leader(GroupId::META);
        Ok(v1::StatusResponse {
            cluster_id: meta.cluster_id.to_string(),
            serving: false,
            leader: leader.map(|peer| node_name(&meta, peer)).unwrap_or_default(),
            nodes: vec![node],
            map_epoch: meta.map.epoch,
            partition_count: meta.map.partition_count,
            replication_factor: meta.replication_factor,
            waiting_for: Vec::new(),
        })
    }

    /// Whether every group has a leader that answers a read.
    pub(crate) async fn is_serving(&self) -> bool {
        match self.serving() {
            Ok(serving) => groups_without_leader(serving).await.is_empty(),
            Err(_) => false,
        }
    }

    /// Returns once every group has a leader that answers.
    pub(crate) async fn ready(&self) {
        while !self.is_serving().await {
            sleep(READY_INTERVAL).await;
        }
    }

    /// Tells gRPC health whether the cluster serves, for ever.
    pub(crate) async fn report_health(self, reporter: tonic_health::server::HealthReporter) {
        let mut shown = None;
        loop {
            let serving = self.is_serving().await;
            if shown != Some(serving) {
                shown = Some(serving);
                let status = if serving {
                    tonic_health::ServingStatus::Serving
                } else {
                    tonic_health::ServingStatus::NotServing
                };
                for service in ["", "kotoba.cluster.v1.ClusterService"] {
                    reporter.set_service_status(service, status).await;
                }
            }
            sleep(if serving { HEALTH_INTERVAL } else { READY_INTERVAL }).await;
        }
    }
}

/// Every other member, asked at once.
async fn other_nodes(serving: &Serving) -> Vec<v1::NodeStatus> {
    let coordinator = &serving.coordinator;
    let own = coordinator.handle.shared.peer;
    let meta = coordinator.routing.meta();
    let cluster_id = meta.cluster_id.to_string();
    let mut asked = JoinSet::new();
    for (peer, member) in meta.active() {
        if peer == own {
            continue;
        }
        let (id, address, cluster_id) = (member.node.0.clone(), member.address.clone(), cluster_id.clone());
        let client = coordinator.channels.cluster(&address);
        asked.spawn(async move {
            let answer = match client {
                Ok(mut client) => {
                    let call = |request| async move { client.status(request).await };
                    let told = net::within(NODE_TIMEOUT, v1::StatusRequest { local: true }, call);
                    tokio::time::timeout(NODE_TIMEOUT, told).await.ok().and_then(Result::ok)
                }
                Err(_) => None,
            };
            let told = answer.and_then(|answer| told_of(answer.into_inner(), &id, &cluster_id));
            let unreachable = || v1::NodeStatus {
                id: id.clone(),
                address: address.clone(),
                state: "unreachable".into(),
                ..v1::NodeStatus::default()
            };
            told.unwrap_or_else(unreachable)
        });
    }
    asked.join_all().await
}

/// What a node says of itself. At a member's address a node of another cluster may answer, even under
/// the member's name; one that is in no cluster yet tells no cluster id.
fn told_of(answer: v1::StatusResponse, id: &str, cluster_id: &str) -> Option<v1::NodeStatus> {
    let is_ours = answer.cluster_id.is_empty() || answer.cluster_id == cluster_id;
    answer.nodes.into_iter().find(|node| is_ours && node.id == id)
}

/// What keeps the cluster from serving: a sentence for each kind of group that has no leader that
/// answers.
async fn groups_without_leader(serving: &Serving) -> Vec<String> {
    let coordinator = &serving.coordinator;
    let groups: Vec<GroupId> =
        coordinator.routing.meta().map.groups.iter().map(|group| group.group).collect();
    let until = Instant::now() + LEADER_TIMEOUT;
    let mut rounds = JoinSet::new();
    for group in groups {
        let barriers = std::sync::Arc::clone(&coordinator.barriers);
        rounds.spawn(async move {
            let within = until.saturating_duration_since(Instant::now());
            (group, barriers.confirm(group, within).await.is_ok())
        });
    }
    let mut silent: Vec<GroupId> =
        rounds.join_all().await.into_iter().filter_map(|(group, ok)| (!ok).then_some(group)).collect();
    silent.sort_unstable();
    let mut waiting = Vec::new();
    if silent.first() == Some(&GroupId::META) {
        waiting.push("a leader of the meta group".to_owned());
        silent.remove(0);
    }
    if let Some(first) = silent.first().copied().and_then(PartitionId::of_group) {
        waiting.push(format!("leaders of {} partitions, partition {} among them", silent.len(), first.0));
    }
    waiting
}

/// How far each replica is behind its leader, where the leader's node told its commit index.
fn fill_lags(nodes: &mut [v1::NodeStatus]) {
    let mut commits = std::collections::BTreeMap::new();
    let statuses = |node: &v1::NodeStatus| {
        let partitions = node
            .partitions
            .iter()
            .map(|status| (Some(status.partition), status.term, status.commit, status.role.clone()));
        let meta = node.meta.iter().map(|status| (None, status.term, status.commit, status.role.clone()));
        partitions.chain(meta).collect::<Vec<_>>()
    };
    for (group, term, commit, role) in nodes.iter().flat_map(statuses) {
        let known = commits.entry(group).or_insert((0, 0));
        if role == "leader" && term >= known.0 {
            *known = (term, commit);
        }
    }
    for node in nodes {
        for status in &mut node.partitions {
            let commit = commits.get(&Some(status.partition)).map_or(0, |known| known.1);
            status.lag = commit.saturating_sub(status.applied);
        }
        if let Some(status) = &mut node.meta {
            status.lag = commits.get(&None).map_or(0, |known| known.1).saturating_sub(status.applied);
        }
    }
}

fn group_status(meta: &MetaState, group: GroupStatus) -> v1::PartitionStatus {
    let replicas =
        meta.map.group(group.group).map(|descriptor| descriptor.replicas.as_slice()).unwrap_or_default();
    v1::PartitionStatus {
        partition: PartitionId::of_group(group.group).map_or(0, |partition| partition.0),
        role: role_name(&group).into(),
        term: group.term.0,
        commit: group.commit.0,
        applied: group.applied.0,
        lag: group.commit.0.saturating_sub(group.applied.0),
        leader: group.leader.map(|peer| node_name(meta, peer)).unwrap_or_default(),
        replicas: replicas.iter().map(|place| node_name(meta, place.peer)).collect(),
        digest: group.digest,
        fault: group.fault.map(|fault| fault.to_string()).unwrap_or_default(),
    }
}

fn role_name(group: &GroupStatus) -> &'static str {
    if group.fault.is_some() {
        return "faulted";
    }
    match group.role {
        RoleKind::Leader => "leader",
        RoleKind::Candidate | RoleKind::PreCandidate => "candidate",
        RoleKind::Follower if group.learner => "learner",
        RoleKind::Follower => "follower",
        RoleKind::Faulted => "faulted",
    }
}

fn node_name(meta: &MetaState, peer: PeerId) -> String {
    meta.members.get(&peer).map(|member| member.node.0.clone()).unwrap_or_default()
}

/// What a node says of itself in one word or two.
fn state_of(shared: &Shared, groups: &[GroupStatus]) -> &'static str {
    if groups.iter().any(|group| group.fault.is_some()) {
        "faulted"
    } else if shared.disk_full.load(Ordering::Relaxed) {
        "disk full"
    } else {
        "up"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(partition: u32, role: &str, term: u64, commit: u64, applied: u64) -> v1::PartitionStatus {
        v1::PartitionStatus {
            partition,
            role: role.into(),
            term,
            commit,
            applied,
            ..v1::PartitionStatus::default()
        }
    }

    #[test]
    fn a_node_of_another_cluster_does_not_speak_for_a_member() {
        let answer = |cluster_id: &str| {
            let node = v1::NodeStatus { id: "n1".into(), ..v1::NodeStatus::default() };
            let cluster_id = cluster_id.into();
            v1::StatusResponse { cluster_id, nodes: vec![node], ..v1::StatusResponse::default() }
        };
        assert!(told_of(answer("ours"), "n1", "ours").is_some());
        assert!(told_of(answer(""), "n1", "ours").is_some(), "it is about to join");
        assert!(told_of(answer("theirs"), "n1", "ours").is_none());
        assert!(told_of(answer("ours"), "n2", "ours").is_none());
    }

    #[test]
    fn lag_is_counted_from_the_newest_leader() {
        let node = |partitions| v1::NodeStatus { partitions, ..v1::NodeStatus::default() };
        let mut nodes = [
            node(vec![status(0, "leader", 2, 50, 50), status(1, "follower", 1, 7, 7)]),
            node(vec![status(0, "leader", 3, 60, 58), status(1, "leader", 1, 9, 9)]),
            node(vec![status(0, "follower", 3, 40, 40), status(1, "follower", 1, 3, 2)]),
        ];
        fill_lags(&mut nodes);
        let lags: Vec<Vec<u64>> =
            nodes.iter().map(|node| node.partitions.iter().map(|status| status.lag).collect()).collect();
        assert_eq!(lags, [[10, 2], [2, 0], [20, 7]]);
    }
}
