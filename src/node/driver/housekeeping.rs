//! What is looked after now and then: members as the map wants them, the log's length, the routes.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use tokio::time::Instant;

use super::{Driver, groups::GroupState, retired::Reports};
use crate::{
    error::ErrorCode,
    multiraft::Routes,
    node::{
        applier::Job,
        status::{GroupFault, GroupStatus},
    },
    placement::{MetaState, next_step},
    raft::{ConfigurationChange, GroupId, Index, Input, Replica, RoleKind},
    runtime::watcher,
};

/// When what was last done.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    persisted: Option<Instant>,
    /// A request to the applier is under way.
    persisting: bool,
    pub(super) reports: Reports,
    /// As counted when it was last told.
    promises_broken: u64,
}

impl<V: Send + 'static> Driver<V> {
    pub(super) fn keep_house(&mut self) {
        self.tell_of_broken_promises();
        self.reconcile_members();
        self.report_members();
        self.persist_when_due();
    }

    /// A follower that lost entries it had acknowledged is sent them again; whoever keeps its disk should
    /// hear of it.
    fn tell_of_broken_promises(&mut self) {
        let lost: u64 =
            self.node.groups().map(|(_, replica)| replica.status().counters.acknowledged_lost).sum();
        if lost > self.housekeeping.promises_broken {
            tracing::warn!(
                "a follower's disk lost entries of the log that it had acknowledged, {} times since this node \
                 started; they were sent again",
                lost
            );
        }
        self.housekeeping.promises_broken = lost;
    }

    /// Asks the applier to make its state durable, so that the log may forget what it holds:
    /// at intervals, and out of turn while the log is long.
    fn persist_when_due(&mut self) {
        let now = Instant::now();
        let due = self
            .housekeeping
            .persisted
            .is_none_or(|at| now.duration_since(at) >= self.settings.persist_interval);
        let metrics = self.wal.metrics();
        let (oldest, newest) = (metrics.oldest_segment.load(Relaxed), metrics.newest_segment.load(Relaxed));
        let long = newest - oldest >= self.settings.segments_max;
        if !self.housekeeping.persisting && (due || long) {
            self.housekeeping.persisting = true;
            self.housekeeping.persisted = Some(now);
            self.applier.send(Job::Persist);
        }
    }

    /// The state is durable up to these indexes.
    pub(super) fn compact(&mut self, reached: &[(GroupId, Index)]) {
        self.housekeeping.persisting = false;
        for &(group, index) in reached {
            self.step_group(group, Input::Compact(index));
        }
    }

    /// Takes the next step towards the members the map wants, in every group led here.
    fn reconcile_members(&mut self) {
        let mut steps: Vec<(GroupId, ConfigurationChange)> = Vec::new();
        for (group, replica) in self.node.groups() {
            let status = replica.status();
            if status.role.role != RoleKind::Leader || !status.configuration_committed {
                continue;
            }
            let Some(descriptor) = self.meta.map.group(group) else { continue };
            let voters = descriptor.voters();
            let caught_up = |member| replica.has_caught_up(member);
            if let Some(step) = next_step(&status.configuration, &voters, caught_up) {
                steps.push((group, step));
            }
        }
        for (group, change) in steps {
            tracing::info!(%group, ?change, "changing members");
            let payload = self.payloads.reserve();
            self.step_group(group, Input::Reconfigure { change, payload });
        }
    }

    /// The meta group's state changed: adopt its routes and any replicas that are new here.
    pub(super) fn adopt_meta(&mut self, meta: &Arc<MetaState>) {
        self.meta = Arc::clone(meta);
        self.peers.set_members_of(meta);
        for descriptor in &meta.map.groups {
            self.node.set_routes(descriptor.group, routes_of(meta, descriptor.group));
        }
        let mine: BTreeMap<_, _> = meta.map.replicas_of(self.shared.peer).collect();
        for (group, id) in mine {
            if self.groups.contains_key(&group) {
                continue;
            }
            let settings = self.settings.replica.settings(group, id);
            match Replica::recover(settings, crate::raft::Restored::default(), self.clock.now()) {
                Ok(replica) => {
                    self.node.add_group(group, replica, routes_of(meta, group));
                    let state = GroupState::new(Index::ZERO, 0, None);
                    let hint = Arc::clone(&state.hint);
                    self.groups.insert(group, state);
                    self.shared.hints.write().expect("no holder of this lock panics").insert(group, hint);
                }
                Err(error) => tracing::error!(%group, "a new replica cannot start: {error}"),
            }
        }
        watcher::set(&self.node);
    }

    pub(super) fn status(&self) -> Vec<GroupStatus> {
        self.groups
            .iter()
            .map(|(&group, state)| {
                let fault = state.fault().cloned();
                let digest = format!("{:032x}", state.digest);
                let Some(replica) = self.node.replica(group) else {
                    let unknown = || GroupFault::new(ErrorCode::Internal, "the replica does not run");
                    let fault = fault.unwrap_or_else(unknown);
                    return GroupStatus::stopped(group, state.applied, digest, fault);
                };
                let status = replica.status();
                let leader = status.role.leader.and_then(|leader| self.node.peer_of(group, leader));
                GroupStatus {
                    group,
                    role: status.role.role,
                    learner: !status.configuration.is_voter(status.id),
                    term: status.role.term,
                    leader,
                    last: status.last.index,
                    commit: status.commit,
                    applied: state.applied,
                    digest,
                    fault,
                }
            })
            .collect()
    }
}

/// On which peers a group's replicas live, those it is about to let go of included.
pub(crate) fn routes_of(meta: &MetaState, group: GroupId) -> Routes {
    let descriptor = meta.map.group(group);
    let places = descriptor.into_iter().flat_map(|group| group.replicas.iter().chain(&group.retired));
    places.map(|place| (place.replica, place.peer)).collect()
}
