//! The program: one file for each command. Standard output is data, standard error is talk.

mod corpus;
mod engines;
mod hash;
mod machines;
mod mutants;
mod output;
mod replay;
mod report;
mod run;
mod seeds;
mod shrink;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use seeds::Seeds;

/// Runs a simulated cluster in which everything breaks that can, and checks what must hold.
///
/// The same seed is always the same run. A run that fails prints the command that repeats it.
#[derive(Debug, Parser)]
#[command(name = "kotoba-sim", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a range of seeds. Exit status 0 only where every one of them passed.
    Run(run::Arguments),
    /// Run one seed, or a schedule, and print what happens, a line an event.
    Replay(replay::Arguments),
    /// Write a page that shows one run: hosts over time, messages, faults, and what failed.
    Report(report::Arguments),
    /// Make a failing run small: the fewest choices that still fail the same check.
    Shrink(shrink::Arguments),
    /// Run one seed in several processes and compare the hashes of all that happened.
    Verify(verify::Arguments),
    /// Put known bugs back, one at a time, and see whether the simulator finds them.
    Mutants(mutants::Arguments),
    /// Run what once failed.
    Corpus(corpus::Arguments),
    /// Print the hash of a run.
    #[command(hide = true)]
    Hash(hash::Arguments),
}

/// Why a command ended without success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// Something did not hold; it was printed.
    #[error("something did not hold")]
    Failed,
    /// The command could not be carried out.
    #[error("{0}")]
    Other(String),
}

impl CommandError {
    pub(crate) fn new(what: impl std::fmt::Display) -> Self {
        Self::Other(what.to_string())
    }
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
        Command::Shrink(arguments) => shrink::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Mutants(arguments) => mutants::run(&arguments),
        Command::Corpus(arguments) => corpus::run(&arguments),
        Command::Hash(arguments) => hash::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(CommandError::Failed) => ExitCode::FAILURE,
        Err(error @ CommandError::Other(_)) => {
            output::talk(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
