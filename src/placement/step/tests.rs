use alloc::vec;

use proptest::prelude::*;

use super::*;

fn ids(numbers: &[u64]) -> Vec<ReplicaId> {
    numbers.iter().copied().map(ReplicaId).collect()
}

fn configuration(voters: &[u64], learners: &[u64]) -> Configuration {
    Configuration { voters: ids(voters), learners: ids(learners), ..Configuration::default() }
}

/// What the core does with a committed step.
fn take(configuration: &mut Configuration, change: ConfigurationChange) {
    let insert = |list: &mut Vec<ReplicaId>, replica| {
        assert!(!list.contains(&replica), "{replica} is there already");
        list.push(replica);
        list.sort_unstable();
    };
    match change {
        ConfigurationChange::AddLearner(replica) => insert(&mut configuration.learners, replica),
        ConfigurationChange::Promote(replica) => {
            assert!(configuration.learners.contains(&replica), "{replica} must be a learner");
            configuration.learners.retain(|&learner| learner != replica);
            insert(&mut configuration.voters, replica);
        }
        ConfigurationChange::Remove(replica) => {
            assert!(configuration.is_member(replica), "{replica} must be a member");
            configuration.learners.retain(|&learner| learner != replica);
            configuration.voters.retain(|&voter| voter != replica);
        }
    }
}

#[test]
fn each_situation_has_its_step() {
    use ConfigurationChange::{AddLearner, Promote, Remove};
    type Numbers = &'static [u64];
    type Case = (&'static str, Numbers, Numbers, Numbers, Numbers, Option<ConfigurationChange>);
    let replica = ReplicaId;
    #[rustfmt::skip]
    let cases: [Case; 13] = [
        // name, voters, learners, desired, caught up, step
        ("nothing to do", &[1, 2, 3], &[], &[1, 2, 3], &[], None),
        ("newcomer is unknown", &[1, 2, 3], &[], &[2, 3, 4], &[], Some(AddLearner(replica(4)))),
        ("newcomer lags", &[1, 2, 3], &[4], &[2, 3, 4], &[], None),
        ("newcomer caught up: the dead one goes first", &[1, 2, 3], &[4], &[2, 3, 4], &[4], Some(Remove(replica(1)))),
        ("the dead one is gone", &[2, 3], &[4], &[2, 3, 4], &[4], Some(Promote(replica(4)))),
        ("the dead one is gone, newcomer fell behind", &[2, 3], &[4], &[2, 3, 4], &[], None),
        ("wiped twice: the first newcomer goes", &[1, 2, 3], &[4], &[2, 3, 5], &[4], Some(Remove(replica(4)))),
        ("two newcomers, one ready", &[1, 2, 3], &[4, 5], &[3, 4, 5], &[5], Some(Remove(replica(1)))),
        ("two newcomers, first promoted", &[2, 3], &[4, 5], &[3, 4, 5], &[5], Some(Promote(replica(5)))),
        ("a lone voter is not removed before another votes", &[1], &[2], &[2], &[2], Some(Promote(replica(2)))),
        ("then it goes", &[1, 2], &[], &[2], &[], Some(Remove(replica(1)))),
        ("growing", &[1], &[2], &[1, 2, 3], &[2], Some(Promote(replica(2)))),
        ("nothing is desired: no step could be right", &[1], &[], &[], &[], None),
    ];
    for (name, voters, learners, desired, caught_up, step) in cases {
        let current = configuration(voters, learners);
        let found = next_step(&current, &ids(desired), |replica| caught_up.contains(&replica.0));
        assert_eq!(found, step, "{name}");
    }
}

#[test]
fn a_joint_configuration_is_left_to_the_core() {
    let mut current = configuration(&[1, 2, 3], &[]);
    current.outgoing = ids(&[1, 2, 4]);
    assert_eq!(next_step(&current, &ids(&[1, 2, 5]), |_| true), None);
}

#[test]
fn a_replacement_never_has_more_voters_than_the_group_should() {
    let mut current = configuration(&[1, 2, 3], &[]);
    let mut history = vec![current.voters.clone()];
    while let Some(step) = next_step(&current, &ids(&[2, 3, 4]), |_| true) {
        take(&mut current, step);
        history.push(current.voters.clone());
    }
    assert_eq!(history, [ids(&[1, 2, 3]), ids(&[1, 2, 3]), ids(&[2, 3]), ids(&[2, 3, 4])]);
}

proptest! {
    #[test]
    fn steps_always_arrive(
        voters in prop::collection::btree_set(0_u64..12, 1..6),
        learners in prop::collection::btree_set(12_u64..20, 0..4),
        desired in prop::collection::btree_set(0_u64..24, 1..6),
    ) {
        let list = |set: &alloc::collections::BTreeSet<u64>| set.iter().copied().collect::<Vec<_>>();
        let mut current = configuration(&list(&voters), &list(&learners));
        let desired = ids(&list(&desired));
        let most = current.voters.len().max(desired.len());
        for _ in 0..40 {
            let Some(step) = next_step(&current, &desired, |_| true) else { break };
            let before = current.voters.len();
            take(&mut current, step);
            prop_assert!(current.check().is_ok(), "{:?}", current);
            prop_assert!(current.voters.len().abs_diff(before) <= 1);
            prop_assert!(current.voters.len() <= most.max(2), "{:?}", current);
        }
        prop_assert_eq!(current.voters, desired);
        prop_assert!(current.learners.is_empty());
    }
}
