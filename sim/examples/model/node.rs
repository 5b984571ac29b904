//! The smallest embedder of a replica: a disk, a log with payloads, the writes under way.
//!
//! A write that is under way is either carried out and reported in one step, or decided by a crash,
//! which leaves any number of the oldest ones done and the rest not: nobody can tell a write that was
//! done and not reported from one that was not done, until a crash asks.

use std::collections::VecDeque;

use kotoba_db_cluster::{
    limits::APPEND_BYTES_MAX,
    raft::{
        AppendPlan, Body, BootEpoch, Configuration, ConfigurationEntry, EntrySource, HardState, Index, Input,
        Limits, Message, Now, Output, PayloadId, Position, Proposal, Replica, ReplicaId, Restored, Settings,
        SnapshotMeta, Term, Timing, WritePlan, WriteToken,
    },
};

/// The log's first entry. The group begins as if a snapshot of index 1 had been installed.
pub(crate) const FIRST: u64 = 2;
/// What [`FIRST`] follows.
const GENESIS: Position = Position { index: Index(1), term: Term(1) };
/// No completion of an earlier life is ever reported here, so lives need no numbers.
const BOOT: BootEpoch = BootEpoch(1);
/// One input is handled at a time, so its payload needs no name.
const PAYLOAD: PayloadId = PayloadId(1);
/// What a proposal claims to hold: so much that it travels alone, and what a follower lacks comes in parts.
const VALUE_BYTES: u64 = APPEND_BYTES_MAX + 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) payload: Payload,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Payload {
    Empty,
    Value(u8),
    Members(Configuration),
}

/// A message with the entries it names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wire {
    pub(crate) message: Message,
    pub(crate) entries: Vec<Entry>,
}

/// A write that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pending {
    hard_state: Option<HardState>,
    truncate_from: Option<Index>,
    entries: Vec<Entry>,
}

/// What survives a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl Disk {
    pub(crate) fn last(&self) -> Position {
        last(&self.entries)
    }

    fn write(&mut self, pending: Pending) {
        if let Some(hard_state) = pending.hard_state {
            self.hard_state = hard_state;
        }
        change(&mut self.entries, pending.truncate_from, pending.entries);
    }
}

/// One replica and what its embedder keeps for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) replica: Replica,
    /// The configuration the group began with.
    genesis: Configuration,
    pub(crate) disk: Disk,
    /// The log as the core sees it, durable or not.
    pub(crate) log: Vec<Entry>,
    pub(crate) pending: VecDeque<Pending>,
    /// The core announced every entry up to here as committed.
    pub(crate) announced: Index,
}

impl Node {
    pub(crate) fn new(id: ReplicaId, genesis: Configuration) -> Self {
        let disk = Disk { hard_state: HardState { term: Term(1), vote: None }, entries: Vec::new() };
        Self::start(id, genesis, disk, GENESIS.index)
    }

    /// Starts from what the disk holds, with a state machine that holds the effect of every entry up to
    /// `applied`.
    fn start(id: ReplicaId, genesis: Configuration, disk: Disk, applied: Index) -> Self {
        let mut runs: Vec<(Position, u64)> = Vec::new();
        for (index, entry) in (FIRST..).zip(&disk.entries) {
            let bytes = if let Payload::Value(_) = entry.payload { VALUE_BYTES } else { 0 };
            runs.push((Position::new(Index(index), entry.term), bytes));
        }
        let restored = Restored {
            hard_state: disk.hard_state,
            start: SnapshotMeta { position: GENESIS, configuration: genesis.clone() },
            runs,
            configurations: configurations(Index(FIRST), &disk.entries),
            applied,
            damaged: false,
        };
        let settings = Settings {
            id,
            boot: BOOT,
            seed: 0,
            timing: Timing::default(),
            limits: Limits::default(),
            retained_bytes: 0,
        };
        let mut replica =
            Replica::recover(settings, restored, Replica::SOON).expect("what was written can be read");
        replica.abstract_history();
        Self {
            replica,
            genesis,
            log: disk.entries.clone(),
            disk,
            pending: VecDeque::new(),
            announced: applied,
        }
    }

    /// The node after a crash that left the `survive` oldest writes done.
    pub(crate) fn crash(&self, survive: usize, applied: Index) -> Self {
        let mut disk = self.disk.clone();
        for pending in self.pending.iter().take(survive) {
            disk.write(pending.clone());
        }
        Self::start(self.replica.id(), self.genesis.clone(), disk, applied)
    }

    /// What a state machine may have made durable before a crash: nothing, or all that was announced.
    pub(crate) fn applied_choices(&self) -> Vec<Index> {
        let mut choices = vec![GENESIS.index, self.announced];
        choices.dedup();
        choices
    }

    pub(crate) fn propose(&mut self, value: u8) -> Vec<Output> {
        let entry = Entry { term: Term(0), payload: Payload::Value(value) };
        let proposal = Proposal { count: 1, bytes: VALUE_BYTES, payload: PAYLOAD };
        self.handle(Replica::SOON, Input::Propose(proposal), &[entry])
    }

