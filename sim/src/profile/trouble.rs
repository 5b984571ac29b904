//! Kinds of trouble that come together.
//!
//! What is drawn one by one rarely fits together: a lost acknowledgement matters where windows are
//! small *and* logs are purged at once *and* the leader stays. Half of the runs are therefore about
//! one kind of trouble, which sets what belongs to it; everything else stays as it was drawn.

use std::time::Duration;

use super::Profile;

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Leaders are deposed while they are well, and asked by clients before they know.
    Depositions,
    /// Acknowledgements are lost, windows are full, logs are purged at once.
    LostAnswers,
    /// Crashes and cuts right behind votes and elections.
    Elections,
    /// Damaged disks, and restarts that have to find it.
    Damage,
    /// Many short lives on slow disks, whose completions come when another one has begun.
    EarlierLives,
    /// Members come and go, changed by operators who do not wait.
    Members,
    /// Flushes fail, disks are full or stall.
    FailingDisks,
    /// The state is sent instead of the log, in small pieces that come late and twice.
    Snapshots,
}

impl Trouble {
    pub(super) const ALL: [Self; 8] = [
        Self::Depositions,
        Self::LostAnswers,
        Self::Elections,
        Self::Damage,
        Self::EarlierLives,
        Self::Members,
        Self::FailingDisks,
        Self::Snapshots,
    ];

    /// Sets what belongs to this trouble.
    pub(super) fn shape(self, profile: &mut Profile, pick: &mut impl FnMut(&[u64]) -> u64) {
        let millis = Duration::from_millis;
        let mut few = |list: &[u64]| u32::try_from(pick(list)).expect("numbers of the lists are small");
        profile.chaos = Duration::from_secs(20);
        profile.fault_every = millis(u64::from(few(&[400, 150, 800])));
        profile.hosts = profile.hosts.max(3);
        match self {
            Self::Depositions => {
                profile.think = millis(u64::from(few(&[40, 100])));
                profile.disk.latency = Duration::from_micros(300);
                profile.process.depositions = 40;
                profile.process.aimed_crashes = few(&[0, 20]);
                profile.network.late = (few(&[0, 300]), millis(100));
                profile.late_reads = (few(&[0, 300]), millis(1_000));
            }
            Self::LostAnswers => {
                profile.think = millis(40);
                profile.network.lost_answers = 40;
                profile.limits.inflight_messages = usize::try_from(few(&[1, 3])).expect("small");
                stay_in_office(profile);
                profile.process.crashes = few(&[0, 10]);
                profile.disk.failed_builds = few(&[0, 300]);
                purge_at_once(profile, few(&[0, 10]));
            }
            Self::Elections => {
                profile.process.aimed_crashes = few(&[50, 100]);
                profile.process.crashes = 20;
                profile.process.hints = 20;
                profile.process.depositions = few(&[0, 20]);
            }
            Self::Damage => {
                profile.disk.damage = few(&[30, 10]);
                profile.disk.latency = millis(u64::from(few(&[1, 20])));
                profile.process.crashes = 30;
                profile.segment_bytes = u64::from(few(&[64 << 10, 20 << 10]));
                profile.administration.compactions = few(&[100, 500]);
            }
            Self::EarlierLives => {
                profile.process.stale_completions = 30;
                profile.process.crashes = 40;
                profile.disk.latency = millis(u64::from(few(&[20, 100])));
            }
            Self::Members => {
                profile.administration.resizes = 60;
                profile.administration.impatience = 500;
                profile.process.hints = 20;
                profile.process.depositions = few(&[0, 20]);
                profile.network.partitions = few(&[0, 10]);
            }
            Self::FailingDisks => {
                profile.disk.failed_flushes = 30;
                profile.disk.full = few(&[0, 5]);
                profile.disk.stalls = few(&[0, 5]);
            }
            Self::Snapshots => {
                profile.network.late = (300, millis(u64::from(few(&[700, 100]))));
                profile.network.replay = 50;
                profile.network.lost_answers = 10;
                profile.process.depositions = 20;
                profile.disk.failed_builds = few(&[0, 300]);
                profile.limits.snapshot_chunk_bytes = u64::from(few(&[256, 1 << 20]));
                profile.snapshot_padding = 600;
                purge_at_once(profile, few(&[0, 10]));
            }
        }
    }
}

/// A leader stays as long as nothing is done to it by this kind of trouble.
fn stay_in_office(profile: &mut Profile) {
    let process = &mut profile.process;
    (process.outages, process.pauses, process.wipes) = (0, 0, 0);
    (process.hints, process.depositions, process.aimed_crashes) = (0, 0, 0);
    let disk = &mut profile.disk;
    (disk.stalls, disk.full, disk.failed_flushes, disk.damage) = (0, 0, 0, 0);
    profile.network.partitions = 0;
    profile.clock.jumps = 0;
    profile.administration.resizes = 0;
}

fn purge_at_once(profile: &mut Profile, kept: u32) {
    profile.retained_bytes = 0;
    profile.administration.compactions = 500;
    profile.administration.kept_entries = u64::from(kept);
}
