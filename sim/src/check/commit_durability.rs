//! What a leader takes for committed is on the disks of a quorum of the configuration in force.

use kotoba_db_cluster::raft::{Configuration, GroupId, Position, ReplicaId};

use super::{Check, Verdict, Violation};

/// A leader commits up to `position`; `holds` says whose disk has that entry, or a state with its
/// effect. By [log matching](super::log_matching) it then has all before it.
///
/// # Errors
/// Where those are no quorum.
pub fn committed(
    group: GroupId,
    leader: ReplicaId,
    configuration: &Configuration,
    position: Position,
    holds: impl Fn(ReplicaId) -> bool,
) -> Verdict {
    for half in [&configuration.voters, &configuration.outgoing] {
        let held = half.iter().filter(|voter| holds(**voter)).count();
        if !half.is_empty() && 2 * held <= half.len() {
            let message =
                format!("{group}: {leader} commits {position}, which {held} of {half:?} have on disk");
            return Err(Violation::new(Check::CommitDurability, message));
        }
    }
    Ok(())
}
