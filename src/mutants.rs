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
    #[cfg(test)]
    tests::put_in_named();
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
        "a divergent suffix, and a beat that arrives before the first append of a new leader";
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

    M01 Raft Safety "a vote is not written down",
        "two candidates of one term, the voter restarted between their requests";
    M02 Raft Safety "a later term is not written down when it is learnt",
        "a restart of a replica that promised something in a term it had only heard of";
    M03 Raft Safety "a voter grants every request of its term",
        "two candidates of one term";
    M04 Raft Liveness "a leader that nobody answers goes on leading",
        "a one-way partition: the leader is heard and hears nothing";
    M05 Raft Safety "a vote is asked for before the candidate's own term and vote are durable",
        "a candidate that crashes after asking, and stands again in the same term";
    M06 Raft Liveness "a vote is carried into the next term",
        "the one who was voted for is gone, a majority of the others voted for it";
    M07 Raft Liveness "a leader does not step down when it hears of a later term",
        "a leader cut off until another is elected, then connected again";
    M08 Raft Liveness "who speaks for an earlier term is not told the later one",
        "a replica that stood alone in later terms comes back to a group with a leader";
    M09 Raft Liveness "a leader whose disk does not answer goes on leading",
        "a disk that stalls for good under a leader, its network well";
    M10 Raft Safety "entries are accepted whatever stands before them",
        "divergent logs, or appends lost and reordered";
    M11 Raft Safety "a follower keeps its own entry where the leader has another of a later term",
        "divergent logs";
    M12 Raft Liveness "a rejected probe does not make the leader go back",
        "divergent logs, or a follower that restarts with a shorter log";
    M13 Raft Safety "the hint of a rejection is taken for a match",
        "divergent logs of a common length and term";
    M14 Raft Safety "an acknowledgement counts for everything sent so far",
        "several appends in flight, the later ones lost, the leader gone";
    M15 Raft Durability "a follower acknowledges before its write is durable",
        "a crash of followers after the acknowledgement";
    M16 Raft Liveness "a lost probe is never sent again",
        "a lost append while the leader probes, or its lost answer";
    M17 Raft Liveness "a lost acknowledgement is never asked for again",
        "the last acknowledgements lost, and clients that are silent until they are answered";
    M18 Raft Liveness "room in the window of messages in flight is never returned",
        "more than 64 appends to one follower under one leader";
    M19 Raft Safety "a beat tells the leader's last entry as committed",
        "entries that followers hold and no majority has durably";
    M20 Raft Durability "committed entries are applied before they are durable here",
        "a slow disk, a majority of others, and a crash after applying";
    M21 Raft Safety "after a restart the whole log is taken for committed",
        "a restart with an uncommitted tail";
    M22 Raft Durability "a failed write counts as durable",
        "a write or flush that fails, a crash after it";
    M23 Raft Durability "the completion of a write of an earlier life is believed",
        "a crash with writes under way, whose completions arrive after the restart";
    M24 Raft Safety "members are changed while the change before is not committed",
        "several clients that change members at once, and a partition";
    M25 Raft Safety "a configuration counts when it is committed, not when it is appended",
        "two changes in a row, and an election won by one who heard of neither's commit";
    M26 Raft Safety "a configuration stays in force when its entry is truncated",
        "a change of members that another leader overrides";
    M27 Raft Safety "configurations among the log's entries are forgotten at a restart",
        "a change of members, then a restart before the log is purged behind it";
    M28 Raft Safety "a snapshot carries the oldest configuration known instead of the one at its place",
        "a change of members between the log's start and a snapshot that is sent";
    M29 Raft Durability "a snapshot takes the place of a longer log that holds its position",
        "a restart whose state machine lags behind its log, and a chunk that comes late or twice";
    M30 Raft Durability "a snapshot is acknowledged before it is durable",
        "a crash between the acknowledgement and the write's end";
    M31 Raft Durability "the log forgets what is applied, although its effect is not durable",
        "a crash between applying and flushing the state machine, after a purge";
    M32 Raft Liveness "a lost part of a snapshot is never sent again",
        "a lost chunk, or its lost answer";
    M33 Raft Liveness "a snapshot that could not be built is never tried again",
        "a build that fails, and a follower behind the purged log";
    M34 Raft Linearizability "a leader serves reads without asking whether it still leads",
        "a deposed leader that does not know it, read after another committed";
    M35 Raft Linearizability "a read joins the round that is under way",
        "a paused leader, answers to its round in its queue, another leader meanwhile, then a read";
    M36 Raft Linearizability "reads that wait are served when leadership ends",
        "a deposed leader with reads it could not confirm";
    M37 MultiRaft Liveness "a batch of beats goes to the group of its first one",
        "two groups of one leader, idle for an election time-out";
    M38 MultiRaft Liveness "a beat takes the place of another group's in the batch",
        "two groups of one leader, idle for an election time-out";
    M39 MultiRaft Liveness "of two groups due at the same moment only one has a timer",
        "two groups of one leader, whose beats fall on one grid";
    M40 Log Durability "writes are acknowledged before they are flushed",
        "a crash that loses unflushed sectors";
    M41 Log Durability "a failed flush is tried again, and the second answer believed",
        "a flush that fails and loses what it should have kept, then a crash";
    M42 Log Durability "a restart does not begin a new life",
        "a crash with writes under way, whose completions arrive after the restart";
    M43 Log Safety "payloads have no checksum",
        "a flipped bit in an entry's bytes, then a restart or a read of old entries";
    M44 Log Liveness "a batch that a crash tore is taken for damage",
        "a crash in the middle of a write that leaves its first sector";
    M45 Log Durability "the mark of the batch before is not looked at",
        "a flipped bit in the last acknowledged batch, and a crash that tears the next one";
    M46 Log Safety "the second copy of a term and vote is not looked at",
        "a flipped bit in the last batch, a vote in it, then a restart and another candidate";
    M47 Log Safety "a new segment forgets whom a group voted for",
        "two restarts, or a full segment and a restart, between two candidates of one term";
    M48 Log Durability "the name of a new segment is not flushed",
        "a crash that loses names, after a write to a new segment";
    M49 Log Durability "a new segment ends the need for every older one",
        "full segments while entries in older ones are not purged, then a restart";
    M50 Log Safety "entries are gathered without comparing terms",
        "a message whose entries are fetched late, when others overwrote them";
    M51 Log Safety "entries that were truncated stay in the cache",
        "a truncated tail, then entries of the new one sent or applied from memory";
    M52 Log Durability "a record that is missing between others of its group is not missed",
        "damage to a record of an acknowledged batch, others of the group behind it";
    M53 Graph Safety "the outcome of a request is not remembered",
        "a request repeated after its answer was lost";
    M54 Graph Safety "sessions are neither in snapshots nor in the digest",
        "a snapshot, then a repeated request";
    M55 Graph Safety "sessions are kept in memory only",
        "a restart, then a repeated request";
    M56 Graph Safety "only the last two outcomes of a client are kept",
        "a client with several requests under way, one of them repeated";
    M57 Graph Safety "an id that was forgotten is new again",
        "a duplicated request that arrives after its client acknowledged the answer";
    M58 Graph Safety "a repeated id is answered without comparing the operation",
        "a client that uses an id twice";
    M59 Graph Safety "the digest does not count removed rows",
        "a deletion of an edge or a forgotten outcome, then a comparison or a snapshot";
    M60 Graph Safety "operations of a batch do not see those before them",
        "dependent operations applied together here and one by one elsewhere";
    M61 Graph Safety "the applied position is stored one batch late",
        "a restart, then a comparison with replicas that did not";
    M62 Graph Safety "an imported snapshot does not remove what was there",
        "rows removed between a replica's own state and the snapshot it installs";
    M63 Raft Safety "entries behind a snapshot are announced before the snapshot is installed",
        "a snapshot that replaces the log, entries behind it that are committed, and a slow disk";
    M64 Raft Liveness "the answer to a trial from a voter that is terms behind is dropped as stale",
        "a voter in an earlier term without whose vote there is no majority";
    M65 Raft Liveness "a follower whose acknowledgements were lost is not asked again once the log is purged past them",
        "a full window of lost acknowledgements, and a purge before they are asked for again";
    M66 Log Durability "a restart takes the last batch it reads for durable",
        "a process that dies between a write and its flush, the machine lives on; later its power fails";
    M67 Log Durability "a restart flushes the last batch it reads, and does not write it again",
        "a flush that fails, a restart of the process alone, then a power failure";
    M68 Raft Liveness "a voter whose disk does not answer says yes to trials",
        "a disk that stalls for good under a voter, a candidate whose log is too short, and one whose log is not";
}

#[cfg(test)]
mod tests {
    #[cfg(not(feature = "std"))]
    extern crate std;

    use std::{collections::BTreeSet, fs, path::Path, string::String, sync::Once};

    use super::*;

    /// Puts in the bug that `KOTOBA_MUTANT` names: unit tests of the place must then fail.
    pub(super) fn put_in_named() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            if let Ok(id) = std::env::var("KOTOBA_MUTANT") {
                activate(Some(Mutant::by_id(&id).expect("the name of a mutant")));
            }
        });
    }

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
