//! Consensus calls of the specification: one message in, the core's own answer out.
//!
//! The core answers by sending a message to the asker's replica; while a call waits, the next such
//! message is the call's answer and does not go to the peer stream.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Driver, payloads::Payload};
use crate::{
    limits::CONSENSUS_CALLS_MAX,
    node::wire::{EntryKind, WireEntry},
    raft::{AppendOutcome, AppendReply, Body, GroupId, Index, Input, Message, ReplicaId},
};

/// Calls that wait for the core's answer.
#[derive(Debug, Default)]
pub(super) struct Unary {
    waiting: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    group: GroupId,
    asker: ReplicaId,
    kind: AnswerKind,
    /// The last entry of an append: its answer tells that this one is stored.
    last: Index,
    reply: oneshot::Sender<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerKind {
    Vote,
    Append,
}

fn answer_kind(body: &Body) -> Option<AnswerKind> {
    match body {
        Body::VoteAsk(_) | Body::VoteReply(_) => Some(AnswerKind::Vote),
        // A stale leader is answered like a beat.
        Body::Append(_) | Body::AppendReply(_) | Body::Beat(_) | Body::BeatReply(_) => {
            Some(AnswerKind::Append)
        }
        Body::SnapshotChunk(_) | Body::SnapshotReply(_) => None,
    }
}

impl Unary {
    /// Gives an outgoing message to a call that waits for it. Returns it where none does.
    pub(super) fn intercept(&mut self, group: GroupId, message: Message) -> Option<Message> {
        if self.waiting.is_empty() || !crate::node::handle::answers(&message.body) {
            return Some(message);
        }
        let kind = answer_kind(&message.body);
        let wanted = |call: &Call| call.group == group && call.asker == message.to && Some(call.kind) == kind;
        let Some(at) = self.waiting.iter().position(wanted) else { return Some(message) };
        if let Body::AppendReply(AppendReply { outcome: AppendOutcome::Accepted(index), .. }) = &message.body
            && *index < self.waiting[at].last
        {
            // An acknowledgement of what came before: the rest is being stored.
            return None;
        }
        // A caller that is gone needs no answer.
        let _ = self.waiting.swap_remove(at).reply.send(message);
        None
    }
}

impl<V: Send + 'static> Driver<V> {
    pub(super) fn on_unary(
        &mut self,
        group: GroupId,
        message: Message,
        payloads: Vec<Bytes>,
        reply: oneshot::Sender<Message>,
    ) {
        self.unary.waiting.retain(|call| !call.reply.is_closed());
        let Some(kind) = answer_kind(&message.body) else { return };
        if self.unary.waiting.len() >= CONSENSUS_CALLS_MAX {
            return;
        }
        let last = match &message.body {
            Body::Append(append) => append.entries.last().unwrap_or(append.prev).index,
            Body::AppendReply(_)
            | Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotReply(_) => Index::ZERO,
        };
        self.unary.waiting.push(Call { group, asker: message.from, kind, last, reply });
        let payload = match &message.body {
            Body::Append(append) if !append.entries.is_empty() => {
                let entry = |(index, payload)| {
                    let special = append.configurations.iter().any(|entry| entry.index.0 == index);
                    let kind = if special { EntryKind::Configuration } else { EntryKind::Normal };
                    WireEntry { kind, payload }
                };
                let first = append.entries.first;
                let entries = (first.0..).zip(payloads).map(entry).collect();
                Some(self.payloads.keep(Payload::Entries { first, entries }))
            }
            Body::Append(_)
            | Body::AppendReply(_)
            | Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotReply(_) => None,
        };
        self.step_group(group, Input::Message { message, payload });
        if let Some(id) = payload {
            self.payloads.forget(id);
        }
    }
}
