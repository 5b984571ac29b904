//! What a failed attempt means: whether to go on, and what to say when time is up.

use std::{error::Error, io};

use tonic::{Code, ConnectError, Status};

use crate::error::{ClusterError, Effect, ErrorCode, Retry};

/// Where nodes put the code of an error that fails a whole call.
pub(super) const ERROR_CODE_KEY: &str = "kdb-error-code";

/// The error behind a failed call. `address` is who was asked.
pub(super) fn from_status(status: &Status, address: &str) -> ClusterError {
    let code = status.metadata().get(ERROR_CODE_KEY).and_then(|code| code.to_str().ok());
    if let Some(code) = code {
        return ClusterError::from_wire(code, status.message());
    }
    let what = || format!("node {address}: {}", describe(status));
    match how_far(status) {
        Reach::NoConnection => return ClusterError::new(ErrorCode::Unavailable, what()),
        Reach::NoSecureConnection => return ClusterError::new(ErrorCode::Tls, what()),
        Reach::ClosedBeforeSending => {
            let what = format!("node {address} closed the connection before it took the request");
            return ClusterError::new(ErrorCode::Unavailable, what);
        }
        Reach::PerhapsSent => {}
    }
    match status.code() {
        Code::InvalidArgument => ClusterError::new(ErrorCode::MalformedValue, what()),
        Code::OutOfRange => ClusterError::new(ErrorCode::TooLarge, what()),
        Code::NotFound => ClusterError::new(ErrorCode::NotFound, what()),
        Code::Unimplemented => ClusterError::new(ErrorCode::ProtocolVersion, what()),
        Code::PermissionDenied | Code::Unauthenticated => ClusterError::new(ErrorCode::Tls, what()),
        Code::ResourceExhausted => ClusterError::new(ErrorCode::Busy, what()),
        Code::FailedPrecondition => ClusterError::new(ErrorCode::Unavailable, what()),
        Code::DeadlineExceeded | Code::Cancelled => ClusterError::new(ErrorCode::UnknownOutcome, what()),
        Code::Internal | Code::DataLoss => ClusterError::new(ErrorCode::Internal, what()),
        Code::Ok | Code::Unknown | Code::AlreadyExists | Code::Aborted | Code::Unavailable => {
            ClusterError::new(ErrorCode::Network, what())
        }
    }
}

/// How far a request got that failed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// There was no connection to send it on.
    NoConnection,
    /// The other side is there, the TLS handshake with it failed.
    NoSecureConnection,
    /// The connection ended with the request still in the queue before it.
    ClosedBeforeSending,
    /// The node may have got it.
    PerhapsSent,
}

/// Reads how far the request got from the errors beneath the status. What a node answered itself has none.
pub(super) fn how_far(status: &Status) -> Reach {
    let causes = || std::iter::successors(status.source(), |&cause| cause.source());
    if causes().any(|cause| cause.is::<ConnectError>()) {
        return if causes().any(broke_off_tls) { Reach::NoSecureConnection } else { Reach::NoConnection };
    }
    let queued = |cause: &hyper::Error| cause.is_canceled();
    if causes().any(|cause| cause.downcast_ref().is_some_and(queued)) {
        return Reach::ClosedBeforeSending;
    }
    if causes().any(|cause| broke_off_tls(cause) && is_about_a_certificate(&cause.to_string())) {
        return Reach::NoSecureConnection;
    }
    Reach::PerhapsSent
}

/// Whether a TLS alert refuses this side's certificate. With TLS 1.3 it may come when requests are on
/// their way already; the other side reads none of them, because the handshake never ended there.
fn is_about_a_certificate(alert: &str) -> bool {
    // RFC 8446, section 6.2, in the library's spelling: alerts that only a handshake ends with.
    let alerts = [
        "AccessDenied",
        "BadCertificate",
        "CertificateExpired",
        "CertificateRequired",
        "CertificateRevoked",
        "CertificateUnknown",
        "DecryptError",
        "UnknownCA",
        "UnsupportedCertificate",
    ];
    alert.contains("received fatal alert") && alerts.iter().any(|name| alert.contains(name))
}

/// Whether a call failed because one side does not accept the other's certificate, or speaks no TLS.
pub(crate) fn is_about_tls(status: &Status) -> bool {
    std::iter::successors(status.source(), |&cause| cause.source()).any(broke_off_tls)
}

/// The TLS library reports what it cannot accept as invalid data; the system never does while connecting.
fn broke_off_tls(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::InvalidData)
}

/// The innermost reason of an error.
pub(super) fn deepest<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    std::iter::successors(Some(error), |&cause| cause.source()).last().unwrap_or(error)
}

/// The status' message with the reason underneath it, which for a refused connection is the useful part.
fn describe(status: &Status) -> String {
    match status.source().map(|cause| deepest(cause).to_string()) {
        Some(cause)
            if status.message().is_empty()
                || status.message() == "transport error"
                || status.message() == cause =>
        {
            cause
        }
        Some(cause) => format!("{} ({cause})", status.message()),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// Whether the same request may get another answer from another node or at another time. A node whose
/// certificate is wrong does not speak for the others.
pub(super) fn is_retryable(error: &ClusterError) -> bool {
    error.code().retry() == Retry::Same || error.code() == ErrorCode::Tls
}

/// Failed handshakes, without anything else between them, after which every node was asked several times.
fn is_hopeless(handshakes_failed: usize, nodes: usize) -> bool {
    handshakes_failed >= 3 * nodes
}

/// What names a write for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestName<'a> {
    pub(super) client_id: &'a str,
    pub(super) request_id: u64,
}

/// What is known of a write while it is tried again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    maybe_taken: bool,
    handshakes_failed: usize,
    last: Option<ClusterError>,
}

