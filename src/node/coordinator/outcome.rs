//! What became of an attempt, and the answer a client gets.

use kotoba_db_cluster_proto::v1::ClientResponse;

use super::prepare::Session;
use crate::{
    error::{ClusterError, Effect, ErrorCode, Retry},
    graph::{GraphError, Receipt},
    node::{
        handle::{Applied, AppliedOutcome, ProposalResult, RequestError},
        peers::{ForwardError, ForwardResult},
    },
    placement::PartitionId,
    raft::Refusal,
};

/// What became of one attempt of a write.
#[derive(Debug)]
pub(super) enum Attempt {
    /// It was applied, or refused for good: this is the answer.
    Answered(ClientResponse),
    /// It should be made again, under the same session id.
    Again {
        /// Why it failed.
        failure: ClusterError,
        /// It may still take effect.
        uncertain: bool,
    },
}

impl Attempt {
    /// The driver's queue is full.
    pub(super) fn busy() -> Self {
        Self::not_done(ErrorCode::Busy, "this node's queue of requests is full")
    }

    /// The driver is gone.
    pub(super) fn stopping() -> Self {
        Self::not_done(ErrorCode::Unavailable, "this node is stopping")
    }

    pub(super) fn no_leader(partition: PartitionId) -> Self {
        Self::not_done(ErrorCode::NoLeader, format!("nobody leads partition {} at the moment", partition.0))
    }

    fn not_done(code: ErrorCode, what: impl Into<String>) -> Self {
        Self::Again { failure: ClusterError::new(code, what), uncertain: false }
    }
}

/// What a proposal to this node's driver came to.
pub(super) fn of_proposal(session: &Session, partition: PartitionId, result: ProposalResult) -> Attempt {
    match result {
        Ok(applied) => Attempt::Answered(answer(session, partition, &applied)),
        Err(error) => {
            let uncertain = is_uncertain(&error);
            Attempt::Again { failure: of_request(error, partition), uncertain }
        }
    }
}

/// What a forwarded write came to.
pub(super) fn of_forward(session: &Session, partition: PartitionId, result: ForwardResult) -> Attempt {
    let mut response = match result {
        Ok(response) => response,
        Err(error) => return of_forward_error(partition, &error),
    };
    if !response.success {
        let error = ClusterError::from_wire(&response.error_code, &response.error_message);
        if error.code().retry() == Retry::Same {
            let uncertain = error.code().effect() == Effect::Unknown;
            return Attempt::Again { failure: error, uncertain };
        }
    }
    response.client_id.clone_from(&session.client_id);
    response.request_id = session.request_id;
    Attempt::Answered(response)
}

fn of_forward_error(partition: PartitionId, error: &ForwardError) -> Attempt {
    let what = format!("the leader of partition {} cannot be reached: {error}", partition.0);
    match error {
        ForwardError::Busy => {
            Attempt::Again { failure: ClusterError::new(ErrorCode::Busy, what), uncertain: false }
        }
        ForwardError::Unavailable => {
            Attempt::Again { failure: ClusterError::new(ErrorCode::Unavailable, what), uncertain: false }
        }
        ForwardError::Unknown => {
            Attempt::Again { failure: ClusterError::new(ErrorCode::UnknownOutcome, what), uncertain: true }
        }
    }
}

/// The error of a request to the driver, for people.
pub(crate) fn of_request(error: RequestError, partition: PartitionId) -> ClusterError {
    let place = format!("partition {}", partition.0);
    let (code, what) = match error {
        RequestError::Refused(Refusal::NotLeader(_)) => {
            (ErrorCode::NoLeader, format!("this node does not lead {place}"))
        }
        RequestError::Refused(Refusal::Busy(bound)) => {
            (ErrorCode::Busy, format!("{place} has too much work under way ({bound:?})"))
        }
        RequestError::Refused(Refusal::LeadershipLost) | RequestError::OutcomeUnknown => (
            ErrorCode::UnknownOutcome,
            format!("leadership of {place} was lost before the request was decided"),
        ),
        RequestError::Refused(Refusal::Malformed) => {
            (ErrorCode::TooLarge, format!("the operation is too large for the log of {place}"))
        }
        RequestError::Refused(Refusal::Reconfiguration(reason)) => {
            (ErrorCode::Unavailable, format!("the members of {place} cannot be changed now ({reason:?})"))
        }
        RequestError::Refused(Refusal::Faulted) => {
            (ErrorCode::Unavailable, format!("this node's replica of {place} is faulted"))
        }
        RequestError::NotHere => (ErrorCode::Unavailable, format!("this node has no replica of {place}")),
        RequestError::Faulted(reason) => {
            (ErrorCode::Unavailable, format!("this node's replica of {place} is out of service: {reason}"))
        }
        RequestError::Stopping => (ErrorCode::Unavailable, "this node is stopping".to_owned()),
    };
    ClusterError::new(code, what)
}

