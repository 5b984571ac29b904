//! `corpus`: the runs that once failed.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    CommandError,
    machines::{MachineName, with_machine},
    output,
};
use crate::{choice::Schedule, profile::Scale, runner};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where they are.
    #[arg(default_value = "sim/corpus")]
    directory: PathBuf,
}

/// A run that once failed.
#[derive(Debug, Serialize, Deserialize)]
struct Case {
    /// What was wrong, in a sentence.
    cause: String,
    /// What was replicated.
    machine: MachineName,
    /// The choices.
    #[serde(flatten)]
    choices: Choices,
}

/// What a case is kept as.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Choices {
    /// A schedule: stays the same run for as long as choices keep their points.
    Schedule(Schedule),
    /// A seed: becomes another run when a profile is drawn another way.
    Seed(u64),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    let directory = &arguments.directory;
    let unreadable = |error| CommandError::new(format!("{} cannot be read: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .map_err(unreadable)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    if paths.is_empty() {
        return Err(CommandError::new(format!("{} holds no case", directory.display())));
    }
    let mut failed = false;
    for path in &paths {
        let text = fs::read_to_string(path).map_err(unreadable)?;
        let case: Case = serde_json::from_str(&text)
            .map_err(|error| CommandError::new(format!("{} is no case: {error}", path.display())))?;
        let outcome = with_machine!(case.machine, M => match &case.choices {
            Choices::Schedule(schedule) => runner::run_schedule::<M>(schedule, Scale::Drawn),
            Choices::Seed(seed) => runner::run_seed::<M>(*seed, Scale::Drawn),
        });
        if let Some(violation) = outcome.violation {
            failed = true;
            output::talk(&format!("{} fails again ({}): {violation}", path.display(), case.cause));
        }
    }
    output::data(&format!("{} runs that once failed", paths.len()));
    if failed { Err(CommandError::Failed) } else { Ok(()) }
}
