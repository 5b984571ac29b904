//! What happened, event by event: as a hash, always, and as lines to read, where somebody does.

use std::hash::{Hash, Hasher};

use kotoba_db_cluster::raft::{GroupId, Term};
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
    /// What a picture needs to know of it besides.
    pub detail: Detail,
    /// In words.
    pub text: String,
}

/// What a picture of a run needs to know of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Detail {
    /// Nothing.
    None,
    /// A replica of this group on the line's host has this role from now on.
    Role {
        /// The group.
        group: GroupId,
        /// The role.
        role: Role,
        /// Its term.
        term: Term,
    },
    /// A message, or several of a kind.
    Message {
        /// The group, where it is about one.
        group: Option<GroupId>,
        /// The term of its sender.
        term: Term,
        /// What it says.
        of: MessageKind,
    },
    /// The host's process runs from now on.
    Started,
    /// It does not run any more.
    Killed,
    /// It stands still until then.
    Paused(TrueTime),
    /// The host lost its data directory.
    Wiped,
    /// A link from one host to another is in this state from now on.
    Link(u32, u32, LinkCondition),
}

/// A role, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Role {
    /// Follows, or waits for a leader.
    Follower,
    /// Asks whether it would win.
    Trial,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped after a failed write.
    Faulted,
    /// Follows without a vote.
    Learner,
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum MessageKind {
    /// A vote is asked for.
    VoteAsk,
    /// A vote is given or refused.
    VoteReply,
    /// A log is extended.
    Append,
    /// An append is answered.
    AppendReply,
    /// A leader is alive.
    Beat,
    /// A beat is answered.
    BeatReply,
    /// A part of a snapshot.
    SnapshotChunk,
    /// A part of a snapshot is answered.
    SnapshotReply,
    /// Beats and answers to beats of several groups.
    Beats,
}

/// What a link does, as it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum LinkCondition {
    /// Lets everything through.
    Open,
    /// Loses everything.
    Cut,
    /// Holds everything.
    Clogged,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A message arrived.
    Message,
    /// A message was lost.
    Lost,
    /// A link changed.
    Link,
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
