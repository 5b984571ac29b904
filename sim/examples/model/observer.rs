//! The properties, with the names the Raft paper gives them, checked at every step by somebody who sees
//! every disk, every output and every message.
//!
//! The observer is part of a state, so it remembers no more than the properties need: who led which term,
//! and what is committed.

use kotoba_db_cluster::raft::{
    AppendOutcome, Ballot, Body, HardState, Index, Message, Output, ReplicaId, RoleKind, Term,
};

use super::node::{Entry, FIRST, Node, Payload};

/// A property that was violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// Two replicas lead one term (paper, 5.2).
    ElectionSafety,
    /// A leader overwrites or deletes entries of its own log (paper, 5.3).
    LeaderAppendOnly,
    /// Two logs hold the same index and term and differ up to there (paper, 5.3).
    LogMatching,
    /// A leader lacks an entry that was committed in an earlier term (paper, 5.4).
    LeaderCompleteness,
    /// Two replicas take different entries of one index for committed (paper, 5.4.3).
    StateMachineSafety,
    /// An entry is taken for committed that no majority holds durably, or a disk loses one.
    CommittedIsDurable,
    /// A message leaves before the write it promises is reported durable.
    DurableBeforeSent,
    /// A durable term falls, a durable vote changes within its term, or a commit index falls.
    Monotone,
    /// One of the core's own assertions failed.
    CoreInvariant,
}

/// A committed entry, and the term of the leader that committed it.
type Committed = (Entry, Term);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Observer {
    /// In ascending order of the term.
    leaders: Vec<(Term, ReplicaId)>,
    pub(crate) committed: Vec<Committed>,
    pub(crate) violation: Option<Violation>,
    /// Entries were truncated somewhere.
    pub(crate) truncated: bool,
}

