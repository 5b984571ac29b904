//! How rough a run is: drawn once, at its beginning.
//!
//! Every class of fault is wholly off in some runs, because faults hide each other: a cluster that
//! never gets to elect a leader shows nothing about snapshots ("swarm testing", Groce et al. 2012).
//! All zeros give the calmest run there is: three hosts, one group, and nothing ever fails.

mod trouble;

use std::{str::FromStr, time::Duration};

use kotoba_db_cluster::raft::Limits;

use trouble::Trouble;

use crate::choice::{Chooser, Topic};

/// What a run is made of. Chances are in permille.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Hosts at the start; each holds one replica of every group.
    pub hosts: u32,
    /// Raft groups.
    pub groups: u32,
    /// How long faults happen. The last phases come on top.
    pub chaos: Duration,
    /// How often a leader is heard of.
    pub heartbeat: Duration,
    /// A follower's patience.
    pub election: Duration,
    /// Payload bytes kept for followers that are behind.
    pub retained_bytes: u64,
    /// Bounds of every replica.
    pub limits: Limits,
    /// Bytes of log entries a host keeps in memory.
    pub cache_bytes: u64,
    /// Bytes of a segment of the log.
    pub segment_bytes: u64,
    /// Bytes that a snapshot claims beside its own, at most.
    pub snapshot_padding: u64,
    /// Entries applied at once, at most.
    pub apply_batch: u64,
    /// Clients, and the pause between their operations.
    pub clients: u32,
    /// Mean time between two operations of one client.
    pub think: Duration,
    /// How long a client waits for an answer, and how often it asks before it gives up.
    pub patience: (Duration, u32),
    /// Values that one operation writes at once, at most: each is an entry.
    pub burst: u64,
    /// Chance that a client uses an id twice.
    pub reused_ids: u32,
    /// Faults of the network.
    pub network: NetworkFaults,
    /// Faults of processes.
    pub process: ProcessFaults,
    /// Faults of disks.
    pub disk: DiskFaults,
    /// Faults of clocks.
    pub clock: ClockFaults,
    /// Changes of members and compaction.
    pub administration: Administration,
    /// Chance that a piece of work in a process is late, and how late at most.
    pub late: (u32, Duration),
    /// Chance that entries for a message are read late, and how late at most.
    pub late_reads: (u32, Duration),
    /// Whether a sequential explanation of the whole history is searched for.
    pub judged: bool,
    /// Mean time between two faults.
    pub fault_every: Duration,
}

/// Faults of the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFaults {
    /// Chance that a message is lost.
    pub loss: u32,
    /// Chance that a message arrives twice.
    pub duplication: u32,
    /// Chance that a message arrives once more, seconds later.
    pub replay: u32,
    /// Chance that a message is late, and how late at most: so messages overtake each other.
    pub late: (u32, Duration),
    /// Weight of changes of links.
    pub partitions: u32,
    /// Weight of answers of one follower that are lost for a while.
    pub lost_answers: u32,
    /// Messages on one link; more are lost.
    pub queue_max: u32,
    /// Entries and parts of snapshots that are lost, in parts per million: never drawn, see
    /// [`FailureRate`].
    pub failed_replication: u32,
}

/// Faults of processes: weights of what happens when a fault is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFaults {
    /// A process is killed, and started again later.
    pub crashes: u32,
    /// All processes, or a majority, are killed at once.
    pub outages: u32,
    /// A process stands still while its clock runs on.
    pub pauses: u32,
    /// A data directory is lost.
    pub wipes: u32,
    /// A completion of an earlier life, or one told twice.
    pub stale_completions: u32,
    /// A leader loses its followers to another one, and does not hear of it yet.
    pub depositions: u32,
    /// A host hears that another's connection was closed, or is told to stand for election.
    pub hints: u32,
    /// Chance that a message which matters (a vote, an acknowledgement) is followed by a crash of
    /// its sender or its receiver, or cuts its receiver off; and that a leader dies as soon as it is
    /// elected.
    pub aimed_crashes: u32,
}

/// Faults of disks: weights, but for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// How long a write and its flush take at most.
    pub latency: Duration,
    /// A disk stalls for seconds.
    pub stalls: u32,
    /// A disk is full for a while.
    pub full: u32,
    /// A flush fails.
    pub failed_flushes: u32,
    /// Bits flip, sectors cannot be read, a write goes elsewhere.
    pub damage: u32,
    /// Chance that a snapshot cannot be built.
    pub failed_builds: u32,
}

/// Faults of clocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockFaults {
    /// How much faster or slower a host's clock runs at most, in parts per million.
    pub drift_ppm: u32,
    /// Weight of clocks that jump forward.
    pub jumps: u32,
    /// Whether hosts know bounds of wall time.
    pub wall: bool,
}