    pub(crate) fn receive(&mut self, now: Now, wire: &Wire) -> Vec<Output> {
        let mut message = wire.message.clone();
        if let Body::Append(append) = &mut message.body {
            append.configurations = configurations(append.entries.first, &wire.entries);
        }
        let payload = (!wire.entries.is_empty()).then_some(PAYLOAD);
        self.handle(now, Input::Message { message, payload }, &wire.entries)
    }

    /// The `count` oldest writes are done and reported.
    pub(crate) fn complete(&mut self, count: usize) -> Vec<Output> {
        for _ in 0..count {
            let pending = self.pending.pop_front().expect("only writes under way are completed");
            self.disk.write(pending);
        }
        // The latest is reported first: what it settles is settled at once when the oldest is.
        (1..=count as u64).rev().flat_map(|sequence| self.report(sequence)).collect()
    }

    fn report(&mut self, sequence: u64) -> Vec<Output> {
        let token = WriteToken { boot: BOOT, sequence };
        self.handle(Replica::SOON, Input::Persisted { token, result: Ok(()) }, &[])
    }

    pub(crate) fn handle(&mut self, now: Now, input: Input, payload: &[Entry]) -> Vec<Output> {
        self.replica.handle(now, input);
        let outputs: Vec<_> = std::iter::from_fn(|| self.replica.poll_output()).collect();
        for output in &outputs {
            match output {
                Output::Write(plan) => self.begin_write(plan, payload),
                Output::Commit(index) => {
                    assert!(*index > self.announced, "commit outputs rise");
                    self.announced = *index;
                }
                Output::Send(_)
                | Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::ReadReady { .. }
                | Output::ReadRefused { .. }
                | Output::RoleChanged(_)
                | Output::Members(_)
                | Output::Faulted(_) => {}
                Output::Purge(_) | Output::BuildSnapshot { .. } | Output::StoreChunk { .. } => {
                    unreachable!("nothing is compacted, so there are no snapshots")
                }
            }
        }
        assert_eq!(self.replica.last(), last(&self.log), "core and embedder agree on the log");
        outputs
    }

    fn begin_write(&mut self, plan: &WritePlan, payload: &[Entry]) {
        let entries = plan.append.as_ref().map_or_else(Vec::new, |append| entries_of(append, payload));
        if let Some(append) = &plan.append {
            let kept = plan.truncate_from.map_or(self.log.len() as u64, |from| from.0 - FIRST);
            assert_eq!(append.range.first, Index(FIRST + kept), "entries are appended without a gap");
        }
        change(&mut self.log, plan.truncate_from, entries.clone());
        self.pending.push_back(Pending {
            hard_state: plan.hard_state,
            truncate_from: plan.truncate_from,
            entries,
        });
    }

    /// Attaches the entries to a message that leaves.
    pub(crate) fn gather(&self, mut message: Message) -> Wire {
        let mut entries = Vec::new();
        if let Body::Append(append) = &mut message.body
            && let Some(last) = append.entries.last()
        {
            let from = usize::try_from(append.entries.first.0 - FIRST).expect("small");
            let to = usize::try_from(last.index.0 + 1 - FIRST).expect("small");
            entries = self.log[from..to].to_vec();
            for (index, entry) in (append.entries.first.0..).zip(&entries) {
                let named = append.entries.runs.term_at(Index(index));
                assert_eq!(named, Some(entry.term), "the entries are those that are named");
            }
        }
        Wire { message, entries }
    }
}

fn last(entries: &[Entry]) -> Position {
    let index = Index(FIRST + entries.len() as u64 - 1);
    entries.last().map_or(GENESIS, |entry| Position::new(index, entry.term))
}

fn change(log: &mut Vec<Entry>, truncate_from: Option<Index>, entries: Vec<Entry>) {
    if let Some(from) = truncate_from {
        log.truncate(usize::try_from(from.0 - FIRST).expect("small"));
    }
    log.extend(entries);
}

fn configurations(first: Index, entries: &[Entry]) -> Vec<ConfigurationEntry> {
    let members = |(index, entry): (u64, &Entry)| match &entry.payload {
        Payload::Members(configuration) => {
            Some(ConfigurationEntry { index: Index(index), configuration: configuration.clone() })
        }
        Payload::Empty | Payload::Value(_) => None,
    };
    (first.0..).zip(entries).filter_map(members).collect()
}

fn entries_of(append: &AppendPlan, payload: &[Entry]) -> Vec<Entry> {
    let range = append.range;
    let count = usize::try_from(range.count()).expect("small");
    let payloads: Vec<Payload> = match &append.source {
        EntrySource::Empty => vec![Payload::Empty],
        EntrySource::Configuration(configuration) => vec![Payload::Members(configuration.clone())],
        // A message may begin before the range; it always ends with it.
        EntrySource::Payload(_) => {
            payload[payload.len() - count..].iter().map(|entry| entry.payload.clone()).collect()
        }
    };
    assert_eq!(payloads.len(), count, "every entry has its payload");
    let terms = (range.first.0..).map(|index| range.runs.term_at(Index(index)).expect("in the range"));
    terms.zip(payloads).map(|(term, payload)| Entry { term, payload }).collect()
}
