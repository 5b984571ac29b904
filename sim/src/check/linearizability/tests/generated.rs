//! Many histories: against the other two ways to judge them, and of registers with faults.

use super::{
    simulated::{Fault, Simulation},
    *,
};
use crate::choice::{Chooser, Seeded, Topic};

/// A tiny history that means nothing: about half of them have an explanation.
fn nonsense(seed: u64) -> Registered {
    let mut choices = Chooser::new(Seeded::new(seed));
    let mut below = |bound| choices.below(Topic::Client, 0, bound);
    let operations = (0..1 + below(6)).map(|at| {
        let invoked = below(8);
        let asked = match below(4) {
            0 | 1 => put(at + 1),
            2 => put_if(below(2), at + 1),
            _ => get(),
        };
        let answer = match asked {
            RegisterOperation::Get { .. } => match below(5) {
                0 | 1 => found(0, 0),
                writes => found(1 + below(4), writes - 1),
            },
            RegisterOperation::PutIf { .. } if below(2) == 0 => refused(below(3)),
            RegisterOperation::Put { .. } | RegisterOperation::PutIf { .. } => written(1 + below(2)),
        };
        let ended = (below(4) > 0).then(|| (invoked + 1 + below(8), answer));
        operation(at as u32, asked, invoked, ended)
    });
    let mut operations: Vec<_> = operations.collect();
    operations.sort_by_key(|operation| operation.invoked);
    History { operations }
}

/// A history of the simulation, in which some answers may be wrong.
fn corrupted(seed: u64, operations: usize) -> Registered {
    let simulation = Simulation { clients: 4, operations, keys: 1, unknown: 60, fault: None };
    let mut history = simulation.run(seed);
    let mut choices = Chooser::new(Seeded::new(seed ^ 0xabc));
    if choices.chance(Topic::Client, 0, 700) {
        let at = choices.below(Topic::Client, 0, history.operations.len() as u64) as usize;
        let change = choices.below(Topic::Client, 0, 3);
        if let End::Answered { answer, at: time, .. } = &mut history.operations[at].end {
            match answer {
                RegisterAnswer::Found { value, writes } if change == 0 => {
                    (*value, *writes) = (*value, *writes + 1)
                }
                RegisterAnswer::Found { value, .. } => *value += change - 1,
                RegisterAnswer::Written { writes } | RegisterAnswer::Refused { writes } => *writes += change,
            }
            *time += 3;
        }
    }
    history
}

#[test]
fn tiny_histories_are_judged_as_the_definition_says() {
    let mut verdicts = [0; 2];
    for seed in 0..6_000 {
        let history = nonsense(seed);
        let expected = brute_force::is_linearizable(&history);
        assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        assert_eq!(just_in_time::is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&count| count > 1_000), "both verdicts occur: {verdicts:?}");
}

#[test]
fn histories_of_middle_size_are_judged_as_another_algorithm_does() {
    let mut verdicts = [0; 2];
    for seed in 0..200 {
        let history = corrupted(seed, 30);
        let expected = just_in_time::is_linearizable(&history);
        assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:#?}");
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&count| count > 40), "both verdicts occur: {verdicts:?}");
}

#[test]
fn correct_histories_have_an_explanation() {
    for seed in 0..20 {
        let unknown = [0, 20, 100][seed as usize % 3];
        let simulation = Simulation { clients: 8, operations: 2_000, keys: 6, unknown, fault: None };
        assert_eq!(check::<Registers>(&simulation.run(seed), STEPS), Judgement::Linearizable, "seed {seed}");
    }
}

#[test]
fn every_fault_is_found_whatever_surrounds_it() {
    for fault in [Fault::LostUpdate, Fault::StaleRead, Fault::DuplicateApplication, Fault::Reordered] {
        for seed in 0..20 {
            let simulation =
                Simulation { clients: 6, operations: 1_000, keys: 6, unknown: 0, fault: Some(fault) };
            let judgement = check::<Registers>(&simulation.run(seed), STEPS);
            let Judgement::NotLinearizable(witness) = judgement else {
                panic!("{fault:?}, seed {seed}: {judgement}");
            };
            assert!(!witness.unplaced.is_empty(), "{fault:?}, seed {seed}: {witness}");
        }
    }
}
