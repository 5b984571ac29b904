//! What happened, event by event: as a hash, always, and as lines to read, where somebody does.

use std::hash::{Hash, Hasher};

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::history::TrueTime;

/// Something a person may want to see.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub at: TrueTime,
    /// What kind of thing it is.
    pub kind: Kind,
    /// The host it happened to, where it happened to one.
    pub host: Option<u32>,
    /// The host a message came from.
    pub from: Option<u32>,
    /// When that message was sent.
    pub sent: Option<TrueTime>,
    /// In words.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A message arrived.
    Message,
    /// A replica changed its role.
    Role,
    /// Entries were committed.
    Commit,
    /// A disk did something.
    Disk,
    /// A process was started, killed, paused.
    Process,
    /// A fault of network, disk or clock began or ended.
    Fault,
    /// Members changed.
    Members,
    /// A snapshot was built, received, installed.
    Snapshot,
    /// A client asked or was answered.
    Client,
    /// The run entered another phase.
    Phase,
    /// A check failed.
    Violation,
}

/// A run's trace.
#[derive(Clone)]
pub struct Trace {
    hasher: Xxh3,
    events: u64,
    lines: Option<Vec<Line>>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace").field("events", &self.events).finish_non_exhaustive()
    }
}

impl Trace {
    /// A trace that only hashes.
    #[must_use]
    pub fn hashing() -> Self {
        Self { hasher: Xxh3::new(), events: 0, lines: None }
    }

    /// A trace that keeps lines too.
    #[must_use]
    pub fn reading() -> Self {
        Self { lines: Some(Vec::new()), ..Self::hashing() }
    }

    /// An event happened.
    pub(crate) fn event(&mut self, at: TrueTime, host: u32, what: &impl Hash) {
        self.events += 1;
        self.hasher.write_u64(at);
        self.hasher.write_u32(host);
        what.hash(&mut self.hasher);
    }

    /// Whether lines are kept: only then is it worth to make one.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: Line) {
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The hash of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.digest()
    }

    /// The lines.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }
}
