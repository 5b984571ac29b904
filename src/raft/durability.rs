//! What is on disk, and what must wait for it.
//!
//! Writes of a replica are totally ordered, so a prefix of them is durable: completions may come in
//! any order, and count once everything before them is complete. A message whose safety depends on
//! a write is held here until that write is durable; nothing else ever waits.

use alloc::{collections::VecDeque, vec::Vec};

use super::{
    contract::{AppendPlan, Output, WriteFault, WritePlan},
    message::{Body, Message},
    replica::Replica,
    role::Role,
    snapshot::SnapshotMeta,
    types::{BootEpoch, HardState, Index, Instant, Now, WriteToken},
};

/// Writes that are under way, and what waits for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Durability {
    boot: BootEpoch,
    /// The latest write asked for.
    issued: u64,
    /// The latest write of a term or vote.
    hard_state: u64,
    /// The latest write that installs a snapshot.
    install: u64,
    /// Every write up to this one is durable.
    settled: u64,
    outstanding: VecDeque<Outstanding>,
    /// Every entry up to here is durable.
    durable: Index,
    /// Messages and the write each waits for.
    held: Vec<(u64, Message)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Outstanding {
    /// The last entry it makes durable, where it still stands in the log: an entry overwritten
    /// while its write is under way is cut off here, so that its completion proves nothing.
    reaches: Option<Index>,
    asked: Instant,
    done: bool,
}

/// Messages that wait for writes, at most.
const HELD_MAX: usize = 1024;

/// The parts of a write.
#[derive(Default)]
pub(super) struct Change {
    pub(super) hard_state: Option<HardState>,
    pub(super) install: Option<SnapshotMeta>,
    pub(super) truncate_from: Option<Index>,
    pub(super) append: Option<AppendPlan>,
}

impl Durability {
    pub(super) fn new(boot: BootEpoch, durable: Index) -> Self {
        Self {
            boot,
            issued: 0,
            hard_state: 0,
            install: 0,
            settled: 0,
            outstanding: VecDeque::new(),
            durable,
            held: Vec::new(),
        }
    }

    /// Every entry up to here is durable.
    pub(super) fn durable(&self) -> Index {
        self.durable
    }

    /// Writes that are under way.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// When the oldest write under way was asked for.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.outstanding.front().map(|write| write.asked)
    }

    /// Whether a snapshot is being installed: until then the state machine is behind the log.
    pub(super) fn is_installing(&self) -> bool {
        self.settled < self.install
    }

    /// Whether everything asked for is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Entries from `from` on are void.
    pub(super) fn cut(&mut self, from: Index) {
        let kept = from.previous();
        self.durable = self.durable.min(kept);
        for write in self.outstanding.iter_mut().filter(|_| !mutant!(B21)) {
            write.reaches = write.reaches.map(|reaches| reaches.min(kept));
        }
    }

    /// Drops the messages that wait: their sender stopped.
    pub(super) fn forget_held(&mut self) {
        self.held.clear();
    }

    /// Counts writes from the latest settled one and forgets when they were asked for.
    #[cfg(feature = "model")]
    pub(super) fn abstract_history(&mut self) {
        let settled = core::mem::take(&mut self.settled);
        self.issued -= settled;
        self.hard_state = self.hard_state.saturating_sub(settled);
        for write in &mut self.outstanding {
            write.asked = Instant::default();
        }
        for (waits_for, _) in &mut self.held {
            *waits_for -= settled;
        }
    }

    fn ask(&mut self, reaches: Option<Index>, now: Instant) -> WriteToken {
        self.issued += 1;
        self.outstanding.push_back(Outstanding { reaches, asked: now, done: false });
        WriteToken { boot: self.boot, sequence: self.issued }
    }

    /// Whether the token names a write that is under way.
    fn awaits(&self, token: WriteToken) -> bool {
        (token.boot == self.boot || mutant!(M23))
            && token.sequence <= self.issued
            && token.sequence > self.settled
            && !self.outstanding[self.place(token)].done
    }

    fn place(&self, token: WriteToken) -> usize {
        usize::try_from(token.sequence - self.settled - 1).expect("bounded by the writes under way")
    }

    /// Marks a write as done, and settles every write before which none is under way.
    fn complete(&mut self, token: WriteToken) {
        assert!(self.awaits(token), "only a write under way is completed");
        let at = self.place(token);
        self.outstanding[at].done = true;
        while let Some(write) = self.outstanding.front().copied() {
            if !write.done {
                break;
            }
            self.outstanding.pop_front();
            self.settled += 1;
            self.durable = self.durable.max(write.reaches.unwrap_or(Index::ZERO));
        }
        assert_eq!(self.issued - self.settled, self.outstanding.len() as u64);
    }
}

impl Replica {
    /// Asks for one atomic write, after every write asked for before.
    pub(super) fn write(&mut self, now: Now, change: Change) {
        let appended = change.append.as_ref().and_then(|append| append.range.last()).map(|last| last.index);
        let installed = change.install.as_ref().map(|install| install.position.index);
        let token = self.durability.ask(appended.or(installed), now.monotonic);
        if change.hard_state.is_some() {
            self.durability.hard_state = token.sequence;
        }
        if change.install.is_some() {
            self.durability.install = token.sequence;
        }
        self.outputs.push_back(Output::Write(WritePlan {
            token,
            hard_state: change.hard_state,
            install: change.install,
            truncate_from: change.truncate_from,
            append: change.append,
        }));
    }

    /// Emits `message` once every write asked for so far is durable.
    pub(super) fn send_when_durable(&mut self, message: Message) {
        if self.durability.is_settled() {
            self.outputs.push_back(Output::Send(message));
        } else if self.durability.held.len() < HELD_MAX {
            self.durability.held.push((self.durability.issued, message));
        }
        // Beyond that it is lost, like any message may be: the disk has not answered for long.
    }

    /// Whether this replica would remember its term after a crash.
    pub(super) fn term_is_durable(&self) -> bool {
        self.durability.settled >= self.durability.hard_state
    }

    /// A write is durable, or failed for ever.
    pub(super) fn persisted(&mut self, now: Now, token: WriteToken, result: Result<(), WriteFault>) {
        if !self.durability.awaits(token) {
            self.counters.stale_completions += 1;
            return;
        }
        if let Err(fault) = result
            && !mutant!(M22)
        {
            self.fault(fault);
            return;
        }
        self.durability.complete(token);
        self.release_held();
        self.announce_commit();
        match &self.role {
            Role::Follower(_) => {
                self.finish_install();
                self.acknowledge();
            }
            Role::Candidate(_) => self.count_own_vote(now),
            Role::Leader(_) => self.advance_commit(now),
            Role::PreCandidate(_) | Role::Faulted(_) => {}
        }
    }

    fn release_held(&mut self) {
        let settled = self.durability.settled;
        let term = self.term();
        let stands = matches!(self.role, Role::Candidate(_));
        let outputs = &mut self.outputs;
        self.durability.held.retain(|(waits_for, message)| {
            let due = *waits_for <= settled;
            // A vote or request of an earlier term is of no use to anyone, nor is the request of one who
            // no longer stands, and whose log may have changed since.
            let asks = matches!(message.body, Body::VoteAsk(_));
            if due && message.term == term && (stands || !asks) {
                outputs.push_back(Output::Send(message.clone()));
            }
            !due
        });
    }
}
