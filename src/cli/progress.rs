//! A progress bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// Plain lines a run prints at most, beside the last.
const PLAIN_LINES: u64 = 10;

/// Counts towards a known total.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(what, total));
        Self { what, total, done: AtomicU64::new(0), bar }
    }

    pub(super) fn one_more(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        match &self.bar {
            // The bar draws at its own pace; telling it each time would cost more than the operation.
            Some(bar) if done.is_multiple_of(64) || done == self.total => bar.set_position(done),
            Some(_) => {}
            None if done.is_multiple_of((self.total / PLAIN_LINES).max(1)) && self.total >= 1000 => {
                output::talk(&format!("{}: {done} of {}", self.what, self.total));
            }
            None => {}
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.set_position(self.done());
            bar.abandon();
        }
    }
}

fn bar(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    let template = "{msg:>8} {bar:40} {human_pos}/{human_len} {per_sec} eta {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
