//! `shrink`: a failing run made small.

use std::{num::NonZeroUsize, path::PathBuf};

use super::{
    CommandError,
    machines::{MachineName, with_machine},
    output,
    replay::{read_schedule, write_schedule},
};
use crate::{
    choice::{Recorded, Recorder, Schedule, Seeded, Source},
    machine::StateMachine,
    profile::Scale,
    runner::{self, Small},
    shrink::{Effort, in_words},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seed.
    #[arg(required_unless_present = "schedule", conflicts_with = "schedule")]
    seed: Option<u64>,
    /// A schedule, to be made smaller still.
    #[arg(long)]
    schedule: Option<PathBuf>,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// The schedule comes from the fuzz target `world`.
    #[arg(long)]
    short: bool,
    /// Runs it may take.
    #[arg(long)]
    runs: Option<u64>,
    /// Threads. The result is the same however many there are.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
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
    let usual = Effort::default();
    let effort = Effort {
        runs: arguments.runs.unwrap_or(usual.runs),
        jobs: arguments.jobs.map_or(usual.jobs, NonZeroUsize::get),
        ..usual
    };
    let source: Box<dyn Source> = match &arguments.schedule {
        Some(path) => Box::new(Recorded::new(&read_schedule(path)?)),
        None => Box::new(Seeded::new(arguments.seed.unwrap_or_default())),
    };
    let (scale, short) = if arguments.short { (Scale::Short, " --short") } else { (Scale::Drawn, "") };
    let found = with_machine!(arguments.machine, M => {
        runner::shrink::<M>(source, scale, effort)
            .map(|found| (words_of::<M>(&found.schedule, scale), found))
    });
    let Some((words, Small { violation, before, schedule, runs })) = found else {
        return Err(CommandError::new("this run does not fail"));
    };
    for line in &words {
        output::talk(line);
    }
    output::talk(&format!(
        "{violation}\n{before} choices became {} in {} runs",
        schedule.choices.len(),
        runs
    ));
    match &arguments.to {
        None => output::data(&serde_json::to_string(&schedule).expect("a schedule is plain data")),
        Some(path) => {
            write_schedule(path, &schedule)?;
            let machine = arguments.machine.name();
            let mutant = arguments.mutant.as_ref().map_or(String::new(), |id| format!(" --mutant {id}"));
            let (path, options) = (path.display(), format!("--machine {machine}{short}{mutant}"));
            let program = "cargo run --release -p kotoba-sim --";
            output::talk(&format!("read it: {program} replay --schedule {path} {options}"));
            output::talk(&format!("look at it: {program} report {path} {options}"));
        }
    }
    Ok(())
}

/// The choices of a schedule in words.
fn words_of<M: StateMachine>(schedule: &Schedule, scale: Scale) -> Vec<String> {
    let (recorder, notes) = Recorder::new(Recorded::new(schedule));
    let (_, world) = runner::read_world::<M>(recorder, scale);
    in_words(&notes.timed(), world.trace().lines(), world.hosts())
}
