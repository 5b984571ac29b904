//! One replica among liars.
//!
//! The input chooses what the replica hears, in which order its writes reach the disk and are reported,
//! and when it crashes. The embedder is the one of the product's own tests: it keeps the contract, but
//! reports late, out of order, twice, and what was never asked for; the remotes keep nothing. After every
//! step: the replica's own invariants hold (they are assertions), a clone that was given the same input
//! did the same and is equal to it, and [`promises`] holds.

mod message;
mod promises;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/raft/shell.rs"]
mod shell;

use std::hash::{Hash, Hasher};

use kotoba_db_cluster::{
    limits::{APPEND_ENTRIES_MAX, READS_WAITING_MAX},
    raft::{
        BootEpoch, Configuration, ConfigurationChange, Index, Input, Instant, Limits, Now, Output, PayloadId,
        Position, ReadId, ReplicaId, RoleKind, SnapshotDescriptor, SnapshotId, WriteFault, WriteToken,
    },
};

use self::{
    promises::Promises,
    shell::{Shell, Wire},
};
use crate::{Situations, choices::Choices};

/// What the seeds reach together.
pub const SITUATIONS: &[&str] = &[
    "a campaign",
    "a change of members",
    "a commit",
    "a completion that names nothing",
    "a damaged snapshot asked for again",
    "a failed write",
    "a leader",
    "a leader's chunk sent",
    "a message dropped as hostile",
    "a proposal refused",
    "a purge",
    "a read given up",
    "a read served",
    "a restart",
    "a snapshot installed",
    "a truncation",
    "a vote given",
    "an acknowledgement",
    "reports out of order",
];

const OWN: ReplicaId = ReplicaId(1);
const STEPS_MAX: usize = 600;
/// Bounds that are met all the time.
const TINY: Limits = Limits {
    append_bytes: 8,
    append_entries: 1,
    inflight_messages: 1,
    inflight_bytes: 8,
    uncommitted_bytes: 64,
    reads_waiting: 2,
    writes_outstanding: 2,
    snapshot_chunk_bytes: 8,
    snapshot_chunks_in_flight: 1,
};

/// Drives one replica.
pub fn run(bytes: &[u8]) -> Situations {
    let mut choices = Choices::new(bytes);
    let mut victim = Victim::new(&mut choices);
    for _ in 0..STEPS_MAX {
        if choices.are_over() {
            break;
        }
        victim.step(&mut choices);
    }
    victim.situations
}

/// What is done to the replica: the same for it and for its clone.
#[derive(Clone, Debug)]
enum Action {
    Input(Input),
    Hear(Wire),
    Propose { values: usize, bytes: u64 },
    FailWrite(WriteFault),
}

impl Action {
    fn perform(self, shell: &mut Shell, now: Now) -> Vec<Output> {
        match self {
            Self::Input(input) => shell.handle(now, input),
            Self::Hear(wire) => shell.receive(now, wire),
            Self::Propose { values, bytes } => {
                let values: Vec<_> = (0..values as u64).collect();
                shell.propose_sized(now, &values, bytes)
            }
            Self::FailWrite(fault) => shell.fail_one(now, fault),
        }
    }
}

struct Victim {
    shell: Shell,
    now_ms: u64,
    promises: Promises,
    /// Durable, and not reported yet.
    unreported: Vec<WriteToken>,
    reported: Vec<WriteToken>,
    /// Snapshots of which a chunk was stored, and up to where.
    arrived: Vec<(SnapshotDescriptor, u64)>,
    /// Snapshots that were built here.
    built: Vec<Position>,
    names: u64,
    situations: Situations,
}

impl Victim {
    fn new(choices: &mut Choices<'_>) -> Self {
        let seed = choices.below(8);
        let mut shell = Shell::genesis(OWN, seed, configuration_at_start(choices));
        if seed % 4 == 3 {
            shell.limits = TINY;
        }
        shell.retained_bytes = choices.pick(&[0, 16, 1 << 20]).unwrap_or(0);
        let mut victim = Self {
            promises: Promises::of(&shell),
            shell,
            now_ms: 2_000,
            unreported: Vec::new(),
            reported: Vec::new(),
            arrived: Vec::new(),
            built: Vec::new(),
            names: 0,
            situations: Situations::default(),
        };
        victim.start();
        victim
    }

