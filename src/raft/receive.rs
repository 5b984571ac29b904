//! Messages from other replicas: what may be believed, and who handles it.
//!
//! Everything in a message was chosen by somebody else. What is not well formed, not for this
//! replica or impossible in its term is counted and dropped: it changes nothing and panics nowhere.

use super::{
    message::{Append, Ballot, Body, Message},
    replica::Replica,
    role::{Follower, Role},
    types::{Index, Now, PayloadId, Position, ReplicaId, Term},
};
use crate::limits::{APPEND_ENTRIES_MAX, MEMBERS_MAX};

/// Terms and indexes above this are nobody's: they leave room to count on.
const NUMBER_MAX: u64 = 1 << 62;
/// No message has as many payload bytes, whatever it claims: they can be summed up without end.
const PAYLOAD_BYTES_MAX: u64 = 1 << 40;

impl Replica {
    /// A message arrived.
    pub(super) fn receive(&mut self, now: Now, message: Message, payload: Option<PayloadId>) {
        let Message { from, to, term, body } = message;
        if to != self.settings.id || from == to || term.0 > NUMBER_MAX || !is_well_formed(term, &body) {
            self.counters.hostile += 1;
            return;
        }
        if let Body::VoteAsk(ask) = &body {
            self.on_vote_ask(now, from, *ask);
            return;
        }
        let late = mutant!(B16) && matches!(body, Body::SnapshotChunk(_));
        let deaf = mutant!(B06)
            && matches!(&body, Body::VoteReply(reply) if reply.ballot == Ballot::Pre && !reply.granted);
        let deaf = deaf || mutant!(M07) && matches!(self.role, Role::Leader(_));
        if term > self.term() && !deaf {
            self.adopt_term(now, term);
        }
        if term < self.term() && !late {
            match body {
                // A trial raises nobody's term, so the one who answers it may be behind, and stay so.
                Body::VoteReply(reply) if reply.ballot == Ballot::Pre && !mutant!(M64) => {
                    self.on_vote_reply(now, from, reply);
                }
                body => self.teach_term(from, &body),
            }
            return;
        }
        match body {
            Body::VoteAsk(_) => unreachable!("handled before terms are compared"),
            Body::VoteReply(reply) => self.on_vote_reply(now, from, reply),
            Body::Append(append) => {
                if self.accept_leader(now, from) {
                    self.on_append(now, &append, payload);
                }
            }
            Body::Beat(beat) => {
                if self.accept_leader(now, from) {
                    self.on_beat(beat);
                }
            }
            Body::SnapshotChunk(chunk) => {
                if late && matches!(self.role, Role::Leader(_)) {
                    self.step_down(now);
                }
                if self.accept_leader(now, from) {
                    self.on_snapshot_chunk(chunk, payload);
                }
            }
            Body::AppendReply(reply) => {
                self.heard_from(now, from, reply.round);
                self.on_append_reply(now, from, reply);
            }
            Body::BeatReply(reply) => {
                self.heard_from(now, from, reply.round);
                self.on_beat_reply(now, from, reply);
            }
            Body::SnapshotReply(reply) => self.on_snapshot_reply(now, from, reply),
        }
    }

    /// One who still speaks for an earlier term learns ours; an answer to one is of no use.
    fn teach_term(&mut self, from: ReplicaId, body: &Body) {
        match body {
            Body::Append(_) | Body::Beat(_) | Body::SnapshotChunk(_) if !mutant!(M08) => {
                self.answer_stale_leader(from);
            }
            Body::Append(_)
            | Body::Beat(_)
            | Body::SnapshotChunk(_)
            | Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::BeatReply(_)
            | Body::SnapshotReply(_) => {}
        }
    }

    /// Follows the sender of a leader's message. Election Safety: where another replica leads this
    /// term, the message is a lie.
    fn accept_leader(&mut self, now: Now, from: ReplicaId) -> bool {
        let rival = match &self.role {
            Role::Leader(_) => true,
            Role::Follower(Follower { leader: Some(following), .. }) => following.leader != from,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => false,
        };
        if rival {
            self.counters.hostile += 1;
            return false;
        }
        self.follow(now, from);
        true
    }
}

fn is_well_formed(term: Term, body: &Body) -> bool {
    let sane = |position: Position| position.index.0 <= NUMBER_MAX && position.term <= term;
    match body {
        Body::VoteAsk(ask) => {
            let expected = match ask.ballot {
                Ballot::Pre => term.next(),
                Ballot::Real => term,
            };
            ask.campaign_term == expected && sane(ask.last)
        }
        Body::Append(append) => sane(append.prev) && append_is_well_formed(term, append),
        Body::SnapshotChunk(chunk) => {
            let meta = &chunk.snapshot.meta;
            sane(meta.position)
                && meta.position.index > Index::ZERO
                && chunk.length > 0
                && chunk.offset.checked_add(chunk.length).is_some_and(|end| end <= chunk.snapshot.bytes)
                && meta.configuration.check().is_ok()
        }
        Body::VoteReply(_)
        | Body::AppendReply(_)
        | Body::Beat(_)
        | Body::BeatReply(_)
        | Body::SnapshotReply(_) => true,
    }
}

fn append_is_well_formed(term: Term, append: &Append) -> bool {
    let Some(last) = append.entries.last() else {
        return append.configurations.is_empty();
    };
    let mut before = append.prev;
    let rising = append.entries.runs.as_slice().iter().all(|&run| {
        let rises = run.index > before.index && run.term >= before.term;
        before = run;
        rises
    });
    let mut at = append.prev.index;
    let configurations = append.configurations.len() <= MEMBERS_MAX
        && append.configurations.iter().all(|entry| {
            let inside = entry.index > at && entry.index <= last.index;
            at = entry.index;
            inside && entry.configuration.check().is_ok()
        });
    append.entries.first == append.prev.index.next()
        && rising
        && last.term <= term
        && last.index.0 <= NUMBER_MAX
        && append.entries.count() <= APPEND_ENTRIES_MAX
        && append.entries.bytes <= PAYLOAD_BYTES_MAX
        && configurations
}
