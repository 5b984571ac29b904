//! The bytes of one log entry of a partition.
//!
//! `version 01 | kind | …`, numbers little-endian, lengths as 32 bits, properties as a canonical DAG-CBOR
//! map; drawn in `docs/graph-format.md`. Decoding is strict: whatever decodes encodes to the same bytes,
//! so a fingerprint of the bytes is a fingerprint of the operation.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{
    graph::{
        Cid, Generation, Properties,
        block::NodeBlock,
        dag_cbor::{DagCborError, Reader, Writer},
        operation::{Changes, GraphOperation, OperationError, check_label},
    },
    limits::{CLIENT_ID_BYTES_MAX, LABEL_BYTES_MAX, OPERATION_BYTES_MAX},
};

const VERSION: u8 = 1;
const KIND_OPERATION: u8 = 0;
const KIND_VERIFY: u8 = 1;
const CREATE_NODE: u8 = 1;
const UPDATE_NODE: u8 = 2;
const DELETE_NODE: u8 = 3;
const CREATE_EDGE: u8 = 4;
const UPDATE_EDGE: u8 = 5;
const DELETE_EDGE: u8 = 6;

/// Names one comparison of the members' states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyId(pub u64);

/// A client's count of its requests: with the client's id the key of exactly-once execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u64);

/// One entry of a partition's log.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// A change of the graph.
    Execute(Execute),
    /// Changes nothing; members keep their state at this position for a comparison.
    Verify(VerifyId),
}

/// A change of the graph under its exactly-once session.
#[derive(Clone, Debug, PartialEq)]
pub struct Execute {
    /// Who asks.
    pub client_id: String,
    /// Which of the client's requests this is.
    pub request_id: RequestId,
    /// Every request below this one has been answered to the client: its outcome may be forgotten.
    pub acked_below: RequestId,
    /// The change.
    pub operation: GraphOperation,
}

/// Sixteen bytes of BLAKE3 of an operation: tells a repeat from another operation under the same id.
pub(crate) type Fingerprint = [u8; 16];

/// Why bytes are no command. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Written by a later version.
    #[error("the command has version {0}, this program knows version {VERSION}")]
    Version(u8),
    /// An unknown kind of command or operation.
    #[error("unknown kind {0} of command or operation")]
    Kind(u8),
    /// The bytes end too early.
    #[error("the command ends too early")]
    Truncated,
    /// Bytes follow the end.
    #[error("bytes follow the command")]
    Trailing,
    /// Text that is not UTF-8.
    #[error("text of the command is not UTF-8")]
    Text,
    /// A block or properties are not canonical.
    #[error(transparent)]
    Block(#[from] DagCborError),
    /// A limit or rule of operations is broken.
    #[error("the command breaks a limit of operations")]
    Limit,
}

impl Command {
    /// A change under its session.
    ///
    /// # Errors
    /// Where the client's id is too long.
    pub fn execute(
        client_id: impl Into<String>,
        request_id: RequestId,
        acked_below: RequestId,
        operation: GraphOperation,
    ) -> Result<Self, OperationError> {
        let client_id = client_id.into();
        if client_id.len() > CLIENT_ID_BYTES_MAX {
            return Err(OperationError::ClientIdTooLong(client_id.len()));
        }
        Ok(Self::Execute(Execute { client_id, request_id, acked_below, operation }))
    }

    /// The bytes that enter the log.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Verify(id) => {
                let mut out = vec![VERSION, KIND_VERIFY];
                out.extend_from_slice(&id.0.to_le_bytes());
                out.into()
            }
            Self::Execute(execute) => {
                let mut out =
                    Vec::with_capacity(64 + execute.client_id.len() + execute.operation.encoded_len());
                out.extend_from_slice(&[VERSION, KIND_OPERATION]);
                put_bytes(&mut out, execute.client_id.as_bytes());
                out.extend_from_slice(&execute.request_id.0.to_le_bytes());
                out.extend_from_slice(&execute.acked_below.0.to_le_bytes());
                execute.operation.encode_into(&mut out);
                out.into()
            }
        }
    }

    /// Reads a command back.
    ///
    /// # Errors
    /// Where the bytes are not exactly what [`Command::encode`] writes for an allowed command.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        Self::decode_with_fingerprint(bytes).map(|(command, _)| command)
    }

    pub(crate) fn decode_with_fingerprint(bytes: &[u8]) -> Result<(Self, Fingerprint), CommandError> {
        let mut input = Input { rest: bytes };
        let version = input.byte()?;
        if version != VERSION {
            return Err(CommandError::Version(version));
        }
        match input.byte()? {
            KIND_VERIFY => {
                let id = VerifyId(input.number()?);
                input.end()?;
                Ok((Self::Verify(id), Fingerprint::default()))
            }
            KIND_OPERATION => {
                let client_id = input.text(CLIENT_ID_BYTES_MAX)?.to_owned();
                let request_id = RequestId(input.number()?);
                let acked_below = RequestId(input.number()?);
                if input.rest.len() > OPERATION_BYTES_MAX {
                    return Err(CommandError::Limit);
                }
                let print = fingerprint(input.rest);
                let operation = GraphOperation::decode_from(&mut input)?;
                input.end()?;
                Ok((Self::Execute(Execute { client_id, request_id, acked_below, operation }), print))
            }
            other => Err(CommandError::Kind(other)),
        }
    }
}

/// The target's generation stands last in what is done to an edge and is left out: see
/// [`GraphOperation::CreateEdge`].
fn fingerprint(operation: &[u8]) -> Fingerprint {
    let covered = match operation {
        [CREATE_EDGE | UPDATE_EDGE | DELETE_EDGE, ..] => &operation[..operation.len().saturating_sub(8)],
        _ => operation,
    };
    let mut print = Fingerprint::default();
    print.copy_from_slice(&blake3::hash(covered).as_bytes()[..16]);
    print
}

