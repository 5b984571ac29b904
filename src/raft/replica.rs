//! One replica: its state, and how inputs reach the file that handles them.

use alloc::{collections::VecDeque, vec::Vec};
use core::{fmt, time::Duration};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::{
    configuration::{Configuration, ConfigurationEntry},
    contract::{Input, Output, Refusal, RoleKind, RoleReport, WriteFault},
    durability::Durability,
    limits::Limits,
    log::LogMeta,
    message::{Body, Message},
    role::{Follower, Role},
    snapshot::SnapshotMeta,
    types::{BootEpoch, HardState, Index, Instant, Now, Position, ReplicaId, Term},
};

/// What a replica is told at its start and keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Which replica this is.
    pub id: ReplicaId,
    /// How often its data directory was opened.
    pub boot: BootEpoch,
    /// Seeds every random draw.
    pub seed: u64,
    /// Its time-outs.
    pub timing: Timing,
    /// Payload bytes kept in the log for followers that are behind, beyond what is compacted.
    pub retained_bytes: u64,
    /// How much it has under way at once.
    pub limits: Limits,
}

/// The time-outs of a group. All its replicas should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// How often a leader is heard of when it has nothing to say.
    pub heartbeat: Duration,
    /// A follower stands for election when it has heard of no leader for this long, and up to
    /// twice as long; a leader that has not heard of a majority for this long steps down.
    pub election: Duration,
    /// A leader whose write is not durable after this long steps down.
    pub disk_stall: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election: Duration::from_millis(600),
            disk_stall: Duration::from_secs(5),
        }
    }
}

/// What the disk holds of a replica: the whole argument of a restart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Restored {
    /// Term and vote.
    pub hard_state: HardState,
    /// What stands for the log's purged part: zero and empty for a replica that never held anything.
    pub start: SnapshotMeta,
    /// The entries behind it: last position and payload bytes of each run, in order.
    pub runs: Vec<(Position, u64)>,
    /// The configurations among them, in order.
    pub configurations: Vec<ConfigurationEntry>,
    /// The state machine holds the effect of every entry up to here.
    pub applied: Index,
    /// Part of the log or of the hard state is damaged: the replica neither votes nor leads.
    pub damaged: bool,
}

/// Why a replica cannot be started from what its disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoverError {
    /// The state machine holds entries that the log does not: the log lost durable writes.
    LogBehindState {
        /// The log's last entry.
        last: Index,
        /// The state machine's last entry.
        applied: Index,
    },
    /// The state machine lacks entries that the log no longer holds.
    StateBehindLog {
        /// The last entry the log has forgotten.
        start: Index,
        /// The state machine's last entry.
        applied: Index,
    },
    /// The runs or configurations are not in order.
    Malformed,
    /// The log holds entries of a later term than the hard state knows.
    TermBehindLog,
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LogBehindState { last, applied } => {
                write!(f, "the log ends at {last} but the state machine holds entries up to {applied}")
            }
            Self::StateBehindLog { start, applied } => {
                write!(
                    f,
                    "the log begins behind {start} but the state machine holds entries only up to {applied}"
                )
            }
            Self::Malformed => f.write_str("the log's runs or configurations are out of order"),
            Self::TermBehindLog => f.write_str("the log holds entries of a later term than the stored one"),
        }
    }
}

impl core::error::Error for RecoverError {}

/// What a replica counted and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Counters {
    /// Messages that are not well formed, for another replica, or impossible in this term.
    pub hostile: u64,
    /// Completions of unknown, repeated or earlier writes.
    pub stale_completions: u64,
    /// Campaigns begun.
    pub campaigns: u64,
    /// Elections won.
    pub elections_won: u64,
    /// As a leader: followers that turned out to have lost entries they had acknowledged. They get them
    /// again; their disks break their promises.
    pub acknowledged_lost: u64,
}

/// A replica at a glance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which replica this is.
    pub id: ReplicaId,
    /// Role, term and known leader.
    pub role: RoleReport,
    /// The log's purged part ends here.
    pub start: Position,
    /// The last entry.
    pub last: Position,
    /// Entries up to here are durable here.
    pub durable: Index,
    /// Entries up to here are committed.
    pub commit: Index,
    /// Entries up to here are applied.
    pub applied: Index,
    /// The members in force.
    pub configuration: Configuration,
    /// The entry that brought them, or where the log begins.
    pub configuration_index: Index,
    /// Whether the newest configuration is committed.
    pub configuration_committed: bool,
    /// What was counted and dropped.
    pub counters: Counters,
}

