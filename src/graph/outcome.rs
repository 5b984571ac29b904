//! What comes of an operation, and its stored form.

use crate::{
    graph::{Cid, Kind},
    raft::Index,
};

/// The answer to an operation that was carried out. The caller adds the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The entity's identity.
    pub cid: Cid,
    /// Its current version.
    pub version: Cid,
    /// The log position at which the operation took effect: a read that includes it sees the result.
    pub index: Index,
}

/// Why an operation was refused when it was applied. It changed no entity. All but the session's own
/// refusals are remembered as the request's outcome, so that a repeat gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// No entity has this identity in the partition.
    #[error(
        "{cid} does not exist; next: check the CID, and that it is the entity's identity and not one of its versions"
    )]
    NotFound {
        /// What was named.
        cid: Cid,
    },
    /// The entity was deleted, or is an edge whose source was. Creating it again brings it back.
    #[error("{cid} is deleted; next: create it again or read its history")]
    Deleted {
        /// What was named.
        cid: Cid,
    },
    /// A node was named where an edge is needed, or the other way round.
    #[error("{cid} is no {expected}; next: use the command for the other kind")]
    WrongKind {
        /// What was named.
        cid: Cid,
        /// What the operation needs.
        expected: Kind,
    },
    /// The source of a new edge does not exist or is no node, or its target did not live when it was
    /// looked up.
    #[error("the edge's node {cid} does not exist; next: create the node first")]
    EndpointMissing {
        /// The source or the target.
        cid: Cid,
    },
    /// The source of a new edge is deleted.
    #[error("the edge's source {cid} is deleted; next: create the node again first")]
    EndpointDeleted {
        /// The source.
        cid: Cid,
    },
    /// The entity would grow beyond the limit.
    #[error("{cid} would become larger than an entity may be; next: remove properties")]
    TooLarge {
        /// The entity.
        cid: Cid,
    },
    /// The request is older than what the session remembers. Whether it was carried out is not known any
    /// more; it is not carried out now.
    #[error(
        "the outcome of this request is no longer remembered; next: read the entity to learn what became of it"
    )]
    SessionExpired,
    /// The request's id was used before, for another operation.
    #[error("this request id was used for another operation; next: use a new id")]
    RequestReused,
    /// The partition remembers as many clients as it can.
    #[error("the partition remembers as many clients as it can; next: reuse a client id")]
    TooManyClients,
    /// The log entry is no command that this program understands.
    #[error("the log entry is not a valid command")]
    Malformed,
}

/// What came of an operation.
pub type Outcome = Result<Receipt, GraphError>;

impl GraphError {
    /// A number for storage and wire, never changed and never reused.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 1,
            Self::Deleted { .. } => 2,
            Self::WrongKind { expected: Kind::Node, .. } => 3,
            Self::WrongKind { expected: Kind::Edge, .. } => 4,
            Self::EndpointMissing { .. } => 5,
            Self::EndpointDeleted { .. } => 6,
            Self::TooLarge { .. } => 7,
            Self::SessionExpired => 8,
            Self::RequestReused => 9,
            Self::TooManyClients => 10,
            Self::Malformed => 11,
        }
    }

    /// The entity it speaks of.
    #[must_use]
    pub const fn cid(&self) -> Option<Cid> {
        match self {
            Self::NotFound { cid }
            | Self::Deleted { cid }
            | Self::WrongKind { cid, .. }
            | Self::EndpointMissing { cid }
            | Self::EndpointDeleted { cid }
            | Self::TooLarge { cid } => Some(*cid),
            Self::SessionExpired | Self::RequestReused | Self::TooManyClients | Self::Malformed => None,
        }
    }

    /// The error with this code; `None` for an unknown code or a missing CID.
    #[must_use]
    pub fn from_code(code: u8, cid: Option<Cid>) -> Option<Self> {
        Some(match code {
            1 => Self::NotFound { cid: cid? },
            2 => Self::Deleted { cid: cid? },
            3 => Self::WrongKind { cid: cid?, expected: Kind::Node },
            4 => Self::WrongKind { cid: cid?, expected: Kind::Edge },
            5 => Self::EndpointMissing { cid: cid? },
            6 => Self::EndpointDeleted { cid: cid? },
            7 => Self::TooLarge { cid: cid? },
            8 => Self::SessionExpired,
            9 => Self::RequestReused,
            10 => Self::TooManyClients,
            11 => Self::Malformed,
            _ => return None,
        })
    }
}

/// `00 index cid [version, where it differs]`, or the error's code and its CID where it has one.
pub(crate) fn encode_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    match outcome {
        Ok(receipt) => {
            out.push(0);
            out.extend_from_slice(&receipt.index.0.to_le_bytes());
            out.extend_from_slice(receipt.cid.digest());
            if receipt.version != receipt.cid {
                out.extend_from_slice(receipt.version.digest());
            }
        }
        Err(error) => {
            out.push(error.code());
            if let Some(cid) = error.cid() {
                out.extend_from_slice(cid.digest());
            }
        }
    }
}

pub(crate) fn decode_outcome(bytes: &[u8]) -> Option<Outcome> {
    let (code, rest) = bytes.split_first()?;
    if *code != 0 {
        let cid = match rest {
            [] => None,
            digest => Some(Cid::from_digest(digest.try_into().ok()?)),
        };
        return Some(Err(GraphError::from_code(*code, cid)?));
    }
    let (index, rest) = rest.split_first_chunk::<8>()?;
    let (cid, rest) = rest.split_first_chunk::<32>()?;
    let cid = Cid::from_digest(*cid);
    let version = if rest.is_empty() { cid } else { Cid::from_digest(rest.try_into().ok()?) };
    Some(Ok(Receipt { cid, version, index: Index(u64::from_le_bytes(*index)) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_survives_storage() {
        let (cid, version) = (Cid::of(b"a"), Cid::of(b"b"));
        let receipt = Receipt { cid, version: cid, index: Index(7) };
        let mut outcomes = vec![Ok(receipt), Ok(Receipt { version, ..receipt })];
        outcomes.extend((1..=11).map(|code| Err(GraphError::from_code(code, Some(cid)).expect("a code"))));
        for outcome in outcomes {
            let mut bytes = Vec::new();
            encode_outcome(&outcome, &mut bytes);
            assert_eq!(decode_outcome(&bytes), Some(outcome));
            assert_eq!(decode_outcome(&bytes[..bytes.len() - 1]).filter(|read| *read == outcome), None);
        }
        assert_eq!(GraphError::from_code(12, Some(cid)), None);
        assert_eq!(GraphError::from_code(1, None), None);
    }
}
