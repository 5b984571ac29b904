//! An operation takes effect between its call and its answer: what was answered before it began
//! comes before it in the log (Herlihy and Wing, "Linearizability", 1990).
//!
//! Because every answer names a place in the log, whose order is known, this takes one comparison
//! an operation. The search for a sequential explanation that uses only what clients saw is in
//! [`linearizability`](super::linearizability), on a sample of the runs.

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{GroupId, Index};

use super::{Check, Verdict, Violation};

/// The latest place in each group's log that a client has been told of.
#[derive(Clone, Debug, Default)]
pub struct RealTime {
    told: BTreeMap<GroupId, Index>,
}

impl RealTime {
    /// An operation begins: it must come behind the place returned here.
    #[must_use]
    pub fn invoked(&self, group: GroupId) -> Index {
        self.told.get(&group).copied().unwrap_or_default()
    }

    /// A write that took effect at `index` is answered.
    ///
    /// # Errors
    /// Where it took effect before it was asked for.
    pub fn wrote(&mut self, group: GroupId, after: Index, index: Index) -> Verdict {
        self.tell(group, index);
        if index > after {
            return Ok(());
        }
        let message =
            format!("{group}: a write took effect at {index}, yet {after} was known when it was asked for");
        Err(Violation::new(Check::RealTime, message))
    }

    /// A read of the state at `index` is answered.
    ///
    /// # Errors
    /// Where it misses what was known when it was asked for.
    pub fn read(&mut self, group: GroupId, after: Index, index: Index) -> Verdict {
        self.tell(group, index);
        if index >= after {
            return Ok(());
        }
        let message =
            format!("{group}: a read saw the state at {index}, yet {after} was known when it was asked for");
        Err(Violation::new(Check::RealTime, message))
    }

    fn tell(&mut self, group: GroupId, index: Index) {
        let told = self.told.entry(group).or_default();
        *told = index.max(*told);
    }
}
