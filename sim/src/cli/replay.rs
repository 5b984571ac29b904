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
    choice::{Recorded, Recorder, Schedule, Seeded, Source},
    fuzzed::{self, Replicated},
    profile::{FailureRate, Scale, Setup},
    runner::{self, Outcome},
    trace::{Kind, Line},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seed.
    #[arg(required_unless_present_any = ["schedule", "fuzz_bytes"], conflicts_with = "schedule")]
    seed: Option<u64>,
    /// A schedule that `shrink` wrote.
    #[arg(long)]
    schedule: Option<PathBuf>,
    /// An input of the fuzz target `world`; it says itself what is replicated.
    #[arg(long, conflicts_with_all = ["seed", "schedule", "machine", "benchmark", "short"])]
    fuzz_bytes: Option<PathBuf>,
    /// Where the schedule of that input is written.
    #[arg(long, requires = "fuzz_bytes")]
    to: Option<PathBuf>,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// The seed is one of a benchmark.
    #[arg(long)]
    benchmark: bool,
    /// The schedule comes from the fuzz target `world`.
    #[arg(long, conflicts_with = "benchmark")]
    short: bool,
    /// The run's failure rate, where it had one.
    #[arg(long, default_value = "0")]
    failure_rate: FailureRate,
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
    let run = Run::of(arguments)?;
    let (recorder, notes) = Recorder::new(run.source);
    let (outcome, lines) = with_machine!(run.machine, M => {
        let (outcome, world) = runner::read_world::<M>(recorder, run.setup);
        (outcome, world.trace().lines().to_vec())
    });
    for line in
        lines.iter().filter(|line| !arguments.brief || !matches!(line.kind, Kind::Message | Kind::Lost))
    {
        output::data(&show(line));
    }
    if let Some(path) = &arguments.to {
        write_schedule(path, &notes.schedule())?;
        let (path, machine) = (path.display(), run.machine.name());
        output::talk(&format!(
            "make it small: cargo run --release -p kotoba-sim -- shrink --schedule {path} --machine {machine} --short"
        ));
    }
    conclude(&outcome)
}

/// What is run.
struct Run {
    source: Box<dyn Source>,
    machine: MachineName,
    setup: Setup,
}

impl Run {
    fn of(arguments: &Arguments) -> Result<Self, CommandError> {
        let machine = arguments.machine;
        let scale = match (arguments.benchmark, arguments.short) {
            (true, _) => Scale::Benchmark,
            (false, true) => Scale::Short,
            (false, false) => Scale::Drawn,
        };
        if let Some(path) = &arguments.fuzz_bytes {
            let (replicated, choices) = fuzzed::read(&fs::read(path).map_err(unreadable(path))?);
            let machine = match replicated {
                Replicated::Registers => MachineName::Registers,
                Replicated::Graph => MachineName::Graph,
            };
            return Ok(Self { source: Box::new(choices), machine, setup: fuzzed::SCALE.into() });
        }
        let source: Box<dyn Source> = match &arguments.schedule {
            Some(path) => Box::new(Recorded::new(&read_schedule(path)?)),
            None => Box::new(Seeded::new(arguments.seed.unwrap_or_default())),
        };
        Ok(Self { source, machine, setup: Setup { scale, failure_rate: arguments.failure_rate } })
    }
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
    let text = fs::read_to_string(path).map_err(unreadable(path))?;
    serde_json::from_str(&text)
        .map_err(|error| CommandError::new(format!("{} is no schedule: {error}", path.display())))
}

/// Writes a schedule to a file.
pub(super) fn write_schedule(path: &Path, schedule: &Schedule) -> Result<(), CommandError> {
    let text = serde_json::to_string(schedule).expect("a schedule is plain data");
    fs::write(path, text)
        .map_err(|error| CommandError::new(format!("{} cannot be written: {error}", path.display())))
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    move |error| CommandError::new(format!("{} cannot be read: {error}", path.display()))
}
