//! What can happen.

use bytes::Bytes;
use kotoba_db_cluster::{
    multiraft::GroupMessage,
    raft::{GroupId, Index, Input, PeerId, Position},
};

use super::{host::Asker, packet::Packet};
use crate::history::TrueTime;

/// Something planned. What belongs to a process names its life: a later life knows nothing of it.
#[derive(Clone, Debug)]
pub(crate) enum Event<A> {
    /// A message arrives.
    Deliver { from: usize, to: usize, peer: PeerId, sent: TrueTime, packet: Packet },
    /// A disk has done what it was doing.
    DiskDone { host: usize, life: u64, batch: u64 },
    /// Committed entries are applied.
    Apply { host: usize, life: u64, group: GroupId },
    /// Entries are read for a message.
    Gather { host: usize, life: u64, peer: PeerId, message: Box<GroupMessage> },
    /// A snapshot is built.
    Build { host: usize, life: u64, group: GroupId, at_least: Index },
    /// A chunk is stored.
    Stored { host: usize, life: u64, group: GroupId, position: Position, next_offset: u64 },
    /// A state is on disk.
    Flushed { host: usize, life: u64, group: GroupId },
    /// A completion of an earlier life comes while a write is under way.
    Stale { host: usize, life: u64 },
    /// Somebody who is no client reads, to see whether a leader believes that it leads.
    Probe { host: usize, life: u64, group: GroupId },
    /// An operator wants members changed without waiting.
    Hasty { host: usize, life: u64, group: GroupId },
    /// An input is due.
    Input { host: usize, life: u64, group: GroupId, input: Input },
    /// A host hears that a connection was closed.
    Hint { host: usize, about: PeerId },
    /// A process is started.
    Start { host: usize },
    /// A process that failed is killed, to be started again.
    Kill { host: usize, life: u64 },
    /// A client wants something.
    Wake { client: u32 },
    /// A request arrives at a host.
    Request { host: usize, askers: Vec<Asker> },
    /// Another operation under a client's used id arrives at a host.
    Reuse { host: usize, group: GroupId, payload: Bytes },
    /// An answer arrives at a client; `None`: ask elsewhere.
    Reply { host: usize, asker: Asker, answer: Option<(Index, A)> },
    /// A client has waited long enough.
    Timeout { asker: Asker, attempt: u32 },
    /// An operator looks after members.
    Administer,
    /// A fault is due.
    Fault,
    /// A clogged link opens again.
    Unclog { from: usize, to: usize },
    /// A link that was cut for a while opens again.
    Mend { from: usize, to: usize },
    /// A link that flaps turns over.
    Flap { from: usize, to: usize, until: TrueTime },
    /// A disk has room again.
    Room { host: usize },
}
