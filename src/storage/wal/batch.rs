//! Building the bytes of one batch, and of the mirrors written with it.

use alloc::vec::Vec;

use super::{
    BatchSequence, BootEpoch, Entry, GroupId,
    codec::{
        BATCH_HEADER_BYTES, BatchHeader, Chain, MIRROR_BYTES, Mirror, RECORD_HEADER_BYTES, RecordHeader,
        RecordKind, Seal, aligned, payload_checksum,
    },
};
use crate::raft::HardState;

/// Buffers kept from one batch to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    pub(super) batch: Vec<u8>,
    /// Mirrors in the order of their offsets.
    pub(super) mirrors: Vec<u8>,
}

/// Where a batch will stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destination<'a> {
    pub(super) seal: &'a Seal,
    pub(super) sequence: BatchSequence,
    pub(super) boot: BootEpoch,
    /// Where the batch begins.
    pub(super) offset: u64,
    /// Where the mirrors of earlier batches begin.
    pub(super) mirror_low: u64,
}

/// A record's place in its group's chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) group: GroupId,
    pub(super) chain: Chain,
    pub(super) first: bool,
}

/// A batch being built.
#[derive(Debug)]
pub(super) struct BatchBuilder<'a> {
    to: Destination<'a>,
    buffers: &'a mut Buffers,
    records: u32,
    mirrors: Vec<Mirror>,
}

impl<'a> BatchBuilder<'a> {
    pub(super) fn new(to: Destination<'a>, buffers: &'a mut Buffers) -> Self {
        buffers.batch.clear();
        buffers.batch.resize(BATCH_HEADER_BYTES, 0);
        Self { to, buffers, records: 0, mirrors: Vec::new() }
    }

    /// Adds a record and returns its offset in the segment.
    pub(super) fn record(&mut self, link: Link, kind: RecordKind, payload: &[u8]) -> u64 {
        let offset = self.to.offset + self.buffers.batch.len() as u64;
        let header = RecordHeader {
            group: link.group,
            kind,
            chain: link.chain,
            first: link.first,
            payload_bytes: u32::try_from(payload.len()).expect("payloads are shorter than a segment"),
            payload_checksum: payload_checksum(payload),
        };
        header.encode(offset, self.to.seal, &mut self.buffers.batch);
        self.buffers.batch.extend_from_slice(payload);
        let padded = aligned(self.buffers.batch.len());
        self.buffers.batch.resize(padded, 0);
        self.records += 1;
        offset
    }

    /// Adds a record that holds a hard state, and its mirror.
    pub(super) fn mirrored(&mut self, link: Link, kind: RecordKind, payload: &[u8], hard_state: HardState) {
        let record = self.record(link, kind, payload);
        self.mirrors.push(Mirror {
            sequence: self.to.sequence,
            record,
            group: link.group,
            chain: link.chain,
            first: link.first,
            payload_bytes: u32::try_from(payload.len()).expect("payloads are shorter than a segment"),
            hard_state,
        });
    }

    /// Adds an entry and returns its offset.
    pub(super) fn entry(&mut self, link: Link, entry: &Entry) -> u64 {
        self.record(link, RecordKind::Entry(entry.position(), entry.kind), &entry.payload)
    }

    /// Completes the bytes. Returns how many records there are.
    pub(super) fn finish(self) -> u32 {
        let Self { to, buffers, records, mirrors } = self;
        let body = buffers.batch.len() - BATCH_HEADER_BYTES;
        let header = BatchHeader {
            sequence: to.sequence,
            boot: to.boot,
            body_bytes: u32::try_from(body).expect("batches are shorter than a segment"),
            records,
        };
        header.encode(to.offset, to.seal, &mut buffers.batch);
        buffers.mirrors.clear();
        // The area grows down, so the last mirror stands lowest.
        let mut offset = to.mirror_low - (mirrors.len() * MIRROR_BYTES) as u64;
        for mirror in mirrors.iter().rev() {
            buffers.mirrors.extend_from_slice(&mirror.encode(offset, to.seal));
            offset += MIRROR_BYTES as u64;
        }
        records
    }
}

/// Bytes of a record with a payload of this length.
pub(super) fn record_bytes(payload: usize) -> u64 {
    aligned(RECORD_HEADER_BYTES + payload) as u64
}