/// One replica of one Raft group: a synchronous state machine without clock, randomness of its
/// own, file, socket or thread. The contract is in [`contract`](super::Input).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    pub(super) settings: Settings,
    pub(super) hard_state: HardState,
    pub(super) role: Role,
    pub(super) log: LogMeta,
    /// The configuration in force at the log's start, then those of the entries behind it.
    pub(super) configurations: Vec<ConfigurationEntry>,
    pub(super) durability: Durability,
    pub(super) commit: Index,
    /// What the embedder was told to be committed.
    pub(super) announced: Index,
    pub(super) applied: Index,
    pub(super) disk_full: bool,
    pub(super) damaged: bool,
    pub(super) draws: u64,
    pub(super) outputs: VecDeque<Output>,
    pub(super) counters: Counters,
    reported: Option<RoleReport>,
}

impl Replica {
    /// A replica as its disk left it: a follower that knows no leader. A pure function of its
    /// arguments.
    ///
    /// # Errors
    /// Where the parts contradict each other.
    pub fn recover(settings: Settings, restored: Restored, now: Now) -> Result<Self, RecoverError> {
        let log = restored_log(&restored)?;
        let last = log.last();
        if restored.hard_state.term < last.term {
            return Err(RecoverError::TermBehindLog);
        }
        if restored.applied > last.index {
            return Err(RecoverError::LogBehindState { last: last.index, applied: restored.applied });
        }
        let start = restored.start.position.index;
        if restored.applied < start {
            return Err(RecoverError::StateBehindLog { start, applied: restored.applied });
        }
        let base = ConfigurationEntry { index: start, configuration: restored.start.configuration };
        let mut replica = Self {
            durability: Durability::new(settings.boot, last.index),
            settings,
            hard_state: restored.hard_state,
            role: Role::Follower(Follower { leader: None, deadline: now.monotonic }),
            log,
            configurations: core::iter::once(base)
                .chain(restored.configurations.into_iter().filter(|_| !mutant!(M27)))
                .collect(),
            // Commit safety: what was applied was committed.
            commit: if mutant!(M21) { last.index } else { restored.applied.max(start) },
            announced: restored.applied.max(start),
            applied: restored.applied,
            disk_full: false,
            damaged: restored.damaged,
            draws: 0,
            outputs: VecDeque::new(),
            counters: Counters::default(),
            reported: None,
        };
        replica.await_leader(now);
        replica.reported = Some(replica.report());
        replica.check_invariants();
        Ok(replica)
    }

    /// Handles one input. Everything that follows from it is waiting in [`Self::poll_output`].
    pub fn handle(&mut self, now: Now, input: Input) {
        assert!(self.outputs.is_empty(), "drain poll_output to None before the next handle");
        if let Role::Faulted(_) = self.role {
            self.refuse_when_faulted(&input);
            return;
        }
        let before = self.milestones();
        match input {
            Input::Tick => self.tick(now),
            Input::Message { message, payload } => self.receive(now, message, payload),
            Input::Propose(proposal) => self.propose(now, proposal),
            Input::Reconfigure { change, payload } => self.reconfigure(now, change, payload),
            Input::Read(read) => self.read(now, read),
            Input::Persisted { token, result } => self.persisted(now, token, result),
            Input::Applied(index) => self.applied = self.applied.max(index.min(self.announced)),
            Input::Compact(index) => self.compact(index),
            Input::SnapshotBuilt(built) => self.snapshot_built(now, built),
            Input::ChunkStored { position, next_offset } => self.chunk_stored(now, position, next_offset),
            Input::SnapshotDamaged(position) => self.snapshot_damaged(position),
            Input::GatherFailed { to, index } => self.gather_failed(to, index),
            Input::Unreachable(replica) => self.unreachable_hint(now, replica),
            Input::Campaign => self.campaign_if_leaderless(now),
            Input::DiskFull(full) => self.set_disk_full(now, full),
        }
        self.report_role();
        self.check_invariants();
        self.check_monotone(&before);
    }