impl Observer {
    pub(crate) fn found(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    fn check(&mut self, holds: bool, violation: Violation) {
        if !holds {
            self.found(violation);
        }
    }

    /// One node handled inputs: it was `before` and is `after`, the nodes as they are now are `all`.
    pub(crate) fn stepped(&mut self, before: &Node, after: &Node, outputs: &[Output], all: &[&Node]) {
        for output in outputs {
            match output {
                Output::Send(message) => {
                    let durable = is_durable(after, message);
                    self.check(durable, Violation::DurableBeforeSent);
                }
                Output::RoleChanged(report) if report.role == RoleKind::Leader => {
                    self.elected(after, report.term);
                }
                // An entry that is applied here and then forgotten would leave a state machine ahead of its log.
                Output::Commit(index) => {
                    let durable = holds_durably(after, *index);
                    self.check(durable, Violation::CommittedIsDurable);
                }
                Output::Write(plan) => self.truncated |= plan.truncate_from.is_some(),
                Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::ReadReady { .. }
                | Output::ReadRefused { .. }
                | Output::RoleChanged(_)
                | Output::Members(_)
                | Output::Purge(_)
                | Output::BuildSnapshot { .. }
                | Output::StoreChunk { .. }
                | Output::Faulted(_) => {}
            }
        }
        self.append_only(before, after);
        self.log_matching(after, all);
        self.monotone(before, after);
        self.learn_committed(after, all);
        self.keeps_committed(before, after);
    }

    /// A node crashed and came back.
    pub(crate) fn restarted(&mut self, before: &Node, after: &Node, all: &[&Node]) {
        self.durable_monotone(before, after);
        self.log_matching(after, all);
        self.learn_committed(after, all);
        self.keeps_committed(before, after);
    }

    fn elected(&mut self, node: &Node, term: Term) {
        match self.leaders.binary_search_by_key(&term, |&(led, _)| led) {
            Ok(at) => {
                let same = self.leaders[at].1 == node.replica.id();
                self.check(same, Violation::ElectionSafety);
            }
            Err(at) => self.leaders.insert(at, (term, node.replica.id())),
        }
        let complete = self
            .committed
            .iter()
            .enumerate()
            .all(|(at, (entry, committed_in))| *committed_in >= term || node.log.get(at) == Some(entry));
        self.check(complete, Violation::LeaderCompleteness);
    }

    fn append_only(&mut self, before: &Node, after: &Node) {
        let earlier = before.replica.role();
        let leads = earlier.role == RoleKind::Leader && after.replica.role() == earlier;
        self.check(!leads || after.log.starts_with(&before.log), Violation::LeaderAppendOnly);
    }

    fn log_matching(&mut self, node: &Node, all: &[&Node]) {
        let holds = all.iter().all(|other| {
            matches(&node.log, &other.log)
                && matches(&node.log, &other.disk.entries)
                && matches(&node.disk.entries, &other.log)
        });
        self.check(holds, Violation::LogMatching);
    }

    fn monotone(&mut self, before: &Node, after: &Node) {
        self.check(after.replica.commit() >= before.replica.commit(), Violation::Monotone);
        self.check(after.replica.role().term >= before.replica.role().term, Violation::Monotone);
        self.durable_monotone(before, after);
    }

    fn durable_monotone(&mut self, before: &Node, after: &Node) {
        let (old, new) = (before.disk.hard_state, after.disk.hard_state);
        let keeps_vote = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
        self.check(new.term >= old.term && keeps_vote, Violation::Monotone);
    }

    fn learn_committed(&mut self, node: &Node, all: &[&Node]) {
        let upto = count_to(node.replica.commit());
        for at in 0..upto {
            let Some(entry) = node.log.get(at) else { return self.found(Violation::CommittedIsDurable) };
            if let Some((known, _)) = self.committed.get(at) {
                self.check(known == entry, Violation::StateMachineSafety);
            } else {
                self.committed.push((entry.clone(), node.replica.role().term));
                let holds = |voter: &&ReplicaId| {
                    let disk = all.iter().find(|other| other.replica.id() == **voter);
                    disk.is_some_and(|other| other.disk.entries.get(at) == Some(entry))
                };
                let voters = &node.replica.configuration().voters;
                let majority = 2 * voters.iter().filter(holds).count() > voters.len();
                self.check(majority, Violation::CommittedIsDurable);
            }
        }
    }

    /// No disk that held a committed entry loses it.
    fn keeps_committed(&mut self, before: &Node, after: &Node) {
        let kept = self.committed.iter().enumerate().all(|(at, (entry, _))| {
            before.disk.entries.get(at) != Some(entry) || after.disk.entries.get(at) == Some(entry)
        });
        self.check(kept, Violation::CommittedIsDurable);
    }

    /// Whether a proposal is committed.
    pub(crate) fn has_committed_proposal(&self) -> bool {
        self.committed.iter().any(|(entry, _)| matches!(entry.payload, Payload::Value(_)))
    }

    /// Whether a proposal was committed before `term` and stays so.
    pub(crate) fn has_committed_proposal_before(&self, term: Term) -> bool {
        let earlier = |(entry, committed_in): &Committed| {
            *committed_in < term && matches!(entry.payload, Payload::Value(_))
        };
        self.committed.iter().any(earlier)
    }

    /// Whether a configuration is committed.
    pub(crate) fn has_committed_members(&self) -> bool {
        self.committed.iter().any(|(entry, _)| matches!(entry.payload, Payload::Members(_)))
    }
}

/// How many entries of a log end at `index`.
fn count_to(index: Index) -> usize {
    usize::try_from((index.0 + 1).saturating_sub(FIRST)).expect("small")
}

/// Log Matching: equal up to the last index at which both have one term.
fn matches(one: &[Entry], other: &[Entry]) -> bool {
    let same_term = one.iter().zip(other).rposition(|(a, b)| a.term == b.term);
    same_term.is_none_or(|last| one[..=last] == other[..=last])
}

/// Whether the log up to `index` is on the disk as it is.
fn holds_durably(node: &Node, index: Index) -> bool {
    let count = count_to(index);
    node.disk.entries.get(..count).is_some_and(|held| node.log.get(..count) == Some(held))
}

/// Whether what a message promises is on its sender's disk.
fn is_durable(node: &Node, message: &Message) -> bool {
    let HardState { term, vote } = node.disk.hard_state;
    match &message.body {
        Body::VoteReply(reply) => {
            reply.ballot == Ballot::Pre || !reply.granted || (term, vote) == (message.term, Some(message.to))
        }
        Body::VoteAsk(ask) => {
            let asks = (message.term, Some(message.from), ask.last);
            ask.ballot == Ballot::Pre || (term, vote, node.disk.last()) == asks
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Accepted(index) => term == message.term && holds_durably(node, index),
            AppendOutcome::Rejected { .. } => term == message.term,
        },
        // Only one whose vote for itself is durable leads.
        Body::Append(_) | Body::Beat(_) => (term, vote) == (message.term, Some(message.from)),
        Body::BeatReply(_) => term == message.term,
        Body::SnapshotChunk(_) | Body::SnapshotReply(_) => true,
    }
}
