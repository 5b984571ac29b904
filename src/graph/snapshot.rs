//! A group's whole state as a stream of bytes.
//!
//! The stream is a header, frames of rows in key order, and a trailer; every frame carries its CRC-32, the
//! trailer the number of rows and the digest over all of them. `docs/graph-format.md` draws it. It holds
//! whatever rows the group has, so the meta group's state travels the same way.
//!
//! An import replaces the group's state. It reads the stream twice: once to check it, so that a damaged
//! stream changes nothing, and once to write it. Between its first and last commit the group has a marker
//! and no applied position; a crash leaves it like that, [`crate::graph::applied`] then says `None`, and the
//! import is done again.

use std::{
    io::{self, Read, Seek, SeekFrom},
    ops::ControlFlow,
};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    graph::{
        digest::{counts, row_sum},
        rows::{self, Applied, IMPORTING, group_prefix},
    },
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{Batch, GraphStore, KeyRange, Order, ReadView, StoreError, clear_prefix},
};

const MAGIC: [u8; 8] = *b"KDBSNAP\x01";
/// A frame is closed at the first row that makes it this large.
const FRAME_BYTES: usize = 64 << 10;
/// A frame that claims more is damaged: no row comes near it.
const FRAME_BYTES_MAX: u32 = 64 << 20;
const TRAILER_BYTES: usize = 24;
const HEADER_BYTES: usize = 48;

/// What a stream says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The group.
    pub group: GroupId,
    /// The log position of the state.
    pub position: Position,
    /// The state digest there.
    pub digest: u128,
}

/// Why a snapshot was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The stream is damaged or no snapshot. The group's state is as it was; fetch the snapshot again.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// The snapshot is of another group. The group's state is as it was.
    #[error("the snapshot is of group {0}")]
    OtherGroup(u32),
    /// Reading the stream failed. Where it failed late, the group has no state until an import succeeds.
    #[error("the snapshot cannot be read: {0}")]
    Read(#[from] io::Error),
    /// The store failed. The group has no state until an import succeeds.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The stream of a group's state, chunk by chunk.
#[derive(Debug)]
pub struct Export<V> {
    view: V,
    range: KeyRange,
    stage: Stage,
    rows: u64,
    digest: u128,
}

#[derive(Debug)]
enum Stage {
    Header(SnapshotHeader),
    Rows,
    Done,
}

/// Begins the export of a group's state as `view` shows it. The view must not change: take
/// [`GraphStore::view`].
///
/// # Errors
/// [`StoreError::NoState`] where the group has no complete state there.
pub fn export<V: ReadView>(view: V, group: GroupId) -> Result<Export<V>, StoreError> {
    let Applied { position, digest } = rows::applied(&view, group)?.ok_or(StoreError::NoState(group.0))?;
    let header = SnapshotHeader { group, position, digest };
    let range = KeyRange::prefix(&group_prefix(group));
    Ok(Export { view, range, stage: Stage::Header(header), rows: 0, digest: 0 })
}

impl<V: ReadView> Iterator for Export<V> {
    type Item = Result<Bytes, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.stage {
            Stage::Header(header) => {
                self.stage = Stage::Rows;
                Some(Ok(header.encode()))
            }
            Stage::Rows => {
                let frame = self.frame();
                if frame.is_err() {
                    self.stage = Stage::Done;
                }
                Some(frame)
            }
            Stage::Done => None,
        }
    }
}

