//! `report`: one run, to be looked at.

use std::{fs, path::PathBuf};

use super::{
    CommandError,
    machines::{MachineName, with_machine},
    output,
    replay::read_schedule,
};
use crate::{
    choice::{Recorded, Recorder, Seeded, Source},
    profile::{FailureRate, Scale, Setup},
    report::{self, Heading},
    runner,
    shrink::in_words,
};

/// With more choices than this they are not told one by one.
const CHOICES_MAX: usize = 400;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A seed, or a file with a schedule that `shrink` wrote.
    run: String,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// The seed is one of a benchmark.
    #[arg(long)]
    benchmark: bool,
    /// The schedule is one of the fuzz target `world`.
    #[arg(long, conflicts_with = "benchmark")]
    short: bool,
    /// The run's failure rate, where it had one.
    #[arg(long, default_value = "0")]
    failure_rate: FailureRate,
    /// Where the page is written.
    #[arg(long, default_value = "report.html")]
    to: PathBuf,
    /// Put a known bug back (a build with `--cfg kotoba_mutants` only).
    #[arg(long)]
    mutant: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    super::mutants::activate(arguments.mutant.as_deref())?;
    let seed: Option<u64> = arguments.run.parse().ok();
    let source: Box<dyn Source> = match seed {
        Some(seed) => Box::new(Seeded::new(seed)),
        None => Box::new(Recorded::new(&read_schedule(arguments.run.as_ref())?)),
    };
    let scale = match (arguments.benchmark, arguments.short) {
        (true, _) => Scale::Benchmark,
        (false, true) => Scale::Short,
        (false, false) => Scale::Drawn,
    };
    let setup = Setup { scale, failure_rate: arguments.failure_rate };
    let mut heading = heading(arguments, seed);
    let (recorder, notes) = Recorder::new(source);
    let (page, failed) = with_machine!(arguments.machine, M => {
        let (outcome, world) = runner::read_world::<M>(recorder, setup);
        let noted = notes.timed();
        if noted.len() <= CHOICES_MAX {
            heading.schedule = in_words(&noted, world.trace().lines(), world.hosts());
        }
        (report::page(&heading, &world, &outcome), outcome.violation)
    });
    fs::write(&arguments.to, page).map_err(|error| {
        CommandError::new(format!("{} cannot be written: {error}", arguments.to.display()))
    })?;
    if let Some(violation) = failed {
        output::talk(&format!("the run fails: {violation}"));
    }
    output::talk(&format!("look at it: {}", arguments.to.display()));
    Ok(())
}

fn heading(arguments: &Arguments, seed: Option<u64>) -> Heading {
    let machine = arguments.machine.name();
    let mut options = format!(" --machine {machine}");
    if arguments.benchmark {
        options.push_str(" --benchmark");
    }
    if arguments.short {
        options.push_str(" --short");
    }
    options.push_str(&arguments.failure_rate.option());
    let mut title = match seed {
        Some(seed) => format!("seed {seed}"),
        None => format!("schedule {}", arguments.run),
    };
    let program = match &arguments.mutant {
        Some(mutant) => {
            options.push_str(&format!(" --mutant {mutant}"));
            title.push_str(&format!(", known bug {mutant}"));
            "RUSTFLAGS=\"--cfg kotoba_mutants\" cargo run --release --target-dir target/mutants -p kotoba-sim --"
        }
        None => "cargo run --release -p kotoba-sim --",
    };
    let replay = match seed {
        Some(seed) => format!("{program} replay {seed}{options}"),
        None => format!("{program} replay --schedule {}{options}", arguments.run),
    };
    Heading { title, machine: machine.to_owned(), commands: vec![replay], schedule: Vec::new() }
}