impl GraphOperation {
    /// Bytes of the encoded operation.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        match self {
            // The common case is a sum; the others are rare enough to be encoded for it.
            Self::CreateNode { block } => 5 + block.len(),
            Self::DeleteNode { .. } => 33,
            Self::DeleteEdge { .. } => 41,
            Self::UpdateNode { .. } | Self::CreateEdge { .. } | Self::UpdateEdge { .. } => {
                let mut out = Vec::new();
                self.encode_into(&mut out);
                out.len()
            }
        }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::CreateNode { block } => {
                out.push(CREATE_NODE);
                put_bytes(out, block);
            }
            Self::UpdateNode { cid, changes } => put_update(out, UPDATE_NODE, cid, changes),
            Self::DeleteNode { cid } => put_cid(out, DELETE_NODE, cid),
            Self::UpdateEdge { cid, changes, target_generation } => {
                put_update(out, UPDATE_EDGE, cid, changes);
                out.extend_from_slice(&target_generation.0.to_le_bytes());
            }
            Self::DeleteEdge { cid, target_generation } => {
                put_cid(out, DELETE_EDGE, cid);
                out.extend_from_slice(&target_generation.0.to_le_bytes());
            }
            Self::CreateEdge { source, target, label, properties, target_generation } => {
                put_cid(out, CREATE_EDGE, source);
                out.extend_from_slice(target.digest());
                put_bytes(out, label.as_bytes());
                put_properties(out, properties);
                out.extend_from_slice(&target_generation.0.to_le_bytes());
            }
        }
    }

    fn decode_from(input: &mut Input<'_>) -> Result<Self, CommandError> {
        match input.byte()? {
            CREATE_NODE => {
                let block = input.bytes()?;
                let key = NodeBlock::check(block)?;
                if key.is_some_and(|key| key.len() > LABEL_BYTES_MAX) {
                    return Err(CommandError::Limit);
                }
                Ok(Self::CreateNode { block: Bytes::copy_from_slice(block) })
            }
            UPDATE_NODE => Ok(Self::UpdateNode { cid: input.cid()?, changes: input.changes()? }),
            DELETE_NODE => Ok(Self::DeleteNode { cid: input.cid()? }),
            UPDATE_EDGE => Ok(Self::UpdateEdge {
                cid: input.cid()?,
                changes: input.changes()?,
                target_generation: Generation(input.number()?),
            }),
            DELETE_EDGE => {
                Ok(Self::DeleteEdge { cid: input.cid()?, target_generation: Generation(input.number()?) })
            }
            CREATE_EDGE => {
                let (source, target) = (input.cid()?, input.cid()?);
                let label = input.text(LABEL_BYTES_MAX)?.to_owned();
                check_label(&label).map_err(|_| CommandError::Limit)?;
                let properties = input.properties()?;
                let target_generation = Generation(input.number()?);
                Ok(Self::CreateEdge { source, target, label, properties, target_generation })
            }
            other => Err(CommandError::Kind(other)),
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("every field is bounded by the size of an operation");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_cid(out: &mut Vec<u8>, tag: u8, cid: &Cid) {
    out.push(tag);
    out.extend_from_slice(cid.digest());
}

fn put_properties(out: &mut Vec<u8>, properties: &Properties) {
    let mut writer = Writer::with_capacity(256);
    writer.properties(properties).expect("an operation's properties were checked when it was made");
    put_bytes(out, &writer.finish());
}

fn put_update(out: &mut Vec<u8>, tag: u8, cid: &Cid, changes: &Changes) {
    put_cid(out, tag, cid);
    put_properties(out, &changes.set);
    let count = u32::try_from(changes.unset.len()).expect("names are bounded by the size of an operation");
    out.extend_from_slice(&count.to_le_bytes());
    for name in &changes.unset {
        put_bytes(out, name.as_bytes());
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CommandError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CommandError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CommandError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CommandError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, CommandError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, CommandError> {
        self.array().map(u64::from_le_bytes)
    }

    fn cid(&mut self) -> Result<Cid, CommandError> {
        self.array().map(Cid::from_digest)
    }

    fn count(&mut self) -> Result<u32, CommandError> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], CommandError> {
        let length = self.count()?;
        self.take(usize::try_from(length).map_err(|_| CommandError::Limit)?)
    }

    fn text(&mut self, bytes_max: usize) -> Result<&'a str, CommandError> {
        let bytes = self.bytes()?;
        if bytes.len() > bytes_max {
            return Err(CommandError::Limit);
        }
        std::str::from_utf8(bytes).map_err(|_| CommandError::Text)
    }

    fn properties(&mut self) -> Result<Properties, CommandError> {
        let mut reader = Reader::new(self.bytes()?);
        let properties = reader.properties()?;
        reader.end()?;
        Ok(properties)
    }

    fn changes(&mut self) -> Result<Changes, CommandError> {
        let set = self.properties()?;
        let count = self.count()?;
        let mut unset = BTreeSet::new();
        for _ in 0..count {
            let name = self.text(OPERATION_BYTES_MAX)?;
            let ordered = unset.last().is_none_or(|last: &String| last.as_str() < name);
            if !ordered || set.contains_key(name) {
                return Err(CommandError::Limit);
            }
            unset.insert(name.to_owned());
        }
        Ok(Changes { set, unset })
    }

    fn end(&self) -> Result<(), CommandError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CommandError::Trailing) }
    }
}
