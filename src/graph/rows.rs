//! The rows of a group in the graph store. `docs/graph-format.md` is the table of them.
//!
//! A key is the group (four bytes, big-endian), one byte for the table, and what identifies the row. CIDs
//! stand as their 32-byte digests. Numbers in values are little-endian; those in keys are big-endian, so
//! that rows sort by them.

use bytes::Bytes;

use crate::{
    graph::{Cid, Generation, Kind},
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{ReadView, StoreError},
};

/// Position, digest: see [`Applied`]. The one table that the digest leaves out.
pub(crate) const APPLIED: u8 = 0x00;
/// Present while an import is under way.
pub(crate) const IMPORTING: u8 = 0x01;
/// Figures of the whole group: see `session`.
pub(crate) const COUNTERS: u8 = 0x02;
/// First blocks by identity.
pub(crate) const FIRST: u8 = 0x10;
/// The current version of an entity that has more than its first one.
pub(crate) const HEAD: u8 = 0x11;
/// Version blocks by CID.
pub(crate) const VERSION: u8 = 0x12;
/// Edges by source, label, edge.
pub(crate) const OUT: u8 = 0x20;
/// Edges by target, label, edge.
pub(crate) const IN: u8 = 0x21;
/// Sessions by client.
pub(crate) const SESSION: u8 = 0x30;
/// Outcomes by client and request.
pub(crate) const OUTCOME: u8 = 0x31;

/// Bytes of a key before what identifies the row.
pub(crate) const KEY_PREFIX: usize = 5;

pub(crate) fn key(group: GroupId, table: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length = KEY_PREFIX + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut key = Vec::with_capacity(length);
    key.extend_from_slice(&group.0.to_be_bytes());
    key.push(table);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The prefix of all rows of a group.
#[must_use]
pub fn group_prefix(group: GroupId) -> [u8; 4] {
    group.0.to_be_bytes()
}

/// What a label adds to an edge's key: its length first, so that no label is a prefix of another.
pub(crate) fn label_part(label: &str) -> Vec<u8> {
    let length = u16::try_from(label.len()).expect("labels are bounded");
    let mut part = Vec::with_capacity(2 + label.len());
    part.extend_from_slice(&length.to_be_bytes());
    part.extend_from_slice(label.as_bytes());
    part
}

/// The row that says up to where a group's state has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The last entry whose effects are in the state.
    pub position: Position,
    /// The state digest there.
    pub digest: u128,
}

impl Applied {
    const FORMAT: u8 = 1;

    /// Its key.
    #[must_use]
    pub fn key(group: GroupId) -> Vec<u8> {
        key(group, APPLIED, &[])
    }

    /// Its value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![Self::FORMAT];
        out.extend_from_slice(&self.position.index.0.to_le_bytes());
        out.extend_from_slice(&self.position.term.0.to_le_bytes());
        out.extend_from_slice(&self.digest.to_le_bytes());
        out.into()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// Where the row is damaged or of a later format.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = StoreError::Damaged("a group's applied position");
        let parse = || {
            let (format, rest) = bytes.split_first()?;
            let (index, rest) = rest.split_first_chunk()?;
            let (term, rest) = rest.split_first_chunk()?;
            let digest = rest.try_into().ok()?;
            let position = Position::new(Index(u64::from_le_bytes(*index)), Term(u64::from_le_bytes(*term)));
            (*format == Self::FORMAT).then_some(Self { position, digest: u128::from_le_bytes(digest) })
        };
        parse().ok_or(damaged)
    }
}

/// Up to where a group's state has come in a store or view. `None`: it has none, or its import did not
/// finish; it needs a snapshot.
///
/// # Errors
/// Where the store fails or the row is damaged.
pub fn applied(view: &impl ReadView, group: GroupId) -> Result<Option<Applied>, StoreError> {
    view.get(&Applied::key(group))?.map(|row| Applied::decode(&row)).transpose()
}

/// Current state of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) deleted: bool,
    pub(crate) generation: Generation,
    pub(crate) version: Cid,
}

const FLAG_DELETED: u8 = 1;
const FLAG_EDGE: u8 = 2;

