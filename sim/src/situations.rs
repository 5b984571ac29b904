//! What really happened in a run: a run that exercised nothing proves nothing.

use std::collections::BTreeMap;

macro_rules! situations {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something worth counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Situation {
            $($(#[$doc])* $name,)*
        }

        impl Situation {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether it is a fault that the simulator makes, not something that follows from one.
            #[must_use]
            pub const fn is_fault(self) -> bool {
                matches!(
                    self,
                    Self::Crashed
                        | Self::CrashedWriting
                        | Self::DiedAlone
                        | Self::Outage
                        | Self::Paused
                        | Self::Wiped
                        | Self::DiskFull
                        | Self::DiskStalled
                        | Self::FlushFailed
                        | Self::Damaged
                        | Self::ClockJumped
                        | Self::Partitioned
                        | Self::Deposed
                        | Self::AnswersLost
                        | Self::BuildFailed
                        | Self::PromiseDamaged
                        | Self::BrokenAlive
                        | Self::Clogged
                        | Self::MessageLost
                        | Self::MessageRepeated
                        | Self::MessageOvertaken
                        | Self::StaleCompletion
                        | Self::Late
                )
            }
        }
    };
}

situations! {
    /// A replica was elected.
    Elected = "elections",
    /// A leader stepped down.
    SteppedDown = "leaders-stepped-down",
    /// An entry was committed.
    Committed = "entries-committed",
    /// A write was answered.
    WriteAnswered = "writes-answered",
    /// A read was answered.
    ReadAnswered = "reads-answered",
    /// A client asked again, because it had no answer.
    Retried = "requests-retried",
    /// A client gave up on an operation.
    GivenUp = "requests-given-up",
    /// A request stood in the log twice.
    Repeated = "requests-repeated-in-the-log",
    /// A request was refused because its client was done with it.
    RefusedAsOver = "requests-refused-as-over",
    /// A client used an id for another operation.
    IdReused = "ids-reused",
    /// A log was truncated.
    Truncated = "truncations",
    /// A proposal was lost with its leader.
    ProposalLost = "proposals-lost",
    /// A proposal was refused as busy.
    RefusedBusy = "proposals-refused-busy",
    /// A snapshot was built.
    SnapshotBuilt = "snapshots-built",
    /// A snapshot was installed.
    SnapshotInstalled = "snapshots-installed",
    /// A restart finished an installation that a crash had interrupted.
    InstallFinished = "snapshot-installs-finished-by-restart",
    /// A log was purged.
    Purged = "purges",
    /// Entries were read back from disk to be sent or applied.
    ReadFromDisk = "entries-read-from-disk",
    /// Entries could not be gathered.
    GatherFailed = "gathers-failed",
    /// A change of members was appended.
    MembersChanged = "member-changes",
    /// A change of members was refused.
    MembersRefused = "member-changes-refused",
    /// A change of members was taken back by a truncation.
    MembersRolledBack = "member-changes-rolled-back",
    /// A process was killed.
    Crashed = "crashes",
    /// A process was killed while its disk was writing.
    CrashedWriting = "crashes-inside-disk-operations",
    /// A process died and its machine lived on: what was not flushed is still read.
    DiedAlone = "crashes-of-the-process-alone",
    /// Every process was killed at once.
    Outage = "outages-of-a-majority",
    /// A restart cut a torn tail.
    TornTail = "torn-tails-cut",
    /// A restart kept a batch that had not been reported.
    UnreportedKept = "unreported-batches-kept",
    /// A process stood still.
    Paused = "pauses",
    /// A data directory was lost.
    Wiped = "directories-wiped",
    /// A disk was full.
    DiskFull = "disks-full",
    /// A disk stalled.
    DiskStalled = "disk-stalls",
    /// A flush failed.
    FlushFailed = "flushes-failed",
    /// A bit flipped, or a sector became unreadable.
    Damaged = "damages",
    /// A restart found and named damage.
    DamageFound = "damages-found",
    /// A clock jumped.
    ClockJumped = "clock-jumps",
    /// A link was cut.
    Partitioned = "partitions",
    /// A leader's followers were told that it is gone.
    Deposed = "leaders-deposed",
    /// The answers of one follower were lost for a while.
    AnswersLost = "answers-lost",
    /// A snapshot could not be built.
    BuildFailed = "snapshot-builds-failed",
    /// One copy of a term or vote was damaged.
    PromiseDamaged = "promises-damaged",
    /// A host outside the core was broken and not dead.
    BrokenAlive = "hosts-broken-alive",
    /// A link was clogged and released.
    Clogged = "links-clogged",
    /// A message was lost.
    MessageLost = "messages-lost",
    /// A message arrived twice.
    MessageRepeated = "messages-repeated",
    /// A message overtook another one.
    MessageOvertaken = "messages-late",
    /// A completion was reported twice, or from an earlier life.
    StaleCompletion = "stale-completions",
    /// A piece of work was late.
    Late = "late-work",
    /// A core could not elect, because a change of members was in some of its logs only.
    CoreUnelectable = "cores-that-waited-for-a-lost-change",
    /// The search found a sequential explanation of a run's history.
    Explained = "histories-explained",
    /// The search for a sequential explanation took too long: it says nothing.
    Unexplained = "histories-not-decided",
}

/// How often each situation was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situations([u64; Situation::ALL.len()]);

impl Default for Situations {
    fn default() -> Self {
        Self([0; Situation::ALL.len()])
    }
}

impl Situations {
    /// Counts one.
    pub fn count(&mut self, situation: Situation) {
        self.0[situation as usize] += 1;
    }

    /// How often it was met.
    #[must_use]
    pub fn of(&self, situation: Situation) -> u64 {
        self.0[situation as usize]
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Faults by name.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.named(Situation::is_fault)
    }

    /// What was met besides faults, by name.
    #[must_use]
    pub fn met(&self) -> BTreeMap<&'static str, u64> {
        self.named(|situation| !situation.is_fault())
    }

    fn named(&self, chosen: impl Fn(Situation) -> bool) -> BTreeMap<&'static str, u64> {
        let chosen = Situation::ALL.iter().copied().filter(|situation| chosen(*situation));
        chosen.map(|situation| (situation.name(), self.of(situation))).collect()
    }

    /// The situations that were never met, though every few hundred runs meet each.
    #[must_use]
    pub fn missing(&self) -> Vec<Situation> {
        // Only some machines compare what is asked under an id; some things are rare.
        let optional = [Situation::Unexplained, Situation::IdReused, Situation::CoreUnelectable];
        let never = |situation: &Situation| self.of(*situation) == 0 && !optional.contains(situation);
        Situation::ALL.iter().copied().filter(never).collect()
    }
}
