//! What a replica may say, given which of its writes were *reported* durable.
//!
//! The shell's disk is ahead of the reports, so it would let a promise pass that the replica had no right
//! to give yet. Here each write counts once it and every write before it were reported.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kotoba_db_cluster::{
    limits::{
        APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, INFLIGHT_MESSAGES_MAX, RUN_BYTES_MAX, SNAPSHOT_CHUNK_BYTES,
        SNAPSHOT_CHUNKS_IN_FLIGHT_MAX, UNCOMMITTED_BYTES_MAX,
    },
    raft::{
        AppendOutcome, Ballot, Body, HardState, Index, Message, Output, Position, ReadId, Refusal, ReplicaId,
        RoleKind, Term, WritePlan, WriteToken,
    },
};

use super::{OWN, shell::Shell};

/// What was promised, and what may be.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Term and vote that would certainly survive a crash.
    hard_state: HardState,
    start: Position,
    /// Entries that would, with their terms.
    entries: BTreeMap<Index, Term>,
    /// Writes asked for, in order, and whether each was reported.
    writes: VecDeque<(WritePlan, bool)>,
    /// Whom this replica voted for, over all its lives.
    votes: BTreeMap<Term, ReplicaId>,
    /// The last index that a leader said anything about, by leader and term.
    told: BTreeMap<(ReplicaId, Term), Index>,
    committed: Index,
    reads: BTreeSet<ReadId>,
}

impl Promises {
    pub(super) fn of(shell: &Shell) -> Self {
        let mut promises = Self::default();
        promises.restarted(shell);
        promises
    }

    /// After a restart, what the disk holds is what survived.
    pub(super) fn restarted(&mut self, shell: &Shell) {
        self.hard_state = shell.disk.hard_state;
        self.start = shell.disk.start.position;
        self.entries = shell.disk.entries.iter().map(|(&index, entry)| (index, entry.term)).collect();
        self.writes.clear();
        // What was only heard to be committed is forgotten; what was applied is not.
        self.committed = shell.disk.state.applied;
        self.reads.clear();
    }

    /// A remote says this.
    pub(super) fn told(&mut self, message: &Message) {
        let reaches = match &message.body {
            Body::Append(append) => append.entries.last().unwrap_or(append.prev).index,
            Body::SnapshotChunk(chunk) => chunk.snapshot.meta.position.index,
            Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotReply(_) => return,
        };
        let told = self.told.entry((message.from, message.term)).or_default();
        *told = reaches.max(*told);
    }

    /// A read is asked for.
    pub(super) fn asked(&mut self, read: ReadId) {
        self.reads.insert(read);
    }

    /// A write is about to be reported durable.
    pub(super) fn reported(&mut self, token: WriteToken) {
        for (plan, reported) in &mut self.writes {
            *reported |= plan.token == token;
        }
        while let Some((_, true)) = self.writes.front() {
            let (plan, _) = self.writes.pop_front().expect("looked at just now");
            self.settle(&plan);
        }
    }

    fn settle(&mut self, plan: &WritePlan) {
        self.hard_state = plan.hard_state.unwrap_or(self.hard_state);
        if let Some(meta) = &plan.install {
            self.forget_to(meta.position);
        }
        if let Some(from) = plan.truncate_from {
            self.entries.retain(|&index, _| index < from);
        }
        if let Some(append) = &plan.append {
            let last = append.range.last().expect("an append has entries").index;
            for index in (append.range.first.0..=last.0).map(Index) {
                let term = append.range.runs.term_at(index).expect("inside the range");
                self.entries.insert(index, term);
            }
        }
    }

    fn forget_to(&mut self, position: Position) {
        if position.index > self.start.index {
            self.start = position;
            self.entries.retain(|&index, _| index > position.index);
        }
    }

    fn last(&self) -> Position {
        self.entries.last_key_value().map_or(self.start, |(&index, &term)| Position::new(index, term))
    }

    fn covers(&self, index: Index) -> bool {
        index <= self.start.index || self.entries.contains_key(&index)
    }

    /// Checks everything the replica said in answer to one input.
    pub(super) fn check(&mut self, shell: &Shell, outputs: &[Output]) {
        let faulted = shell.replica().status().role.role == RoleKind::Faulted;
        for output in outputs {
            match output {
                Output::Write(plan) => self.written(plan),
                Output::Send(message) => {
                    assert!(!faulted, "a replica that stopped says nothing");
                    self.said(message);
                }
                Output::Commit(index) => {
                    assert!(*index > self.committed, "a commit index rises");
                    assert!(self.covers(*index), "{index} may be applied, but is not durable here");
                    self.committed = *index;
                }
                Output::Purge(meta) => {
                    let applied = shell.state.applied;
                    assert!(meta.position.index <= applied, "only what was applied is purged");
                    self.forget_to(meta.position);
                }
                Output::ReadReady { read, index } => {
                    assert!(self.reads.remove(read), "a read is answered once");
                    assert!(
                        *index <= shell.replica().status().commit,
                        "a read is served of what is committed"
                    );
                }
                Output::ReadRefused { read, .. } => {
                    assert!(self.reads.remove(read), "a read is answered once");
                }
                Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::RoleChanged(_)
                | Output::Members(_)
                | Output::BuildSnapshot { .. }
                | Output::StoreChunk { .. }
                | Output::Faulted(_) => {}
            }
        }
        check_limits(outputs);
    }

