//! What a picture of the run shows: roles, links and messages, told as they change. Nothing of it
//! is made unless somebody reads.

use kotoba_db_cluster::{
    multiraft::GroupMessage,
    raft::{AppendOutcome, Ballot, Body, GroupId, Message, RoleKind},
};

use super::{World, event::Event, network::LinkState, packet::Packet};
use crate::{
    history::TrueTime,
    machine::StateMachine,
    trace::{Detail, Kind, Line, LinkCondition, MessageKind, Role},
};

impl<M: StateMachine> World<M> {
    /// Tells something that a picture shows.
    pub(super) fn show(&mut self, kind: Kind, at: usize, detail: Detail, text: impl FnOnce() -> String) {
        if self.trace.is_read() {
            let host = Some(self.hosts[at].number);
            let text = text();
            self.trace.line(Line { at: self.now, kind, host, from: None, sent: None, detail, text });
        }
    }

    /// The role of a group's replica on a host, as it is now.
    pub(super) fn role_detail(&self, at: usize, group: GroupId) -> Detail {
        let replica = self.hosts[at].process.as_ref().and_then(|process| process.node.replica(group));
        let Some(replica) = replica else { return Detail::None };
        let report = replica.role();
        let role = match report.role {
            RoleKind::Follower if !replica.configuration().is_voter(replica.id()) => Role::Learner,
            RoleKind::Follower => Role::Follower,
            RoleKind::PreCandidate => Role::Trial,
            RoleKind::Candidate => Role::Candidate,
            RoleKind::Leader => Role::Leader,
            RoleKind::Faulted => Role::Faulted,
        };
        Detail::Role { group, role, term: report.term }
    }

    /// Tells the role that a replica begins with.
    pub(super) fn show_first_roles(&mut self, at: usize) {
        if !self.trace.is_read() {
            return;
        }
        for group in self.genesis.keys().copied().collect::<Vec<_>>() {
            let detail = self.role_detail(at, group);
            if let Detail::Role { role, term, .. } = detail {
                self.show(Kind::Role, at, detail, || format!("{group} begins as {role:?} in {term}"));
            }
        }
    }

    /// Tells that a link changes from one state to another.
    pub(super) fn show_link(&mut self, (from, to): (usize, usize), before: LinkState, after: LinkState) {
        if before == after || !self.trace.is_read() {
            return;
        }
        let (condition, word) = match after {
            LinkState::Open => (LinkCondition::Open, "opens"),
            LinkState::Cut => (LinkCondition::Cut, "is cut"),
            LinkState::Clogged => (LinkCondition::Clogged, "is clogged"),
        };
        let (one, other) = (self.hosts[from].number, self.hosts[to].number);
        let detail = Detail::Link(one, other, condition);
        self.show(Kind::Link, from, detail, || format!("its link to host {other} {word}"));
    }

    /// Tells that a message does not arrive: its link is cut, or its receiver gone.
    pub(super) fn show_lost(&mut self, event: &Event<M::Answer>) {
        if let Event::Deliver { from, to, sent, packet, .. } = event {
            self.show_packet(Kind::Lost, (*from, *to), *sent, packet);
        }
    }

    /// Tells that a message arrives, or was lost.
    pub(super) fn show_packet(
        &mut self,
        kind: Kind,
        (from, to): (usize, usize),
        sent: TrueTime,
        packet: &Packet,
    ) {
        if !self.trace.is_read() {
            return;
        }
        let (detail, text) = match packet {
            Packet::Message(message, _) => (detail_of(message), told(message)),
            Packet::Beats(messages) => {
                let detail = match messages.as_slice() {
                    [message] => detail_of(message),
                    messages => Detail::Message {
                        group: None,
                        term: messages.first().map(|message| message.message.term).unwrap_or_default(),
                        of: MessageKind::Beats,
                    },
                };
                (detail, messages.iter().map(told).collect::<Vec<_>>().join("; "))
            }
        };
        let (host, from) = (Some(self.hosts[to].number), Some(self.hosts[from].number));
        self.trace.line(Line { at: self.now, kind, host, from, sent: Some(sent), detail, text });
    }
}

fn detail_of(GroupMessage { group, message }: &GroupMessage) -> Detail {
    let of = match &message.body {
        Body::VoteAsk(_) => MessageKind::VoteAsk,
        Body::VoteReply(_) => MessageKind::VoteReply,
        Body::Append(_) => MessageKind::Append,
        Body::AppendReply(_) => MessageKind::AppendReply,
        Body::Beat(_) => MessageKind::Beat,
        Body::BeatReply(_) => MessageKind::BeatReply,
        Body::SnapshotChunk(_) => MessageKind::SnapshotChunk,
        Body::SnapshotReply(_) => MessageKind::SnapshotReply,
    };
    Detail::Message { group: Some(*group), term: message.term, of }
}

/// A message in words.
fn told(GroupMessage { group, message }: &GroupMessage) -> String {
    let Message { from, to: _, term, body } = message;
    let said = match body {
        Body::VoteAsk(ask) => {
            let what = match ask.ballot {
                Ballot::Pre => "would you vote for me",
                Ballot::Real => "vote for me",
            };
            format!("{what} in {}? My log ends at {}", ask.campaign_term, ask.last)
        }
        Body::VoteReply(reply) => {
            let trial = match reply.ballot {
                Ballot::Pre => "a trial ",
                Ballot::Real => "",
            };
            let word = if reply.granted { "yes" } else { "no" };
            format!("{word}, to {trial}vote in {}", reply.campaign_term)
        }
        Body::Append(append) => {
            let (prev, commit) = (append.prev, append.commit);
            match append.entries.last() {
                Some(last) => format!(
                    "append {} entries behind {prev} to {last}, committed {commit}",
                    append.entries.count()
                ),
                None => format!("do you have {prev}? Committed {commit}"),
            }
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Accepted(index) => format!("I have everything up to {index}"),
            AppendOutcome::Rejected { prev, hint } => format!("I do not have {prev}, maybe {hint}"),
        },
        Body::Beat(beat) => {
            format!("beat, committed {}, sent {}, round {}", beat.commit, beat.sent, beat.round)
        }
        Body::BeatReply(reply) => match reply.verified {
            Some(verified) => format!("beat heard, round {}, equal up to {verified}", reply.round),
            None => format!("beat heard, round {}", reply.round),
        },
        Body::SnapshotChunk(chunk) => {
            let end = chunk.offset + chunk.length;
            format!("bytes {} to {end} of the snapshot at {}", chunk.offset, chunk.snapshot.meta.position)
        }
        Body::SnapshotReply(reply) => {
            format!("stored the snapshot at {} up to byte {}", reply.position, reply.next_offset)
        }
    };
    format!("{group} {from} in {term}: {said}")
}
