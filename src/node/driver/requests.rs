//! Requests on their way into the core: proposals gathered per group, reads, frames of peers.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Driver, payloads::Payload};
use crate::{
    limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX, BACKLOG_MAX},
    multiraft::NodeInput,
    node::{
        handle::{RequestError, Responder},
        status::GroupFault,
        wire::{InboundFrame, InboundPayload},
    },
    raft::{Body, BusyReason, GroupId, Index, Input, PayloadId, PeerId, Position, Proposal, ReadId, Refusal},
};

/// Proposals between a client and the log.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    /// Of this turn, per group.
    gathered: BTreeMap<GroupId, Gathered>,
    /// Handed to the core, until it says where they stand.
    proposed: BTreeMap<PayloadId, Vec<Responder>>,
}

#[derive(Debug, Default)]
struct Gathered {
    entries: Vec<Bytes>,
    responders: Vec<Responder>,
    bytes: u64,
}

/// A read that the core has not answered.
#[derive(Debug)]
pub(super) struct PendingRead {
    group: GroupId,
    reply: oneshot::Sender<Result<Index, RequestError>>,
}

impl<V: Send + 'static> Driver<V> {
    /// Puts a proposal beside the others of its group in this turn.
    pub(super) fn gather_proposal(&mut self, group: GroupId, entry: Bytes, responder: Responder) {
        let Some(state) = self.groups.get(&group) else {
            return responder.answer(Err(RequestError::NotHere));
        };
        if let Some(fault) = state.fault() {
            return responder.answer(Err(RequestError::Faulted(fault.clone())));
        }
        if state.backlog() > BACKLOG_MAX {
            let busy = RequestError::Refused(Refusal::Busy(BusyReason::UncommittedBytes));
            return responder.answer(Err(busy));
        }
        let bytes = entry.len() as u64;
        let full = self.proposals.gathered.get(&group).is_some_and(|gathered| {
            gathered.bytes + bytes > APPEND_BYTES_MAX || gathered.entries.len() as u64 >= APPEND_ENTRIES_MAX
        });
        if full {
            self.propose_for(group);
        }
        let gathered = self.proposals.gathered.entry(group).or_default();
        gathered.entries.push(entry);
        gathered.responders.push(responder);
        gathered.bytes += bytes;
    }

    /// Hands all gathered proposals to the core, one batch a group.
    pub(super) fn propose_gathered(&mut self) {
        while let Some((&group, _)) = self.proposals.gathered.first_key_value() {
            self.propose_for(group);
        }
    }

    fn propose_for(&mut self, group: GroupId) {
        let Some(gathered) = self.proposals.gathered.remove(&group) else { return };
        let count = u32::try_from(gathered.entries.len()).expect("bounded by one message");
        let bytes = gathered.bytes;
        let payload = self.payloads.keep(Payload::Proposal(gathered.entries));
        self.proposals.proposed.insert(payload, gathered.responders);
        self.step_group(group, Input::Propose(Proposal { count, bytes, payload }));
        self.payloads.forget(payload);
        // A group that was quarantined by this very step answers nobody.
        for responder in self.proposals.proposed.remove(&payload).into_iter().flatten() {
            responder.answer(Err(RequestError::OutcomeUnknown));
        }
    }

    /// The core appended a proposal.
    pub(super) fn on_proposed(&mut self, group: GroupId, payload: PayloadId, first: Index, last: Position) {
        let responders = self.proposals.proposed.remove(&payload).unwrap_or_default();
        if let Some(state) = self.groups.get_mut(&group) {
            state.await_commit(first, last.term, responders);
        }
    }

    /// The core refused a proposal.
    pub(super) fn on_proposal_refused(&mut self, payload: PayloadId, reason: Refusal) {
        for responder in self.proposals.proposed.remove(&payload).unwrap_or_default() {
            responder.answer(Err(RequestError::Refused(reason)));
        }
    }

    pub(super) fn begin_read(&mut self, group: GroupId, reply: oneshot::Sender<Result<Index, RequestError>>) {
        let error = match self.groups.get(&group) {
            None => Some(RequestError::NotHere),
            Some(state) => state.fault().cloned().map(RequestError::Faulted),
        };
        if let Some(error) = error {
            let _ = reply.send(Err(error));
            return;
        }
        self.next_read += 1;
        let read = ReadId(self.next_read);
        self.reads.insert(read, PendingRead { group, reply });
        self.step_group(group, Input::Read(read));
    }

    pub(super) fn on_read_ready(&mut self, read: ReadId, index: Index) {
        let Some(PendingRead { group, reply }) = self.reads.remove(&read) else { return };
        if let Some(state) = self.groups.get_mut(&group) {
            state.await_applied(index, reply);
        }
    }

    pub(super) fn on_read_refused(&mut self, read: ReadId, reason: Refusal) {
        let Some(PendingRead { reply, .. }) = self.reads.remove(&read) else { return };
        let _ = reply.send(Err(RequestError::Refused(reason)));
    }

    /// A group is out of service: its reads get no answer from the core any more.
    pub(super) fn refuse_reads(&mut self, group: GroupId, fault: &GroupFault) {
        for (_, read) in self.reads.extract_if(.., |_, read| read.group == group) {
            // One who no longer waits does not want the answer.
            let _ = read.reply.send(Err(RequestError::Faulted(fault.clone())));
        }
    }

    /// Messages from a peer.
    pub(super) fn on_frame(&mut self, _peer: PeerId, frame: InboundFrame) {
        for inbound in frame.messages {
            let payload = match (inbound.payload, &inbound.message.message.body) {
                (InboundPayload::Entries(entries), Body::Append(append)) => {
                    Some(Payload::Entries { first: append.entries.first, entries })
                }
                (InboundPayload::Chunk(bytes), _) => Some(Payload::Chunk(bytes)),
                (InboundPayload::None | InboundPayload::Entries(_), _) => None,
            };
            let payload = payload.map(|payload| self.payloads.keep(payload));
            let group = inbound.message.group;
            self.step_group(group, Input::Message { message: inbound.message.message, payload });
            if let Some(id) = payload {
                self.payloads.forget(id);
            }
        }
        if !frame.beats.is_empty() {
            self.step(NodeInput::Beats(frame.beats));
        }
    }
}
