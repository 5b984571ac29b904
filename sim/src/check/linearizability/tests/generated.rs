//! Many histories: against the other two ways to judge them, and of registers with faults.

use kotoba_db_cluster::graph::Cid;

use super::{
    simulated::{Fault, Simulation},
    *,
};
use crate::{
    choice::{Chooser, Seeded, Topic},
    machine::{GraphAnswer, PlainGraph},
};

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
                    (*value, *writes) = (*value, *writes + 1);
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
fn hints_decide_nothing() {
    for seed in 0..2_000 {
        let mut history = nonsense(seed);
        let expected = is_linearizable(&history);
        let mut choices = Chooser::new(Seeded::new(seed));
        let mut hint = || Index(choices.below(Topic::Client, 0, 5));
        let effects: Vec<_> = history.operations.iter().map(|_| Some(hint()).filter(|at| at.0 > 0)).collect();
        for operation in &mut history.operations {
            if let End::Answered { index, .. } = &mut operation.end {
                *index = hint();
            }
        }
        let judgement = check_guided::<Registers>(&history, STEPS, &|at| effects[at]);
        assert_eq!(judgement == Judgement::Linearizable, expected, "seed {seed}: {history:#?}");
    }
}

#[test]
fn correct_histories_have_an_explanation() {
    for seed in 0..20 {
        let unknown = [0, 20, 50][seed as usize % 3];
        let simulation = Simulation { clients: 8, operations: 2_000, keys: 6, unknown, fault: None };
        assert_eq!(check::<Registers>(&simulation.run(seed), STEPS), Judgement::Linearizable, "seed {seed}");
    }
}

#[test]
fn with_the_order_of_the_log_a_correct_history_needs_no_search() {
    for seed in 0..20 {
        let simulation = Simulation { clients: 8, operations: 3_000, keys: 6, unknown: 200, fault: None };
        let (history, effects) = simulation.run_with_effects(seed);
        let judgement = check_guided::<Registers>(&history, 0, &|at| effects.get(&at).copied());
        assert_eq!(judgement, Judgement::Linearizable, "seed {seed}");
    }
}

#[test]
fn with_a_hint_missing_a_correct_history_takes_few_steps() {
    for seed in 0..20 {
        let simulation = Simulation { clients: 8, operations: 3_000, keys: 6, unknown: 200, fault: None };
        let (history, effects) = simulation.run_with_effects(seed);
        // Nobody knows where every seventh operation stands.
        let effect = |at: usize| effects.get(&at).copied().filter(|_| !at.is_multiple_of(7));
        let judgement = check_guided::<Registers>(&history, STEPS, &effect);
        assert_eq!(judgement, Judgement::Linearizable, "seed {seed}");
    }
}

#[test]
fn any_machine_is_a_model() {
    for seed in 0..20 {
        let mut choices = Chooser::new(Seeded::new(seed));
        let (mut graph, mut history) = (PlainGraph::default(), History::default());
        for serial in 1..=600 {
            let asked = <PlainGraph as Machine>::draw(&mut choices, 0, serial);
            let (effect, key) = (10 * serial, <PlainGraph as Model>::key(&asked));
            let mut around = || choices.below(Topic::Client, 0, 25);
            let (invoked, at) = (effect.saturating_sub(around()), effect + around());
            let end = End::Answered { at, answer: graph.step(&asked), index: Index(serial) };
            let client = key as u32;
            history.operations.push(Operation {
                client,
                serial,
                group: GROUP,
                operation: asked,
                invoked,
                end,
            });
        }
        history.operations.sort_by_key(|operation| operation.invoked);
        assert_eq!(check::<PlainGraph>(&history, 1_500), Judgement::Linearizable, "seed {seed}");

        let is_version =
            |end: &End<GraphAnswer>| matches!(end, End::Answered { answer: GraphAnswer::Version(_), .. });
        let late = history.operations.iter_mut().filter(|operation| is_version(&operation.end)).nth(100);
        let Some(Operation { end: End::Answered { answer, .. }, .. }) = late else {
            panic!("a hundred changes were made");
        };
        *answer = GraphAnswer::Version(Cid::of(b"what nobody wrote"));
        let judgement = check::<PlainGraph>(&history, STEPS);
        assert!(matches!(judgement, Judgement::NotLinearizable(_)), "seed {seed}: {judgement}");
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
