//! Majorities (Raft paper, section 5; joint ones: thesis, section 4.3).

use super::{configuration::Configuration, types::ReplicaId};
use crate::limits::MEMBERS_MAX;

/// Whether an election is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Election {
    /// A majority of each half said yes.
    Won,
    /// Some half can no longer reach a majority.
    Lost,
    /// Not decided.
    Open,
}

/// The greatest value that a majority of each half has reached.
pub(super) fn agreed<T: Ord + Copy + Default>(
    configuration: &Configuration,
    value_of: impl Fn(ReplicaId) -> T,
) -> T {
    if mutant!(B12) {
        return reached_by(&configuration.members(), majority(configuration.voters.len()), &value_of);
    }
    let voters = reached_by_majority(&configuration.voters, &value_of);
    if configuration.is_joint() {
        voters.min(reached_by_majority(&configuration.outgoing, &value_of))
    } else {
        voters
    }
}

fn reached_by_majority<T: Ord + Copy + Default>(half: &[ReplicaId], value_of: impl Fn(ReplicaId) -> T) -> T {
    reached_by(half, majority(half.len()), value_of)
}

/// The greatest value that `needed` of these replicas have reached.
fn reached_by<T: Ord + Copy + Default>(
    replicas: &[ReplicaId],
    needed: usize,
    value_of: impl Fn(ReplicaId) -> T,
) -> T {
    assert!((needed..=MEMBERS_MAX).contains(&replicas.len()) && needed > 0, "1 to 64 voters decide");
    let mut values = [T::default(); MEMBERS_MAX];
    let values = &mut values[..replicas.len()];
    for (value, &replica) in values.iter_mut().zip(replicas) {
        *value = value_of(replica);
    }
    values.sort_unstable();
    values[replicas.len() - needed]
}

/// How many of these voters decide.
fn majority(voters: usize) -> usize {
    if mutant!(B03) { voters.div_ceil(2) } else { voters / 2 + 1 }
}

/// How an election stands. `vote_of` tells a voter's answer, where it gave one.
pub(super) fn election(
    configuration: &Configuration,
    vote_of: impl Fn(ReplicaId) -> Option<bool>,
) -> Election {
    let half = |voters: &[ReplicaId]| {
        let majority = majority(voters.len());
        let yes = voters.iter().filter(|&&voter| vote_of(voter) == Some(true)).count();
        let no = voters.iter().filter(|&&voter| vote_of(voter) == Some(false)).count();
        if yes >= majority {
            Election::Won
        } else if voters.len() - no < majority {
            Election::Lost
        } else {
            Election::Open
        }
    };
    let voters = half(&configuration.voters);
    if !configuration.is_joint() {
        return voters;
    }
    match (voters, half(&configuration.outgoing)) {
        (Election::Won, Election::Won) => Election::Won,
        (Election::Lost, _) | (_, Election::Lost) => Election::Lost,
        (Election::Open, _) | (_, Election::Open) => Election::Open,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn ids(range: core::ops::RangeInclusive<u64>) -> Vec<ReplicaId> {
        range.map(ReplicaId).collect()
    }

    fn slow_majority(half: &[ReplicaId], said: impl Fn(ReplicaId) -> bool) -> bool {
        2 * half.iter().filter(|&&voter| said(voter)).count() > half.len()
    }

    proptest! {
        #[test]
        fn agreed_equals_counting(
            split in 1..7u64, size in 1..9u64, joint: bool, values in prop::collection::vec(0..20u64, 16)
        ) {
            let configuration = Configuration {
                voters: ids(1..=size),
                outgoing: if joint { ids(split..=split + 4) } else { Vec::new() },
                ..Configuration::default()
            };
            let value_of = |id: ReplicaId| values[id.0 as usize];
            let slow = (0..20).rev().find(|&candidate| {
                slow_majority(&configuration.voters, |id| value_of(id) >= candidate)
                    && (!joint || slow_majority(&configuration.outgoing, |id| value_of(id) >= candidate))
            });
            prop_assert_eq!(agreed(&configuration, value_of), slow.unwrap_or(0));
        }

        #[test]
        fn election_equals_counting(
            split in 1..7u64, size in 1..9u64, joint: bool, votes in prop::collection::vec(any::<Option<bool>>(), 16)
        ) {
            let configuration = Configuration {
                voters: ids(1..=size),
                outgoing: if joint { ids(split..=split + 3) } else { Vec::new() },
                ..Configuration::default()
            };
            let vote_of = |id: ReplicaId| votes[id.0 as usize];
            let halves = || core::iter::once(&configuration.voters).chain(joint.then_some(&configuration.outgoing));
            let won = halves().all(|half| slow_majority(half, |id| vote_of(id) == Some(true)));
            let can_win = halves().all(|half| slow_majority(half, |id| vote_of(id) != Some(false)));
            let expected = if won { Election::Won } else if can_win { Election::Open } else { Election::Lost };
            prop_assert_eq!(election(&configuration, vote_of), expected);
        }
    }
}
