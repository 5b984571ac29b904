//! What must hold in every moment, with the names the Raft paper gives it.

use std::collections::{BTreeMap, BTreeSet};

use kotoba_db_cluster::raft::{
    AppendOutcome, Ballot, Body, Index, Message, Output, Position, ReadId, ReplicaId, RoleKind, Term,
};

use super::shell::{Entry, Payload, Shell};

/// The observer: sees every disk, every output, every message.
#[derive(Debug, Default)]
pub struct Checks {
    leaders: BTreeMap<Term, ReplicaId>,
    votes: BTreeMap<(ReplicaId, Term), ReplicaId>,
    /// The last index a replica acknowledged in a term.
    acknowledged: BTreeMap<(ReplicaId, Term), Index>,
    /// What stands at a position, and the term before it: Log Matching by induction.
    entries: BTreeMap<(Index, Term), (Payload, Option<Term>)>,
    committed: BTreeMap<Index, Entry>,
    values: BTreeSet<u64>,
    reads: BTreeMap<u64, Index>,
    pub counts: Counts,
}

/// What a run really exercised.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub leaders: u64,
    pub commits: u64,
    pub reads: u64,
    pub snapshots: u64,
    pub truncations: u64,
    pub crashes: u64,
    pub members: u64,
    pub purges: u64,
}

impl Counts {
    pub fn add(&mut self, other: Self) {
        self.leaders += other.leaders;
        self.commits += other.commits;
        self.reads += other.reads;
        self.snapshots += other.snapshots;
        self.truncations += other.truncations;
        self.crashes += other.crashes;
        self.members += other.members;
        self.purges += other.purges;
    }
}

impl Checks {
    pub fn last_committed(&self) -> Index {
        self.committed.last_key_value().map_or(Index(1), |(&index, _)| index)
    }

    pub fn committed_value(&self, value: u64) -> bool {
        self.values.contains(&value)
    }

    /// A read begins now: it must see everything committed so far.
    pub fn read_begins(&mut self, read: ReadId) {
        self.reads.insert(read.0, self.last_committed());
    }

    /// Everything one replica said in answer to one input.
    pub fn observe(&mut self, shell: &Shell, everyone: &BTreeMap<ReplicaId, Shell>, outputs: &[Output]) {
        for output in outputs {
            match output {
                Output::Write(plan) => {
                    self.counts.truncations += u64::from(plan.truncate_from.is_some());
                    self.nothing_taken_back(shell, plan.truncate_from);
                    self.counts.snapshots += u64::from(plan.install.is_some());
                    if let Some(append) = &plan.append {
                        let last = append.range.last().expect("an append has entries").index;
                        self.log_matching(shell, append.range.first, last);
                    }
                }
                Output::Send(message) => self.durable_before_sent(shell, everyone, message),
                Output::Commit(index) => self.committed(shell, everyone, *index),
                Output::ReadReady { read, index } => {
                    let floor = self.reads.remove(&read.0).expect("a read is answered once");
                    assert!(*index >= floor, "Linearizability: {read} is served at {index}, below {floor}");
                    self.counts.reads += 1;
                }
                Output::ReadRefused { read, .. } => {
                    self.reads.remove(&read.0).expect("a read is answered once");
                }
                Output::RoleChanged(report) if report.role == RoleKind::Leader => {
                    self.elected(shell, report.term);
                }
                Output::Members(_) => self.counts.members += 1,
                Output::Purge(_) => self.counts.purges += 1,
                Output::RoleChanged(_)
                | Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::BuildSnapshot { .. }
                | Output::StoreChunk { .. }
                | Output::Faulted(_) => {}
            }
        }
    }

    /// What was acknowledged in a term stays at least as long as the term.
    fn nothing_taken_back(&self, shell: &Shell, from: Option<Index>) {
        let term = shell.replica().status().role.term;
        if let (Some(from), Some(&acknowledged)) = (from, self.acknowledged.get(&(shell.id, term))) {
            assert!(from > acknowledged, "{} takes back {from}, which it acknowledged in {term}", shell.id);
        }
    }

    /// Log Matching: an index and a term name one entry and all before it.
    fn log_matching(&mut self, shell: &Shell, first: Index, last: Index) {
        for (&index, entry) in shell.log.range(first..=last) {
            let before = term_at(shell, index.previous());
            let known =
                self.entries.entry((index, entry.term)).or_insert_with(|| (entry.payload.clone(), before));
            assert_eq!(known.0, entry.payload, "Log Matching: {index} of {} differs", entry.term);
            if let (Some(known), Some(before)) = (known.1, before) {
                assert_eq!(known, before, "Log Matching: before {index} of {}", entry.term);
            }
        }
    }

    /// Election Safety and Leader Completeness.
    fn elected(&mut self, shell: &Shell, term: Term) {
        self.counts.leaders += 1;
        let leader = *self.leaders.entry(term).or_insert(shell.id);
        assert_eq!(leader, shell.id, "Election Safety: {term} has two leaders");
        let start = shell.replica().status().start.index;
        for (index, entry) in self.committed.range(start.next()..) {
            assert_eq!(
                shell.log.get(index),
                Some(entry),
                "Leader Completeness: {} leads {term} without {index}",
                shell.id
            );
        }
    }

