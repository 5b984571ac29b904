//! `shrink`: a failing run made small.

use std::{fs, path::PathBuf};

use super::{
    CommandError,
    machines::{MachineName, with_machine},
    output,
};
use crate::{
    check::Violation,
    machine::StateMachine,
    profile::Scale,
    runner,
    shrink::{Shrunk, shrink},
};

/// Runs that shrinking may take.
pub(super) const RUNS_MAX: u64 = 3_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seed.
    seed: u64,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// Runs it may take.
    #[arg(long, default_value_t = RUNS_MAX)]
    runs: u64,
    /// Where the schedule is written. Without it: to standard output.
    #[arg(long)]
    to: Option<PathBuf>,
    /// Put a known bug back (a build with `--cfg kotoba_mutants` only).
    #[arg(long)]
    mutant: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    super::mutants::activate(arguments.mutant.as_deref())?;
    let found =
        with_machine!(arguments.machine, M => shrink_seed::<M>(arguments.seed, Scale::Drawn, arguments.runs));
    let Some((violation, before, shrunk)) = found else {
        return Err(CommandError::new(format!("seed {} does not fail", arguments.seed)));
    };
    output::talk(&format!(
        "{violation}\n{before} choices became {} in {} runs",
        shrunk.schedule.choices.len(),
        shrunk.runs
    ));
    let text = serde_json::to_string(&shrunk.schedule).expect("a schedule is plain data");
    match &arguments.to {
        None => output::data(&text),
        Some(path) => {
            fs::write(path, text).map_err(|error| {
                CommandError::new(format!("{} cannot be written: {error}", path.display()))
            })?;
            let machine = arguments.machine.name();
            output::talk(&format!(
                "read it: cargo run --release -p kotoba-sim -- replay --schedule {} --machine {machine}",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Makes a seed's run small. Returns what failed in the end, the choices there were, and what is
/// left; nothing where the seed does not fail.
pub(super) fn shrink_seed<M: StateMachine>(
    seed: u64,
    scale: Scale,
    runs_max: u64,
) -> Option<(Violation, usize, Shrunk)> {
    let (outcome, schedule) = runner::record_seed::<M>(seed, scale);
    let violation = outcome.violation?;
    let fails = |schedule: &_| runner::run_schedule::<M>(schedule, scale).violation.map(|found| found.check);
    let shrunk = shrink(&schedule, violation.check, runs_max, fails);
    let violation = runner::run_schedule::<M>(&shrunk.schedule, scale).violation.unwrap_or(violation);
    Some((violation, schedule.choices.len(), shrunk))
}
