//! At most one leader is elected in a term (Raft paper, section 5.2).

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{GroupId, ReplicaId, Term};

use super::{Check, Verdict, Violation};

/// Who led in which term.
#[derive(Clone, Debug, Default)]
pub struct ElectionSafety {
    leaders: BTreeMap<(GroupId, Term), ReplicaId>,
}

impl ElectionSafety {
    /// A replica acts as leader of a term.
    ///
    /// # Errors
    /// Where another one did.
    pub fn leads(&mut self, group: GroupId, term: Term, replica: ReplicaId) -> Verdict {
        let known = *self.leaders.entry((group, term)).or_insert(replica);
        if known == replica {
            return Ok(());
        }
        let message = format!("{group}: {known} and {replica} both lead in {term}");
        Err(Violation::new(Check::ElectionSafety, message))
    }

    /// A replica follows a leader in a term.
    ///
    /// # Errors
    /// Where that one does not lead it.
    pub fn follows(&self, group: GroupId, term: Term, replica: ReplicaId, leader: ReplicaId) -> Verdict {
        let known = self.leaders.get(&(group, term));
        if known == Some(&leader) {
            return Ok(());
        }
        let message = format!("{group}: {replica} follows {leader} in {term}, led by {known:?}");
        Err(Violation::new(Check::ElectionSafety, message))
    }

    /// Terms that had a leader.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
