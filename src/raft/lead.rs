//! A leader's side of replication (Raft paper, section 5.3 and 5.4.2; thesis, section 10.2).
//!
//! Appends leave in parallel with the leader's own write; the leader counts itself only once that
//! write is durable.

use super::{
    contract::{AppendPlan, BusyReason, EntrySource, Output, Proposal, Refusal},
    durability::Change,
    log::TermRuns,
    message::{Append, AppendOutcome, AppendReply, Beat, BeatReply, Body, EntryRange},
    progress::{Progress, Stage, Window},
    quorum,
    replica::Replica,
    role::{Follower, Leader, Role},
    types::{Index, Now, Position, ReplicaId, Round},
};

impl Replica {
    /// Won an election: lead, and commit an entry of the new term, because nothing earlier can be
    /// known to be committed before (Raft paper, section 5.4.2).
    pub(super) fn lead(&mut self, now: Now) {
        self.become_leader(now);
        self.append_own(now, 1, 0, EntrySource::Empty);
        self.start_round(now);
        self.replicate_to_all(now);
    }

    /// The leader, where this replica is it.
    pub(super) fn leader_mut(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => None,
        }
    }

    /// A client wants entries appended.
    pub(super) fn propose(&mut self, now: Now, proposal: Proposal) {
        let Proposal { count, bytes, payload } = proposal;
        if let Err(reason) = self.check_proposal(&proposal) {
            self.outputs.push_back(Output::ProposalRefused { payload, reason });
            return;
        }
        let first = self.log.last().index.next();
        let last = self.append_own(now, u64::from(count), bytes, EntrySource::Payload(payload));
        self.outputs.push_back(Output::Proposed { payload, first, last });
        self.replicate_to_all(now);
    }

    fn check_proposal(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let Role::Leader(leader) = &self.role else { return Err(self.not_leader()) };
        let count = u64::from(proposal.count);
        let limits = &self.settings.limits;
        let oversized =
            count > 1 && proposal.bytes > limits.append_bytes || proposal.bytes > limits.uncommitted_bytes;
        if count == 0 || count > limits.append_entries || oversized {
            return Err(Refusal::Malformed);
        }
        if leader.uncommitted.bytes() + proposal.bytes > limits.uncommitted_bytes {
            return Err(Refusal::Busy(BusyReason::UncommittedBytes));
        }
        if self.durability.outstanding() >= limits.writes_outstanding {
            return Err(Refusal::Busy(BusyReason::WritesOutstanding));
        }
        Ok(())
    }

    /// The refusal of one who does not lead.
    pub(super) fn not_leader(&self) -> Refusal {
        match &self.role {
            Role::Follower(follower) => {
                Refusal::NotLeader(follower.leader.as_ref().map(|following| following.leader))
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) | Role::Faulted(_) => {
                Refusal::NotLeader(None)
            }
        }
    }

    /// Appends entries of the leader's own. Leader Append-Only: never anything else to its log.
    pub(super) fn append_own(&mut self, now: Now, count: u64, bytes: u64, source: EntrySource) -> Position {
        let before = self.log.last().index;
        let last = Position::new(Index(before.0 + count), self.term());
        let range = EntryRange { first: before.next(), bytes, runs: TermRuns::one(last) };
        self.log.append(&range);
        if let Some(leader) = self.leader_mut() {
            leader.uncommitted.push(last.index, bytes);
        }
        self.write(now, Change { append: Some(AppendPlan { range, source }), ..Change::default() });
        last
    }

    /// Something is due.
    pub(super) fn leader_tick(&mut self, now: Now) {
        let Role::Leader(leader) = &self.role else { return };
        let (check, beat) = (leader.quorum_check <= now.monotonic, leader.next_beat <= now.monotonic);
        if check && !self.still_leads(now) {
            self.step_down(now);
            return;
        }
        let next_check = now.monotonic + self.settings.timing.election;
        if let Some(leader) = self.leader_mut()
            && check
        {
            leader.quorum_check = next_check;
        }
        if beat {
            self.start_round(now);
            self.replicate_to_all(now);
        }
    }

    /// Whether a majority was heard of within an election time-out (thesis, section 6.2), and the
    /// own disk answers.
    fn still_leads(&self, now: Now) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let timing = self.settings.timing;
        let stalled = self.is_stalled(now);
        let heard = quorum::agreed(self.configuration(), |voter| {
            if voter == self.settings.id {
                now.monotonic
            } else {
                leader.progress(voter).map_or_else(Default::default, |progress| progress.heard)
            }
        });
        let heard = mutant!(M04) || now.monotonic.since(heard) < timing.election;
        (!stalled || mutant!(M09)) && heard
    }

    /// Whether the own disk does not answer.
    pub(super) fn is_stalled(&self, now: Now) -> bool {
        let patience = self.settings.timing.disk_stall;
        self.durability.oldest().is_some_and(|asked| now.monotonic.since(asked) > patience)
    }

    /// Begins a round: a beat to every follower, whose answers prove that this replica led when
    /// the round began.
    pub(super) fn start_round(&mut self, now: Now) {
        let next_beat = self.next_beat(now.monotonic);
        let commit = if mutant!(M19) { self.log.last().index } else { self.commit };
        let Some(leader) = self.leader_mut() else { return };
        leader.round = Round(leader.round.0 + 1);
        leader.next_beat = next_beat;
        let round = leader.round;
        let mut beats = alloc::vec::Vec::with_capacity(leader.followers.len());
        for (follower, progress) in &mut leader.followers {
            progress.sent_at_beat = progress.next.previous();
            beats.push((*follower, Beat { commit, round, sent: progress.sent_at_beat }));
        }
        for (follower, beat) in beats {
            self.send(follower, Body::Beat(beat));
        }
    }

    /// A follower answered something: it follows this leader.
    pub(super) fn heard_from(&mut self, now: Now, from: ReplicaId, round: Round) {
        let Some(leader) = self.leader_mut() else { return };
        if round > leader.round {
            self.counters.hostile += 1;
            return;
        }
        let round = if mutant!(B19) { leader.round } else { round };
        let Some(progress) = leader.progress_mut(from) else { return };
        progress.heard = now.monotonic;
        if round > progress.round {
            progress.round = round;
            self.confirm_reads(now);
        }
    }

    /// A follower answered an append.
    pub(super) fn on_append_reply(&mut self, now: Now, from: ReplicaId, reply: AppendReply) {
        match reply.outcome {
            AppendOutcome::Accepted(index) => self.on_accepted(now, from, index),
            AppendOutcome::Rejected { prev, hint } => self.on_rejected(now, from, reply.round, prev, hint),
        }
    }

    fn on_accepted(&mut self, now: Now, from: ReplicaId, index: Index) {
        if index > self.log.last().index {
            self.counters.hostile += 1;
            return;
        }
        let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(from)) else { return };
        let index = if mutant!(M14) { progress.next.previous().max(index) } else { index };
        if index > progress.matched {
            progress.matched = index;
            progress.next = progress.next.max(index.next());
        }
        match &mut progress.stage {
            Stage::Probe { .. } if index.next() >= progress.next => {
                progress.stage = Stage::Replicate { inflight: Window::default() };
            }
            // An acknowledgement from before the probe: its answer is still to come.
            Stage::Probe { .. } => {}
            Stage::Replicate { inflight } => inflight.free_to(index),
            Stage::Snapshot(sending) => {
                let target = sending.snapshot.as_ref().map(|snapshot| snapshot.meta.position.index);
                if target.is_some_and(|target| index >= target) {
                    progress.next = progress.matched.next();
                    progress.stage = Stage::Replicate { inflight: Window::default() };
                }
            }
        }
        self.advance_commit(now);
        self.replicate_to(now, from);
    }

    fn on_rejected(&mut self, now: Now, from: ReplicaId, round: Round, prev: Index, hint: Position) {
        let found = self.log.last_that_may_match(hint).index;
        let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(from)) else { return };
        // The answer to a probe that left in a round confirms that round, or a later one.
        let (answers_current, answers_probe) = match &progress.stage {
            Stage::Probe { waiting } => {
                (prev == progress.next.previous(), waiting.is_some_and(|sent| round >= sent))
            }
            Stage::Replicate { .. } => (true, false),
            Stage::Snapshot(_) => (false, false),
        };
        if !answers_current || hint.index > prev || mutant!(M12) {
            return;
        }
        if prev <= progress.matched {
            if !answers_probe || prev == Index::ZERO {
                return;
            }
            // Its disk lost what it had acknowledged. It counts for none of that any more, and gets it
            // again: another leader, who starts from nothing, would do no better.
            progress.matched = found.min(prev.previous());
            self.counters.acknowledged_lost += 1;
        }
        let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(from)) else { return };
        // Every rejection moves the probe back, so that it ends.
        let next = found.min(prev.previous_or_zero()).max(progress.matched).next();
        if mutant!(M13) {
            progress.matched = next.previous();
        }
        progress.probe_from(next);
        self.replicate_to(now, from);
    }

    /// A follower answered a beat: a lost message shows in what it holds.
    pub(super) fn on_beat_reply(&mut self, now: Now, from: ReplicaId, reply: BeatReply) {
        let Some(leader) = self.leader_mut() else { return };
        let latest = reply.round == leader.round;
        let Some(progress) = leader.progress_mut(from) else { return };
        let held = reply.verified.unwrap_or(Index::ZERO).max(progress.matched);
        match &mut progress.stage {
            // A beat that left later is answered before it: the probe, or its answer, was lost.
            Stage::Probe { waiting } if waiting.is_some_and(|sent| sent < reply.round) && !mutant!(M16) => {
                *waiting = None;
            }
            Stage::Probe { .. } => {}
            // It restarted, or stood for election meanwhile: until an append shows it again that its
            // log equals ours, it cannot believe what is committed.
            Stage::Replicate { .. } if latest && reply.verified.is_none() => {
                progress.probe_from(progress.matched.next());
            }
            Stage::Replicate { .. } if latest && held < progress.sent_at_beat => {
                // Messages may overtake each other, so a gap counts when it is still there a beat later.
                if progress.behind_at_beat == Some(held) {
                    progress.behind_at_beat = None;
                    progress.probe_from(progress.matched.next());
                } else {
                    progress.behind_at_beat = Some(held);
                }
            }
            Stage::Replicate { .. } => {
                progress.behind_at_beat = None;
                // It holds everything but has not said that it is durable: its disk is slow, or its
                // acknowledgement was lost. Only asking again tells which.
                if latest && progress.matched < progress.sent_at_beat && !mutant!(M17) {
                    let asked = progress.sent_at_beat;
                    self.ask_for_acknowledgement(from, asked);
                }
            }
            Stage::Snapshot(_) => self.resume_snapshot(now, from),
        }
        self.replicate_to(now, from);
    }

    /// Asks a follower that holds every entry up to `index` whether they are durable: an append
    /// without entries, which is acknowledged like any other.
    fn ask_for_acknowledgement(&mut self, to: ReplicaId, index: Index) {
        let Some(term) = self.log.term_at(index) else {
            // Its acknowledgement was lost and the log is purged past it: only a snapshot helps.
            if let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(to))
                && !mutant!(M65)
            {
                progress.probe_from(progress.matched.next());
            }
            return;
        };
        let Role::Leader(leader) = &self.role else { return };
        let append = Append {
            prev: Position::new(index, term),
            entries: EntryRange { first: index.next(), ..EntryRange::default() },
            configurations: alloc::vec::Vec::new(),
            commit: self.commit,
            round: leader.round,
            clock: None,
        };
        self.send(to, Body::Append(append));
    }

    /// Sends every follower what it lacks and the windows allow.
    pub(super) fn replicate_to_all(&mut self, now: Now) {
        let mut at = 0;
        loop {
            let Some(leader) = self.leader_mut() else { return };
            let Some(&(follower, _)) = leader.followers.get(at) else { return };
            self.replicate_to(now, follower);
            at += 1;
        }
    }

    /// Sends a follower what it lacks and its window allows.
    pub(super) fn replicate_to(&mut self, now: Now, to: ReplicaId) {
        let limits = self.settings.limits;
        loop {
            let (start, last) = (self.log.start().index, self.log.last().index);
            let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(to)) else { return };
            let next = progress.next;
            let may_send = match &progress.stage {
                Stage::Probe { waiting } => waiting.is_none(),
                Stage::Replicate { inflight } => next <= last && inflight.has_room(&limits),
                Stage::Snapshot(_) => return self.send_chunks(now, to),
            };
            if !may_send || mutant!(B17) && start == last {
                return;
            }
            if next <= start {
                return self.begin_snapshot(now, to);
            }
            self.send_append(to, next);
        }
    }

    fn send_append(&mut self, to: ReplicaId, next: Index) {
        let prev = next.previous();
        let term = self.log.term_at(prev).expect("a follower behind the purged log gets a snapshot");
        let limits = &self.settings.limits;
        let entries = self.log.slice(next, limits.append_bytes, limits.append_entries);
        let commit = self.commit;
        let leader = self.leader_mut().expect("only a leader sends appends");
        let round = leader.round;
        let progress = leader.progress_mut(to).expect("called for a known follower");
        match &mut progress.stage {
            Stage::Probe { waiting } => *waiting = Some(round),
            Stage::Replicate { inflight } => {
                let last = entries.last().expect("a stream of appends carries entries");
                inflight.push(last.index, entries.bytes);
                progress.next = last.index.next();
            }
            Stage::Snapshot(_) => unreachable!("a follower that gets a snapshot gets no entries"),
        }
        let prev = Position::new(prev, term);
        let configurations = alloc::vec::Vec::new();
        self.send(to, Body::Append(Append { prev, entries, configurations, commit, round, clock: None }));
    }

    /// Commits what a majority holds durably, if it is of this term (Raft paper, section 5.4.2).
    pub(super) fn advance_commit(&mut self, now: Now) {
        let Role::Leader(leader) = &self.role else { return };
        let own = if mutant!(B11) { self.log.last().index } else { self.durability.durable() };
        let agreed = quorum::agreed(self.configuration(), |voter| {
            if voter == self.settings.id {
                own
            } else {
                leader.progress(voter).map_or(Index::ZERO, |progress| progress.matched)
            }
        });
        // Leader Completeness: an entry of an earlier term is committed only along with one of
        // this term, however many replicas hold it (figure 8 of the paper).
        if agreed <= self.commit || agreed < leader.first_of_term && !mutant!(B10) {
            return;
        }
        self.commit = agreed;
        self.announce_commit();
        if let Some(leader) = self.leader_mut() {
            leader.uncommitted.free_to(agreed);
        }
        self.start_waiting_reads(now);
        self.leave_if_removed(now);
    }

    /// A follower's node closed its connection: what was in flight is lost.
    pub(super) fn follower_unreachable(&mut self, replica: ReplicaId) {
        let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(replica)) else {
            return;
        };
        match &progress.stage {
            Stage::Replicate { .. } => progress.probe_from(progress.matched.next()),
            Stage::Probe { .. } | Stage::Snapshot(_) => {}
        }
    }

    /// Entries for a follower are no longer in the log, or cannot be read.
    pub(super) fn gather_failed(&mut self, to: ReplicaId, index: Index) {
        let Some(leader) = self.leader_mut() else { return };
        let Some(progress) = leader.progress_mut(to) else { return };
        match &mut progress.stage {
            Stage::Replicate { .. } if index > progress.matched => {
                progress.probe_from(progress.matched.next());
            }
            Stage::Replicate { .. } | Stage::Probe { .. } => {}
            // The snapshot is gone: ask for another.
            Stage::Snapshot(sending) => {
                sending.snapshot = None;
                leader.snapshots.latest = None;
            }
        }
    }

    /// The disk has no room, or has room again.
    pub(super) fn set_disk_full(&mut self, now: Now, full: bool) {
        self.disk_full = full;
        match &self.role {
            Role::Leader(_) if full => self.step_down(now),
            Role::Follower(Follower { leader: None, .. }) | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.await_leader(now);
            }
            Role::Follower(_) | Role::Leader(_) | Role::Faulted(_) => {}
        }
    }

    /// Whether a follower holds all but the last few entries.
    pub(super) fn is_caught_up(&self, progress: &Progress) -> bool {
        let replicating = match &progress.stage {
            Stage::Replicate { .. } => true,
            Stage::Probe { .. } | Stage::Snapshot(_) => false,
        };
        replicating && progress.matched.0 + CAUGHT_UP_ENTRIES >= self.commit.0
    }
}

/// A learner that lacks no more entries than this may be promoted.
const CAUGHT_UP_ENTRIES: u64 = 1024;
