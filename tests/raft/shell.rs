//! One replica with everything an embedder owes it: a disk, a log with payloads, a state machine.
//!
//! Nothing here happens by itself. Whoever drives a shell decides when a write reaches the disk,
//! when it is reported, when entries are applied and when a crash takes what was not yet durable.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use kotoba_db_cluster::raft::{
    AppendPlan, Body, BootEpoch, BuiltSnapshot, Configuration, ConfigurationEntry, EntrySource, HardState,
    Index, Input, Limits, Message, Now, Output, PayloadId, Position, Proposal, RecoverError, Replica,
    ReplicaId, Restored, Settings, SnapshotId, SnapshotMeta, Term, Timing, WriteFault, WritePlan, WriteToken,
};

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Empty,
    Data(u64),
    Members(Configuration),
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) payload: Payload,
}

/// The naive state machine: it remembers all it was told, and up to where.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) applied: Index,
    pub(crate) values: Vec<(Index, u64)>,
}

/// A message with the bytes it refers to.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) message: Message,
    pub(crate) cargo: Cargo,
}

#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    None,
    Entries(Vec<Entry>),
    Chunk(Rc<State>),
}

/// What survives a crash.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) start: SnapshotMeta,
    pub(crate) entries: BTreeMap<Index, Entry>,
    pub(crate) state: State,
}

impl Disk {
    pub(crate) fn last(&self) -> Position {
        self.entries
            .last_key_value()
            .map_or(self.start.position, |(&index, entry)| Position::new(index, entry.term))
    }

    /// Whether the entry at `index` would survive a crash, as itself or as part of a snapshot.
    pub(crate) fn covers(&self, index: Index) -> bool {
        index <= self.start.position.index || self.entries.contains_key(&index)
    }
}

/// Something on its way to the disk; carried out in order.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "a handful live at a time")]
enum Pending {
    Write { plan: WritePlan, entries: Vec<Entry>, snapshot: Option<State> },
    Purge(SnapshotMeta),
}

#[derive(Clone, Debug)]
pub(crate) struct Shell {
    pub(crate) id: ReplicaId,
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    /// The log as the core sees it, durable or not.
    pub(crate) log: BTreeMap<Index, Entry>,
    pub(crate) state: State,
    /// What the core announced as committed.
    pub(crate) committed: Index,
    pub(crate) boots: u64,
    pending: VecDeque<Pending>,
    payload: Option<(PayloadId, Cargo)>,
    payloads: u64,
    incoming: Option<(Position, State)>,
    snapshots: BTreeMap<u64, Rc<State>>,
    seed: u64,
    pub(crate) timing: Timing,
    pub(crate) retained_bytes: u64,
    pub(crate) limits: Limits,
}

impl Shell {
    /// A replica that never held anything.
    pub(crate) fn blank(id: ReplicaId, seed: u64) -> Self {
        Self {
            id,
            replica: None,
            disk: Disk {
                hard_state: HardState::default(),
                start: SnapshotMeta::default(),
                entries: BTreeMap::new(),
                state: State::default(),
            },
            log: BTreeMap::new(),
            state: State::default(),
            committed: Index::ZERO,
            boots: 0,
            pending: VecDeque::new(),
            payload: None,
            payloads: 0,
            incoming: None,
            snapshots: BTreeMap::new(),
            seed,
            timing: Timing::default(),
            retained_bytes: 0,
            limits: Limits::default(),
        }
    }

    /// A member of a new group: as if a snapshot at 1/t1 had been installed.
    pub(crate) fn genesis(id: ReplicaId, seed: u64, configuration: Configuration) -> Self {
        let mut shell = Self::blank(id, seed);
        let position = Position::new(Index(1), Term(1));
        shell.disk.hard_state = HardState { term: Term(1), vote: None };
        shell.disk.start = SnapshotMeta { position, configuration };
        shell.disk.state.applied = Index(1);
        shell
    }

    /// Starts from what the disk holds.
    pub(crate) fn start(&mut self, now: Now) -> Result<(), RecoverError> {
        assert!(self.replica.is_none(), "a running replica is not started again");
        self.boots += 1;
        let mut runs: Vec<(Position, u64)> = Vec::new();
        for (&index, entry) in &self.disk.entries {
            match runs.last_mut() {
                Some((last, bytes)) if last.term == entry.term => {
                    last.index = index;
                    *bytes += 8;
                }
                Some(_) | None => runs.push((Position::new(index, entry.term), 8)),
            }
        }
        let configurations = self.disk.entries.iter().filter_map(configuration_of).collect();
        let restored = Restored {
            hard_state: self.disk.hard_state,
            start: self.disk.start.clone(),
            runs,
            configurations,
            applied: self.disk.state.applied,
            damaged: false,
        };
        let settings = Settings {
            id: self.id,
            boot: BootEpoch(self.boots),
            seed: self.seed.wrapping_add(self.boots),
            timing: self.timing,
            retained_bytes: self.retained_bytes,
            limits: self.limits,
        };
        self.replica = Some(Replica::recover(settings, restored, now)?);
        self.log = self.disk.entries.clone();
        self.state = self.disk.state.clone();
        self.committed = self.state.applied;
        Ok(())
    }

