//! The bounds of one replica. The defaults are those of [`crate::limits`], which are also the most
//! that a replica accepts from others; an embedder with little memory, or a simulator that looks for
//! what happens at a bound, sets lower ones.

use crate::limits;

/// How much a replica has under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Payload bytes of one append message. One entry larger than that travels alone.
    pub append_bytes: u64,
    /// Entries of one append message and of one proposal; at least one.
    pub append_entries: u64,
    /// Append messages in flight to one follower; at least one.
    pub inflight_messages: usize,
    /// Payload bytes in flight to one follower.
    pub inflight_bytes: u64,
    /// Payload bytes appended and not yet committed. Beyond it proposals are refused as busy.
    pub uncommitted_bytes: u64,
    /// Reads waiting to be confirmed.
    pub reads_waiting: usize,
    /// Writes that are not yet reported durable. Beyond it proposals are refused as busy.
    pub writes_outstanding: usize,
    /// Bytes of one snapshot chunk; at least one.
    pub snapshot_chunk_bytes: u64,
    /// Snapshot chunks in flight to one follower; at least one.
    pub snapshot_chunks_in_flight: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            append_bytes: limits::APPEND_BYTES_MAX,
            append_entries: limits::APPEND_ENTRIES_MAX,
            inflight_messages: limits::INFLIGHT_MESSAGES_MAX,
            inflight_bytes: limits::INFLIGHT_BYTES_MAX,
            uncommitted_bytes: limits::UNCOMMITTED_BYTES_MAX,
            reads_waiting: limits::READS_WAITING_MAX,
            writes_outstanding: limits::WRITES_OUTSTANDING_MAX,
            snapshot_chunk_bytes: limits::SNAPSHOT_CHUNK_BYTES,
            snapshot_chunks_in_flight: limits::SNAPSHOT_CHUNKS_IN_FLIGHT_MAX,
        }
    }
}
