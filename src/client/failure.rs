//! What a failed attempt means: whether to go on, and what to say when time is up.

use tonic::{Code, Status};

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

/// The status' message with the reason underneath it, which for a refused connection is the useful part.
fn describe(status: &Status) -> String {
    let mut deepest = std::error::Error::source(status);
    while let Some(cause) = deepest.and_then(std::error::Error::source) {
        deepest = Some(cause);
    }
    match deepest {
        Some(cause) if status.message().is_empty() || status.message() == "transport error" => {
            cause.to_string()
        }
        Some(cause) => format!("{} ({cause})", status.message()),
        None if status.message().is_empty() => format!("{:?}", status.code()),
        None => status.message().to_owned(),
    }
}

/// Whether the same request may get another answer from another node or at another time.
pub(super) fn is_retryable(error: &ClusterError) -> bool {
    error.code().retry() == Retry::Same
}

/// What is known of a write while it is tried again and again.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    maybe_taken: bool,
    last: Option<ClusterError>,
}

impl Trace {
    /// Notes a failed attempt.
    pub(super) fn note(&mut self, error: ClusterError) {
        self.maybe_taken |= error.code().effect() == Effect::Unknown;
        self.last = Some(error);
    }

    /// The error of a write whose deadline has passed: *unknown* only where some node may have taken it.
    pub(super) fn give_up(&self, after: std::time::Duration) -> ClusterError {
        let seconds = after.as_secs_f64();
        let last = self.last.as_ref().map_or_else(|| "no node answered".into(), ClusterError::what);
        if self.maybe_taken {
            let what = format!("no answer within {seconds:.1} s, the last attempt said: {last}");
            return ClusterError::new(ErrorCode::UnknownOutcome, what);
        }
        match &self.last {
            Some(error @ (ClusterError::NoLeader | ClusterError::Busy(_))) => error.clone(),
            _ => {
                let what = format!("no node took the request within {seconds:.1} s: {last}");
                ClusterError::new(ErrorCode::Unavailable, what)
            }
        }
    }
}

/// The error of a read whose deadline has passed: nothing can have changed.
pub(super) fn unanswered_read(last: Option<ClusterError>, after: std::time::Duration) -> ClusterError {
    let last = last.map_or_else(|| "no node answered".into(), |error| error.what());
    let what = format!("no answer within {:.1} s: {last}", after.as_secs_f64());
    ClusterError::new(ErrorCode::Unavailable, what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_outcome_is_unknown_only_after_an_attempt_that_may_have_taken_effect() {
        let mut trace = Trace::default();
        assert_eq!(trace.give_up(Duration::from_secs(1)).code(), ErrorCode::Unavailable);
        trace.note(ClusterError::new(ErrorCode::Unavailable, "starting"));
        assert_eq!(trace.give_up(Duration::from_secs(1)).code(), ErrorCode::Unavailable);
        trace.note(ClusterError::NoLeader);
        assert_eq!(trace.give_up(Duration::from_secs(1)).code(), ErrorCode::NoLeader);
        trace.note(ClusterError::NetworkError("reset".into()));
        trace.note(ClusterError::NoLeader);
        assert_eq!(trace.give_up(Duration::from_secs(1)).code(), ErrorCode::UnknownOutcome);
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