/// What operators do: weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Administration {
    /// The group shall have other voters.
    pub resizes: u32,
    /// Chance that an operator does not wait for what came before.
    pub impatience: u32,
    /// Chance after an apply that the log is compacted.
    pub compactions: u32,
    /// How many entries a compaction leaves at most.
    pub kept_entries: u64,
}

/// How much a run shall hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scale {
    /// As the profile draws it.
    #[default]
    Drawn,
    /// What speed is measured with: five hosts, one group, a minute, 20 operations a second.
    Benchmark,
    /// Two to four seconds in which faults are close together, few clients, small snapshots, and a
    /// search for a sequential explanation in every run: for fuzzers, which run thousands.
    Short,
}

/// The share of messages with entries or parts of a snapshot that never arrive while faults happen:
/// what `ReplicationConfig::failure_rate` of the cluster's configuration asks for. Nothing outside
/// of the simulator honours it.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct FailureRate(f32);

impl FailureRate {
    /// A share of 1; nothing where the number is none.
    #[must_use]
    pub fn new(share: f32) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The option that asks a command for it; empty where none is needed.
    pub(crate) fn option(self) -> String {
        if self == Self::default() { String::new() } else { format!(" --failure-rate {}", self.0) }
    }

    fn parts_per_million(self) -> u32 {
        (f64::from(self.0) * 1e6).round() as u32
    }
}

impl FromStr for FailureRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = text.parse().ok().and_then(Self::new);
        share.ok_or_else(|| format!("{text} is no share of 1"))
    }
}

/// What whoever starts a run decides; the rest is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Setup {
    /// How much the run holds.
    pub scale: Scale,
    /// How often replication fails, beside all other faults.
    pub failure_rate: FailureRate,
}

impl From<Scale> for Setup {
    fn from(scale: Scale) -> Self {
        Self { scale, failure_rate: FailureRate::default() }
    }
}

impl Profile {
    /// Draws what `setup` leaves open.
    pub fn of(choices: &mut Chooser, setup: Setup) -> Self {
        let mut profile = Self::draw(choices, setup.scale);
        profile.network.failed_replication = setup.failure_rate.parts_per_million();
        profile
    }

