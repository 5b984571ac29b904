//! Writes that other nodes took and this one should propose.
//!
//! A forwarded write takes one hop: where this node does not lead, it says who does, and the node
//! that took the write tries again. All writes of a frame are proposed together and share one
//! channel; their answers travel back in whatever batches they become ready in.

use std::sync::Arc;

use kotoba_db_cluster_proto::v1::{ClientResponse, Forward};
use tokio::sync::mpsc;

use super::{outcome, prepare::Session, routing::Routing};
use crate::{
    error::{ClusterError, ErrorCode},
    limits::OPERATION_BYTES_MAX,
    node::{
        handle::{Command, NodeHandle, ProposalResult, RequestError, Responder},
        peers::{ForwardHandler, ForwardReplier},
    },
    placement::PartitionId,
    raft::{PeerId, Refusal},
};

/// What an entry has beside its operation, at most.
const ENVELOPE_BYTES_MAX: usize = 4096;

/// Proposes what other nodes forward.
#[derive(Debug)]
pub(crate) struct ForwardedWrites {
    handle: NodeHandle,
    routing: Arc<Routing>,
}

impl ForwardedWrites {
    pub(crate) fn new(handle: NodeHandle, routing: Arc<Routing>) -> Self {
        Self { handle, routing }
    }
}

impl ForwardHandler for ForwardedWrites {
    fn handle(&self, _from: PeerId, forwards: Vec<Forward>, reply: ForwardReplier) {
        let (to, answers) = mpsc::unbounded_channel();
        let mut partitions = Vec::with_capacity(forwards.len());
        for forward in forwards {
            let place = partitions.len() as u64;
            partitions.push((forward.id, PartitionId(forward.partition)));
            let responder = Responder { id: place, to: to.clone() };
            self.propose(PartitionId(forward.partition), forward.command, responder);
        }
        drop(to);
        let routing = Arc::clone(&self.routing);
        tokio::spawn(send_answers(partitions, answers, reply, routing));
    }
}

impl ForwardedWrites {
    fn propose(&self, partition: PartitionId, entry: bytes::Bytes, responder: Responder) {
        let known = partition.0 < self.routing.meta().map.partition_count;
        if !known || entry.len() > OPERATION_BYTES_MAX + ENVELOPE_BYTES_MAX {
            responder.answer(Err(RequestError::Refused(Refusal::Malformed)));
            return;
        }
        let proposal = Command::Propose { group: partition.group(), entry, responder };
        match self.handle.commands.try_send(proposal) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(Command::Propose { responder, .. })) => {
                let reason = Refusal::Busy(crate::raft::BusyReason::UncommittedBytes);
                responder.answer(Err(RequestError::Refused(reason)));
            }
            Err(error) => {
                if let Command::Propose { responder, .. } = error.into_inner() {
                    responder.answer(Err(RequestError::NotHere));
                }
            }
        }
    }
}

/// Sends the answers of one frame's writes as they become ready.
async fn send_answers(
    writes: Vec<(u64, PartitionId)>,
    mut answers: mpsc::UnboundedReceiver<(u64, ProposalResult)>,
    reply: ForwardReplier,
    routing: Arc<Routing>,
) {
    let mut ready = Vec::new();
    let mut left = writes.len();
    while left > 0 {
        let count = answers.recv_many(&mut ready, left).await;
        if count == 0 {
            // The driver is gone and dropped the rest: the other node's stream will tell.
            return;
        }
        left -= count;
        for (place, result) in ready.drain(..) {
            if let Some(&(id, partition)) = usize::try_from(place).ok().and_then(|place| writes.get(place)) {
                reply.reply(id, response(partition, result, &routing));
            }
        }
    }
}

/// The session is known to the node that took the write; it fills it in.
fn response(partition: PartitionId, result: ProposalResult, routing: &Routing) -> ClientResponse {
    let session = Session { client_id: String::new(), request_id: 0, acked_below: 0 };
    match result {
        Ok(applied) => outcome::answer(&session, partition, &applied),
        Err(error) => {
            let not_leader = matches!(&error, RequestError::Refused(Refusal::NotLeader(_)));
            let error = match error {
                RequestError::Refused(Refusal::NotLeader(_)) => ClusterError::new(
                    ErrorCode::NoLeader,
                    format!("the node asked does not lead partition {}", partition.0),
                ),
                // Whoever stops may have the entry in its log.
                RequestError::Stopping => {
                    ClusterError::new(ErrorCode::UnknownOutcome, "the node that led is stopping")
                }
                other => outcome::of_request(other, partition),
            };
            let mut response = outcome::failed(&session, &error);
            response.partition = partition.0;
            if not_leader {
                response.leader_address = routing.leader_address(partition.group());
            }
            response
        }
    }
}
