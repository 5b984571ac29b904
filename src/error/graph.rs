//! What the graph refuses, as users see it.

use super::{ClusterError, ErrorCode, NEXT};
use crate::graph::{CidError, GraphError, OperationError, ValueError, json::JsonError};

impl From<GraphError> for ClusterError {
    fn from(error: GraphError) -> Self {
        let code = match error {
            GraphError::NotFound { .. } => ErrorCode::NotFound,
            GraphError::Deleted { .. } => ErrorCode::Deleted,
            GraphError::WrongKind { .. } => ErrorCode::WrongKind,
            GraphError::EndpointMissing { .. } | GraphError::EndpointDeleted { .. } => {
                ErrorCode::EndpointMissing
            }
            GraphError::TooLarge { .. } => ErrorCode::TooLarge,
            GraphError::SessionExpired => ErrorCode::SessionExpired,
            GraphError::RequestReused => ErrorCode::RequestReused,
            GraphError::TooManyClients => ErrorCode::Busy,
            // The node that took the operation checked it: what is in the log is ours.
            GraphError::Malformed => ErrorCode::Internal,
        };
        // The graph has advice of its own, for those who use it alone; here the table gives it.
        let text = error.to_string();
        Self::new(code, text.split_once(NEXT).map_or(text.as_str(), |(what, _)| what))
    }
}

impl From<OperationError> for ClusterError {
    fn from(error: OperationError) -> Self {
        let code = match &error {
            OperationError::Value(value) => code_of_value(value),
            OperationError::TooLarge(_)
            | OperationError::LabelTooLong(_)
            | OperationError::KeyTooLong(_)
            | OperationError::ClientIdTooLong(_) => ErrorCode::TooLarge,
            OperationError::LabelEmpty | OperationError::SetAndUnset(_) | OperationError::Detail(_) => {
                ErrorCode::MalformedValue
            }
            OperationError::TargetUnknown => ErrorCode::EndpointMissing,
        };
        Self::new(code, error.to_string())
    }
}

impl From<ValueError> for ClusterError {
    fn from(error: ValueError) -> Self {
        Self::new(code_of_value(&error), error.to_string())
    }
}

impl From<CidError> for ClusterError {
    fn from(error: CidError) -> Self {
        Self::new(ErrorCode::MalformedCid, error.to_string())
    }
}

impl From<JsonError> for ClusterError {
    fn from(error: JsonError) -> Self {
        let code = match &error {
            JsonError::Link(_) => ErrorCode::MalformedCid,
            JsonError::Value(value) => code_of_value(value),
            JsonError::Syntax(_)
            | JsonError::Duplicate(_)
            | JsonError::NotAnObject
            | JsonError::IntegerRange(_)
            | JsonError::FloatRange(_)
            | JsonError::Reserved
            | JsonError::Base64 => ErrorCode::MalformedValue,
        };
        Self::new(code, error.to_string())
    }
}

fn code_of_value(error: &ValueError) -> ErrorCode {
    match error {
        ValueError::NotFinite => ErrorCode::NotANumber,
        ValueError::TooDeep => ErrorCode::TooLarge,
        ValueError::ReservedName => ErrorCode::MalformedValue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_graph_have_their_codes_and_advice_once() {
        let cases: [(ClusterError, ErrorCode); 7] = [
            (GraphError::SessionExpired.into(), ErrorCode::SessionExpired),
            (GraphError::RequestReused.into(), ErrorCode::RequestReused),
            (OperationError::TooLarge(9).into(), ErrorCode::TooLarge),
            (OperationError::Value(ValueError::NotFinite).into(), ErrorCode::NotANumber),
            (ValueError::TooDeep.into(), ErrorCode::TooLarge),
            (CidError::NotBase32.into(), ErrorCode::MalformedCid),
            (JsonError::NotAnObject.into(), ErrorCode::MalformedValue),
        ];
        for (error, code) in cases {
            assert_eq!(error.code(), code, "{error}");
            assert_eq!(error.to_string().matches(NEXT).count(), 1, "{error}");
        }
    }
}
