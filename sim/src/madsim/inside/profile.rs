//! How a run is set up. Whole classes of faults are off in some seeds, so that the others can do
//! what those would hide.

use std::time::Duration;

use crate::{
    choice::{Chooser, Topic},
    profile::Scale,
};

/// What a run is like.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Nodes of the cluster.
    pub(super) nodes: u8,
    /// Partitions of the graph.
    pub(super) partitions: usize,
    /// Clients.
    pub(super) clients: u8,
    /// How long a client thinks between two operations, at most.
    pub(super) think: Duration,
    /// How long a client waits for an answer before it gives up.
    pub(super) patience: Duration,
    /// Whether all connections are encrypted.
    pub(super) tls: bool,
    /// Bytes a log keeps for followers that lag.
    pub(super) keep_bytes: u64,
    /// How often the store is made durable.
    pub(super) persist_interval: Duration,
    /// The longest that a job of a thread takes.
    pub(super) slowest_job: Duration,
    /// How long there are faults.
    pub(super) chaos: Duration,
    /// The pause between two faults, at most.
    pub(super) fault_every: Duration,
    /// How often each class of faults strikes, relative to the others.
    pub(super) weights: Weights,
}

/// Weights of classes of faults.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    /// A process dies, or its machine loses power.
    pub(super) crashes: u64,
    /// A machine crashes inside a disk operation.
    pub(super) disk_crashes: u64,
    /// All processes die.
    pub(super) outages: u64,
    /// A process stands still.
    pub(super) pauses: u64,
    /// Links are cut.
    pub(super) partitions: u64,
    /// Links are slow, connections break.
    pub(super) links: u64,
    /// A disk stalls.
    pub(super) stalls: u64,
    /// A flush fails.
    pub(super) failed_flushes: u64,
    /// A disk is full.
    pub(super) full_disks: u64,
    /// Clocks drift and jump.
    pub(super) clocks: u64,
    /// A data directory is lost.
    pub(super) wipes: u64,
    /// A bit of a log flips, or a sector cannot be read.
    pub(super) damages: u64,
}

impl Profile {
    /// Draws a profile.
    pub(super) fn draw(choices: &mut Chooser, scale: Scale) -> Self {
        let mut pick = |list: &[u64]| choices.one_of(Topic::Profile, 0, list);
        let millis = Duration::from_millis;
        let mut profile = Self {
            nodes: small(pick(&[3, 3, 5])),
            partitions: usize::from(small(pick(&[1, 2, 4]))),
            clients: small(pick(&[2, 4, 6])),
            think: millis(pick(&[200, 400, 60])),
            patience: millis(pick(&[8_000, 2_000, 400])),
            tls: pick(&[0, 0, 1]) == 1,
            keep_bytes: pick(&[16 << 20, 4_096, 1]),
            persist_interval: millis(pick(&[2_000, 500, 10_000])),
            slowest_job: millis(pick(&[2, 10, 60])),
            chaos: Duration::from_secs(pick(&[30, 30, 45])),
            fault_every: millis(pick(&[2_000, 1_000, 4_000])),
            weights: Weights {
                crashes: pick(&[0, 10, 20]),
                disk_crashes: pick(&[0, 5, 15]),
                outages: pick(&[0, 0, 3]),
                pauses: pick(&[0, 5, 10]),
                partitions: pick(&[0, 10, 20]),
                links: pick(&[0, 5, 10]),
                stalls: pick(&[0, 4, 8]),
                failed_flushes: pick(&[0, 0, 4]),
                full_disks: pick(&[0, 0, 4]),
                clocks: pick(&[0, 5, 10]),
                wipes: pick(&[0, 0, 0, 3]),
                damages: pick(&[0, 0, 6]),
            },
        };
        if scale == Scale::Benchmark {
            (profile.nodes, profile.partitions, profile.clients) = (5, 1, 4);
            profile.think = millis(280);
            profile.chaos = Duration::from_secs(60);
        }
        profile
    }
}

fn small(number: u64) -> u8 {
    u8::try_from(number).expect("numbers of the lists above are small")
}
