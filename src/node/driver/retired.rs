//! Telling the meta group which replaced replicas a group has let go of, so that the map forgets them.
//!
//! A group's leader knows; the meta group's leader proposes. What is told may be lost, so it is told
//! again, ever more rarely, until the map has changed. Where no replica is remembered as retired, as
//! nearly always, nothing is done.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::mpsc, time::Instant};

use super::Driver;
use crate::{
    node::{
        handle::Responder,
        wire::{GroupMembers, members_to_wire},
    },
    placement::MetaCommand,
    raft::{GroupId, PeerId, RoleKind},
};

/// The pause after the first report of a group's members; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Groups reported in one turn.
const REPORTS_MAX: usize = 512;

/// When the members of which group are to be reported again.
#[derive(Debug, Default)]
pub(super) struct Reports(BTreeMap<GroupId, Report>);

#[derive(Clone, Copy, Debug)]
struct Report {
    made: u32,
    next: Instant,
}

impl Reports {
    /// Whether a group's members are to be reported now.
    fn is_due(&self, group: GroupId, now: Instant) -> bool {
        self.0.get(&group).is_none_or(|report| report.next <= now)
    }

    /// Notes that they were.
    fn made(&mut self, group: GroupId, now: Instant) {
        let report = self.0.entry(group).or_insert(Report { made: 0, next: now });
        report.next = now + PAUSE_MIN.saturating_mul(1 << report.made.min(16)).min(PAUSE_MAX);
        report.made = report.made.saturating_add(1);
    }

    /// How often the most patient of these groups was reported.
    fn most_made(&self, groups: &[GroupMembers]) -> u32 {
        groups
            .iter()
            .filter_map(|report| self.0.get(&report.group))
            .map(|report| report.made)
            .max()
            .unwrap_or(0)
    }

    /// Forgets groups of which there is nothing to report.
    fn keep(&mut self, groups: &[GroupMembers]) {
        self.0.retain(|group, _| groups.iter().any(|report| report.group == *group));
    }
}

impl<V: Send + 'static> Driver<V> {
    /// Reports the members of groups led here that the map remembers more replicas of.
    pub(super) fn report_members(&mut self) {
        let mut reports = self.members_to_report();
        self.housekeeping.reports.keep(&reports);
        let now = Instant::now();
        reports.retain(|report| self.housekeeping.reports.is_due(report.group, now));
        reports.truncate(REPORTS_MAX);
        if reports.is_empty() {
            return;
        }
        let Some(to) = self.meta_leader(self.housekeeping.reports.most_made(&reports)) else { return };
        for report in &reports {
            self.housekeeping.reports.made(report.group, now);
        }
        tracing::debug!(%to, ?reports, "reporting members");
        if to == self.shared.peer {
            self.on_members(reports);
        } else {
            self.peers.send_members(to, members_to_wire(&reports));
        }
    }

    fn members_to_report(&self) -> Vec<GroupMembers> {
        let mut reports = Vec::new();
        for descriptor in self.meta.map.groups.iter().filter(|descriptor| !descriptor.retired.is_empty()) {
            let Some(replica) = self.node.replica(descriptor.group) else { continue };
            let status = replica.status();
            if status.role.role != RoleKind::Leader || !status.configuration_committed {
                continue;
            }
            let members = status.configuration.members();
            if descriptor.remembers_more_than(&members) {
                reports.push(GroupMembers { group: descriptor.group, members });
            }
        }
        reports
    }

    /// The node that leads the meta group. Where this one has no replica of it: one that has, another
    /// at each attempt.
    fn meta_leader(&self, attempt: u32) -> Option<PeerId> {
        if let Some(replica) = self.node.replica(GroupId::META) {
            let leader = replica.status().role.leader?;
            return self.node.peer_of(GroupId::META, leader);
        }
        let places = &self.meta.map.group(GroupId::META)?.replicas;
        places.get(attempt as usize % places.len()).map(|place| place.peer)
    }

    /// Proposes what the map does not know yet. Where this node does not lead the meta group that is
    /// refused, and whoever reported does it again.
    pub(super) fn on_members(&mut self, reports: Vec<GroupMembers>) {
        for GroupMembers { group, members } in reports {
            let descriptor = self.meta.map.group(group);
            if descriptor.is_some_and(|descriptor| descriptor.remembers_more_than(&members)) {
                let command = MetaCommand::GroupChanged { group, members };
                // Nobody waits for the answer: the map tells.
                let (to, _) = mpsc::unbounded_channel();
                self.gather_proposal(GroupId::META, command.encode().into(), Responder { id: 0, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(group: u32) -> GroupMembers {
        GroupMembers { group: GroupId(group), members: Vec::new() }
    }

    #[tokio::test]
    async fn a_report_is_repeated_ever_more_rarely_until_there_is_nothing_to_say() {
        let (mut reports, begin) = (Reports::default(), Instant::now());
        let (mut now, mut pauses) = (begin, Vec::new());
        for _ in 0..10 {
            assert!(reports.is_due(GroupId(1), now));
            reports.made(GroupId(1), now);
            let next = reports.0[&GroupId(1)].next;
            assert!(!reports.is_due(GroupId(1), next - Duration::from_millis(1)));
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert!(reports.is_due(GroupId(2), begin), "another group's reports are its own");
        reports.keep(&[members(1)]);
        assert_eq!(reports.most_made(&[members(1), members(2)]), 10);
        reports.keep(&[members(2)]);
        assert!(reports.is_due(GroupId(1), begin), "when it has something to say again it begins anew");
    }
}
