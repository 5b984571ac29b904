//! Any quorum of a configuration shares a voter with any quorum of the one before it (Raft thesis,
//! section 4.1): else two leaders could decide without knowing of each other.

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{Configuration, GroupId, Index, ReplicaId, Term};

use super::{Check, Verdict, Violation};

/// The configurations of every log, by their entries.
#[derive(Clone, Debug, Default)]
pub struct QuorumIntersection {
    known: BTreeMap<(GroupId, Index, Term), Configuration>,
}

impl QuorumIntersection {
    /// A configuration takes the place of another, in some log.
    ///
    /// # Errors
    /// Where a quorum of one need not meet a quorum of the other.
    pub fn follows(
        &mut self,
        group: GroupId,
        at: (Index, Term),
        before: &Configuration,
        after: &Configuration,
    ) -> Verdict {
        if self.known.get(&(group, at.0, at.1)) == Some(after) {
            return Ok(());
        }
        self.known.insert((group, at.0, at.1), after.clone());
        if intersect(before, after) {
            return Ok(());
        }
        let message =
            format!("{group}: quorums of {before:?} and of {after:?} at {} need not share a voter", at.0);
        Err(Violation::new(Check::QuorumIntersection, message))
    }
}

/// Whether every quorum of `a` meets every quorum of `b`. Decided by looking at all sets of voters:
/// groups are small.
#[must_use]
pub fn intersect(a: &Configuration, b: &Configuration) -> bool {
    let mut voters: Vec<ReplicaId> =
        [&a.voters, &a.outgoing, &b.voters, &b.outgoing].into_iter().flatten().copied().collect();
    voters.sort_unstable();
    voters.dedup();
    if voters.len() > 16 {
        return true;
    }
    let sets = 1_u32 << voters.len();
    let decides = |configuration: &Configuration, set: u32| {
        let majority = |half: &[ReplicaId]| {
            let inside = half.iter().filter(|voter| {
                let at = voters.iter().position(|known| known == *voter).expect("collected above");
                set >> at & 1 == 1
            });
            half.is_empty() || 2 * inside.count() > half.len()
        };
        majority(&configuration.voters) && majority(&configuration.outgoing)
    };
    // A quorum of `a` whose complement holds a quorum of `b` would not meet it.
    (0..sets).all(|set| !(decides(a, set) && decides(b, !set & (sets - 1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64], outgoing: &[u64]) -> Configuration {
        let ids = |list: &[u64]| list.iter().copied().map(ReplicaId).collect();
        Configuration { voters: ids(voters), outgoing: ids(outgoing), ..Configuration::default() }
    }

    #[test]
    fn single_steps_and_joint_steps_intersect_and_jumps_do_not() {
        for (a, b, expected) in [
            (of(&[1, 2, 3], &[]), of(&[1, 2, 3, 4], &[]), true),
            (of(&[1, 2, 3], &[]), of(&[1, 2], &[]), true),
            (of(&[1, 2, 3], &[]), of(&[1, 2, 4], &[]), false),
            (of(&[1, 2, 3], &[]), of(&[4, 5, 6], &[]), false),
            (of(&[1, 2, 3], &[]), of(&[4, 5, 6], &[1, 2, 3]), true),
            (of(&[4, 5, 6], &[1, 2, 3]), of(&[4, 5, 6], &[]), true),
            (of(&[1], &[]), of(&[2], &[]), false),
        ] {
            assert_eq!(intersect(&a, &b), expected, "{a:?} and {b:?}");
        }
    }
}
