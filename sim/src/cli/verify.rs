//! `verify`: is a seed the same run everywhere?

use std::{collections::BTreeMap, ops::Range, path::PathBuf, process::Command};

use super::{CommandError, Seeds, engines::Engine, machines::MachineName, output};
use crate::madsim::launch::{self, Build};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The seeds.
    seeds: Seeds,
    /// What is replicated.
    #[arg(long, value_enum, default_value_t)]
    machine: MachineName,
    /// What is simulated. The one that runs the whole program is run twice, and as a debug build.
    #[arg(long, value_enum, default_value_t)]
    engine: Engine,
    /// Another build of this program to compare with, a debug build for instance. Without it cargo
    /// is asked for one.
    #[arg(long)]
    other: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    match arguments.engine {
        Engine::World => verify_world(arguments),
        Engine::Madsim => verify_madsim(&arguments.seeds),
    }
}

/// Each seed is a process of its own already.
fn verify_madsim(Seeds(seeds): &Seeds) -> Result<(), CommandError> {
    let first = traces(seeds, Build::Release)?;
    for (build, what) in [(Build::Release, "in another process"), (Build::Debug, "in a debug build")] {
        let found = traces(seeds, build)?;
        if let Some((seed, (one, other))) =
            first.iter().find_map(|(seed, one)| Some((seed, (one, found.get(seed).filter(|&o| o != one)?))))
        {
            output::talk(&format!("seed {seed} is another run {what}: {one} became {other}"));
            return Err(CommandError::Failed);
        }
        if first.len() != found.len() {
            return Err(CommandError::new(format!("not every seed was run {what}")));
        }
    }
    output::data(&format!(
        "{} seeds: the same hash in another process and in a debug build",
        seeds.end - seeds.start
    ));
    Ok(())
}

/// The hash and the count of events of each seed.
fn traces(seeds: &Range<u64>, build: Build) -> Result<BTreeMap<u64, String>, CommandError> {
    let mut traces = BTreeMap::new();
    let settings = launch::Settings { build, ..launch::Settings::of(seeds.clone()) };
    launch::run(&settings, |outcome| {
        traces.insert(outcome.seed, format!("{} {}", outcome.trace, outcome.events));
    })
    .map_err(CommandError::new)?;
    Ok(traces)
}

fn verify_world(arguments: &Arguments) -> Result<(), CommandError> {
    let own = std::env::current_exe().map_err(CommandError::new)?;
    let seeds = &arguments.seeds.0;
    let range = format!("{}..{}", seeds.start, seeds.end);
    let together = hashes(&mut Command::new(&own), &range, arguments.machine)?;
    let mut alone = String::new();
    for seed in seeds.clone() {
        alone += &hashes(&mut Command::new(&own), &seed.to_string(), arguments.machine)?;
    }
    let mut other = match &arguments.other {
        Some(path) => Command::new(path),
        None => {
            let mut cargo = Command::new("cargo");
            cargo.args(["run", "--quiet", "--package", "kotoba-sim", "--"]);
            cargo
        }
    };
    let other = hashes(&mut other, &range, arguments.machine)?;
    for (what, found) in [("alone in a process of their own", &alone), ("in the other build", &other)] {
        for (expected, found) in together.lines().zip(found.lines()) {
            if expected != found {
                output::talk(&format!("a seed is another run {what}: {expected} became {found}"));
                return Err(CommandError::Failed);
            }
        }
        if together.lines().count() != found.lines().count() {
            return Err(CommandError::new(format!("not every seed was run {what}")));
        }
    }
    output::data(&format!(
        "{} seeds: the same hash together, alone in a process of their own, and in the other build",
        seeds.end - seeds.start
    ));
    Ok(())
}

fn hashes(program: &mut Command, seeds: &str, machine: MachineName) -> Result<String, CommandError> {
    let output = program
        .args(["hash", seeds, "--machine", machine.name()])
        .output()
        .map_err(|error| CommandError::new(format!("another process cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(CommandError::new(String::from_utf8_lossy(&output.stderr)));
    }
    String::from_utf8(output.stdout).map_err(CommandError::new)
}
