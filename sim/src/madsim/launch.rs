//! Building the engine, and running it once for each seed.

use std::{
    env,
    io::{self, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use thiserror::Error;

use super::outcome::{Failure, Outcome};
use crate::profile::Scale;

/// The program that runs one seed.
pub const PROGRAM: &str = "kotoba-sim-madsim";
/// Lines of a crashed process' talk that a failure quotes.
const LINES_QUOTED: usize = 20;

/// What is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The seeds.
    pub seeds: Range<u64>,
    /// A mutant that the product is built with and runs as.
    pub mutant: Option<String>,
    /// How much a run holds.
    pub scale: Scale,
    /// How the engine is built.
    pub build: Build,
    /// Processes at a time, at least 1.
    pub jobs: usize,
}

/// How the engine is built. A seed is the same run in every build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Build {
    /// Fast.
    #[default]
    Release,
    /// With debug assertions, and without optimisations.
    Debug,
}

impl Settings {
    /// These seeds, as they are drawn, one process at a time.
    #[must_use]
    pub fn of(seeds: Range<u64>) -> Self {
        Self { seeds, mutant: None, scale: Scale::Drawn, build: Build::Release, jobs: 1 }
    }
}

/// Why nothing was run.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// Cargo could not be started.
    #[error("cannot start cargo: {0}; next: run it from a checkout, with cargo in the PATH")]
    NoCargo(io::Error),
    /// The engine does not build.
    #[error("the engine could not be built; cargo said why above")]
    Unbuilt,
    /// A process could not be started.
    #[error("cannot start {}: {error}", program.display())]
    Unstarted {
        /// Which.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Builds the engine and runs it once for each seed; `finished` hears of each as it ends.
///
/// # Errors
/// Where it cannot be built or started. A run that crashes is an [`Outcome`] with a failure.
pub fn run(settings: &Settings, mut finished: impl FnMut(Outcome)) -> Result<(), LaunchError> {
    let program = build(settings.mutant.is_some(), settings.build)?;
    let next = AtomicU64::new(settings.seeds.start);
    let unstarted = Mutex::new(None);
    let (told, outcomes) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..settings.jobs.max(1) {
            let (told, next, program, unstarted) = (told.clone(), &next, &program, &unstarted);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= settings.seeds.end {
                        return;
                    }
                    match run_one(program, seed, settings) {
                        // Nobody listens any more only where another process could not be started.
                        Ok(outcome) => drop(told.send(outcome)),
                        Err(error) => {
                            let mut first = unstarted.lock().unwrap_or_else(PoisonError::into_inner);
                            first.get_or_insert(error);
                            return;
                        }
                    }
                }
            });
        }
        drop(told);
        outcomes.into_iter().for_each(&mut finished);
    });
    match unstarted.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(()),
        Some(error) => Err(LaunchError::Unstarted { program, error }),
    }
}

/// The command that shows a seed's run line by line.
#[must_use]
pub fn replay_command(seed: u64, settings: &Settings) -> String {
    let mutant = settings.mutant.as_ref().map(|mutant| format!(" --mutant {mutant}")).unwrap_or_default();
    let benchmark = if settings.scale == Scale::Benchmark { " --benchmark" } else { "" };
    format!("KOTOBA_LOG=kotoba_sim=info target/madsim/release/{PROGRAM} {seed}{mutant}{benchmark}")
}

/// The workspace's directory.
fn workspace() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Has cargo build the engine, in a target directory of its own, because every crate is built
/// another way. Returns the program.
fn build(with_mutants: bool, build: Build) -> Result<PathBuf, LaunchError> {
    let workspace = workspace();
    let (name, flags) = match with_mutants {
        false => ("madsim", "--cfg madsim"),
        true => ("madsim-mutants", "--cfg madsim --cfg kotoba_mutants"),
    };
    let target = workspace.join("target").join(name);
    let (profile, directory) = match build {
        Build::Release => ("release", "release"),
        Build::Debug => ("dev", "debug"),
    };
    let program = target.join(directory).join(PROGRAM);
    let first = if program.exists() { "" } else { " (the first time this takes some minutes)" };
    talk(&format!("building {PROGRAM} with {flags:?} in target/{name}/{directory}{first}"));
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--profile", profile, "--quiet", "--package", "kotoba-sim", "--bin", PROGRAM])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(&workspace)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .status()
        .map_err(LaunchError::NoCargo)?;
    if built.success() { Ok(program) } else { Err(LaunchError::Unbuilt) }
}

fn talk(text: &str) {
    // Nobody may listen.
    let _ = writeln!(io::stderr(), "{text}");
}

fn run_one(program: &Path, seed: u64, settings: &Settings) -> io::Result<Outcome> {
    let mut command = Command::new(program);
    command.arg(seed.to_string()).stdin(Stdio::null());
    if let Some(mutant) = &settings.mutant {
        command.args(["--mutant", mutant]);
    }
    if settings.scale == Scale::Benchmark {
        command.arg("--benchmark");
    }
    let output = command.output()?;
    let last = output.stdout.rsplit(|&byte| byte == b'\n').find(|line| !line.is_empty());
    if let Some(Ok(outcome)) = last.map(serde_json::from_slice) {
        return Ok(outcome);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let quoted = lines[lines.len().saturating_sub(LINES_QUOTED)..].join("\n");
    let message = format!("the process ended with {} and no outcome: {quoted}", output.status);
    Ok(Outcome {
        seed,
        failure: Some(Failure::assertion(message)),
        simulated_seconds: 0.0,
        cpu_seconds: 0.0,
        events: 0,
        trace: String::new(),
        faults: std::collections::BTreeMap::new(),
        situations: std::collections::BTreeMap::new(),
    })
}
