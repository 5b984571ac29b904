//! Errors as gRPC carries them: a status code, the message of the form "what, where; next", and the
//! error's own code in the metadata under [`CODE_KEY`].

use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    error::{ClusterError, ErrorCode, GrpcCode, Retry},
    limits::{GRPC_MESSAGE_BYTES_MAX, VALUE_DEPTH_MAX},
};

/// The metadata key of the error's code, as in `KDB-0012`.
pub(crate) const CODE_KEY: &str = "kdb-error-code";

/// The status that stands for an error.
pub(crate) fn status(error: &ClusterError) -> Status {
    let code = match error.code().grpc_code() {
        GrpcCode::InvalidArgument => Code::InvalidArgument,
        GrpcCode::DeadlineExceeded => Code::DeadlineExceeded,
        GrpcCode::NotFound => Code::NotFound,
        GrpcCode::PermissionDenied => Code::PermissionDenied,
        GrpcCode::ResourceExhausted => Code::ResourceExhausted,
        GrpcCode::FailedPrecondition => Code::FailedPrecondition,
        GrpcCode::Internal => Code::Internal,
        GrpcCode::Unavailable => Code::Unavailable,
        GrpcCode::DataLoss => Code::DataLoss,
        GrpcCode::Unauthenticated => Code::Unauthenticated,
    };
    let mut status = Status::new(code, error.to_string());
    if let Ok(value) = MetadataValue::try_from(error.code().to_string()) {
        status.metadata_mut().insert(CODE_KEY, value);
    }
    status
}

/// Gives its code to a status by which the transport refused a message that no service has seen: it
/// could not be read, or was too large. `None` for every other status.
pub(crate) fn of_transport(status: &Status) -> Option<Status> {
    if status.metadata().contains_key(CODE_KEY) {
        return None;
    }
    // The transport tells these apart by their texts alone; tests hold it to them.
    let message = status.message();
    let error = match (status.code(), message.strip_prefix(UNREADABLE)) {
        (Code::Internal, Some(reason)) if reason.ends_with("recursion limit reached") => ClusterError::new(
            ErrorCode::TooLarge,
            format!(
                "a value of the request is nested too deeply, {VALUE_DEPTH_MAX} arrays and maps are possible"
            ),
        ),
        (Code::Internal, Some(reason)) => {
            let reason = reason.rsplit(": ").next().unwrap_or(reason);
            malformed(format!("the request is not the message that the call takes: {reason}"))
        }
        (Code::OutOfRange | Code::ResourceExhausted, None)
            if message.contains("message length too large") =>
        {
            let what = format!("a message has more than {GRPC_MESSAGE_BYTES_MAX} bytes: {message}");
            ClusterError::new(ErrorCode::TooLarge, what)
        }
        _ => return None,
    };
    Some(self::status(&error))
}

/// How the transport begins to say that a message cannot be decoded.
const UNREADABLE: &str = "failed to decode Protobuf message: ";

/// The error that a status of another node stands for.
pub(crate) fn of_status(status: &Status) -> ClusterError {
    let code = status.metadata().get(CODE_KEY).and_then(|value| value.to_str().ok());
    if let Some(code) = code {
        return ClusterError::from_wire(code, status.message());
    }
    let what = format!("a node did not answer ({:?}): {}", status.code(), status.message());
    let code = match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Aborted => {
            ErrorCode::Network
        }
        Code::ResourceExhausted | Code::OutOfRange => ErrorCode::TooLarge,
        Code::Unauthenticated => ErrorCode::Tls,
        Code::Unimplemented => ErrorCode::ProtocolVersion,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Internal
        | Code::DataLoss => ErrorCode::Internal,
    };
    ClusterError::new(code, what)
}

/// Whether asking again, or another node, may help.
pub(crate) fn is_passing(error: &ClusterError) -> bool {
    error.code().retry() == Retry::Same && error.code() != ErrorCode::Internal
}

/// A malformed field of a request.
pub(crate) fn malformed(what: impl Into<String>) -> ClusterError {
    ClusterError::new(ErrorCode::MalformedValue, what)
}

#[cfg(test)]
mod tests {
    use kotoba_db_cluster_proto::v1;
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_error_survives_the_way_over_the_wire() {
        for &code in ErrorCode::ALL {
            let error = ClusterError::new(code, "something, somewhere");
            let back = of_status(&status(&error));
            assert_eq!(back.code(), code);
            assert_eq!(back.to_string(), error.to_string());
        }
    }

    #[test]
    fn what_the_transport_refuses_has_a_code() {
        let refused = |status: Status| of_transport(&status).map(|coded| of_status(&coded).code());
        let unreadable = |bytes: &[u8]| {
            let error = v1::ClientRequest::decode(bytes).expect_err("no message");
            refused(Status::internal(error.to_string()))
        };
        assert_eq!(unreadable(&[0xff; 20]), Some(ErrorCode::MalformedValue));
        let deep = (0..100).fold(v1::Value::default(), |inner, _| {
            let array = v1::ArrayValue { items: vec![inner] };
            v1::Value { kind: Some(v1::value::Kind::ArrayValue(array)) }
        });
        let create = v1::CreateNode { properties: [("p".to_owned(), deep)].into(), key: String::new() };
        let operation = v1::Operation { kind: Some(v1::operation::Kind::CreateNode(create)) };
        let request = v1::ClientRequest { operation: Some(operation), ..Default::default() };
        assert_eq!(unreadable(&request.encode_to_vec()), Some(ErrorCode::TooLarge));
        assert_eq!(refused(Status::internal("something else")), None);
        assert_eq!(refused(status(&ClusterError::NoLeader)), None, "it has its code");
    }

    #[test]
    fn a_status_that_is_not_ours_is_a_network_error_where_asking_again_helps() {
        assert!(is_passing(&of_status(&Status::unavailable("tcp connect error"))));
        assert!(!is_passing(&of_status(&Status::unimplemented("no such method"))));
    }
}
