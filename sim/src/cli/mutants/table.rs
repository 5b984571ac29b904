//! The kill table.

use std::{fs, path::Path, time::Duration};

use kotoba_db_cluster::mutants::{Layer, Mutant, activate};
use serde::Serialize;

use super::Arguments;
use crate::{
    check::Check,
    choice::Seeded,
    cli::{
        CommandError,
        machines::{MachineName, with_machine},
        output::{self, Format},
    },
    profile::Scale,
    runner::{self, cpu_time},
    shrink::Effort,
};

/// One bug, and what became of it.
#[derive(Debug, Serialize)]
struct Row {
    id: &'static str,
    killed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check>,
    seeds: u64,
    cpu_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    shrunk_choices: Option<usize>,
    #[serde(skip)]
    seed: u64,
    #[serde(skip)]
    title: &'static str,
}

/// The bug of this name.
pub(super) fn by_id(id: &str) -> Result<Mutant, CommandError> {
    Mutant::by_id(id).ok_or_else(|| CommandError::new(format!("there is no bug {id}")))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    let plan: Vec<(Mutant, std::ops::Range<u64>)> = match &arguments.recorded {
        Some(path) => recorded(path)?,
        None => {
            let chosen: Result<Vec<_>, _> = arguments.only.iter().map(|id| by_id(id)).collect();
            let chosen = chosen?;
            let all = if chosen.is_empty() { Mutant::ALL.to_vec() } else { chosen };
            all.into_iter().map(|mutant| (mutant, arguments.seeds.0.clone())).collect()
        }
    };
    let mut survived = Vec::new();
    for (mutant, seeds) in plan {
        let row = hunt(mutant, seeds, arguments);
        match arguments.output {
            Format::Json => output::json(&row),
            Format::Table => output::data(&show(&row)),
        }
        if !row.killed {
            survived.push(row.id);
        }
    }
    if survived.is_empty() {
        return Ok(());
    }
    output::talk(&format!("survived: {}", survived.join(", ")));
    Err(CommandError::Failed)
}

/// What shows a bug of this layer.
fn machine_for(mutant: Mutant) -> MachineName {
    match mutant.layer() {
        Layer::Graph => MachineName::Graph,
        Layer::Raft | Layer::MultiRaft | Layer::Log => MachineName::Registers,
    }
}

fn hunt(mutant: Mutant, seeds: std::ops::Range<u64>, arguments: &Arguments) -> Row {
    let machine = machine_for(mutant);
    let patience = Duration::from_secs_f64(arguments.cpu_seconds);
    activate(Some(mutant));
    let began = cpu_time();
    let mut row = Row {
        id: mutant.id(),
        killed: false,
        check: None,
        seeds: 0,
        cpu_seconds: 0.0,
        shrunk_choices: None,
        seed: 0,
        title: mutant.title(),
    };
    for seed in seeds {
        let outcome = with_machine!(machine, M => runner::run_seed::<M>(seed, Scale::Drawn));
        row.seeds += 1;
        if let Some(violation) = outcome.violation {
            (row.killed, row.check, row.seed) = (true, Some(violation.check), seed);
            break;
        }
        if cpu_time().saturating_sub(began) > patience {
            break;
        }
    }
    row.cpu_seconds = cpu_time().saturating_sub(began).as_secs_f64();
    if row.killed && !arguments.no_shrink {
        let seed = Seeded::new(row.seed);
        let found = with_machine!(machine, M => runner::shrink::<M>(seed, Scale::Drawn, Effort::default()));
        row.shrunk_choices = found.map(|found| found.schedule.choices.len());
    }
    activate(None);
    row
}

fn show(row: &Row) -> String {
    let check = row.check.map_or("survived".to_owned(), |check| check.to_string());
    let choices = row.shrunk_choices.map_or_else(String::new, |choices| format!("{choices} choices"));
    format!(
        "{:<4} {check:<22} seed {:>6} after {:>5} seeds, {:>6.1} s  {choices:<12}  {}",
        row.id, row.seed, row.seeds, row.cpu_seconds, row.title
    )
}

/// Reads a file of lines such as `B03 17`: a bug, and a seed that finds it.
fn recorded(path: &Path) -> Result<Vec<(Mutant, std::ops::Range<u64>)>, CommandError> {
    let wrong = |what: &dyn std::fmt::Display| CommandError::new(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (id, seed) =
                line.split_once(' ').ok_or_else(|| wrong(&format!("{line:?} is no bug and seed")))?;
            let seed: u64 = seed.trim().parse().map_err(|_| wrong(&format!("{line:?} names no seed")))?;
            Ok((by_id(id)?, seed..seed + 1))
        })
        .collect()
}
