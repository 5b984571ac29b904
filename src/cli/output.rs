//! Standard output is data, standard error is talk.

use std::io::{self, Write};

use serde_json::Value as Json;

use super::args::Output;
use crate::error::{ClusterError, ErrorCode};

/// Says a line to the person in front of the terminal.
pub(super) fn talk(line: &str) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Writes to standard output, as far as somebody reads it.
pub(super) fn write(bytes: &[u8]) -> Result<(), ClusterError> {
    let mut stdout = io::stdout().lock();
    whole(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Writes one line to standard output.
pub(super) fn line(text: &str) -> Result<(), ClusterError> {
    write(format!("{text}\n").as_bytes())
}

/// A reader that has seen enough (`| head`) is no error.
pub(super) fn whole(result: io::Result<()>) -> Result<(), ClusterError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ClusterError::new(ErrorCode::File, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a result in the form that was asked for.
pub(super) fn print(output: Output, json: &Json, table: impl FnOnce() -> String) -> Result<(), ClusterError> {
    match output {
        Output::Json => line(&json.to_string()),
        Output::Table => line(table().trim_end_matches('\n')),
    }
}

/// Columns as wide as their widest cell, two blanks apart; the last one is as wide as it happens to be.
/// Control characters are shown by their escapes: what a graph holds must not steer the terminal.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
    let mut widths = Vec::new();
    for row in &rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        let mut gap = 0;
        for (width, cell) in widths.iter().zip(row) {
            line.extend(std::iter::repeat_n(' ', gap));
            line.push_str(cell);
            gap = width - cell.chars().count() + 2;
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The text with its control characters as escapes.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A row from anything that prints.
macro_rules! row {
    ($($cell:expr),* $(,)?) => { vec![$($cell.to_string()),*] };
}
pub(super) use row;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_by_characters() {
        let rows = [row!["id", "name"], row![7, "é"], row![123, ""]];
        assert_eq!(columns(&rows), "id   name\n7    é\n123\n");
    }

    #[test]
    fn a_cell_may_be_of_any_length() {
        let long = "x".repeat(70_000);
        let rows = [row!["a", long], row![long, "b"]];
        let text = columns(&rows);
        assert_eq!(text.lines().next(), Some(format!("a{}{long}", " ".repeat(70_001)).as_str()));
        assert!(text.ends_with("x  b\n"));
    }

    #[test]
    fn what_is_stored_does_not_steer_the_terminal() {
        assert_eq!(columns(&[row!["\u{1b}[31mred\r\n", "é\u{9b}"]]), "\\u{1b}[31mred\\r\\n  é\\u{9b}\n");
    }
}
