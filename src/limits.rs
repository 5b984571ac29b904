//! Every bound of the engine, in one table. `docs/limits.md` is its page for users.
//!
//! A full queue, window or batch answers with a typed refusal; nothing here ever grows, blocks or
//! drops silently.

use core::time::Duration;

/// Members of one group, voters and learners together.
pub const MEMBERS_MAX: usize = 64;
/// Term runs one append message may span. A longer range is cut and sent in parts.
pub const TERM_RUNS_PER_MESSAGE_MAX: usize = 4;
/// Payload bytes of one append message. One entry larger than that travels alone.
pub const APPEND_BYTES_MAX: u64 = 1 << 20;
/// Entries of one append message.
pub const APPEND_ENTRIES_MAX: u64 = 4096;
/// Append messages in flight to one peer of one group.
pub const INFLIGHT_MESSAGES_MAX: usize = 64;
/// Payload bytes in flight to one peer of one group.
pub const INFLIGHT_BYTES_MAX: u64 = 8 << 20;
/// Payload bytes a leader has appended and not yet committed, per group. Beyond it proposals are
/// refused as busy.
pub const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;
/// Reads waiting for one confirmation round of one group.
pub const READS_WAITING_MAX: usize = 16_384;
/// Bytes of one run of the log's metadata: neighbouring small appends of one term share a run.
pub const RUN_BYTES_MAX: u64 = 64 << 10;
/// Bytes of one snapshot chunk.
pub const SNAPSHOT_CHUNK_BYTES: u64 = 256 << 10;
/// Snapshot chunks in flight to one peer of one group.
pub const SNAPSHOT_CHUNKS_IN_FLIGHT_MAX: u64 = 4;
/// Writes of one replica that are not yet reported durable.
pub const WRITES_OUTSTANDING_MAX: usize = 4096;
/// Groups of one node.
pub const GROUPS_PER_NODE_MAX: usize = 65_536;

/// Bytes of one operation as a client sends it.
pub const OPERATION_BYTES_MAX: usize = 1 << 20;
/// Bytes of one line of an import: escapes make a text up to six times as long.
pub const IMPORT_LINE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of one edge label or node key.
pub const LABEL_BYTES_MAX: usize = 1024;
/// Bytes of one client id.
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// Nesting of one property value. Decoders of protobuf read messages nested 100 deep; a map in a map
/// costs three of them, and the messages around a value up to five.
pub const VALUE_DEPTH_MAX: usize = 30;
/// Outcomes a partition remembers per client.
pub const SESSION_OUTCOMES_MAX: usize = 4096;
/// Bytes of one group's rows that wait in memory before the graph store, with what they cost there.
pub const STORE_BUFFER_GROUP_BYTES_MAX: usize = 192 << 10;
/// Bytes of all groups' rows that wait in memory before the graph store of a node.
pub const STORE_BUFFER_BYTES_MAX: usize = 8 << 20;
/// Partitions of one cluster.
pub const PARTITIONS_MAX: u32 = 4096;
/// Virtual nodes a node has on the ring unless told otherwise.
pub const VIRTUAL_NODES: usize = 100;
/// Client operations in flight on one stream.
pub const STREAM_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of one gRPC message.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// About how many bytes of entities, versions or neighbours one answer holds; the rest is for the next one.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Entities of one answer.
pub const ANSWER_ENTITIES_MAX: usize = 10_000;
/// Neighbours of one answer.
pub const ANSWER_NEIGHBORS_MAX: usize = 20_000;
/// Neighbours of one node that are returned at once where there are no pages.
pub const NEIGHBORS_MAX: usize = 1_000_000;
/// Rows of one answer that compares members.
pub const VERIFY_ROWS_MAX: u32 = 10_000;
/// Bytes of one entity's block, whatever updates add to it.
pub const ENTITY_BYTES_MAX: usize = 4 << 20;
/// Clients whose outcomes one partition remembers.
pub const CLIENTS_MAX: u64 = 1 << 20;
/// Commands waiting to enter a node's driver.
pub const COMMANDS_WAITING_MAX: usize = 16_384;
/// Writes passed on to one node and not yet answered.
pub const FORWARDS_WAITING_MAX: usize = 16_384;
/// Bytes waiting to be sent to one node.
pub const QUEUE_BYTES_MAX: usize = 32 << 20;
/// Messages and forwards waiting to be sent to one node.
pub const QUEUE_ITEMS_MAX: usize = 65_536;
/// Committed entries of one group that wait to be applied before its leader refuses more.
pub const BACKLOG_MAX: u64 = 65_536;
/// Consensus calls of the specification that wait for their answer.
pub const CONSENSUS_CALLS_MAX: usize = 1024;
/// Places of entities that a node remembers.
pub const LOCATIONS_MAX: usize = 65_536;
/// States that a node keeps for verification.
pub const VIEWS_MAX: usize = 4096;
/// Events a subscriber may be behind before it misses some.
pub const EVENTS_MAX: usize = 4096;
/// How long a node keeps the view that a verification asked for.
pub const VERIFY_VIEW_LIFETIME: Duration = Duration::from_secs(60);
