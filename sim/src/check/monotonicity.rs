//! What only rises while a replica lives, and the order of its marks: the purged part of a log ends
//! before what is applied, which ends before what is committed, which ends before the log.

use kotoba_db_cluster::raft::{GroupId, Index, Replica, ReplicaId, RoleKind, Term};

use super::{Check, Verdict, Violation};

/// A replica's marks when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Marks {
    term: Term,
    commit: Index,
    /// Whether it led then.
    led: bool,
}

impl Marks {
    /// Looks at a replica again.
    ///
    /// # Errors
    /// Where a mark fell, or marks are out of order.
    pub fn look(&mut self, group: GroupId, replica: &Replica, applied: Index, start: Index) -> Verdict {
        let report = replica.role();
        let led = report.role == RoleKind::Leader;
        let now = Self { term: report.term, commit: replica.commit(), led };
        let last = replica.last().index;
        let fault = if now.term < self.term {
            Some(format!("its term falls from {} to {}", self.term, now.term))
        } else if now.commit < self.commit {
            Some(format!("its commit falls from {} to {}", self.commit, now.commit))
        } else if start > applied || applied > now.commit.max(start) || now.commit > last {
            Some(format!(
                "start {start}, applied {applied}, commit {}, last {last} are out of order",
                now.commit
            ))
        } else {
            None
        };
        *self = now;
        fault.map_or(Ok(()), |fault| Err(violation(group, replica.id(), &fault)))
    }

    /// Whether it has led without a break since it was last looked at, and committed something.
    pub fn has_committed_as_leader(&self, replica: &Replica) -> bool {
        let report = replica.role();
        self.led
            && report.role == RoleKind::Leader
            && report.term == self.term
            && replica.commit() > self.commit
    }
}

fn violation(group: GroupId, replica: ReplicaId, fault: &str) -> Violation {
    Violation::new(Check::Monotonicity, format!("{group} {replica}: {fault}"))
}
