//! A leader commits by counting replicas only where it counts an entry of its own term; what came
//! before is committed along with it (Raft paper, section 5.4.2).

use kotoba_db_cluster::raft::{GroupId, Index, ReplicaId, Term};

use super::{Check, Verdict, Violation};

/// A leader of `term` has moved its commit to `index`, where its log holds an entry of `held`.
///
/// # Errors
/// Where that entry is of another term.
pub fn committed(group: GroupId, leader: ReplicaId, term: Term, index: Index, held: Option<Term>) -> Verdict {
    if held == Some(term) {
        return Ok(());
    }
    let message =
        format!("{group}: {leader} leads in {term} and commits up to {index}, an entry of {held:?}");
    Err(Violation::new(Check::CurrentTermCommit, message))
}
