//! How alive the members are, as this node sees it.
//!
//! A member is alive while its peer stream stands, and silent from the moment it broke. The figures
//! of [`MembershipConfig`] turn silence into suspicion and failure. Leadership is not decided here:
//! the consensus core has heartbeats of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    config::MembershipConfig,
    types::{ClusterEvent, ClusterStats, NodeId},
};

/// What is known of the other members.
#[derive(Debug, Default)]
pub(super) struct Members {
    seen: BTreeMap<NodeId, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    last: Instant,
    /// It was never seen since this node started.
    never: bool,
    health: Health,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Active,
    Suspected,
    Failed,
}

impl Members {
    /// Takes note of who is a member and who is connected now. Returns what changed.
    pub(super) fn observe(
        &mut self,
        now: Instant,
        members: &BTreeSet<NodeId>,
        connected: &BTreeSet<NodeId>,
        config: &MembershipConfig,
    ) -> Vec<ClusterEvent> {
        let mut events = Vec::new();
        self.seen.retain(|node, _| {
            let stays = members.contains(node);
            if !stays {
                events.push(ClusterEvent::NodeLeft(node.clone()));
            }
            stays
        });
        for node in members {
            let sighting = self.seen.entry(node.clone()).or_insert(Sighting {
                last: now,
                never: true,
                health: Health::Active,
            });
            if connected.contains(node) {
                sighting.last = now;
                if std::mem::take(&mut sighting.never) {
                    events.push(ClusterEvent::NodeJoined(node.clone()));
                } else if sighting.health != Health::Active {
                    events.push(ClusterEvent::NodeRecovered(node.clone()));
                }
                sighting.health = Health::Active;
                continue;
            }
            let health = health_after(now.duration_since(sighting.last), config).max(sighting.health);
            if health > sighting.health {
                sighting.health = health;
                events.push(match health {
                    Health::Failed => ClusterEvent::NodeFailed(node.clone()),
                    Health::Active | Health::Suspected => ClusterEvent::NodeSuspected(node.clone()),
                });
            }
        }
        events
    }

    /// Records that somebody suspects a member. It counts as alive again once it is seen. Returns
    /// whether this is news; `None` where it is no member.
    pub(super) fn suspect(&mut self, node: &NodeId) -> Option<bool> {
        let sighting = self.seen.get_mut(node)?;
        let news = sighting.health == Health::Active;
        sighting.health = sighting.health.max(Health::Suspected);
        Some(news)
    }

    /// The figures of all members, this node included.
    pub(super) fn stats(&self, replication_factor: usize, partition_count: usize) -> ClusterStats {
        let count = |health| self.seen.values().filter(|sighting| sighting.health == health).count();
        ClusterStats {
            total_nodes: self.seen.len() + 1,
            active_nodes: count(Health::Active) + 1,
            suspected_nodes: count(Health::Suspected),
            failed_nodes: count(Health::Failed),
            replication_factor,
            partition_count,
        }
    }

    /// For how long the member that is silent longest has been silent: so long its replicas have
    /// not heard of new writes.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let silent = self.seen.values().filter(|sighting| sighting.health != Health::Active);
        silent.map(|sighting| now.duration_since(sighting.last)).max().unwrap_or_default()
    }
}

impl Ord for Health {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

impl PartialOrd for Health {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn health_after(silence: Duration, config: &MembershipConfig) -> Health {
    if silence >= config.failure_timeout {
        Health::Failed
    } else if silence > config.heartbeat_interval.saturating_mul(config.max_missed_heartbeats) {
        Health::Suspected
    } else {
        Health::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<NodeId> {
        names.iter().map(|name| NodeId::from(*name)).collect()
    }

    #[tokio::test]
    async fn silence_becomes_suspicion_then_failure_and_ends_with_a_sign_of_life() {
        let (mut members, config, start) = (Members::default(), MembershipConfig::default(), Instant::now());
        let all = nodes(&["b", "c"]);
        let mut observe = |seconds, connected: &[&str]| {
            members.observe(start + Duration::from_secs(seconds), &all, &nodes(connected), &config)
        };
        let named = |make: fn(NodeId) -> ClusterEvent, name: &str| vec![make(NodeId::from(name))];
        assert_eq!(observe(0, &["b"]), named(ClusterEvent::NodeJoined, "b"));
        assert_eq!(observe(1, &["b", "c"]), named(ClusterEvent::NodeJoined, "c"));
        assert_eq!(observe(4, &["b"]), []);
        assert_eq!(observe(5, &["b"]), named(ClusterEvent::NodeSuspected, "c"));
        assert_eq!(observe(15, &["b"]), []);
        assert_eq!(observe(16, &["b"]), named(ClusterEvent::NodeFailed, "c"));
        assert_eq!(observe(17, &["b"]), []);
        assert_eq!(observe(18, &["b", "c"]), named(ClusterEvent::NodeRecovered, "c"));
        let stats = members.stats(3, 64);
        assert_eq!((stats.total_nodes, stats.active_nodes, stats.failed_nodes), (3, 3, 0));
    }

    #[tokio::test]
    async fn a_suspicion_from_outside_lasts_until_the_member_is_seen() {
        let (mut members, config, now) = (Members::default(), MembershipConfig::default(), Instant::now());
        members.observe(now, &nodes(&["b"]), &nodes(&["b"]), &config);
        assert_eq!(members.suspect(&NodeId::from("b")), Some(true));
        assert_eq!(members.suspect(&NodeId::from("b")), Some(false));
        assert_eq!(members.suspect(&NodeId::from("z")), None);
        assert_eq!(members.stats(3, 64).suspected_nodes, 1);
        let events = members.observe(now, &nodes(&["b"]), &nodes(&["b"]), &config);
        assert_eq!(events, [ClusterEvent::NodeRecovered(NodeId::from("b"))]);
    }

    #[tokio::test]
    async fn who_is_no_member_any_more_has_left() {
        let (mut members, config, now) = (Members::default(), MembershipConfig::default(), Instant::now());
        members.observe(now, &nodes(&["b"]), &nodes(&["b"]), &config);
        let events = members.observe(now, &nodes(&[]), &nodes(&[]), &config);
        assert_eq!(events, [ClusterEvent::NodeLeft(NodeId::from("b"))]);
        assert_eq!(members.stats(3, 64).total_nodes, 1);
    }
}
