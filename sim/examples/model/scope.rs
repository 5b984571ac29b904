//! How much is explored.

use std::fmt;

use kotoba_db_cluster::raft::{Ballot, Body, Message, Term};

/// What may still happen. Every number falls as steps use it up, so all runs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::Args)]
pub(crate) struct Scope {
    /// Replicas that vote
    #[arg(long, default_value_t = 3)]
    pub(crate) voters: u8,
    /// Replicas that only learn, until they are promoted
    #[arg(long, default_value_t = 0)]
    pub(crate) learners: u8,
    /// The state runs begin in
    #[arg(long, value_enum, default_value_t)]
    pub(crate) start: Start,
    /// Terms in which there may be elections, from the start on
    #[arg(long, default_value_t = 2)]
    pub(crate) terms: u8,
    /// Entries that clients propose
    #[arg(long, default_value_t = 2)]
    pub(crate) proposals: u8,
    /// Crashes, each followed by a restart
    #[arg(long, default_value_t = 1)]
    pub(crate) crashes: u8,
    /// Deliveries after which the message may be delivered again
    #[arg(long, default_value_t = 0)]
    pub(crate) duplicates: u8,
    /// Messages on their way from one replica to another; those before are lost
    #[arg(long, default_value_t = 2)]
    pub(crate) link: u8,
    /// Steps whose writes are not done at once
    #[arg(long, default_value_t = 1)]
    pub(crate) slow_writes: u8,
    /// Heartbeats that are due after the one with which a leader begins
    #[arg(long, default_value_t = 0)]
    pub(crate) beats: u8,
    /// Leaders that step down because they heard of no majority
    #[arg(long, default_value_t = 0)]
    pub(crate) step_downs: u8,
    /// Changes of the members: promotions of learners and removals of voters
    #[arg(long, default_value_t = 0)]
    pub(crate) changes: u8,
    /// Lose every heartbeat
    #[arg(long)]
    pub(crate) deaf: bool,
}

/// The state runs begin in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Start {
    /// A new group in term 1
    #[default]
    Genesis,
    /// As in figure 8 (b) of the Raft paper: replica 1 led term 2 and appended what nobody else has, replica 2
    /// led term 3 and did the same; both have restarted, and the next election is in term 4
    Figure8,
}

/// Scopes that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// Seconds, also without optimisation
    Smoke,
    /// Minutes
    Ci,
    /// Longer
    Large,
}

impl Suite {
    /// Its scopes by name, small ones first.
    pub(crate) fn scopes(self) -> Vec<(&'static str, Scope)> {
        let s = Scope::SMALLEST;
        let deaf = Scope { deaf: true, ..s };
        let crash = Scope { crashes: 1, slow_writes: 1, ..deaf };
        let figure8 = Scope { start: Start::Figure8, ..deaf };
        let members = Scope { voters: 2, learners: 1, changes: 2, ..deaf };
        let members_of_four = Scope { voters: 3, ..members };
        match self {
            Self::Smoke => vec![
                ("elections", deaf),
                ("crash", Scope { terms: 1, proposals: 1, ..crash }),
                ("duplicate", Scope { terms: 1, proposals: 1, duplicates: 1, link: 2, ..deaf }),
                ("beats", Scope { terms: 1, proposals: 1, ..s }),
                ("figure 8", figure8),
                ("members", members),
            ],
            Self::Ci => vec![
                ("members, crash", Scope { crashes: 1, ..members }),
                ("members", Scope { proposals: 1, ..members }),
                ("figure 8, stepping down", Scope { step_downs: 1, ..figure8 }),
                ("beats, slow disk", Scope { terms: 1, beats: 1, slow_writes: 1, ..s }),
                ("beats in one term", Scope { terms: 1, proposals: 1, beats: 1, ..s }),
                ("proposals", Scope { proposals: 2, ..deaf }),
                ("duplicate", Scope { proposals: 1, duplicates: 1, ..deaf }),
                ("reordering", Scope { terms: 1, proposals: 2, duplicates: 1, link: 2, ..deaf }),
                ("beats", s),
                ("slow disk", Scope { proposals: 1, slow_writes: 1, ..deaf }),
                ("crash", crash),
                ("four", Scope { voters: 4, terms: 1, duplicates: 2, ..deaf }),
                ("crash in one term", Scope { terms: 1, proposals: 2, slow_writes: 2, ..crash }),
                ("figure 8", Scope { crashes: 1, slow_writes: 1, ..figure8 }),
                ("members of four", Scope { changes: 1, ..members_of_four }),
                ("figure 8, beats", Scope { deaf: false, ..figure8 }),
            ],
            Self::Large => vec![
                ("crash", Scope { proposals: 1, ..crash }),
                ("two changes of members of four", members_of_four),
            ],
        }
    }
}

impl Scope {
    /// Two terms in a group of three with ill luck of no kind but lost and delayed messages.
    const SMALLEST: Self = Self {
        start: Start::Genesis,
        voters: 3,
        learners: 0,
        terms: 2,
        proposals: 0,
        crashes: 0,
        slow_writes: 0,
        duplicates: 0,
        link: 1,
        beats: 0,
        step_downs: 0,
        changes: 0,
        deaf: false,
    };

    /// Whether there may be entries that clients proposed.
    pub(crate) fn has_proposals(&self) -> bool {
        self.proposals > 0 || self.start == Start::Figure8
    }

    /// The last term an election may be in.
    pub(crate) fn last_term(&self) -> Term {
        let first = match self.start {
            Start::Genesis => 1,
            Start::Figure8 => 3,
        };
        Term(first + u64::from(self.terms))
    }

    /// Whether a message is sent at all: the messages of trials never are (see `time_out` in `world`).
    pub(crate) fn carries(&self, message: &Message) -> bool {
        match &message.body {
            Body::VoteAsk(ask) => ask.ballot == Ballot::Real,
            Body::VoteReply(reply) => reply.ballot == Ballot::Real,
            Body::Beat(_) => !self.deaf,
            Body::Append(_)
            | Body::AppendReply(_)
            | Body::BeatReply(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotReply(_) => true,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = match self.start {
            Start::Genesis => "genesis",
            Start::Figure8 => "figure8",
        };
        write!(f, "--start {start} --voters {}", self.voters)?;
        let numbers = [
            ("learners", self.learners),
            ("terms", self.terms),
            ("proposals", self.proposals),
            ("crashes", self.crashes),
            ("slow-writes", self.slow_writes),
            ("duplicates", self.duplicates),
            ("link", self.link),
            ("beats", self.beats),
            ("step-downs", self.step_downs),
            ("changes", self.changes),
        ];
        for (name, number) in numbers {
            write!(f, " --{name} {number}")?;
        }
        f.write_str(if self.deaf { " --deaf" } else { "" })
    }
}
