//! A replica without what only its history has left in it, for a model checker.
//!
//! A checker that enumerates every behaviour must recognise a state it has met before. Two replicas that
//! will answer every input alike may still differ in numbers: the time of day, how often they drew, how
//! many writes they have done. [`Replica::abstract_history`] takes those out. It exists only with the feature
//! `model`, and no production code calls it.
//!
//! # Why nothing that is unsafe is lost
//!
//! Every reachable state of a real replica, and every step from it, has its image under the abstraction,
//! so a property that holds of all abstract states holds of all real ones:
//!
//! - **Time.** Instants answer a few questions only: is the deadline reached (`tick`), is a beat due, is a check
//!   of the majority due and passed (`leader_tick`, `still_leads`), was the leader heard of lately (`is_content`),
//!   does the own disk answer (`still_leads`), did a snapshot move lately. Each is a yes or a no. Whoever steps the abstract replica chooses the answer
//!   with one of three times: [`Replica::SOON`], at which nothing is overdue, [`Replica::at_beat`], at which a
//!   beat is and nothing else, [`Replica::LATE`], at which everything is. No real input depends on another
//!   mixture: a tick of a leader whose check is due steps down, or passes and goes on to the beat; any
//!   other input looks at one answer. Clocks of different replicas are not compared, so each step may choose
//!   freely: that allows more than any real clocks do, never less.
//! - **Chance.** Draws set deadlines and nothing else.
//! - **Writes.** Sequence numbers are compared with each other only; they are counted from the latest settled
//!   write, so the oldest write under way is always number 1.
//! - **Counters** are read by nobody inside.
//! - **Windows** are compared with limits: messages and bytes in flight, bytes not committed. A scope must be too
//!   small to reach one ([`crate::limits`]).
//! - **Votes** are counted, so the order in which they came is of no consequence.
//!
//! What stays is all the rest: role, term, vote, log, commit, configurations, what is known of every
//! follower, rounds, what is durable, and which messages wait for which write.

use super::{
    progress::{Progress, Stage},
    replica::Replica,
    role::{Candidate, Follower, Leader, Role},
    types::{Instant, Now},
};

impl Replica {
    /// A time at which nothing is overdue at an abstract replica.
    pub const SOON: Now = Now { monotonic: Instant(0), wall: None };

    /// A time at which everything is overdue.
    pub const LATE: Now = Now { monotonic: Instant(1 << 62), wall: None };

    /// A time at which an abstract leader's next beat is due, and nothing else.
    #[must_use]
    pub fn at_beat(&self) -> Now {
        Now { monotonic: Self::SOON.monotonic + self.settings.timing.heartbeat, wall: None }
    }

    /// Forgets times, draws and counts; the head of `abstraction.rs` says why that is sound. Outputs
    /// must be drained, time-outs longer than the interval of beats, and every later input handled at one of
    /// the three times.
    pub fn abstract_history(&mut self) {
        assert!(self.outputs.is_empty(), "drain poll_output to None before");
        let timing = self.settings.timing;
        assert!(timing.heartbeat < timing.election, "a beat comes before a time-out");
        self.draws = 0;
        self.counters = super::Counters::default();
        self.durability.abstract_history();
        let (beat, timeout) = (self.at_beat().monotonic, Self::SOON.monotonic + timing.election);
        match &mut self.role {
            Role::Follower(follower) => abstract_follower(follower, timeout),
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                abstract_candidate(candidate, timeout);
            }
            Role::Leader(leader) => abstract_leader(leader, beat, timeout),
            Role::Faulted(_) => {}
        }
    }
}

fn abstract_follower(follower: &mut Follower, timeout: Instant) {
    follower.deadline = timeout;
    if let Some(following) = &mut follower.leader {
        following.heard = Replica::SOON.monotonic;
    }
}

fn abstract_candidate(candidate: &mut Candidate, timeout: Instant) {
    candidate.deadline = timeout;
    candidate.votes.sort_unstable();
}

fn abstract_leader(leader: &mut Leader, beat: Instant, timeout: Instant) {
    leader.next_beat = beat;
    leader.quorum_check = timeout;
    leader.uncommitted.forget();
    for (_, progress) in &mut leader.followers {
        abstract_progress(progress);
    }
}

fn abstract_progress(progress: &mut Progress) {
    progress.heard = Replica::SOON.monotonic;
    match &mut progress.stage {
        Stage::Probe { .. } => {}
        Stage::Replicate { inflight } => inflight.forget(),
        Stage::Snapshot(sending) => sending.moved = Replica::SOON.monotonic,
    }
}
