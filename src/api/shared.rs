//! What all handles of one [`KotobaCluster`](super::KotobaCluster) share.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, RwLock},
    time::Duration,
};

use tokio::{
    sync::broadcast,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    config::{ClusterConfig, MembershipConfig, ReplicationConfig, Tuning},
    members::Members,
    receipt::Receipt,
    types::{ClusterEvent, NodeId, ReplicationHealth},
};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::GraphOperation,
    limits::EVENTS_MAX,
    node::{
        coordinator::{Session, Write},
        service::{Services, Serving},
    },
    placement::{PartitionId, manager::PartitionManager},
    raft::PeerId,
};

/// How often the signs of life are looked at, at least.
const OBSERVE_MAX: Duration = Duration::from_millis(250);

/// The node, while it runs, and what is known of its cluster.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node_id: NodeId,
    pub(super) config: ClusterConfig,
    pub(super) membership: MembershipConfig,
    pub(super) replication: ReplicationConfig,
    pub(super) tuning: Tuning,
    pub(super) partitioning: PartitionManager,
    members: Mutex<Members>,
    services: RwLock<Option<Services>>,
    /// `None` once the node was stopped: subscribers are told by the end of the channel.
    events: Mutex<Option<broadcast::Sender<ClusterEvent>>>,
}

impl Shared {
    pub(super) fn new(
        node_id: NodeId,
        config: ClusterConfig,
        membership: MembershipConfig,
        replication: ReplicationConfig,
        tuning: Tuning,
        partitioning: PartitionManager,
    ) -> Self {
        Self {
            node_id,
            config,
            membership,
            replication,
            tuning,
            partitioning,
            members: Mutex::default(),
            services: RwLock::default(),
            events: Mutex::new(Some(broadcast::channel(EVENTS_MAX).0)),
        }
    }

    pub(super) fn run(&self, services: Services) {
        *self.services.write().expect("no holder of this lock panics") = Some(services);
    }

    pub(super) fn end(&self) {
        *self.services.write().expect("no holder of this lock panics") = None;
        *self.events.lock().expect("no holder of this lock panics") = None;
    }

    /// The running node's services.
    ///
    /// # Errors
    /// Where the node does not run.
    pub(super) fn services(&self) -> Result<Services, ClusterError> {
        let services = self.services.read().expect("no holder of this lock panics").clone();
        services.ok_or_else(|| {
            let what = format!("node {} is not started, or was stopped", self.node_id);
            ClusterError::new(ErrorCode::NotRunning, what)
        })
    }

    /// Carries out an operation under the node's own session. Waits for the node to come into its
    /// cluster as long as a request may take.
    pub(super) async fn execute(
        &self,
        operation: GraphOperation,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        let services = self.services()?;
        let serving = self.opened(&services).await?;
        let response = serving.coordinator.execute_own(operation, partition).await?;
        Receipt::of(response)
    }

    /// Carries out an operation under a name of the caller's.
    pub(super) async fn execute_as(
        &self,
        session: Session,
        operation: GraphOperation,
        partition: Option<PartitionId>,
    ) -> Result<Receipt, ClusterError> {
        session.check()?;
        let services = self.services()?;
        let serving = self.opened(&services).await?;
        let write = Write { session, operation, hint: partition };
        Receipt::of(serving.coordinator.execute_write(write).await)
    }

    /// What the services work with, once the node is in its cluster.
    pub(super) async fn opened<'a>(&self, services: &'a Services) -> Result<&'a Serving, ClusterError> {
        match timeout(self.tuning.network.request_timeout, services.opened()).await {
            Ok(serving) => Ok(serving),
            // The reason why not is the answer.
            Err(_) => services.serving(),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ClusterEvent> {
        let events = self.events.lock().expect("no holder of this lock panics");
        // A subscription to a node that was stopped has ended: its sender is gone.
        events.as_ref().map_or_else(|| broadcast::channel(1).1, broadcast::Sender::subscribe)
    }

    pub(super) fn tell(&self, event: ClusterEvent) {
        if let Some(events) = &*self.events.lock().expect("no holder of this lock panics") {
            // Nobody has to listen.
            let _ = events.send(event);
        }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().expect("no holder of this lock panics")
    }

    pub(super) fn health(&self) -> ReplicationHealth {
        let members = self.members();
        let failed = members.stats(0, 0).failed_nodes;
        let lag = members.silence(Instant::now());
        ReplicationHealth {
            // Every write is proposed before it is answered: nothing waits in a queue.
            total_queued_operations: 0,
            failed_nodes_count: failed,
            replication_lag: lag,
            is_healthy: failed == 0 && lag < self.replication.node_failure_timeout,
        }
    }

    /// Watches the members and passes the node's events on, until it is dropped.
    pub(super) async fn watch(&self, services: Services) {
        let serving = services.opened().await;
        let handle = &serving.coordinator.handle;
        let mut events = handle.shared.events.subscribe();
        let period = self.membership.heartbeat_interval.min(OBSERVE_MAX).max(Duration::from_millis(1));
        let mut tick = interval(period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut epoch = 0;
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => self.observe(serving, &mut epoch),
                event = events.recv() => match event {
                    Ok(event) => self.tell(event),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }

    fn observe(&self, serving: &Serving, epoch: &mut u64) {
        let handle = &serving.coordinator.handle;
        let (meta, own) = (handle.meta(), handle.shared.peer);
        let names = |peers: &BTreeSet<PeerId>| {
            let others = meta.active().filter(|(peer, _)| *peer != own && peers.contains(peer));
            others.map(|(_, member)| member.node.clone()).collect::<BTreeSet<_>>()
        };
        let members = names(&meta.active().map(|(peer, _)| peer).collect());
        let connected = names(&serving.coordinator.peers.connected().into_iter().collect());
        let events = self.members().observe(Instant::now(), &members, &connected, &self.membership);
        for event in events {
            self.tell(event);
        }
        if meta.map.epoch != *epoch {
            if let Err(error) = self.partitioning.adopt(&meta) {
                tracing::warn!("the partition map of epoch {} cannot be shown: {error}", meta.map.epoch);
            }
            if *epoch != 0 {
                self.tell(ClusterEvent::ConfigChanged(meta.map.epoch));
            }
            *epoch = meta.map.epoch;
        }
    }
}
