//! What can go wrong, as users see it.
//!
//! Every error a person can meet has a code (`KDB-0012`), a page in `docs/errors/`, and a message
//! of one form: **what, where; next: what to do**. The *what* and *where* come from the place that
//! failed, the *next* from the table in [`code`](ErrorCode), so that advice is written once.

mod code;
mod graph;
mod storage;

use std::fmt;

pub use code::{Effect, ErrorCode, ExitStatus, GrpcCode, Retry};

use crate::{
    api::config::ConfigError,
    placement::{GenesisError, MetaRefusal, NodeId, RingError, manager::PlacementError},
};

/// Why an operation of the cluster failed. [`ClusterError::code`] tells for every variant whether
/// anything changed and whether repeating is safe.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterError {
    /// Another node leads: this one. Nothing changed; ask it.
    NotLeader(NodeId),
    /// Nobody leads at the moment. Nothing changed; an election takes well under a second.
    NoLeader,
    /// A node could not be reached, or the connection broke. Whether anything changed is unknown;
    /// the same request may be repeated.
    NetworkError(String),
    /// The request was taken and its outcome is not known. Repeating it with the same id is safe
    /// and gives the first outcome.
    UnknownOutcome(String),
    /// The cluster cannot answer now. Nothing changed; the same request may be repeated.
    Unavailable(String),
    /// A limit on work under way was reached. Nothing changed; repeat it later.
    Busy(String),
    /// There is no such entity or block. Nothing changed.
    NotFound(String),
    /// The entity was deleted. Nothing changed.
    Deleted(String),
    /// Everything else, told apart by its code.
    Other {
        /// Which error.
        code: ErrorCode,
        /// What went wrong, and where.
        what: String,
    },
}

impl ClusterError {
    /// The error with this code. `what` says what went wrong and where, in the words of
    /// "node n1 is not reachable at 127.0.0.1:8080": no capital, no full stop, no advice.
    #[must_use]
    pub fn new(code: ErrorCode, what: impl Into<String>) -> Self {
        let what = what.into();
        match code {
            ErrorCode::NoLeader => Self::NoLeader,
            ErrorCode::Network => Self::NetworkError(what),
            ErrorCode::UnknownOutcome => Self::UnknownOutcome(what),
            ErrorCode::Unavailable => Self::Unavailable(what),
            ErrorCode::Busy => Self::Busy(what),
            ErrorCode::NotFound => Self::NotFound(what),
            ErrorCode::Deleted => Self::Deleted(what),
            other => Self::Other { code: other, what },
        }
    }

    /// The error that a node answered, from `error_code` and `error_message` of its response. An
    /// unknown code of a later version keeps its message as an internal error.
    #[must_use]
    pub fn from_wire(error_code: &str, error_message: &str) -> Self {
        let what = error_message.split_once(NEXT).map_or(error_message, |(what, _)| what);
        match ErrorCode::from_text(error_code) {
            Some(code) => Self::new(code, what),
            None => Self::new(ErrorCode::Internal, format!("{what} ({error_code})")),
        }
    }

    /// Which error this is.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader(_) => ErrorCode::NotLeader,
            Self::NoLeader => ErrorCode::NoLeader,
            Self::NetworkError(_) => ErrorCode::Network,
            Self::UnknownOutcome(_) => ErrorCode::UnknownOutcome,
            Self::Unavailable(_) => ErrorCode::Unavailable,
            Self::Busy(_) => ErrorCode::Busy,
            Self::NotFound(_) => ErrorCode::NotFound,
            Self::Deleted(_) => ErrorCode::Deleted,
            Self::Other { code, .. } => *code,
        }
    }

    /// What went wrong and where, without the advice.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::NotLeader(leader) => format!("this node does not lead the partition, {leader} does"),
            Self::NoLeader => "nobody leads the partition at the moment".into(),
            Self::NetworkError(what)
            | Self::UnknownOutcome(what)
            | Self::Unavailable(what)
            | Self::Busy(what)
            | Self::NotFound(what)
            | Self::Deleted(what)
            | Self::Other { what, .. } => what.clone(),
        }
    }

    /// The line for a terminal: `error[KDB-0012]: what, where; next: what to do`.
    #[must_use]
    pub fn report(&self) -> String {
        format!("error[{}]: {self}", self.code())
    }
}

const NEXT: &str = "; next: ";

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{NEXT}{}", self.what(), self.code().next())
    }
}

impl std::error::Error for ClusterError {}

impl From<ConfigError> for ClusterError {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::Configuration, error.to_string())
    }
}

impl From<GenesisError> for ClusterError {
    fn from(error: GenesisError) -> Self {
        let code = match error {
            GenesisError::SameName(_) | GenesisError::SameIncarnation(_) => ErrorCode::NodeIdMismatch,
            GenesisError::NodeCount(_)
            | GenesisError::InvalidName(_)
            | GenesisError::InvalidAddress(_)
            | GenesisError::PartitionCount(_)
            | GenesisError::ReplicationFactor(_) => ErrorCode::Configuration,
        };
        Self::new(code, error.to_string())
    }
}

impl From<RingError> for ClusterError {
    fn from(error: RingError) -> Self {
        Self::new(ErrorCode::Configuration, error.to_string())
    }
}

impl From<PlacementError> for ClusterError {
    fn from(error: PlacementError) -> Self {
        match error {
            PlacementError::Ring(error) => error.into(),
            PlacementError::NoNodes => Self::new(ErrorCode::Configuration, error.to_string()),
        }
    }
}

impl From<MetaRefusal> for ClusterError {
    fn from(refusal: MetaRefusal) -> Self {
        let code = match refusal {
            MetaRefusal::UnknownNode => ErrorCode::UnknownJoiner,
            MetaRefusal::Superseded => ErrorCode::Superseded,
            MetaRefusal::OtherNodesDirectory => ErrorCode::NodeIdMismatch,
            MetaRefusal::UnknownPeer | MetaRefusal::UnknownGroup => ErrorCode::NotFound,
            MetaRefusal::InvalidAddress => ErrorCode::Configuration,
            MetaRefusal::TooManyMembers => ErrorCode::TooLarge,
        };
        Self::new(code, refusal.to_string())
    }
}

#[cfg(test)]
mod tests;
