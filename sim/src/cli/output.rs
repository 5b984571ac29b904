//! Printing.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the one place that prints")]

use clap::ValueEnum;
use serde::Serialize;

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one object, on the last line.
    Json,
}

/// Prints a line of data.
pub(super) fn data(line: &str) {
    println!("{line}");
}

/// Prints an object as a line.
pub(super) fn json(value: &impl Serialize) {
    println!("{}", serde_json::to_string(value).expect("reports are plain data"));
}

/// Says something to whoever sits in front of it.
pub(super) fn talk(line: &str) {
    eprintln!("{line}");
}
