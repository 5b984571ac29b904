//! Bugs that real consensus systems shipped, to be brought back one at a time.
//!
//! Whoever tests this crate must know that the tests would notice. So each bug stands where it would
//! really be made, behind `mutant!(B03)`; in a build with `--cfg kotoba_mutants` one of them can be
//! [activated](activate), and a run of the tests or of the simulator must then fail. In any other
//! build `mutant!(…)` is the literal `false`, and this module does not exist.
//!
//! The rows B are known from releases of widely used systems; the rows M are other members of the
//! same families.

use core::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

/// The one that is active: its place in [`Mutant::ALL`] and one; zero for none.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Puts one bug into everything this process runs from now on, instead of the one before; `None`
/// takes it out again.
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.store(mutant.map_or(0, |mutant| mutant as u8 + 1), Ordering::Relaxed);
}

/// The bug that is active.
pub fn active() -> Option<Mutant> {
    let before = ACTIVE.load(Ordering::Relaxed).checked_sub(1)?;
    Mutant::ALL.get(usize::from(before)).copied()
}

/// Whether this bug is active.
pub(crate) fn is_active(mutant: Mutant) -> bool {
    ACTIVE.load(Ordering::Relaxed) == mutant as u8 + 1
}

/// What a bug breaks first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Breaks {
    /// Replicas disagree, or something is done that nobody asked for or done twice.
    Safety,
    /// Something that was acknowledged is gone.
    Durability,
    /// A read answers less than was acknowledged before it was asked.
    Linearizability,
    /// Something never comes, although a majority is well.
    Liveness,
}

/// Where a bug is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// In [`raft`](crate::raft): shows with any embedder.
    Raft,
    /// In [`multiraft`](crate::multiraft): shows with several groups.
    MultiRaft,
    /// In [`storage::wal`](crate::storage::wal): shows where its writer and recovery are used.
    Log,
    /// In the graph's state machine, feature `graph`: shows only with that.
    Graph,
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

macro_rules! mutants {
    ($($id:ident $layer:ident $breaks:ident $title:literal, $needs:literal;)*) => {
        /// A bug that can be brought back.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Mutant {
            $(#[doc = $title] $id,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$id),*];

            /// Its name: `B03`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$id => stringify!($id),)* }
            }

            /// The one of this name.
            #[must_use]
            pub fn by_id(id: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|mutant| mutant.id() == id)
            }

            /// What is done wrong, in a line.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$id => $title,)* }
            }

            /// What it breaks first.
            #[must_use]
            pub const fn breaks(self) -> Breaks {
                match self { $(Self::$id => Breaks::$breaks,)* }
            }

            /// What must happen for it to show.
            #[must_use]
            pub const fn needs(self) -> &'static str {
                match self { $(Self::$id => $needs,)* }
            }

            /// Where it is made.
            #[must_use]
            pub const fn layer(self) -> Layer {
                match self { $(Self::$id => Layer::$layer,)* }
            }
        }
    };
}

mutants! {
    B01 Raft Safety "a granted vote is answered before the vote is durable",
        "a crash between sending and flushing, the message already delivered";
    B02 Raft Safety "a candidate's log is compared by its length only",
        "divergent logs, the longer one of an earlier term";
    B03 Raft Safety "half of an even number is taken for a majority",
        "groups of two or four, split in the middle";
    B04 Raft Safety "votes are counted by messages, not by voters",
        "duplicated grants in groups of four or more, two candidates of one term";
    B05 Raft Liveness "a trial resets the time-outs of those who refuse it",
        "the leader gone, and a voter with a shorter log that tries again and again";
    B06 Raft Liveness "the refusal of a trial does not teach its later term",
        "the replica with the longest log in an earlier term than the others, the leader gone";
    B07 Raft Safety "a follower truncates on any append that ends before its last entry",
        "reordered or duplicated appends";
    B08 Raft Safety "a follower acknowledges all its log instead of what the message showed to be equal",
        "a longer divergent suffix, and an append that ends before it";
    B09 Raft Safety "a follower commits up to its own last entry instead of the last verified one",
        "a divergent suffix behind an append that the leader cut (by terms or bytes), or one without entries";
    B10 Raft Safety "an entry of an earlier term is committed by counting replicas",
        "leaders that change before their own first entry is committed (figure 8 of the paper)";
    B11 Raft Safety "the leader counts itself before its own log is durable",
        "a slow disk under the leader, and its crash";
    B12 Raft Safety "learners count towards the majority of voters",
        "a learner that is joining, and a partition or crash of voters";
    B16 Raft Safety "a chunk of a deposed leader's snapshot is taken, also by who stands or leads by then",
        "a slow or repeated chunk and an election; the leaders that replicas report, compared by term";
    B17 Raft Liveness "a leader whose log is purged to the tip sends nothing, not even a snapshot",
        "an idle leader that keeps nothing for followers, and one that is behind";
    B18 Raft Linearizability "a read is served before the leader committed an entry of its own term",
        "a new leader that does not know yet what is committed, read at once";
    B19 Raft Linearizability "any answer of a follower confirms the latest round of reads",
        "a paused or cut-off leader, and answers to earlier rounds that come late";
    B21 Raft Safety "the completion of a write proves entries durable that were overwritten meanwhile",
        "a tail overwritten while its write is under way, a crash after the completion";
    B22 Raft Safety "members are changed before the leader committed an entry of its own term",
        "an uncommitted change of one leader, another change by the next, then the first leads again";
    B24 Log Durability "damage in the middle of the newest segment is taken for a torn tail, and cut",
        "a flipped bit in an acknowledged batch that others follow, then a restart";
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "std"))]
    extern crate std;

    use std::{collections::BTreeSet, fs, path::Path, string::String};

    use super::*;

    fn read_sources(directory: &Path, into: &mut String) {
        for entry in fs::read_dir(directory).expect("a readable directory") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                read_sources(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push_str(&fs::read_to_string(&path).expect("readable source"));
            }
        }
    }

    #[test]
    fn every_mutant_has_a_place_and_a_name_of_its_own() {
        let mut sources = String::new();
        read_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut sources);
        let mut names = BTreeSet::new();
        for mutant in Mutant::ALL {
            assert!(names.insert(mutant.id()), "{mutant} is there twice");
            assert!(names.insert(mutant.title()), "{mutant} is like another");
            assert_eq!(Mutant::by_id(mutant.id()), Some(*mutant));
            let site = std::format!("mutant!({mutant})");
            assert!(sources.contains(&site), "{mutant} is nowhere");
        }
        assert!(Mutant::ALL.len() < usize::from(u8::MAX));
    }
}