impl Head {
    pub(crate) fn key(group: GroupId, identity: Cid) -> Vec<u8> {
        key(group, HEAD, &[identity.digest()])
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(41);
        let deleted = if self.deleted { FLAG_DELETED } else { 0 };
        let edge = if self.kind == Kind::Edge { FLAG_EDGE } else { 0 };
        out.push(deleted | edge);
        out.extend_from_slice(&self.generation.0.to_le_bytes());
        out.extend_from_slice(self.version.digest());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (flags, rest) = bytes.split_first()?;
            let (generation, version) = rest.split_first_chunk()?;
            let generation = u64::from_le_bytes(*generation);
            // An entity that no log could bring to life so often leaves no room for the next time.
            if generation > u64::MAX / 2 {
                return None;
            }
            Some(Self {
                kind: if flags & FLAG_EDGE == 0 { Kind::Node } else { Kind::Edge },
                deleted: flags & FLAG_DELETED != 0,
                generation: Generation(generation),
                version: Cid::from_digest(version.try_into().ok()?),
            })
        };
        parse().ok_or(StoreError::Damaged("an entity's current version"))
    }
}

/// A block and the log index that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockRow {
    pub(crate) kind: Kind,
    pub(crate) index: Index,
    pub(crate) block: Bytes,
}

impl BlockRow {
    pub(crate) fn first_key(group: GroupId, cid: Cid) -> Vec<u8> {
        key(group, FIRST, &[cid.digest()])
    }

    pub(crate) fn version_key(group: GroupId, cid: Cid) -> Vec<u8> {
        key(group, VERSION, &[cid.digest()])
    }

    pub(crate) fn encode(kind: Kind, index: Index, block: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(9 + block.len());
        out.push(if kind == Kind::Edge { FLAG_EDGE } else { 0 });
        out.extend_from_slice(&index.0.to_le_bytes());
        out.extend_from_slice(block);
        out.into()
    }

    pub(crate) fn decode(row: &Bytes) -> Result<Self, StoreError> {
        let parse = || {
            let (flags, rest) = row.split_first()?;
            let (index, _) = rest.split_first_chunk()?;
            let kind = if flags & FLAG_EDGE == 0 { Kind::Node } else { Kind::Edge };
            Some(Self { kind, index: Index(u64::from_le_bytes(*index)), block: row.slice(9..) })
        };
        parse().ok_or(StoreError::Damaged("a block"))
    }
}

/// The other end of an edge and the lives of both, as the rows [`OUT`] and [`IN`] hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EdgeRow {
    pub(crate) other: Cid,
    pub(crate) source_generation: Generation,
    pub(crate) target_generation: Generation,
}

impl EdgeRow {
    pub(crate) fn key(group: GroupId, table: u8, near: Cid, label: &str, edge: Cid) -> Vec<u8> {
        key(group, table, &[near.digest(), &label_part(label), edge.digest()])
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(self.other.digest());
        out.extend_from_slice(&self.source_generation.0.to_le_bytes());
        out.extend_from_slice(&self.target_generation.0.to_le_bytes());
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (other, rest) = bytes.split_first_chunk()?;
            let (source, target) = rest.split_first_chunk()?;
            Some(Self {
                other: Cid::from_digest(*other),
                source_generation: Generation(u64::from_le_bytes(*source)),
                target_generation: Generation(u64::from_le_bytes(target.try_into().ok()?)),
            })
        };
        parse().ok_or(StoreError::Damaged("an edge's end"))
    }

    /// The near node, the label and the edge of a key.
    pub(crate) fn parse_key(key: &[u8]) -> Result<(Cid, &str, Cid), StoreError> {
        let parse = || {
            let (near, rest) = key.get(KEY_PREFIX..)?.split_first_chunk()?;
            let (length, rest) = rest.split_first_chunk()?;
            let (label, edge) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            let edge = Cid::from_digest(edge.try_into().ok()?);
            Some((Cid::from_digest(*near), std::str::from_utf8(label).ok()?, edge))
        };
        parse().ok_or(StoreError::Damaged("an edge's key"))
    }
}
