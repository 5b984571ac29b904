//! The kill table.

use std::{fs, ops::Range, path::Path, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use kotoba_db_cluster::mutants::{Layer, Mutant, activate};
use serde::Serialize;

use super::{Arguments, markdown};
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

/// Seeds between the beginnings of two ranges.
const RANGE_SEEDS: u64 = 1_000_000;

/// One bug, and what became of it.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) machine: MachineName,
    /// In every range.
    pub(super) killed: bool,
    pub(super) hunts: Vec<Hunt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shrunk_choices: Option<usize>,
}

/// One range of seeds, up to the first that shows the bug.
#[derive(Debug, Serialize)]
pub(super) struct Hunt {
    first_seed: u64,
    /// The check that failed, and the seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<(Check, u64)>,
    pub(super) seeds: u64,
    pub(super) simulated_seconds: f64,
    pub(super) cpu_seconds: f64,
}

impl Row {
    /// The range that took longest.
    pub(super) fn worst(&self) -> &Hunt {
        let worst = self.hunts.iter().max_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds));
        worst.expect("there is at least one range")
    }

    /// How often the bug was found.
    pub(super) fn found(&self) -> usize {
        self.hunts.iter().filter(|hunt| hunt.found.is_some()).count()
    }

    /// The checks that found it, those that did so most often first.
    pub(super) fn checks(&self) -> Vec<(Check, usize)> {
        let mut counts: Vec<(Check, usize)> = Vec::new();
        for (check, _) in self.hunts.iter().filter_map(|hunt| hunt.found) {
            match counts.iter_mut().find(|(known, _)| *known == check) {
                Some((_, count)) => *count += 1,
                None => counts.push((check, 1)),
            }
        }
        counts.sort_by_key(|&(check, count)| (std::cmp::Reverse(count), check));
        counts
    }
}

/// The bug of this name.
pub(super) fn by_id(id: &str) -> Result<Mutant, CommandError> {
    Mutant::by_id(id).ok_or_else(|| CommandError::new(format!("there is no bug {id}")))
}

pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    runner::silence_panics();
    let plan = plan(arguments)?;
    let bar = progress(plan.len() as u64);
    let mut rows = Vec::new();
    for (mutant, ranges) in plan {
        bar.set_message(mutant.id());
        let row = hunt(mutant, &ranges, arguments);
        match arguments.output {
            Format::Json => output::json(&row),
            Format::Table => bar.suspend(|| output::data(&show(&row))),
        }
        rows.push(row);
        if let Some(path) = &arguments.markdown {
            let text = markdown::table(&rows);
            fs::write(path, text)
                .map_err(|error| CommandError::new(format!("{}: {error}", path.display())))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let survived: Vec<_> = rows.iter().filter(|row| !row.killed).map(|row| row.id).collect();
    output::talk(&format!("{} of {} bugs were found", rows.len() - survived.len(), rows.len()));
    if survived.is_empty() {
        return Ok(());
    }
    output::talk(&format!("survived: {}", survived.join(", ")));
    Err(CommandError::Failed)
}

/// A bar that shows itself only to people.
fn progress(bugs: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos} of {len} bugs, {elapsed}");
    ProgressBar::new(bugs).with_style(style.expect("the template is sound"))
}

/// Which bugs are looked for, and where.
fn plan(arguments: &Arguments) -> Result<Vec<(Mutant, Vec<Range<u64>>)>, CommandError> {
    if let Some(path) = &arguments.recorded {
        return recorded(path);
    }
    let chosen: Result<Vec<_>, _> = arguments.only.iter().map(|id| by_id(id)).collect();
    let chosen = chosen?;
    let chosen = if chosen.is_empty() { Mutant::ALL.to_vec() } else { chosen };
    let Range { start, end } = arguments.seeds.0;
    let ranges: Vec<_> = match arguments.ranges {
        1 => vec![start..end],
        many => {
            (0..many).map(|at| start + at * RANGE_SEEDS).map(|start| start..start + RANGE_SEEDS).collect()
        }
    };
    Ok(chosen.into_iter().map(|mutant| (mutant, ranges.clone())).collect())
}

/// What shows a bug of this layer.
fn machine_for(mutant: Mutant) -> MachineName {
    match mutant.layer() {
        Layer::Graph => MachineName::Graph,
        Layer::Raft | Layer::MultiRaft | Layer::Log => MachineName::Registers,
    }
}

fn hunt(mutant: Mutant, ranges: &[Range<u64>], arguments: &Arguments) -> Row {
    let machine = machine_for(mutant);
    activate(Some(mutant));
    let hunts: Vec<_> =
        ranges.iter().map(|range| hunt_in(machine, range.clone(), arguments.cpu_seconds)).collect();
    let killed = hunts.iter().all(|hunt| hunt.found.is_some());
    let mut row =
        Row { id: mutant.id(), title: mutant.title(), machine, killed, hunts, shrunk_choices: None };
    let found = row.hunts.iter().find_map(|hunt| hunt.found);
    if let Some((_, seed)) = found.filter(|_| !arguments.no_shrink) {
        let seed = Seeded::new(seed);
        let small = with_machine!(machine, M => runner::shrink::<M>(seed, Scale::Drawn, Effort::default()));
        row.shrunk_choices = small.map(|small| small.schedule.choices.len());
    }
    activate(None);
    row
}

fn hunt_in(machine: MachineName, seeds: Range<u64>, cpu_seconds: f64) -> Hunt {
    let patience = Duration::from_secs_f64(cpu_seconds);
    let began = cpu_time();
    let mut hunt =
        Hunt { first_seed: seeds.start, found: None, seeds: 0, simulated_seconds: 0.0, cpu_seconds: 0.0 };
    for seed in seeds {
        let outcome = with_machine!(machine, M => runner::run_seed::<M>(seed, Scale::Drawn));
        hunt.seeds += 1;
        hunt.simulated_seconds += outcome.simulated.as_secs_f64();
        hunt.found = outcome.violation.map(|violation| (violation.check, seed));
        if hunt.found.is_some() || cpu_time().saturating_sub(began) > patience {
            break;
        }
    }
    hunt.cpu_seconds = cpu_time().saturating_sub(began).as_secs_f64();
    hunt
}

fn show(row: &Row) -> String {
    let check = row.checks().first().map_or("survived".to_owned(), |(check, _)| check.to_string());
    let choices = row.shrunk_choices.map_or_else(String::new, |choices| format!(", {choices} choices"));
    let ranges = match row.hunts.len() {
        1 => String::new(),
        all => format!(" {:>2}/{all}", row.found()),
    };
    let worst = row.worst();
    let seed = worst.found.map_or_else(String::new, |(_, seed)| format!(" seed {seed}"));
    format!(
        "{:<4}{ranges} {check:<22} {:>6.1} s CPU, {:>7.0} s simulated, {:>5} seeds{seed}{choices}  {}",
        row.id, worst.cpu_seconds, worst.simulated_seconds, worst.seeds, row.title
    )
}

/// Reads a file of lines such as `B03 17`: a bug, and a seed that finds it.
fn recorded(path: &Path) -> Result<Vec<(Mutant, Vec<Range<u64>>)>, CommandError> {
    let wrong = |what: &dyn std::fmt::Display| CommandError::new(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| wrong(&error))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (id, seed) =
                line.split_once(' ').ok_or_else(|| wrong(&format!("{line:?} is no bug and seed")))?;
            let seed: u64 = seed.trim().parse().map_err(|_| wrong(&format!("{line:?} names no seed")))?;
            Ok((by_id(id)?, Vec::from([seed..seed + 1])))
        })
        .collect()
}