    fn now(&self) -> Now {
        Now { monotonic: Instant(self.now_ms * 1_000_000), wall: None }
    }

    fn start(&mut self) {
        let now = self.now();
        // Restart is a function of the disk: what an honest embedder wrote is always taken up again.
        self.shell.start(now).expect("a replica takes up what its disk holds");
        self.promises.restarted(&self.shell);
    }

    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(40) {
            0..=13 => self.hear(choices),
            14..=17 => self.settle(),
            18 => self.write_one(),
            19 => self.report_one(choices),
            20 => self.report_nothing(choices),
            21..=23 => self.wait(choices),
            24..=25 => self.propose(choices),
            26 => self.reconfigure(choices),
            27 => self.read(),
            28..=29 => self.apply(choices),
            30 => self.act(Action::Input(Input::Compact(self.shell.disk.state.applied))),
            31 => self.build_snapshot(choices),
            32..=33 => self.store_chunk(choices),
            34 => self.hint(choices),
            35..=36 => self.act(Action::Input(Input::Campaign)),
            37 => self.elect(choices),
            38 if choices.once_in(4) => self.fail_write(choices),
            38 => self.act(Action::Input(Input::DiskFull(choices.once_in(3)))),
            _ => self.restart(),
        }
    }

    /// Hands an action to the replica and to a clone, and checks what came of it.
    fn act(&mut self, action: Action) {
        let now = self.now();
        let mut twin = self.shell.clone();
        let request = request_of(&action);
        let outputs = action.clone().perform(&mut self.shell, now);
        let again = action.perform(&mut twin, now);
        assert_eq!(outputs, again, "a clone does the same");
        let (replica, twin) = (self.shell.replica(), twin.replica());
        assert_eq!(replica, twin, "a clone becomes the same");
        assert_eq!(fingerprint(replica), fingerprint(twin), "equal replicas have equal hashes");
        if let Some(payload) = request {
            self.check_answered(payload, &outputs);
        }
        self.promises.check(&self.shell, &outputs);
        self.note(&outputs);
    }

    fn check_answered(&mut self, request: Option<PayloadId>, outputs: &[Output]) {
        let mut answers = outputs.iter().filter_map(|output| match output {
            Output::Proposed { payload, .. } => Some((*payload, false)),
            Output::ProposalRefused { payload, .. } => Some((*payload, true)),
            _ => None,
        });
        let (payload, refused) = answers.next().expect("a proposal is answered in the same drain");
        assert!(answers.next().is_none(), "a proposal is answered once");
        assert!(request.is_none_or(|request| request == payload), "the answer names the request");
        self.situations.reach_if(refused, "a proposal refused");
    }

    fn note(&mut self, outputs: &[Output]) {
        for output in outputs {
            if let Output::StoreChunk { snapshot, offset, length, .. } = output {
                self.arrived.retain(|(known, _)| known.meta.position != snapshot.meta.position);
                self.arrived.push((snapshot.clone(), offset + length));
            }
            if let Some(situation) = promises::situation_of(output) {
                self.situations.reach(situation);
            }
        }
        let counters = self.shell.replica().status().counters;
        self.situations.reach_if(counters.hostile > 0, "a message dropped as hostile");
        self.situations.reach_if(counters.campaigns > 0, "a campaign");
        self.situations.reach_if(counters.stale_completions > 0, "a completion that names nothing");
    }

    fn hear(&mut self, choices: &mut Choices<'_>) {
        let wire = message::draw(choices, &self.shell, &self.arrived, &self.built);
        self.promises.told(&wire.message);
        self.act(Action::Hear(wire));
    }

    /// Nothing reaches the disk behind a write that failed.
    fn may_write(&self) -> bool {
        self.shell.writes_pending() > 0 && self.shell.replica().status().role.role != RoleKind::Faulted
    }

    fn write_one(&mut self) {
        if self.may_write() {
            self.unreported.extend(self.shell.write_one());
        }
    }

    fn report(&mut self, at: usize) {
        let token = self.unreported.remove(at);
        self.reported.push(token);
        self.promises.reported(token);
        self.act(Action::Input(Input::Persisted { token, result: Ok(()) }));
    }

    /// Completions may come in any order.
    fn report_one(&mut self, choices: &mut Choices<'_>) {
        if !self.unreported.is_empty() {
            let at = choices.place(self.unreported.len());
            self.situations.reach_if(at > 0, "reports out of order");
            self.report(at);
        }
    }

    fn settle(&mut self) {
        while self.may_write() || !self.unreported.is_empty() {
            while self.may_write() {
                self.write_one();
            }
            if !self.unreported.is_empty() {
                self.report(0);
            }
        }
    }

    /// A completion that is repeated, of an earlier life, or was never asked for.
    fn report_nothing(&mut self, choices: &mut Choices<'_>) {
        let before = self.shell.replica().clone();
        let boot = BootEpoch(self.shell.boots);
        let token = match choices.below(3) {
            0 => choices.pick(&self.reported),
            1 => Some(WriteToken { boot: BootEpoch(boot.0 - 1), sequence: choices.below(9) }),
            _ => Some(WriteToken { boot, sequence: choices.number() | 1 << 40 }),
        };
        let Some(token) = token else { return };
        let result = if choices.once_in(2) { Err(WriteFault::WriteFailed) } else { Ok(()) };
        self.act(Action::Input(Input::Persisted { token, result }));
        let (before, after) = (before.status(), self.shell.replica().status());
        let counters = after.counters;
        assert_eq!(kotoba_db_cluster::raft::Status { counters, ..before }, after, "it changes nothing");
    }

    fn wait(&mut self, choices: &mut Choices<'_>) {
        let deadline = self.shell.replica().deadline().map_or(0, |at| at.0.div_ceil(1_000_000));
        self.now_ms = match choices.below(3) {
            0 => self.now_ms.max(deadline),
            1 => self.now_ms + choices.below(200),
            _ => self.now_ms + choices.below(8_000),
        };
        self.act(Action::Input(Input::Tick));
    }

    fn propose(&mut self, choices: &mut Choices<'_>) {
        let values = match choices.below(16) {
            0 => 0,
            1 => usize::try_from(APPEND_ENTRIES_MAX).expect("few") + choices.place(2),
            few => usize::try_from(few % 3).expect("few") + 1,
        };
        let bytes = match choices.below(6) {
            0 => choices.below(8 << 20),
            1 => choices.number(),
            _ => choices.below(200),
        };
        self.act(Action::Propose { values, bytes });
    }

    fn reconfigure(&mut self, choices: &mut Choices<'_>) {
        let replica = ReplicaId(choices.below(7));
        let change = match choices.below(3) {
            0 => ConfigurationChange::AddLearner(replica),
            1 => ConfigurationChange::Promote(replica),
            _ => ConfigurationChange::Remove(replica),
        };
        self.names += 1;
        let payload = PayloadId(u64::MAX - self.names);
        self.act(Action::Input(Input::Reconfigure { change, payload }));
    }

    fn read(&mut self) {
        self.names += 1;
        assert!(usize::try_from(self.names).expect("few") < READS_WAITING_MAX);
        self.promises.asked(ReadId(self.names));
        self.act(Action::Input(Input::Read(ReadId(self.names))));
    }

    fn apply(&mut self, choices: &mut Choices<'_>) {
        let _applied = self.shell.apply();
        if choices.once_in(2) {
            self.shell.sync_state();
        }
        let applied = self.shell.state.applied.0;
        // Late as well: an earlier report that comes after a later one.
        let reported = applied - choices.below(3).min(applied);
        self.act(Action::Input(Input::Applied(Index(reported))));
    }

    fn build_snapshot(&mut self, choices: &mut Choices<'_>) {
        self.names += 1;
        let bytes = choices.pick(&[8, 24, 300 << 10, 3 << 20]).unwrap_or(8);
        let built = self.shell.build_snapshot(SnapshotId(self.names), bytes);
        let replica = self.shell.replica().status();
        let term = self.shell.log.get(&built.index).map(|entry| entry.term);
        let term = term.or_else(|| (replica.start.index == built.index).then_some(replica.start.term));
        self.built.extend(term.map(|term| Position::new(built.index, term)));
        let built = (!choices.once_in(6)).then_some(built);
        self.act(Action::Input(Input::SnapshotBuilt(built)));
    }

    fn store_chunk(&mut self, choices: &mut Choices<'_>) {
        let Some((snapshot, stored)) = self.arrived.last().cloned() else { return };
        let position = snapshot.meta.position;
        let input = match choices.below(8) {
            0 => Input::SnapshotDamaged(position),
            // Of a snapshot that is no longer of use, or less than there is.
            1 => Input::ChunkStored { position: self.arrived[0].0.meta.position, next_offset: stored },
            2 => Input::ChunkStored { position, next_offset: choices.below(stored + 1) },
            _ => Input::ChunkStored { position, next_offset: stored },
        };
        let damaged = matches!(input, Input::SnapshotDamaged(_));
        self.act(Action::Input(input));
        self.situations.reach_if(damaged, "a damaged snapshot asked for again");
    }

    fn hint(&mut self, choices: &mut Choices<'_>) {
        let to = ReplicaId(choices.below(7));
        let last = self.shell.replica().status().last.index.0;
        let input = match choices.below(2) {
            0 => Input::GatherFailed { to, index: Index(choices.below(last + 2)) },
            _ => Input::Unreachable(to),
        };
        self.act(Action::Input(input));
    }

    /// Everything an honest group would do to make this replica lead.
    fn elect(&mut self, choices: &mut Choices<'_>) {
        self.act(Action::Input(Input::Campaign));
        self.settle();
        for _ in 0..2 {
            for voter in 2..=5 {
                let wire = message::grant(&self.shell, ReplicaId(voter));
                self.act(Action::Hear(wire));
            }
            if choices.once_in(4) {
                return;
            }
            self.settle();
        }
    }

    fn fail_write(&mut self, choices: &mut Choices<'_>) {
        if !self.may_write() {
            return;
        }
        let fault = choices.pick(&[WriteFault::WriteFailed, WriteFault::SyncFailed, WriteFault::Damaged]);
        self.act(Action::FailWrite(fault.unwrap_or(WriteFault::WriteFailed)));
        let failed = self.shell.replica().status().role.role == RoleKind::Faulted;
        self.situations.reach_if(failed, "a failed write");
    }

    fn restart(&mut self) {
        self.situations.reach("a restart");
        self.shell.crash();
        self.reported.append(&mut self.unreported);
        self.arrived.clear();
        self.built.clear();
        self.start();
    }
}

/// The request that must be answered at once: its name, where the caller chose it.
fn request_of(action: &Action) -> Option<Option<PayloadId>> {
    match action {
        Action::Propose { .. } => Some(None),
        Action::Input(Input::Reconfigure { payload, .. }) => Some(Some(*payload)),
        Action::Input(_) | Action::Hear(_) | Action::FailWrite(_) => None,
    }
}

fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    value.hash(&mut hasher);
    Hasher::finish(&hasher)
}

fn configuration_at_start(choices: &mut Choices<'_>) -> Configuration {
    let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect::<Vec<_>>();
    let plain = |voters: &[u64]| Configuration { voters: ids(voters), ..Configuration::default() };
    match choices.below(8) {
        0..=2 => plain(&[1, 2, 3]),
        3 => plain(&[1]),
        4 => plain(&[1, 2, 3, 4, 5]),
        5 => Configuration { learners: ids(&[1, 4]), ..plain(&[2, 3]) },
        6 => Configuration { outgoing: ids(&[1, 4, 5]), ..plain(&[1, 2, 3]) },
        _ => plain(&[2, 3, 4]),
    }
}
