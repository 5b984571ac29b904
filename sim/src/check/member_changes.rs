//! Members change one step at a time: a leader appends a change only when the one before is
//! committed, and so is an entry of its own term (Raft thesis, section 4.1; Ongaro, raft-dev, 10 July
//! 2015). Otherwise two leaders' majorities may miss each other, although those of neighbours meet.

use kotoba_db_cluster::raft::{GroupId, Index, ReplicaId, Term};

use super::{Check, Verdict, Violation};

/// A leader of `term` whose commit is at `commit`, an entry of `committed_term`, has appended a
/// change behind the configuration at `before`.
///
/// # Errors
/// Where it should have refused.
pub fn appended(
    group: GroupId,
    (leader, term): (ReplicaId, Term),
    before: Index,
    (commit, committed_term): (Index, Option<Term>),
) -> Verdict {
    let what = if before > commit {
        format!("the change at {before} is not committed")
    } else if committed_term != Some(term) {
        "nothing of its own term is committed".to_owned()
    } else {
        return Ok(());
    };
    let message = format!("{group}: {leader} changes members in {term}, although {what} (commit {commit})");
    Err(Violation::new(Check::MemberChanges, message))
}
