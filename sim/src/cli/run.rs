//! `run`: many seeds.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{
    CommandError, Seeds,
    engines::Engine,
    machines::{MachineName, with_machine},
    output::{self, Format},
};
use crate::{
    madsim::{launch, outcome::missing},
    profile::{FailureRate, Scale, Setup},
    runner::{self, Outcome, cpu_time},
    situations::Situations,
};

/// With this many seeds a situation that none of them met is a failure: the run proves less than it
/// seems to.
const VACUITY_SEEDS: u64 = 2_000;
/// The same for runs of the whole program.
const WHOLE_VACUITY_SEEDS: u64 = 100;
/// Failures after which a run stops.
const FAILURES_MAX: usize = 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Which: `0..1000`, or one.
    #[arg(long, default_value = "0..200")]
    seeds: Seeds,
    /// What is simulated.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// What is replicated, in the world.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// Five hosts, one group, a minute of faults: what speed is measured with.
    #[arg(long)]
    benchmark: bool,
    /// How often replication fails, beside all other faults: a share of 1. What
    /// `ReplicationConfig::failure_rate` says, which only a simulator honours.
    #[arg(long, default_value = "0")]
    failure_rate: FailureRate,
    /// Threads. A seed is the same run however many there are.
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What came of all seeds.
#[derive(Debug, Serialize)]
struct Report {
    seeds: u64,
    failures: Vec<Failure>,
    simulated_seconds: f64,
    cpu_seconds: f64,
    events: u64,
    faults: BTreeMap<String, u64>,
    situations: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize)]
struct Failure {
    seed: u64,
    check: String,
    replay: String,
    /// The command that shows it as a picture, where the engine can.
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<String>,
    #[serde(skip)]
    message: String,
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    failures: Vec<Failure>,
    simulated: Duration,
    cpu: Duration,
    events: u64,
    situations: Situations,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    match arguments.engine {
        Engine::World => run_in_world(arguments),
        Engine::Madsim if arguments.failure_rate != FailureRate::default() => {
            Err(CommandError::new("only the engine `world` lets replication fail at a rate"))
        }
        Engine::Madsim => run_in_madsim(arguments),
    }
}

/// Runs the whole program, a process for each seed.
fn run_in_madsim(arguments: &Arguments) -> Result<(), CommandError> {
    let seeds = arguments.seeds.0.clone();
    let bar = progress(seeds.end - seeds.start);
    let mut report = Report {
        seeds: 0,
        failures: Vec::new(),
        simulated_seconds: 0.0,
        cpu_seconds: 0.0,
        events: 0,
        faults: BTreeMap::new(),
        situations: BTreeMap::new(),
    };
    let jobs = arguments.jobs();
    let settings = launch::Settings { scale: arguments.scale(), jobs, ..launch::Settings::of(seeds) };
    let launched = launch::run(&settings, |outcome| {
        report.seeds += 1;
        report.simulated_seconds += outcome.simulated_seconds;
        report.cpu_seconds += outcome.cpu_seconds;
        report.events += outcome.events;
        for (counts, more) in
            [(&mut report.faults, outcome.faults), (&mut report.situations, outcome.situations)]
        {
            for (name, count) in more {
                *counts.entry(name).or_default() += count;
            }
        }
        if let Some(failure) = outcome.failure {
            let (seed, replay) = (outcome.seed, launch::replay_command(outcome.seed, &settings));
            let (check, message) = (failure.check, failure.message);
            report.failures.push(Failure { seed, check, replay, report: None, message });
        }
        bar.inc(1);
    });
    bar.finish_and_clear();
    launched.map_err(CommandError::new)?;
    report.failures.sort_by_key(|failure| failure.seed);
    let concluded = conclude(&report, arguments.output);
    let missing = missing(&report.situations);
    if report.seeds >= WHOLE_VACUITY_SEEDS && !arguments.benchmark && !missing.is_empty() {
        output::talk(&format!("{} seeds never met: {}", report.seeds, missing.join(", ")));
        return Err(CommandError::Failed);
    }
    concluded
}

