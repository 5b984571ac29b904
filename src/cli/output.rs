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

/// Columns as wide as their widest cell, two blanks apart.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let padded: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
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
}