impl<V: ReadView> Export<V> {
    /// The next frame of rows, or the trailer where there are none.
    fn frame(&mut self) -> Result<Bytes, StoreError> {
        let mut frame = BytesMut::with_capacity(FRAME_BYTES + 8);
        frame.put_bytes(0, 8);
        let (mut rows, mut digest, mut last) = (0, self.digest, None);
        self.view.scan(&self.range, Order::Ascending, &mut |key, value| {
            last = Some(key.to_vec());
            if counts(key) {
                put_row(&mut frame, &key[4..], value);
                digest = digest.wrapping_add(row_sum(key, value));
                rows += 1;
            }
            if frame.len() < FRAME_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        (self.rows, self.digest) = (self.rows + rows, digest);
        if let Some(last) = last {
            self.range = self.range.clone().after(&last);
        }
        if rows == 0 {
            self.stage = Stage::Done;
            return Ok(self.trailer());
        }
        let body = u32::try_from(frame.len() - 8).expect("a row is bounded by the size of an entity");
        let checksum = crc32fast::hash(&frame[8..]);
        frame[..4].copy_from_slice(&body.to_le_bytes());
        frame[4..8].copy_from_slice(&checksum.to_le_bytes());
        Ok(frame.freeze())
    }

    fn trailer(&self) -> Bytes {
        let mut body = BytesMut::with_capacity(TRAILER_BYTES);
        body.put_u64_le(self.rows);
        body.put_u128_le(self.digest);
        let mut out = BytesMut::with_capacity(8 + TRAILER_BYTES);
        out.put_u32_le(0);
        out.put_u32_le(crc32fast::hash(&body));
        out.put_slice(&body);
        out.freeze()
    }
}

fn put_row(frame: &mut BytesMut, key: &[u8], value: &[u8]) {
    let key_bytes = u32::try_from(key.len()).expect("keys are bounded");
    let value_bytes = u32::try_from(value.len()).expect("values are bounded");
    frame.put_u32_le(key_bytes);
    frame.put_u32_le(value_bytes);
    frame.put_slice(key);
    frame.put_slice(value);
}

impl SnapshotHeader {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES);
        out.put_slice(&MAGIC);
        out.put_u32_le(self.group.0);
        out.put_u64_le(self.position.index.0);
        out.put_u64_le(self.position.term.0);
        out.put_u128_le(self.digest);
        out.put_u32_le(crc32fast::hash(&out));
        out.freeze()
    }

    /// Reads the header of a stream.
    ///
    /// # Errors
    /// Where the stream cannot be read or does not begin with one.
    pub fn read(reader: &mut impl Read) -> Result<Self, ImportError> {
        let bytes: [u8; HEADER_BYTES] = read_array(reader)?;
        let (covered, checksum) = bytes.split_at(HEADER_BYTES - 4);
        if covered[..8] != MAGIC {
            return Err(ImportError::Damaged("it does not begin like a snapshot of this version"));
        }
        if crc32fast::hash(covered).to_le_bytes() != checksum {
            return Err(ImportError::Damaged("the header's checksum"));
        }
        let mut fields = &covered[8..];
        let group = GroupId(bytes::Buf::get_u32_le(&mut fields));
        let index = Index(bytes::Buf::get_u64_le(&mut fields));
        let term = Term(bytes::Buf::get_u64_le(&mut fields));
        let digest = bytes::Buf::get_u128_le(&mut fields);
        Ok(Self { group, position: Position::new(index, term), digest })
    }
}

/// Replaces a group's state by that of a stream, which is read twice from where it stands now.
///
/// # Errors
/// See [`ImportError`]: a damaged stream changes nothing; after an error of the store the group has no
/// state until an import succeeds.
pub fn import<S: GraphStore>(
    store: &S,
    group: GroupId,
    reader: &mut (impl Read + Seek),
) -> Result<SnapshotHeader, ImportError> {
    let start = reader.stream_position()?;
    let header = SnapshotHeader::read(reader)?;
    if header.group != group {
        return Err(ImportError::OtherGroup(header.group.0));
    }
    let digest = read_rows(reader, group, |_| Ok(()))?;
    if digest != header.digest {
        return Err(ImportError::Damaged("the digest of the rows is not the header's"));
    }
    reader.seek(SeekFrom::Start(start + HEADER_BYTES as u64))?;
    fill(store, header, reader)?;
    Ok(header)
}