    /// The next thing to do; `None` when everything is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Follower(follower) => self.may_campaign().then_some(follower.deadline),
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => Some(candidate.deadline),
            Role::Leader(leader) if leader.followers.is_empty() => Some(leader.quorum_check),
            Role::Leader(leader) => Some(leader.next_beat.min(leader.quorum_check)),
            Role::Faulted(_) => None,
        }
    }

    /// The replica at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.settings.id,
            role: self.report(),
            start: self.log.start(),
            last: self.log.last(),
            durable: self.durability.durable(),
            commit: self.commit,
            applied: self.applied,
            configuration: self.configuration().clone(),
            configuration_index: self.configuration_index(),
            configuration_committed: self.configuration_index() <= self.commit,
            counters: self.counters,
        }
    }

    /// Its role, its term, and the leader it knows of.
    #[must_use]
    pub fn role(&self) -> RoleReport {
        self.report()
    }

    /// Entries up to here are committed, as far as this replica knows.
    #[must_use]
    pub fn commit(&self) -> Index {
        self.commit
    }

    /// The last entry of its log, durable or not.
    #[must_use]
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// Which replica this is.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.settings.id
    }

    /// The members in force: those of the newest configuration in the log, committed or not.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        let in_force = |entry: &&ConfigurationEntry| !mutant!(M25) || entry.index <= self.commit;
        let newest = self.configurations.iter().rfind(in_force);
        &newest.expect("the base configuration is never removed").configuration
    }

    /// Whether this replica leads and `member` holds almost all of the log.
    #[must_use]
    pub fn has_caught_up(&self, member: ReplicaId) -> bool {
        match &self.role {
            Role::Leader(leader) => {
                leader.progress(member).is_some_and(|progress| self.is_caught_up(progress))
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => false,
        }
    }

    /// The newest configuration's place in the log.
    pub(super) fn configuration_index(&self) -> Index {
        self.configurations.last().expect("the base configuration is never removed").index
    }

    /// The term of this replica.
    pub(super) fn term(&self) -> Term {
        self.hard_state.term
    }

    /// Whether it may ever stand for election as things are.
    pub(super) fn may_campaign(&self) -> bool {
        !self.damaged && !self.disk_full && self.configuration().is_voter(self.settings.id)
    }

    /// The next random number: a function of the seed and how many were drawn before.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        assert!(below > 0, "there is no number below zero");
        self.draws += 1;
        let mut generator = ChaCha8Rng::seed_from_u64(self.settings.seed ^ self.settings.id.0);
        generator.set_stream(self.draws);
        generator.next_u64() % below
    }

    /// A random duration in `[shortest, shortest + spread)`.
    pub(super) fn draw_duration(&mut self, shortest: Duration, spread: Duration) -> Duration {
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        shortest + Duration::from_nanos(self.draw(nanos))
    }

    /// Emits a message of the current term.
    pub(super) fn send(&mut self, to: ReplicaId, body: Body) {
        let message = self.message(to, body);
        self.outputs.push_back(Output::Send(message));
    }

    /// A message of the current term.
    pub(super) fn message(&self, to: ReplicaId, body: Body) -> Message {
        assert_ne!(to, self.settings.id, "a replica does not write to itself");
        Message { from: self.settings.id, to, term: self.term(), body }
    }

    fn report(&self) -> RoleReport {
        let leader = match &self.role {
            Role::Follower(follower) => follower.leader.as_ref().map(|following| following.leader),
            Role::Leader(_) => Some(self.settings.id),
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => None,
        };
        RoleReport { role: self.role.kind(), term: self.term(), leader }
    }

    fn report_role(&mut self) {
        let report = self.report();
        if self.reported != Some(report) {
            self.reported = Some(report);
            self.outputs.push_back(Output::RoleChanged(report));
        }
    }

    /// Stops for good: nothing is known of the disk from a failed write on.
    pub(super) fn fault(&mut self, fault: WriteFault) {
        self.end_leadership();
        self.durability.forget_held();
        self.role = Role::Faulted(fault);
        self.outputs.push_back(Output::Faulted(fault));
        assert_eq!(self.role.kind(), RoleKind::Faulted);
    }

    fn refuse_when_faulted(&mut self, input: &Input) {
        let refusal = match input {
            Input::Propose(proposal) => {
                Output::ProposalRefused { payload: proposal.payload, reason: Refusal::Faulted }
            }
            Input::Reconfigure { payload, .. } => {
                Output::ProposalRefused { payload: *payload, reason: Refusal::Faulted }
            }
            Input::Read(read) => Output::ReadRefused { read: *read, reason: Refusal::Faulted },
            Input::Tick
            | Input::Message { .. }
            | Input::Persisted { .. }
            | Input::Applied(_)
            | Input::Compact(_)
            | Input::SnapshotBuilt(_)
            | Input::ChunkStored { .. }
            | Input::SnapshotDamaged(_)
            | Input::GatherFailed { .. }
            | Input::Unreachable(_)
            | Input::Campaign
            | Input::DiskFull(_) => return,
        };
        self.outputs.push_back(refusal);
    }
}

fn restored_log(restored: &Restored) -> Result<LogMeta, RecoverError> {
    let mut log = LogMeta::starting_at(restored.start.position);
    for &(last, bytes) in &restored.runs {
        let before = log.last();
        if last.index <= before.index || last.term < before.term {
            return Err(RecoverError::Malformed);
        }
        log.append(&super::EntryRange {
            first: before.index.next(),
            bytes,
            runs: super::TermRuns::one(last),
        });
    }
    let indexes = restored.configurations.iter().map(|entry| entry.index);
    let ascending = indexes.clone().zip(indexes.clone().skip(1)).all(|(a, b)| a < b);
    let inside =
        indexes.clone().all(|index| index > restored.start.position.index && index <= log.last().index);
    if ascending && inside { Ok(log) } else { Err(RecoverError::Malformed) }
}
