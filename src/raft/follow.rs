//! A follower's side of replication (Raft paper, section 5.3).

use super::{
    configuration::ConfigurationEntry,
    contract::{AppendPlan, EntrySource, Output},
    durability::Change,
    log::TermRuns,
    message::{Append, AppendOutcome, AppendReply, Beat, BeatReply, Body, EntryRange},
    replica::Replica,
    role::{Follower, Following, Role},
    types::{Index, Now, PayloadId, Position, ReplicaId, Round},
};

impl Replica {
    /// What this follower knows of its leader.
    pub(super) fn following_mut(&mut self) -> &mut Following {
        match &mut self.role {
            Role::Follower(Follower { leader: Some(following), .. }) => following,
            Role::Follower(_)
            | Role::PreCandidate(_)
            | Role::Candidate(_)
            | Role::Leader(_)
            | Role::Faulted(_) => {
                unreachable!("called only after the sender was accepted as leader")
            }
        }
    }

    /// The leader extends the log.
    pub(super) fn on_append(&mut self, now: Now, append: &Append, payload: Option<PayloadId>) {
        let following = self.following_mut();
        following.round = following.round.max(append.round);
        if following.incoming.as_ref().is_some_and(|incoming| incoming.installing) {
            // The log is about to be replaced; the leader sends again what is lost.
            return;
        }
        let Some(matching) = self.matching(append) else {
            self.reject(append.prev);
            return;
        };
        if !append.entries.is_empty() && payload.is_none() {
            self.counters.hostile += 1;
            return;
        }
        let last = append.entries.last().unwrap_or(append.prev).index;
        if matching < last {
            if matching < self.commit.max(self.verified()) {
                // State Machine Safety: what is committed is never overwritten, whoever asks; and no
                // leader takes back what it sent in its own term.
                self.counters.hostile += 1;
                return;
            }
            if !self.continues(append, matching) {
                self.counters.hostile += 1;
                return;
            }
            let payload = payload.expect("checked above");
            self.extend(now, append, matching, payload);
        }
        if mutant!(B07) && last >= self.commit && last < self.log.last().index {
            self.truncate(last.next());
            self.write(now, Change { truncate_from: Some(last.next()), ..Change::default() });
        }
        let verified = if mutant!(B07) { last } else { last.max(self.verified()) };
        self.following_mut().verified = Some(verified);
        // Not our own last index: what lies behind the verified part may differ from the leader's.
        self.learn_commit(append.commit.min(if mutant!(B09) { self.log.last().index } else { verified }));
        self.answer_append(last);
    }

    /// The last index up to which the log equals the message; none where it does not connect.
    fn matching(&self, append: &Append) -> Option<Index> {
        let blind = mutant!(M10) && append.prev.index <= self.log.last().index;
        let mut matching = if self.log.holds(append.prev) || blind {
            append.prev.index
        } else if append.prev.index < self.commit {
            // Committed entries equal every leader's, also those that are purged.
            self.commit
        } else {
            return None;
        };
        let Some(last) = append.entries.last() else { return Some(matching.max(append.prev.index)) };
        for &run in append.entries.runs.as_slice() {
            // Entries of a run that both logs hold with one term are equal (Log Matching): compare ends first.
            if self.log.holds(run) {
                matching = matching.max(run.index);
                continue;
            }
            let equal = |term| term == run.term || mutant!(M11);
            while matching < run.index && self.log.term_at(matching.next()).is_some_and(equal) {
                matching = matching.next();
            }
            if matching < run.index {
                break;
            }
        }
        Some(matching.min(last.index))
    }

    /// Whether the entries behind `matching` may follow it: terms never fall along a log.
    fn continues(&self, append: &Append, matching: Index) -> bool {
        self.log.term_at(matching) <= append.entries.runs.term_at(matching.next())
    }

    fn extend(&mut self, now: Now, append: &Append, matching: Index, payload: PayloadId) {
        let first = matching.next();
        let truncate_from = (self.log.last().index >= first).then_some(first);
        if truncate_from.is_some() {
            self.truncate(first);
        }
        let mut runs = TermRuns::default();
        for &run in append.entries.runs.as_slice().iter().filter(|run| run.index >= first) {
            let pushed = runs.push(run);
            assert!(pushed, "a part of a list is not longer than the list");
        }
        let share = append.entries.bytes / append.entries.count() + 1;
        let range = EntryRange { first, bytes: 0, runs };
        let range = EntryRange { bytes: append.entries.bytes.min(share * range.count()), ..range };
        self.log.append(&range);
        let appended = append.configurations.iter().filter(|entry| entry.index >= first);
        for entry in appended {
            self.enter_configuration(entry.clone());
        }
        let source = EntrySource::Payload(payload);
        self.write(
            now,
            Change { truncate_from, append: Some(AppendPlan { range, source }), ..Change::default() },
        );
    }