    /// A message is not sent before the write it depends on.
    fn durable_before_sent(
        &mut self,
        shell: &Shell,
        everyone: &BTreeMap<ReplicaId, Shell>,
        message: &Message,
    ) {
        let (disk, term) = (&shell.disk, message.term);
        assert_eq!(message.from, shell.id);
        match &message.body {
            Body::VoteReply(reply) if reply.ballot == Ballot::Real && reply.granted => {
                assert_eq!(
                    disk.hard_state.term, term,
                    "a vote of {} is durable before it is given",
                    shell.id
                );
                assert_eq!(disk.hard_state.vote, Some(message.to), "a vote is durable before it is given");
                let first = *self.votes.entry((shell.id, term)).or_insert(message.to);
                assert_eq!(first, message.to, "Election Safety: {} votes twice in {term}", shell.id);
            }
            Body::VoteAsk(ask) if ask.ballot == Ballot::Real => {
                assert_eq!(disk.hard_state.term, term, "a candidate's term is durable before it asks");
                assert_eq!(disk.hard_state.vote, Some(shell.id), "a candidate votes for itself");
                assert_eq!(disk.last(), ask.last, "a candidate is what it claims");
            }
            Body::AppendReply(reply) => {
                assert!(disk.hard_state.term == term, "a term is durable before it is answered in");
                if let AppendOutcome::Accepted(index) = reply.outcome {
                    assert!(disk.covers(index), "{} acknowledges {index}, which it may forget", shell.id);
                    self.equals_the_leaders(shell, everyone, message, index);
                    let last = self.acknowledged.entry((shell.id, term)).or_default();
                    *last = index.max(*last);
                }
            }
            Body::Append(_) | Body::Beat(_) => {
                let leader = *self.leaders.entry(term).or_insert(shell.id);
                assert_eq!(leader, shell.id, "Election Safety: {term} has two leaders");
            }
            Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::BeatReply(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotReply(_) => {}
        }
    }

    /// What is acknowledged to a leader equals its log.
    fn equals_the_leaders(
        &self,
        shell: &Shell,
        everyone: &BTreeMap<ReplicaId, Shell>,
        message: &Message,
        index: Index,
    ) {
        let Some(leader) = everyone.get(&message.to) else { return };
        let leads = leader.replica.as_ref().is_some_and(|replica| {
            let role = replica.status().role;
            role.role == RoleKind::Leader && role.term == message.term
        });
        if let (true, Some(theirs), Some(ours)) =
            (leads, leader.log.get(&index), shell.disk.entries.get(&index))
        {
            assert_eq!(ours, theirs, "{} acknowledges an entry its leader does not have", shell.id);
        }
    }

    /// State Machine Safety, and what is committed is on a durable majority.
    fn committed(&mut self, shell: &Shell, everyone: &BTreeMap<ReplicaId, Shell>, upto: Index) {
        let news = self.last_committed() < upto;
        for (&index, entry) in shell.log.range(..=upto) {
            if let Some(known) = self.committed.get(&index) {
                assert_eq!(known, entry, "State Machine Safety: {} commits another {index}", shell.id);
            } else if index > self.last_committed() {
                self.committed.insert(index, entry.clone());
                if let Payload::Data(value) = entry.payload {
                    assert!(self.values.insert(value), "value {value} is committed twice");
                }
                self.counts.commits += 1;
            }
        }
        let status = shell.replica().status();
        if news && status.configuration_committed && !status.configuration.is_joint() {
            let voters = &status.configuration.voters;
            let holds = |id: &&ReplicaId| {
                everyone.get(id).is_some_and(|other| {
                    term_on_disk(other, upto)
                        .is_none_or(|term| Some(&term) == status_term(shell, upto).as_ref())
                        && other.disk.covers(upto)
                })
            };
            let held = voters.iter().filter(holds).count();
            assert!(
                2 * held > voters.len(),
                "{} commits {upto}, which {held} of {} hold durably",
                shell.id,
                voters.len()
            );
        }
    }

    /// Every applied entry is a committed one.
    pub fn applied(&self, shell: &Shell, applied: &[(Index, Entry)]) {
        for (index, entry) in applied {
            assert_eq!(
                self.committed.get(index),
                Some(entry),
                "State Machine Safety: {} applies another {index}",
                shell.id
            );
        }
    }

    /// A whole state holds exactly the committed values.
    pub fn state(&self, shell: &Shell) {
        let expected: Vec<_> = self
            .committed
            .range(..=shell.state.applied)
            .filter_map(|(&index, entry)| match entry.payload {
                Payload::Data(value) => Some((index, value)),
                Payload::Empty | Payload::Members(_) => None,
            })
            .collect();
        assert_eq!(shell.state.values, expected, "State Machine Safety: the state of {}", shell.id);
    }
}

fn term_at(shell: &Shell, index: Index) -> Option<Term> {
    let start: Position = shell.replica().status().start;
    shell.log.get(&index).map(|entry| entry.term).or_else(|| (start.index == index).then_some(start.term))
}

fn status_term(shell: &Shell, index: Index) -> Option<Term> {
    shell.log.get(&index).map(|entry| entry.term)
}

fn term_on_disk(shell: &Shell, index: Index) -> Option<Term> {
    shell.disk.entries.get(&index).map(|entry| entry.term)
}
