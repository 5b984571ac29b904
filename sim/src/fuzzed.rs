//! A fuzzer's input as a run: its first byte says what is replicated, the others are the
//! [choices](FuzzBytes) of a run of a few simulated [seconds](Scale::Short).

use crate::{
    choice::FuzzBytes,
    machine::{ExactlyOnce, Graph, Registers},
    profile::Scale,
    runner::{Outcome, run_source},
};

/// How much a run of an input holds.
pub const SCALE: Scale = Scale::Short;

/// What an input replicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replicated {
    /// Registers: the first byte is even, or there is none.
    Registers,
    /// The graph.
    Graph,
}

/// What an input replicates, and its choices.
#[must_use]
pub fn read(input: &[u8]) -> (Replicated, FuzzBytes) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let replicated = if first.is_multiple_of(2) { Replicated::Registers } else { Replicated::Graph };
    (replicated, FuzzBytes::new(rest))
}

/// Runs an input.
#[must_use]
pub fn run(input: &[u8]) -> Outcome {
    let (replicated, choices) = read(input);
    match replicated {
        Replicated::Registers => run_source::<ExactlyOnce<Registers>>(choices, SCALE),
        Replicated::Graph => run_source::<Graph>(choices, SCALE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{choice::Recorder, runner::run_schedule};

    /// What a fuzzer found can be handed on as a schedule.
    #[test]
    fn an_input_and_its_schedule_are_the_same_run() {
        for first in 0..6_u8 {
            let input: Vec<u8> = (0..900_u32).map(|at| first ^ (at * at * 31 + at / 7) as u8).collect();
            let (replicated, choices) = read(&input);
            let (recorder, notes) = Recorder::new(choices);
            let (recorded, repeated) = match replicated {
                Replicated::Registers => {
                    let recorded = run_source::<ExactlyOnce<Registers>>(recorder, SCALE);
                    (recorded, run_schedule::<ExactlyOnce<Registers>>(&notes.schedule(), SCALE))
                }
                Replicated::Graph => {
                    let recorded = run_source::<Graph>(recorder, SCALE);
                    (recorded, run_schedule::<Graph>(&notes.schedule(), SCALE))
                }
            };
            assert_eq!(run(&input).hash, recorded.hash);
            assert_eq!(recorded.hash, repeated.hash);
        }
    }

    #[test]
    fn an_input_that_says_nothing_passes() {
        for input in [&[][..], &[0], &[1]] {
            assert_eq!(run(input).violation, None);
        }
    }
}
