//! A host: a disk that outlives its processes, and the process that runs on it, if one does.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use kotoba_db_cluster::{
    multiraft::Node,
    raft::{
        BootEpoch, GroupId, HardState, Index, PeerId, Position, ReadId, ReplicaId, SnapshotId, SnapshotMeta,
        Term, WriteToken,
    },
    storage::wal::{Entry, GroupWrite, LogId, LogIndex, MemDisk, WalWriter},
};

use super::{
    clock::HostClock,
    packet::{Cargo, Received, Snapshot},
};
use crate::{
    check::{monotonicity::Marks, recovery::Kept},
    history::TrueTime,
    machine::StateMachine,
};

/// A host.
#[derive(Clone, Debug)]
pub(crate) struct Host<M: StateMachine> {
    pub(crate) number: u32,
    /// Its data directory's identity; another one after a wipe.
    pub(crate) peer: PeerId,
    pub(crate) log_id: LogId,
    pub(crate) clock: HostClock,
    /// How often its directory's log was opened.
    pub(crate) boot: BootEpoch,
    /// Grows with every start and every crash: what was planned for an earlier life is void.
    pub(crate) life: u64,
    pub(crate) process: Option<Process<M>>,
    /// The disk, while no process has it.
    pub(crate) disk: MemDisk,
    pub(crate) groups: BTreeMap<GroupId, Stored<M>>,
    pub(crate) paused_until: TrueTime,
    /// Its timers go off then at the earliest: after standing still, a process may be given what
    /// waits before it looks at its clock.
    pub(crate) timers_from: TrueTime,
    /// When the process wants to be woken.
    pub(crate) wake: TrueTime,
    /// The process knows that the disk is full.
    pub(crate) disk_full: bool,
    /// The disk is full until then.
    pub(crate) full_until: TrueTime,
    pub(crate) stalled_until: TrueTime,
    /// What the log acknowledged before the last crash, and with the batch that was being written.
    pub(crate) kept: Option<(Kept, Kept)>,
    pub(crate) damage: Damage,
    /// Writes of a batch whose flush failed: they may be on disk or not.
    pub(crate) in_doubt: Vec<GroupWrite>,
    /// Tokens that were reported or belong to earlier lives.
    pub(crate) old_tokens: VecDeque<(GroupId, WriteToken)>,
    /// The last write each life asked for, of lives that are over.
    pub(crate) earlier: VecDeque<(GroupId, WriteToken)>,
    /// The last write this life asked for.
    pub(crate) asked: BTreeMap<GroupId, WriteToken>,
    /// The last acknowledged batch: one disk alone cannot tell it from a torn tail.
    pub(crate) last_batch: LastBatch,
    /// The ones before it.
    pub(crate) batches_before: VecDeque<LastBatch>,
}

/// Where a batch stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastBatch {
    /// The segment's file.
    pub(crate) name: String,
    /// Where it begins; zero for one that begins a segment.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// It holds terms and votes only: there are second copies of those.
    pub(crate) promises_only: bool,
    /// It lets logs forget, and nothing else: what follows does not tell that it is missing.
    pub(crate) purges_only: bool,
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    None,
    /// It was damaged; nobody has noticed yet.
    Hidden,
    /// A restart found it: the directory has to be wiped.
    Known,
}

/// What a host keeps of a group besides the log.
#[derive(Clone, Debug)]
pub(crate) struct Stored<M: StateMachine> {
    /// The replica it runs.
    pub(crate) replica: ReplicaId,
    /// The state that is surely on disk; none for a replica that never had one.
    pub(crate) durable: Option<(Position, M)>,
    /// Snapshots that arrived in full: one may be there before another one is installed.
    pub(crate) received: BTreeMap<Index, Received>,
    /// Whether the log knows of the group yet.
    pub(crate) begun: bool,
}

/// A running process.
#[derive(Clone, Debug)]
pub(crate) struct Process<M: StateMachine> {
    pub(crate) node: Node,
    pub(crate) writer: WalWriter<MemDisk>,
    pub(crate) log: LogIndex,
    pub(crate) groups: BTreeMap<GroupId, Hosted<M>>,
    /// Writes of this turn.
    pub(crate) turn: Submission,
    /// Submissions that wait for the disk.
    pub(crate) queue: VecDeque<Submission>,
    /// What the disk is writing.
    pub(crate) writing: Option<Submission>,
    /// Counts what the disk was given.
    pub(crate) batch: u64,
    /// Who waits for which entry.
    pub(crate) waiting: BTreeMap<(GroupId, Index), (Term, Asker)>,
    /// Who waits for which read, and what was committed when it was asked for.
    pub(crate) reads: BTreeMap<ReadId, (Option<Asker>, Index)>,
    pub(crate) snapshots: BTreeMap<SnapshotId, Arc<Snapshot>>,
    pub(crate) names: u64,
}

/// A client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asker {
    pub(crate) client: u32,
    pub(crate) serial: u64,
}

/// Writes that are one request of the log's writer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Submission {
    pub(crate) writes: Vec<GroupWrite>,
    pub(crate) tokens: Vec<Submitted>,
}

/// A plan of the core that is part of a submission.
#[derive(Clone, Debug)]
pub(crate) struct Submitted {
    pub(crate) group: GroupId,
    pub(crate) token: WriteToken,
    pub(crate) install: Option<SnapshotMeta>,
}

/// What a process holds of a group besides its replica.
#[derive(Clone, Debug)]
pub(crate) struct Hosted<M: StateMachine> {
    pub(crate) machine: Option<M>,
    pub(crate) applied: Position,
    /// The state that is being made durable.
    pub(crate) flushing: Option<(Position, M)>,
    /// Entries up to here were handed to be applied.
    pub(crate) dispatched: Index,
    pub(crate) queue: VecDeque<Entry>,
    /// Whether an apply is planned.
    pub(crate) applying: bool,
    /// Confirmed reads that wait for the state to get there.
    pub(crate) ready: Vec<(Index, Asker)>,
    pub(crate) incoming: Option<Incoming>,
    pub(crate) marks: Marks,
    /// The start of the log.
    pub(crate) start: Index,
}

/// A snapshot that is arriving.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) meta: SnapshotMeta,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) next_offset: u64,
    /// Chunks of different builds with different contents came together.
    pub(crate) mixed: bool,
}

impl<M: StateMachine> Host<M> {
    /// Whether its process can be given something now.
    pub(crate) fn is_running(&self, now: TrueTime) -> bool {
        self.process.is_some() && self.paused_until <= now
    }

    /// Whether its replica of a group holds a position durably, in its log or as part of its state.
    pub(crate) fn holds(&self, group: GroupId, position: Position) -> bool {
        // It held it before its disk was damaged, as far as anybody can tell.
        if self.damage != Damage::None {
            return true;
        }
        let Some(process) = &self.process else {
            return self.kept.as_ref().is_some_and(|(kept, _)| kept.holds(group, position));
        };
        process.writer.durable(group).is_some_and(|(_, start, entries)| {
            start.position.index >= position.index || entries.holds(position)
        })
    }
}

impl<M: StateMachine> Process<M> {
    /// A name that was not used yet in this life.
    pub(crate) fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}

/// Bytes a process was given with an input.
#[derive(Clone, Debug)]
pub(crate) enum Held {
    Commands(Vec<bytes::Bytes>),
    Cargo { first: Index, cargo: Cargo },
}

/// Term and vote of a replica that begins in `term`.
pub(crate) fn fresh(term: Term) -> HardState {
    HardState { term, vote: None }
}
