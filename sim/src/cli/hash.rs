//! `hash`: what `verify` asks of other processes.

use super::{
    CommandError, Seeds,
    machines::{MachineName, with_machine},
    output,
};
use crate::{profile::Scale, runner};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seeds.
    seeds: Seeds,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    for seed in arguments.seeds.0.clone() {
        let outcome = with_machine!(arguments.machine, M => runner::run_seed::<M>(seed, Scale::Drawn));
        output::data(&format!("{seed} {:016x} {}", outcome.hash, outcome.events));
    }
    Ok(())
}