    /// Takes everything that is not on the disk.
    pub(crate) fn crash(&mut self) {
        self.replica = None;
        self.pending.clear();
        self.payload = None;
        self.incoming = None;
        self.snapshots.clear();
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.replica.as_ref().expect("the replica runs")
    }

    /// Hands over an input and carries out what can be done at once. Returns all outputs.
    pub(crate) fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let replica = self.replica.as_mut().expect("the replica runs");
        replica.handle(now, input);
        let outputs: Vec<_> = std::iter::from_fn(|| replica.poll_output()).collect();
        for output in &outputs {
            self.carry_out(output);
        }
        self.payload = None;
        outputs
    }

    pub(crate) fn propose(&mut self, now: Now, values: &[u64]) -> Vec<Output> {
        self.propose_sized(now, values, values.len() as u64 * 8)
    }

    /// Proposes values that claim to be `bytes` long together.
    pub(crate) fn propose_sized(&mut self, now: Now, values: &[u64], bytes: u64) -> Vec<Output> {
        let entries = values.iter().map(|&value| Entry { term: Term(0), payload: Payload::Data(value) });
        let payload = self.keep(Cargo::Entries(entries.collect()));
        let count = u32::try_from(values.len()).expect("few values");
        self.handle(now, Input::Propose(Proposal { count, bytes, payload }))
    }

    pub(crate) fn receive(&mut self, now: Now, wire: Wire) -> Vec<Output> {
        let Wire { mut message, cargo } = wire;
        if let (Body::Append(append), Cargo::Entries(entries)) = (&mut message.body, &cargo) {
            let first = append.entries.first.0;
            let indexes = (0..).map(|offset| Index(first.saturating_add(offset)));
            append.configurations =
                indexes.zip(entries).filter_map(|(index, entry)| configuration_of((&index, entry))).collect();
        }
        let payload = match &cargo {
            Cargo::None => None,
            Cargo::Entries(_) | Cargo::Chunk(_) => Some(self.keep(cargo)),
        };
        self.handle(now, Input::Message { message, payload })
    }

    fn keep(&mut self, cargo: Cargo) -> PayloadId {
        self.payloads += 1;
        let id = PayloadId(self.payloads);
        self.payload = Some((id, cargo));
        id
    }

    fn carry_out(&mut self, output: &Output) {
        match output {
            Output::Write(plan) => self.begin_write(plan.clone()),
            Output::Commit(index) => {
                assert!(*index > self.committed, "commit outputs rise");
                self.committed = *index;
            }
            Output::Purge(meta) => {
                self.log.retain(|&index, _| index > meta.position.index);
                self.pending.push_back(Pending::Purge(meta.clone()));
            }
            Output::StoreChunk { snapshot, offset, payload, .. } => {
                let (id, cargo) = self.payload.clone().expect("a chunk came with its bytes");
                assert_eq!(id, *payload);
                let Cargo::Chunk(state) = cargo else { panic!("a chunk's bytes are a chunk") };
                let position = snapshot.meta.position;
                assert_eq!(state.applied, position.index, "a chunk belongs to its snapshot");
                if *offset > 0 {
                    let (held, stored) = self.incoming.as_ref().expect("a chunk continues a snapshot");
                    assert_eq!((*held, stored), (position, &*state), "chunks of one snapshot fit together");
                }
                self.incoming = Some((position, (*state).clone()));
            }
            Output::Send(_)
            | Output::Proposed { .. }
            | Output::ProposalRefused { .. }
            | Output::ReadReady { .. }
            | Output::ReadRefused { .. }
            | Output::RoleChanged(_)
            | Output::Members(_)
            | Output::BuildSnapshot { .. }
            | Output::Faulted(_) => {}
        }
    }

    fn begin_write(&mut self, plan: WritePlan) {
        let snapshot = plan.install.as_ref().map(|meta| {
            let (position, state) = self.incoming.clone().expect("what is installed was stored");
            assert_eq!(position, meta.position);
            state
        });
        if let (Some(meta), Some(state)) = (&plan.install, &snapshot) {
            self.log.retain(|&index, _| index > meta.position.index);
            self.committed = meta.position.index;
            self.state = state.clone();
        }
        let entries = plan.append.as_ref().map_or_else(Vec::new, |append| self.entries_of(append));
        change_log(&mut self.log, &plan, &entries);
        self.pending.push_back(Pending::Write { plan, entries, snapshot });
    }

    fn entries_of(&self, append: &AppendPlan) -> Vec<Entry> {
        let range = append.range;
        let payloads: Vec<Payload> = match &append.source {
            EntrySource::Empty => vec![Payload::Empty],
            EntrySource::Configuration(configuration) => vec![Payload::Members(configuration.clone())],
            EntrySource::Payload(id) => {
                let (held, cargo) = self.payload.as_ref().expect("the payload is held");
                assert_eq!(held, id);
                let Cargo::Entries(entries) = cargo else { panic!("entries are not a chunk") };
                // A message may begin before the range; it always ends with it.
                let skipped = entries.len() - usize::try_from(range.count()).expect("small");
                entries[skipped..].iter().map(|entry| entry.payload.clone()).collect()
            }
        };
        assert_eq!(payloads.len() as u64, range.count());
        let terms = (range.first.0..).map(|index| range.runs.term_at(Index(index)).expect("in the range"));
        terms.zip(payloads).map(|(term, payload)| Entry { term, payload }).collect()
    }

    /// Attaches the bytes to a message that leaves; `None` where the log no longer has them.
    pub(crate) fn gather(&self, message: Message) -> Option<Wire> {
        let cargo = match &message.body {
            Body::Append(append) if !append.entries.is_empty() => {
                let last = append.entries.last().expect("not empty").index;
                let entries: Option<Vec<_>> = (append.entries.first.0..=last.0)
                    .map(|index| {
                        let entry = self.log.get(&Index(index))?.clone();
                        (append.entries.runs.term_at(Index(index)) == Some(entry.term)).then_some(entry)
                    })
                    .collect();
                Cargo::Entries(entries?)
            }
            Body::SnapshotChunk(chunk) => Cargo::Chunk(self.snapshots.get(&chunk.snapshot.id.0)?.clone()),
            Body::Append(_)
            | Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotReply(_) => Cargo::None,
        };
        Some(Wire { message, cargo })
    }

    pub(crate) fn writes_pending(&self) -> usize {
        self.pending.len()
    }

    /// Carries out the oldest write. Returns the token to report, if it has one.
    pub(crate) fn write_one(&mut self) -> Option<WriteToken> {
        match self.pending.pop_front()? {
            Pending::Purge(meta) => {
                assert!(meta.position.index <= self.disk.state.applied, "only durable effects are purged");
                assert!(self.disk.covers(meta.position.index), "only what the disk holds is purged");
                self.disk.entries.retain(|&index, _| index > meta.position.index);
                self.disk.start = meta;
                None
            }
            Pending::Write { plan, entries, snapshot } => {
                if let Some(hard_state) = plan.hard_state {
                    assert!(hard_state.term >= self.disk.hard_state.term, "a term never falls");
                    self.disk.hard_state = hard_state;
                }
                if let (Some(meta), Some(state)) = (&plan.install, snapshot) {
                    self.disk.entries.retain(|&index, _| index > meta.position.index);
                    self.disk.start = meta.clone();
                    self.disk.state = state;
                }
                change_log(&mut self.disk.entries, &plan, &entries);
                Some(plan.token)
            }
        }
    }

    /// Tells that a write is done.
    pub(crate) fn complete(&mut self, now: Now, token: WriteToken) -> Vec<Output> {
        self.handle(now, Input::Persisted { token, result: Ok(()) })
    }

    /// Fails the oldest write.
    pub(crate) fn fail_one(&mut self, now: Now, fault: WriteFault) -> Vec<Output> {
        while let Some(pending) = self.pending.pop_front() {
            if let Pending::Write { plan, .. } = pending {
                return self.handle(now, Input::Persisted { token: plan.token, result: Err(fault) });
            }
        }
        Vec::new()
    }

    /// Applies what is committed. Returns what was applied.
    pub(crate) fn apply(&mut self) -> Vec<(Index, Entry)> {
        let mut applied = Vec::new();
        while self.state.applied < self.committed {
            let index = self.state.applied.next();
            let entry = self.log.get(&index).expect("a committed entry is held until it is applied").clone();
            if let Payload::Data(value) = entry.payload {
                self.state.values.push((index, value));
            }
            self.state.applied = index;
            applied.push((index, entry));
        }
        applied
    }

    /// Makes the state machine's effect durable; impossible while a snapshot is being installed.
    pub(crate) fn sync_state(&mut self) {
        let installing = self
            .pending
            .iter()
            .any(|pending| matches!(pending, Pending::Write { plan, .. } if plan.install.is_some()));
        if !installing {
            self.disk.state = self.state.clone();
        }
    }

    /// Builds a snapshot of the state machine as it is.
    pub(crate) fn build_snapshot(&mut self, id: SnapshotId, bytes: u64) -> BuiltSnapshot {
        self.snapshots.insert(id.0, Rc::new(self.state.clone()));
        BuiltSnapshot { id, index: self.state.applied, bytes }
    }
}

fn configuration_of((&index, entry): (&Index, &Entry)) -> Option<ConfigurationEntry> {
    let Payload::Members(configuration) = &entry.payload else { return None };
    Some(ConfigurationEntry { index, configuration: configuration.clone() })
}

fn change_log(log: &mut BTreeMap<Index, Entry>, plan: &WritePlan, entries: &[Entry]) {
    if let Some(from) = plan.truncate_from {
        log.retain(|&index, _| index < from);
    }
    if let Some(append) = &plan.append {
        let next = log.last_key_value().map(|(index, _)| index.next());
        assert!(next.is_none_or(|next| next == append.range.first), "entries are appended without a gap");
        for (index, entry) in (append.range.first.0..).zip(entries) {
            log.insert(Index(index), entry.clone());
        }
    }
}