fn fill<S: GraphStore>(store: &S, header: SnapshotHeader, reader: &mut impl Read) -> Result<(), ImportError> {
    let group = header.group;
    let marker = rows::key(group, IMPORTING, &[]);
    let mut batch = Batch::new();
    batch.put(marker.clone(), Bytes::new());
    batch.remove(Applied::key(group));
    store.commit(batch)?;
    // The marker must outlast the rows: clear only what stands behind it.
    let prefix = group_prefix(group);
    for table in (IMPORTING + 1..=u8::MAX).filter(|_| !mutant!(M62)) {
        clear_prefix(store, &[prefix.as_slice(), &[table]].concat())?;
    }
    let digest = read_rows(reader, group, |batch| Ok(store.commit(batch)?))?;
    if digest != header.digest {
        return Err(ImportError::Damaged("it changed while it was imported"));
    }
    let mut batch = Batch::new();
    batch.remove(marker);
    let applied = Applied { position: header.position, digest };
    batch.put(Applied::key(group), applied.encode());
    store.commit(batch)?;
    Ok(())
}

/// Reads the frames behind a header, checks them, and hands the rows over frame by frame. Returns the
/// digest of all rows.
fn read_rows(
    reader: &mut impl Read,
    group: GroupId,
    mut rows: impl FnMut(Batch) -> Result<(), ImportError>,
) -> Result<u128, ImportError> {
    let (mut count, mut digest, mut last) = (0_u64, 0_u128, Vec::new());
    loop {
        let length = u32::from_le_bytes(read_array(reader)?);
        let checksum = u32::from_le_bytes(read_array(reader)?);
        if length == 0 {
            let trailer: [u8; TRAILER_BYTES] = read_array(reader)?;
            let mut expected = BytesMut::with_capacity(TRAILER_BYTES);
            expected.put_u64_le(count);
            expected.put_u128_le(digest);
            if crc32fast::hash(&trailer) != checksum || expected[..] != trailer[..] {
                return Err(ImportError::Damaged("the trailer does not match the rows"));
            }
            return Ok(digest);
        }
        if length > FRAME_BYTES_MAX {
            return Err(ImportError::Damaged("a frame is too long"));
        }
        // Grows with what really arrives, not with what the length claims.
        let mut frame = Vec::new();
        reader.by_ref().take(u64::from(length)).read_to_end(&mut frame)?;
        if frame.len() as u64 != u64::from(length) {
            return Err(ImportError::Damaged("it ends too early"));
        }
        if crc32fast::hash(&frame) != checksum {
            return Err(ImportError::Damaged("a frame's checksum"));
        }
        let batch = read_frame(&Bytes::from(frame), group, |key, value| {
            // A row that came twice would count twice and be there once.
            if *key <= last[..] {
                return Err(ImportError::Damaged("the rows are not in order"));
            }
            last.clear();
            last.extend_from_slice(key);
            count += 1;
            digest = digest.wrapping_add(row_sum(key, value));
            Ok(())
        })?;
        rows(batch)?;
    }
}

fn read_frame(
    frame: &Bytes,
    group: GroupId,
    mut row: impl FnMut(&[u8], &[u8]) -> Result<(), ImportError>,
) -> Result<Batch, ImportError> {
    let mut batch = Batch::new();
    let mut at = 0;
    while at < frame.len() {
        let parse = || {
            let (lengths, rest) = frame[at..].split_first_chunk::<8>()?;
            let key_bytes = u32::from_le_bytes(*lengths[..4].first_chunk()?) as usize;
            let value_bytes = u32::from_le_bytes(*lengths[4..].first_chunk()?) as usize;
            let key = rest.get(..key_bytes)?;
            rest.get(key_bytes..key_bytes.checked_add(value_bytes)?)?;
            Some((key, value_bytes))
        };
        let (key, value_bytes) = parse().ok_or(ImportError::Damaged("a row is cut"))?;
        let value_at = at + 8 + key.len();
        let key = [group_prefix(group).as_slice(), key].concat();
        if !counts(&key) {
            return Err(ImportError::Damaged("a row that no snapshot holds"));
        }
        let value = frame.slice(value_at..value_at + value_bytes);
        row(&key, &value)?;
        batch.put(key, value);
        at = value_at + value_bytes;
    }
    Ok(batch)
}

fn read_array<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], ImportError> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ImportError::Damaged("it ends too early"),
        _ => ImportError::Read(error),
    })?;
    Ok(bytes)
}