    /// Voids the entries from `from` on, which are not committed.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(from > self.commit, "State Machine Safety: committed entries are never truncated");
        self.log.truncate_from(from);
        self.durability.cut(from);
        if self.configuration_index() >= from && !mutant!(M26) {
            // A configuration lives and dies with its entry.
            self.configurations.retain(|entry| entry.index < from);
            self.outputs.push_back(Output::Members(self.configuration().clone()));
        }
    }

    /// A configuration takes effect as soon as its entry is in the log.
    pub(super) fn enter_configuration(&mut self, entry: ConfigurationEntry) {
        assert!(entry.index > self.configuration_index(), "configurations enter in order");
        self.outputs.push_back(Output::Members(entry.configuration.clone()));
        self.configurations.push(entry);
    }

    pub(super) fn verified(&self) -> Index {
        match &self.role {
            Role::Follower(Follower { leader: Some(following), .. }) => {
                following.verified.unwrap_or(Index::ZERO)
            }
            Role::Follower(_)
            | Role::PreCandidate(_)
            | Role::Candidate(_)
            | Role::Leader(_)
            | Role::Faulted(_) => Index::ZERO,
        }
    }

    /// Everything up to `index` is committed.
    pub(super) fn learn_commit(&mut self, index: Index) {
        assert!(index <= self.log.last().index, "only what is held can be committed here");
        if index > self.commit {
            self.commit = index;
            self.announce_commit();
        }
    }

    /// Lets the embedder apply what is committed and durable here. What others hold durably may be
    /// committed before our own write is done; applied then, a crash could leave a state machine
    /// that is ahead of its log.
    pub(super) fn announce_commit(&mut self) {
        let ready = if mutant!(M20) { self.commit } else { self.commit.min(self.durability.durable()) };
        // What follows an installed snapshot is applied to its state, which is not there before.
        if ready > self.announced && (mutant!(M63) || !self.durability.is_installing()) {
            self.announced = ready;
            self.outputs.push_back(Output::Commit(ready));
        }
    }

    /// Answers an append that reached `last`: now, where all of it is durable; else the
    /// acknowledgement follows when it is.
    fn answer_append(&mut self, last: Index) {
        if self.acknowledgeable() >= last {
            self.send_acknowledgement();
        }
    }

    /// Acknowledges what has become durable since the last time, in one message for all appends.
    pub(super) fn acknowledge(&mut self) {
        let reached = self.acknowledgeable();
        if let Role::Follower(Follower { leader: Some(following), .. }) = &self.role
            && reached > following.acknowledged
        {
            self.send_acknowledgement();
        }
    }

    /// Leader Completeness: only what is both equal to the leader's log and durable here counts
    /// towards a majority.
    fn acknowledgeable(&self) -> Index {
        let verified = if mutant!(B08) { self.log.last().index } else { self.verified() };
        let durable = if mutant!(M15) { self.log.last().index } else { self.durability.durable() };
        verified.min(durable)
    }

    fn send_acknowledgement(&mut self) {
        let reached = self.acknowledgeable();
        let following = self.following_mut();
        following.acknowledged = following.acknowledged.max(reached);
        let (leader, round) = (following.leader, following.round);
        self.send_in_term(
            leader,
            Body::AppendReply(AppendReply { outcome: AppendOutcome::Accepted(reached), round }),
        );
    }

    fn reject(&mut self, prev: Position) {
        let hint = self.log.last_that_may_match(prev);
        let following = self.following_mut();
        let (leader, round) = (following.leader, following.round);
        let outcome = AppendOutcome::Rejected { prev: prev.index, hint };
        self.send_in_term(leader, Body::AppendReply(AppendReply { outcome, round }));
    }

    /// The leader is alive, and wants to know whether it still leads.
    pub(super) fn on_beat(&mut self, beat: Beat) {
        let following = self.following_mut();
        following.round = following.round.max(beat.round);
        let (leader, verified) = (following.leader, following.verified);
        if let Some(verified) = verified.max(Some(self.log.last().index).filter(|_| mutant!(B09))) {
            self.learn_commit(beat.commit.min(verified));
        }
        self.send_in_term(leader, Body::BeatReply(BeatReply { round: beat.round, verified }));
    }

    /// Tells one who leads an earlier term of ours.
    pub(super) fn answer_stale_leader(&mut self, from: ReplicaId) {
        self.send_in_term(from, Body::BeatReply(BeatReply { round: Round(0), verified: None }));
    }

    /// An answer in a term that may not be durable yet waits for it: whoever heard of the term
    /// from us must be able to rely on it after our crash.
    pub(super) fn send_in_term(&mut self, to: ReplicaId, body: Body) {
        let message = self.message(to, body);
        if self.term_is_durable() {
            self.outputs.push_back(Output::Send(message));
        } else {
            self.send_when_durable(message);
        }
    }
}