fn run_in_world(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    let total = run_all(arguments);
    let report = Report {
        seeds: total.seeds,
        failures: total.failures,
        simulated_seconds: total.simulated.as_secs_f64(),
        cpu_seconds: total.cpu.as_secs_f64(),
        events: total.events,
        faults: owned(total.situations.faults()),
        situations: owned(total.situations.met()),
    };
    let concluded = conclude(&report, arguments.output);
    let missing = total.situations.missing();
    if total.seeds >= VACUITY_SEEDS && !arguments.benchmark && !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(|situation| situation.name()).collect();
        output::talk(&format!("{} seeds never met: {}", total.seeds, names.join(", ")));
        return Err(CommandError::Failed);
    }
    concluded
}

fn owned(counts: BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

/// Tells what failed, prints the report, and says whether all is well.
fn conclude(report: &Report, format: Format) -> Result<(), CommandError> {
    for failure in &report.failures {
        output::talk(&format!(
            "seed {} failed: {}\n  {}\n  repeat it: {}",
            failure.seed, failure.check, failure.message, failure.replay
        ));
        if let Some(command) = &failure.report {
            output::talk(&format!("  look at it: {command}"));
        }
    }
    print(report, format);
    if report.failures.is_empty() { Ok(()) } else { Err(CommandError::Failed) }
}

fn run_all(arguments: &Arguments) -> Total {
    let seeds = arguments.seeds.0.clone();
    let jobs = arguments.jobs();
    let next = AtomicU64::new(seeds.start);
    let failed = AtomicU64::new(0);
    let bar = progress(seeds.end - seeds.start);
    let mut total = Total::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut own = Total::default();
            let began = cpu_time();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || failed.load(Ordering::Relaxed) >= FAILURES_MAX as u64 {
                    break;
                }
                let outcome = run_seed(arguments, seed);
                if outcome.violation.is_some() {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                own.add(seed, outcome, arguments);
                bar.inc(1);
            }
            own.cpu = cpu_time().saturating_sub(began);
            own
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            total.merge(thread.join().expect("a run's panics are caught"));
        }
    });
    bar.finish_and_clear();
    total.failures.sort_by_key(|failure| failure.seed);
    total
}

fn run_seed(arguments: &Arguments, seed: u64) -> Outcome {
    let setup = Setup { scale: arguments.scale(), failure_rate: arguments.failure_rate };
    with_machine!(arguments.machine, M => runner::run_seed::<M>(seed, setup))
}

impl Arguments {
    fn jobs(&self) -> usize {
        let jobs = self.jobs.or_else(|| std::thread::available_parallelism().ok());
        jobs.map_or(1, NonZeroUsize::get)
    }

    fn scale(&self) -> Scale {
        if self.benchmark { Scale::Benchmark } else { Scale::Drawn }
    }
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome, arguments: &Arguments) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.situations.add(&outcome.situations);
        if let Some(violation) = outcome.violation {
            let benchmark = if arguments.benchmark { " --benchmark" } else { "" };
            let failure_rate = arguments.failure_rate.option();
            let machine = arguments.machine.name();
            let command = |name: &str| {
                let options = format!("--machine {machine}{benchmark}{failure_rate}");
                format!("cargo run --release -p kotoba-sim -- {name} {seed} {options}")
            };
            self.failures.push(Failure {
                seed,
                check: violation.check.to_string(),
                replay: command("replay"),
                report: Some(command("report")),
                message: violation.message,
            });
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.failures.extend(other.failures);
        self.simulated += other.simulated;
        self.cpu += other.cpu;
        self.events += other.events;
        self.situations.add(&other.situations);
    }
}

/// A bar that shows itself only to people.
fn progress(seeds: u64) -> ProgressBar {
    let style = "{wide_bar} {pos} of {len} seeds, {per_sec}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is sound");
    ProgressBar::new(seeds).with_style(style)
}

fn print(report: &Report, format: Format) {
    if format == Format::Json {
        return output::json(report);
    }
    let per_cpu = |amount: f64| amount / report.cpu_seconds.max(f64::MIN_POSITIVE);
    output::data(&format!("{} seeds, {} failed", report.seeds, report.failures.len()));
    output::data(&format!(
        "{:.0} simulated seconds in {:.1} CPU seconds: {:.0} to 1, {:.0} events a CPU second",
        report.simulated_seconds,
        report.cpu_seconds,
        per_cpu(report.simulated_seconds),
        per_cpu(report.events as f64)
    ));
    for (title, counts) in [("faults", &report.faults), ("met", &report.situations)] {
        output::data(&format!("\n{title}:"));
        for (name, count) in counts {
            output::data(&format!("  {count:>12}  {name}"));
        }
    }
}
