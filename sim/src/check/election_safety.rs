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

    /// Terms that had a leader.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
