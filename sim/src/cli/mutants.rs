//! `mutants`: known bugs, put back one at a time. A simulator that does not find them finds nothing.

use std::path::PathBuf;
#[cfg(not(kotoba_mutants))]
use std::process::Command;

#[cfg(kotoba_mutants)]
mod markdown;
#[cfg(kotoba_mutants)]
mod table;

use super::{CommandError, Seeds, output::Format};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seeds to look at, in order, until one fails.
    #[arg(long, default_value = "0..1000000")]
    seeds: Seeds,
    /// Independent ranges of seeds, a million apart from the first seed on: a bug counts as found
    /// where it is found in each.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    ranges: u64,
    /// CPU seconds for each range.
    #[arg(long, default_value_t = 60.0)]
    cpu_seconds: f64,
    /// Do not make failing runs small.
    #[arg(long)]
    no_shrink: bool,
    /// Only those in this file, each with the seed that is known to find it: quick.
    #[arg(long, conflicts_with_all = ["only", "seeds", "ranges"])]
    recorded: Option<PathBuf>,
    /// A file for the table in Markdown, written again after each bug.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[cfg(kotoba_mutants)]
pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    table::run(arguments)
}

/// Builds this program again, with the bugs in it, and runs that.
#[cfg(not(kotoba_mutants))]
pub(super) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let _ = arguments;
    super::output::talk("building with the bugs in reach: target/mutants");
    let status = Command::new("cargo")
        .args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "kotoba-sim",
            "--target-dir",
            "target/mutants",
            "--",
        ])
        .args(std::env::args_os().skip(1))
        .env("RUSTFLAGS", "--cfg kotoba_mutants")
        .status()
        .map_err(|error| CommandError::new(format!("cargo cannot be started: {error}")))?;
    if status.success() { Ok(()) } else { Err(CommandError::Failed) }
}

/// Puts one bug into everything that runs from now on.
#[cfg(kotoba_mutants)]
pub(super) fn activate(id: Option<&str>) -> Result<(), CommandError> {
    let Some(id) = id else { return Ok(()) };
    kotoba_db_cluster::mutants::activate(Some(table::by_id(id)?));
    Ok(())
}

/// Puts one bug into everything that runs from now on: not in this build.
#[cfg(not(kotoba_mutants))]
pub(super) fn activate(id: Option<&str>) -> Result<(), CommandError> {
    match id {
        None => Ok(()),
        Some(_) => Err(CommandError::new(
            "this build holds no bugs; next: RUSTFLAGS=\"--cfg kotoba_mutants\" cargo run --release --target-dir target/mutants -p kotoba-sim -- ...",
        )),
    }
}