    fn written(&mut self, plan: &WritePlan) {
        if let Some(from) = plan.truncate_from {
            assert!(from > self.committed, "State Machine Safety: {from} is committed and truncated");
        }
        if let Some(meta) = &plan.install {
            assert!(meta.position.index > self.committed, "a snapshot never takes a state back");
            self.committed = meta.position.index;
        }
        self.writes.push_back((plan.clone(), false));
    }

    fn said(&mut self, message: &Message) {
        let Message { from, to, term, body } = message;
        assert_eq!(*from, OWN, "a replica speaks for itself");
        assert_ne!(*to, OWN, "a replica does not write to itself");
        let known = self.hard_state;
        match body {
            Body::VoteReply(reply) if reply.ballot == Ballot::Real && reply.granted => {
                assert_eq!(
                    known,
                    HardState { term: *term, vote: Some(*to) },
                    "a vote is durable before it is given"
                );
                self.votes_for(*term, *to);
            }
            Body::VoteAsk(ask) if ask.ballot == Ballot::Real => {
                let own = HardState { term: *term, vote: Some(OWN) };
                assert_eq!(known, own, "a candidacy is durable before it is announced");
                assert_eq!(ask.last, self.last(), "a candidate boasts only of what is durable");
                self.votes_for(*term, OWN);
            }
            Body::AppendReply(reply) => {
                assert_eq!(known.term, *term, "a term is durable before it is answered in");
                if let AppendOutcome::Accepted(index) = reply.outcome {
                    assert!(self.covers(index), "{index} is acknowledged, but not durable");
                    let told = self.told.get(&(*to, *term)).copied().unwrap_or_default();
                    assert!(
                        index <= told.max(self.committed),
                        "{index} is acknowledged to one who never sent it"
                    );
                }
            }
            Body::BeatReply(_) | Body::SnapshotReply(_) => {
                assert_eq!(known.term, *term, "a term is durable before it is answered in");
            }
            Body::Append(_) | Body::Beat(_) | Body::SnapshotChunk(_) => {
                let own = HardState { term: *term, vote: Some(OWN) };
                assert_eq!(known, own, "a leader's vote for itself is durable");
            }
            // A trial promises nothing, and neither does a refusal.
            Body::VoteAsk(_) | Body::VoteReply(_) => {}
        }
    }

    fn votes_for(&mut self, term: Term, candidate: ReplicaId) {
        let first = *self.votes.entry(term).or_insert(candidate);
        assert_eq!(first, candidate, "Election Safety: two votes in {term}");
    }
}

/// Bounds of what one input may bring forth.
fn check_limits(outputs: &[Output]) {
    let mut appends: BTreeMap<ReplicaId, usize> = BTreeMap::new();
    let mut chunks: BTreeMap<ReplicaId, u64> = BTreeMap::new();
    for output in outputs {
        let Output::Send(message) = output else { continue };
        match &message.body {
            Body::Append(append) => {
                assert!(append.configurations.is_empty(), "a sender leaves configurations to the receiver");
                let range = &append.entries;
                // A single run may be one large entry, or a long run that its bytes are spread over.
                let single = range.count() <= 1 || range.bytes <= UNCOMMITTED_BYTES_MAX.max(RUN_BYTES_MAX);
                assert!(range.bytes <= APPEND_BYTES_MAX || single, "{range:?} has too many bytes");
                assert!(range.count() <= APPEND_ENTRIES_MAX, "{range:?} has too many entries");
                *appends.entry(message.to).or_default() += 1;
            }
            Body::SnapshotChunk(chunk) => {
                assert!((1..=SNAPSHOT_CHUNK_BYTES).contains(&chunk.length), "{chunk:?}");
                assert!(chunk.offset + chunk.length <= chunk.snapshot.bytes, "{chunk:?}");
                *chunks.entry(message.to).or_default() += 1;
            }
            Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotReply(_) => {}
        }
    }
    // A window that was emptied by this very input is filled once more, and a probe or a question may come along.
    assert!(appends.values().all(|&count| count <= INFLIGHT_MESSAGES_MAX + 2), "{appends:?}");
    assert!(chunks.values().all(|&count| count <= SNAPSHOT_CHUNKS_IN_FLIGHT_MAX + 1), "{chunks:?}");
}

/// What an output shows to have been reached.
pub(super) fn situation_of(output: &Output) -> Option<&'static str> {
    Some(match output {
        Output::Write(plan) if plan.install.is_some() => "a snapshot installed",
        Output::Write(plan) if plan.truncate_from.is_some() => "a truncation",
        Output::Send(message) => match &message.body {
            Body::VoteReply(reply) if reply.granted => "a vote given",
            Body::AppendReply(_) => "an acknowledgement",
            Body::SnapshotChunk(_) => "a leader's chunk sent",
            _ => return None,
        },
        Output::Commit(_) => "a commit",
        Output::RoleChanged(report) if report.role == RoleKind::Leader => "a leader",
        Output::ReadReady { .. } => "a read served",
        Output::ReadRefused { reason: Refusal::LeadershipLost, .. } => "a read given up",
        Output::Members(_) => "a change of members",
        Output::Purge(_) => "a purge",
        _ => return None,
    })
}