impl Trace {
    /// Notes a failed attempt.
    pub(super) fn note(&mut self, error: ClusterError) {
        self.maybe_taken |= error.code().effect() == Effect::Unknown;
        self.handshakes_failed = if error.code() == ErrorCode::Tls { self.handshakes_failed + 1 } else { 0 };
        self.last = Some(error);
    }

    /// Whether trying longer is in vain: no node of so many lets this client in.
    pub(super) fn is_hopeless(&self, nodes: usize) -> bool {
        is_hopeless(self.handshakes_failed, nodes)
    }

    /// What the last attempt failed with.
    pub(super) fn into_last(self) -> Option<ClusterError> {
        self.last
    }

    /// The error of a write whose deadline has passed: *unknown* only where some node may have taken it.
    /// Then it names the request, so that it can be repeated.
    pub(super) fn give_up(&self, after: std::time::Duration, request: &RequestName<'_>) -> ClusterError {
        let seconds = after.as_secs_f64();
        let last = self.last.as_ref().map_or_else(|| "no node answered".into(), ClusterError::what);
        if self.maybe_taken {
            let RequestName { client_id, request_id } = request;
            let what = format!(
                "no answer to request {request_id} of client {client_id} within {seconds:.1} s, the last attempt said: {last}"
            );
            return ClusterError::new(ErrorCode::UnknownOutcome, what);
        }
        match &self.last {
            Some(error @ (ClusterError::NoLeader | ClusterError::Busy(_))) => error.clone(),
            Some(error) if error.code() == ErrorCode::Tls => error.clone(),
            _ => {
                let what = format!("no node took the request within {seconds:.1} s: {last}");
                ClusterError::new(ErrorCode::Unavailable, what)
            }
        }
    }
}

/// The error of a read whose deadline has passed: nothing can have changed.
pub(super) fn unanswered_read(last: Option<ClusterError>, after: std::time::Duration) -> ClusterError {
    if let Some(error) = last.as_ref().filter(|error| error.code() == ErrorCode::Tls) {
        return error.clone();
    }
    let last = last.map_or_else(|| "no node answered".into(), |error| error.what());
    let what = format!("no answer within {:.1} s: {last}", after.as_secs_f64());
    ClusterError::new(ErrorCode::Unavailable, what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const REQUEST: RequestName<'_> = RequestName { client_id: "c", request_id: 7 };

    #[test]
    fn an_outcome_is_unknown_only_after_an_attempt_that_may_have_taken_effect() {
        let mut trace = Trace::default();
        assert_eq!(trace.give_up(Duration::from_secs(1), &REQUEST).code(), ErrorCode::Unavailable);
        trace.note(ClusterError::new(ErrorCode::Unavailable, "starting"));
        assert_eq!(trace.give_up(Duration::from_secs(1), &REQUEST).code(), ErrorCode::Unavailable);
        trace.note(ClusterError::NoLeader);
        assert_eq!(trace.give_up(Duration::from_secs(1), &REQUEST).code(), ErrorCode::NoLeader);
        trace.note(ClusterError::NetworkError("reset".into()));
        trace.note(ClusterError::NoLeader);
        assert_eq!(trace.give_up(Duration::from_secs(1), &REQUEST).code(), ErrorCode::UnknownOutcome);
        let what = trace.give_up(Duration::from_secs(1), &REQUEST).what();
        assert!(what.starts_with("no answer to request 7 of client c within 1.0 s"), "{what}");
    }

    #[test]
    fn failed_handshakes_with_every_node_end_the_attempts() {
        let tls = || ClusterError::new(ErrorCode::Tls, "node h:1: invalid peer certificate");
        let mut trace = Trace::default();
        for _ in 0..5 {
            trace.note(tls());
        }
        assert!(!trace.is_hopeless(2));
        trace.note(tls());
        assert!(trace.is_hopeless(2));
        assert_eq!(trace.give_up(Duration::from_secs(1), &REQUEST), tls());
        trace.note(ClusterError::new(ErrorCode::Unavailable, "refused"));
        assert!(!trace.is_hopeless(2));
    }

    #[test]
    fn a_refused_connection_has_carried_nothing() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(refused.into())));
        assert_eq!(how_far(&status), Reach::NoConnection);
        assert_eq!(from_status(&status, "h:1").code(), ErrorCode::Unavailable);
        let broken = io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate");
        let status = Status::from_error(Box::new(ConnectError(broken.into())));
        assert_eq!(how_far(&status), Reach::NoSecureConnection);
        assert_eq!(from_status(&status, "h:1").code(), ErrorCode::Tls);
        // What a node says itself tells nothing of the connection.
        assert_eq!(from_status(&Status::cancelled("gone"), "h:1").code(), ErrorCode::UnknownOutcome);
    }

    #[test]
    fn a_nodes_own_code_wins_over_the_status() {
        let mut status = Status::unavailable("no such node, p3; next: check");
        status.metadata_mut().insert(ERROR_CODE_KEY, "KDB-0009".parse().unwrap());
        let error = from_status(&status, "h:1");
        assert_eq!(error, ClusterError::NotFound("no such node, p3".into()));
        assert!(!is_retryable(&error));
        let error = from_status(&Status::unavailable("gone"), "h:1");
        assert_eq!(error, ClusterError::NetworkError("node h:1: gone".into()));
        assert!(is_retryable(&error));
    }
}