/// The state machine's refusal, for people.
fn of_graph(error: &GraphError, partition: PartitionId) -> ClusterError {
    let code = match error {
        GraphError::NotFound { .. } => ErrorCode::NotFound,
        GraphError::Deleted { .. } => ErrorCode::Deleted,
        GraphError::WrongKind { .. } => ErrorCode::WrongKind,
        GraphError::EndpointMissing { .. } | GraphError::EndpointDeleted { .. } => ErrorCode::EndpointMissing,
        GraphError::TooLarge { .. } | GraphError::TooManyClients => ErrorCode::TooLarge,
        GraphError::SessionExpired => ErrorCode::SessionExpired,
        GraphError::RequestReused => ErrorCode::RequestReused,
        GraphError::Malformed => ErrorCode::MalformedValue,
    };
    let text = error.to_string();
    let what = text.split_once("; next: ").map_or(text.as_str(), |(what, _)| what);
    ClusterError::new(code, format!("{what}, in partition {}", partition.0))
}

/// Whether the request may still take effect.
fn is_uncertain(error: &RequestError) -> bool {
    match error {
        RequestError::OutcomeUnknown | RequestError::Refused(Refusal::LeadershipLost) => true,
        RequestError::Refused { .. } | RequestError::NotHere | RequestError::Faulted(_) => false,
        // The entry may be in the log already.
        RequestError::Stopping => true,
    }
}

/// The answer to a write that was applied.
pub(super) fn answer(session: &Session, partition: PartitionId, applied: &Applied) -> ClientResponse {
    let mut response = match &applied.outcome {
        AppliedOutcome::Graph(Ok(receipt)) => receipt_response(session, receipt),
        AppliedOutcome::Graph(Err(error)) => failed(session, &of_graph(error, partition)),
        AppliedOutcome::Meta(_) | AppliedOutcome::Verify => {
            let what = format!("partition {} answered an operation like something else", partition.0);
            failed(session, &ClusterError::new(ErrorCode::Internal, what))
        }
    };
    response.partition = partition.0;
    if response.log_index == 0 {
        response.log_index = applied.index.0;
    }
    response
}

fn receipt_response(session: &Session, receipt: &Receipt) -> ClientResponse {
    ClientResponse {
        client_id: session.client_id.clone(),
        request_id: session.request_id,
        success: true,
        result_cid: receipt.cid.to_string(),
        version_cid: receipt.version.to_string(),
        log_index: receipt.index.0,
        ..ClientResponse::default()
    }
}

/// The answer to a write that failed.
pub(super) fn failed(session: &Session, error: &ClusterError) -> ClientResponse {
    ClientResponse {
        client_id: session.client_id.clone(),
        request_id: session.request_id,
        success: false,
        error_message: error.to_string(),
        error_code: error.code().to_string(),
        ..ClientResponse::default()
    }
}

/// Whether the answer says that the partition has no such entity.
pub(super) fn is_not_found(response: &ClientResponse) -> bool {
    !response.success && ErrorCode::from_text(&response.error_code) == Some(ErrorCode::NotFound)
}

/// Makes "not found" say what is there instead of a node, in this partition.
pub(super) fn tell_kind(response: &mut ClientResponse, partition: PartitionId, error: &ClusterError) {
    response.error_code = error.code().to_string();
    response.error_message = error.to_string();
    response.partition = partition.0;
}

/// The error of a write whose deadline passed: what it may have changed by then, and why the last
/// attempt failed.
pub(super) fn timed_out(session: &Session, effect: Effect, last: Option<&ClusterError>) -> ClusterError {
    let reason = last.map_or_else(|| "the leader did not answer in time".to_owned(), ClusterError::what);
    match effect {
        Effect::Unknown => {
            let id = session.request_id;
            let what = format!("request {id} was taken, its outcome is not known: {reason}");
            return ClusterError::new(ErrorCode::UnknownOutcome, what);
        }
        Effect::Nothing => {}
    }
    let code = match last.map(ClusterError::code) {
        Some(ErrorCode::NoLeader | ErrorCode::NotLeader) => ErrorCode::NoLeader,
        Some(ErrorCode::Busy) => ErrorCode::Busy,
        _ => ErrorCode::Unavailable,
    };
    ClusterError::new(code, format!("request {} was not carried out in time: {reason}", session.request_id))
}
