//! The command line of the process that runs one seed.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;

use super::run::{Settings, run};
use crate::profile::Scale;

/// Runs one seed and prints what it came to as one line of JSON.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed.
    seed: u64,
    /// A mutant to run as.
    #[arg(long)]
    mutant: Option<String>,
    /// Five nodes, one partition, a minute of faults: what speed is measured with.
    #[arg(long)]
    benchmark: bool,
    /// A file for what clients asked and were told, as `docs/histories.md` describes.
    #[arg(long)]
    history: Option<PathBuf>,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let Arguments { seed, mutant, benchmark, history } = Arguments::parse();
    log_to_stderr();
    if let Some(mutant) = mutant
        && !activate(&mutant)
    {
        let what = format!("this build has no mutant {mutant:?}");
        // Nobody may listen.
        let _ = writeln!(io::stderr(), "{what}");
        return ExitCode::from(2);
    }
    let scale = if benchmark { Scale::Benchmark } else { Scale::Drawn };
    let outcome = run(&Settings { seed, scale, history });
    let line = serde_json::to_string(&outcome).expect("texts and numbers always become JSON");
    if writeln!(io::stdout(), "{line}").is_err() {
        return ExitCode::from(2);
    }
    ExitCode::from(u8::from(outcome.failure.is_some()))
}

/// Puts a known bug into the product. Returns whether this build has it.
#[cfg(kotoba_mutants)]
fn activate(id: &str) -> bool {
    use kotoba_db_cluster::mutants;
    let mutant = mutants::Mutant::by_id(id);
    mutants::activate(mutant);
    mutant.is_some()
}

/// Only builds with `--cfg kotoba_mutants` have any.
#[cfg(not(kotoba_mutants))]
fn activate(_id: &str) -> bool {
    false
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KOTOBA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(io::stderr);
    log.init();
}
