//! What `status --watch` draws on a terminal: as much as fits, what needs attention first.

use std::io::{self, IsTerminal as _};

use crate::error::ClusterError;

use crate::cli::output;

/// Rows and columns where the terminal does not tell.
const USUAL_SIZE: (usize, usize) = (24, 80);

/// A terminal's other screen, drawn anew again and again. The terminal is as before when it is dropped.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    /// Takes the screen, where standard output is one.
    pub(super) fn take() -> Result<Option<Self>, ClusterError> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        // The other screen, without a cursor.
        output::write(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Some(Self(())))
    }

    /// How many lines of how many characters it shows now.
    pub(super) fn size(&self) -> (usize, usize) {
        match rustix::termios::tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => (size.ws_row.into(), size.ws_col.into()),
            Ok(_) | Err(_) => USUAL_SIZE,
        }
    }

    /// Shows these lines, from the top.
    pub(super) fn draw(&self, text: &str) -> Result<(), ClusterError> {
        output::write(frame(text, self.size()).as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        let _ = output::write(b"\x1b[?25h\x1b[?1049l");
    }
}

/// The bytes that draw a text over whatever is there, without a moment of emptiness. What does not fit is
/// cut: a line that wraps would push others off the screen.
fn frame(text: &str, (rows, columns): (usize, usize)) -> String {
    let mut frame = "\x1b[H".to_owned();
    for (at, line) in text.lines().take(rows).enumerate() {
        if at > 0 {
            frame.push_str("\r\n");
        }
        frame.extend(line.chars().take(columns));
        frame.push_str("\x1b[K");
    }
    frame + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_screen() {
        let text = "a long line\nb\nc\nd\n";
        assert_eq!(frame(text, (3, 6)), "\x1b[Ha long\x1b[K\r\nb\x1b[K\r\nc\x1b[K\x1b[J");
        assert_eq!(frame("", (3, 6)), "\x1b[H\x1b[J");
    }
}