    /// Draws a profile.
    pub fn draw(choices: &mut Chooser, scale: Scale) -> Self {
        let mut pick = |list: &[u64]| choices.one_of(Topic::Profile, 0, list);
        let millis = Duration::from_millis;
        let micros = Duration::from_micros;
        let mut profile = Self {
            hosts: small(pick(&[3, 3, 5, 4, 2, 5])),
            groups: small(pick(&[1, 1, 1, 2, 4])),
            chaos: Duration::from_secs(pick(&[20, 20, 40, 60])),
            heartbeat: millis(pick(&[50, 50, 100])),
            election: millis(pick(&[300, 300, 600, 200])),
            retained_bytes: pick(&[1 << 20, 0, 0, 300, 10_000]),
            limits: draw_limits(&mut pick),
            cache_bytes: pick(&[1 << 20, 1 << 20, 0, 2_000]),
            segment_bytes: pick(&[64 << 10, 64 << 10, 20 << 10]),
            snapshot_padding: pick(&[0, 0, 600, 600 << 10, 3 << 20]),
            apply_batch: pick(&[64, 64, 1, 3]),
            clients: small(pick(&[2, 4, 8, 16])),
            think: millis(pick(&[200, 200, 100, 40, 1_000])),
            patience: (millis(pick(&[1_500, 1_500, 400, 4_000])), small(pick(&[6, 6, 2, 1]))),
            burst: pick(&[1, 1, 8, 100]),
            reused_ids: small(pick(&[0, 50])),
            network: NetworkFaults {
                loss: small(pick(&[0, 0, 10, 50, 200])),
                duplication: small(pick(&[0, 0, 20, 200])),
                replay: small(pick(&[0, 0, 5, 50])),
                late: (small(pick(&[0, 0, 50, 300, 1_000])), millis(pick(&[5, 20, 100, 700]))),
                partitions: small(pick(&[0, 0, 10, 30])),
                lost_answers: small(pick(&[0, 0, 3, 10])),
                queue_max: small(pick(&[4_096, 4_096, 64, 4])),
                failed_replication: 0,
            },
            process: ProcessFaults {
                crashes: small(pick(&[0, 10, 30, 30])),
                outages: small(pick(&[0, 0, 3, 10])),
                pauses: small(pick(&[0, 0, 10])),
                wipes: small(pick(&[0, 0, 0, 5])),
                stale_completions: small(pick(&[0, 0, 10])),
                depositions: small(pick(&[0, 0, 3, 10])),
                hints: small(pick(&[0, 0, 5, 20])),
                aimed_crashes: small(pick(&[0, 0, 1, 5])),
            },
            disk: DiskFaults {
                latency: micros(pick(&[300, 300, 5_000, 50_000, 250_000])),
                stalls: small(pick(&[0, 0, 0, 5])),
                full: small(pick(&[0, 0, 0, 5])),
                failed_flushes: small(pick(&[0, 0, 0, 5])),
                damage: small(pick(&[0, 0, 0, 5])),
                failed_builds: small(pick(&[0, 0, 200])),
            },
            clock: ClockFaults {
                drift_ppm: small(pick(&[0, 0, 500, 50_000])),
                jumps: small(pick(&[0, 0, 0, 5])),
                wall: pick(&[0, 0, 1]) == 1,
            },
            administration: Administration {
                resizes: small(pick(&[0, 0, 20, 60])),
                impatience: small(pick(&[0, 50, 300])),
                compactions: small(pick(&[0, 10, 100, 500])),
                kept_entries: pick(&[100, 100, 10, 0]),
            },
            late: (small(pick(&[0, 0, 50, 300])), millis(pick(&[1, 10, 100]))),
            late_reads: (small(pick(&[0, 0, 50, 300])), millis(pick(&[10, 100, 1_000]))),
            judged: pick(&[1, 0, 0, 0]) == 1,
            fault_every: millis(pick(&[1_500, 1_500, 400, 150, 5_000])),
        };
        // Damage and snapshots twice: what they show takes several of their faults to come together.
        let trouble = pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]);
        if scale != Scale::Benchmark
            && let Some(at) = usize::try_from(trouble).ok().and_then(|trouble| trouble.checked_sub(1))
        {
            Trouble::ALL[at].shape(&mut profile, &mut pick);
        }
        // A snapshot of a million chunks shows nothing that one of a hundred does not.
        profile.snapshot_padding = profile.snapshot_padding.min(profile.limits.snapshot_chunk_bytes * 100);
        if scale == Scale::Benchmark {
            profile.hosts = 5;
            profile.groups = 1;
            profile.chaos = Duration::from_secs(60);
            profile.heartbeat = millis(50);
            profile.clients = 4;
            profile.think = millis(170);
            profile.patience = (millis(1_500), 6);
            profile.burst = 1;
        }
        if scale == Scale::Short {
            profile.shorten();
        }
        profile
    }

    /// As [`Scale::Short`] says.
    fn shorten(&mut self) {
        self.groups = self.groups.min(2);
        self.chaos = Duration::from_secs(1) + self.chaos / 20;
        self.fault_every = self.fault_every.min(Duration::from_millis(300));
        self.clients = self.clients.min(3);
        self.think = self.think.min(Duration::from_millis(100));
        self.burst = self.burst.min(8);
        self.snapshot_padding = self.snapshot_padding.min(600);
        self.judged = true;
    }

    /// Everything works from now on.
    pub fn calm_down(&mut self) {
        let calm = Self::draw(&mut Chooser::calm(), Scale::Drawn);
        self.reused_ids = 0;
        self.network = NetworkFaults { queue_max: calm.network.queue_max, ..calm.network };
        self.process = calm.process;
        // That a snapshot fails now and then excuses nobody: it is built the next time.
        self.disk = DiskFaults { failed_builds: self.disk.failed_builds, ..calm.disk };
        self.clock = ClockFaults { wall: self.clock.wall, drift_ppm: self.clock.drift_ppm, ..calm.clock };
        self.administration.resizes = 0;
        self.administration.impatience = 0;
        self.late = calm.late;
        self.late_reads = calm.late_reads;
        self.patience = calm.patience;
    }
}

/// In most runs the bounds of production; in others everything comes one by one.
fn draw_limits(pick: &mut impl FnMut(&[u64]) -> u64) -> Limits {
    let default = Limits::default();
    let size = |number: u64| usize::try_from(number).expect("numbers of the lists are small");
    Limits {
        append_bytes: pick(&[default.append_bytes, default.append_bytes, 1, 200]),
        append_entries: pick(&[default.append_entries, default.append_entries, 1, 3]),
        inflight_messages: size(pick(&[
            default.inflight_messages as u64,
            default.inflight_messages as u64,
            1,
            3,
        ])),
        inflight_bytes: pick(&[default.inflight_bytes, default.inflight_bytes, 100]),
        uncommitted_bytes: pick(&[default.uncommitted_bytes, default.uncommitted_bytes, 300]),
        reads_waiting: size(pick(&[default.reads_waiting as u64, default.reads_waiting as u64, 1])),
        writes_outstanding: size(pick(&[
            default.writes_outstanding as u64,
            default.writes_outstanding as u64,
            3,
        ])),
        snapshot_chunk_bytes: pick(&[default.snapshot_chunk_bytes, default.snapshot_chunk_bytes, 64]),
        snapshot_chunks_in_flight: pick(&[default.snapshot_chunks_in_flight, 1]),
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).expect("numbers of the lists above are small")
}
