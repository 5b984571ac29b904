//! `replay`: one run, to be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    CommandError,
    machines::{MachineName, with_machine},
    output,
};
use crate::{
    choice::{Recorded, Schedule, Seeded},
    profile::Scale,
    runner::{self, Outcome},
    trace::{Kind, Line},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seed.
    #[arg(required_unless_present = "schedule", conflicts_with = "schedule")]
    seed: Option<u64>,
    /// A schedule that `shrink` wrote.
    #[arg(long)]
    schedule: Option<PathBuf>,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// The seed is one of a benchmark.
    #[arg(long)]
    benchmark: bool,
    /// Leave out messages.
    #[arg(long)]
    brief: bool,
    /// Put a known bug back (a build with `--cfg kotoba_mutants` only).
    #[arg(long)]
    mutant: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    super::mutants::activate(arguments.mutant.as_deref())?;
    let scale = if arguments.benchmark { Scale::Benchmark } else { Scale::Drawn };
    let schedule = arguments.schedule.as_ref().map(|path| read_schedule(path)).transpose()?;
    let (outcome, lines) = with_machine!(arguments.machine, M => {
        let (outcome, world) = match (&schedule, arguments.seed) {
            (Some(schedule), _) => runner::read_world::<M>(Recorded::new(schedule), scale),
            (None, seed) => runner::read_world::<M>(Seeded::new(seed.unwrap_or_default()), scale),
        };
        (outcome, world.trace().lines().to_vec())
    });
    for line in lines.iter().filter(|line| !arguments.brief || line.kind != Kind::Message) {
        output::data(&show(line));
    }
    conclude(&outcome)
}

fn show(line: &Line) -> String {
    let at = runner::seconds(line.at);
    match line.host {
        Some(host) => format!("{at:>11.6}  host {host}  {}", line.text),
        None => format!("{at:>11.6}          {}", line.text),
    }
}

fn conclude(outcome: &Outcome) -> Result<(), CommandError> {
    let simulated = outcome.simulated.as_secs_f64();
    output::talk(&format!("{} events, {simulated:.1} s, hash {:016x}", outcome.events, outcome.hash));
    match &outcome.violation {
        None => Ok(()),
        Some(violation) => {
            output::talk(&format!("failed: {violation}"));
            Err(CommandError::Failed)
        }
    }
}

/// Reads a schedule from a file.
pub(super) fn read_schedule(path: &Path) -> Result<Schedule, CommandError> {
    let text = fs::read_to_string(path)
        .map_err(|error| CommandError::new(format!("{} cannot be read: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| CommandError::new(format!("{} is no schedule: {error}", path.display())))
}
