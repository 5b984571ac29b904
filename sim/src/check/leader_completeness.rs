//! An entry that is committed is present in the logs of the leaders of all later terms (Raft paper,
//! section 5.4).

use kotoba_db_cluster::{
    raft::{GroupId, Position, ReplicaId, Term},
    storage::wal::LogIndex,
};

use super::{Check, Verdict, Violation};

/// A replica was elected; `committed` is the last entry committed so far, by anyone. With
/// [log matching](super::log_matching) it is enough that the new leader holds that one.
///
/// # Errors
/// Where it does not.
pub fn elected(
    group: GroupId,
    leader: ReplicaId,
    term: Term,
    log: &LogIndex,
    committed: Position,
) -> Verdict {
    // An entry committed in a later term than this leader's is no business of this leader.
    if committed.term >= term {
        return Ok(());
    }
    match log.term_at(group, committed.index) {
        Some(held) if held == committed.term => Ok(()),
        // Behind a snapshot's position: the state holds it, and the state is compared elsewhere.
        None if log.last(group).is_some_and(|last| last.index > committed.index) => Ok(()),
        held => {
            let message = format!(
                "{group}: {leader} leads in {term} and holds {held:?} where {committed} is committed"
            );
            Err(Violation::new(Check::LeaderCompleteness, message))
        }
    }
}
