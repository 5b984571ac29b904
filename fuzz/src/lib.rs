//! What the fuzz targets do, as plain functions of bytes.
//!
//! A target's body reads its input as a list of choices, drives a part of the product with them and
//! asserts what must hold. It knows nothing of libFuzzer: `fuzz_targets/` wraps each body in a few
//! lines, and the test below runs every checked-in seed through it on a stable toolchain. A body returns
//! the [`Situations`] that its input reached, so that the test can tell that the seeds still reach what
//! they are for.
//!
//! | target | drives | against |
//! |---|---|---|
//! | [`raft_step`] | one `raft::Replica` | the contract: no promise before its write |
//! | [`wire_decode`] | every decoder of bytes that a remote or a disk chose | encoding again |
//! | [`wal_recover`] | recovery of the log, from damaged and forged disks | everything that was ever written |
//! | [`graph_ops`] | the graph's state machine, sessions, snapshots | a naive twin |
//! | [`world`] | a cluster in the simulator's world | all of the simulator's checks |

mod choices;
pub mod graph_ops;
pub mod raft_step;
pub mod seeds;
mod situations;
pub mod wal_recover;
pub mod wire_decode;
pub mod world;

pub use situations::Situations;

/// One target: its name, its body, and what its seeds must reach together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its seeds' folder.
    pub name: &'static str,
    /// Its body.
    pub run: fn(&[u8]) -> Situations,
    /// Every situation it knows.
    pub situations: &'static [&'static str],
    /// The longest input that is of use.
    pub bytes_max: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "raft_step", run: raft_step::run, situations: raft_step::SITUATIONS, bytes_max: 4096 },
    Target { name: "graph_ops", run: graph_ops::run, situations: graph_ops::SITUATIONS, bytes_max: 4096 },
    Target {
        name: "wire_decode",
        run: wire_decode::run,
        situations: wire_decode::SITUATIONS,
        bytes_max: 4096,
    },
    Target {
        name: "wal_recover",
        run: wal_recover::run,
        situations: wal_recover::SITUATIONS,
        bytes_max: 4096,
    },
    Target { name: "world", run: world::run, situations: world::SITUATIONS, bytes_max: 4096 },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// All seeds of a target together.
    const SEED_BYTES_MAX: usize = 16 << 10;

    #[test]
    fn every_seed_passes_and_together_they_reach_every_situation() {
        for target in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target.name);
            let (mut reached, mut bytes, mut count) = (Situations::default(), 0, 0);
            for file in fs::read_dir(&folder).expect("each target has seeds") {
                let path = file.expect("a folder is listed").path();
                let input = fs::read(&path).expect("a seed is read");
                assert!(input.len() <= target.bytes_max, "{} is too long", path.display());
                reached.merge(&(target.run)(&input));
                bytes += input.len();
                count += 1;
            }
            let (reached, known): (BTreeSet<_>, BTreeSet<_>) =
                (reached.iter().collect(), target.situations.iter().copied().collect());
            assert_eq!(reached, known, "{}: what the seeds reach, and what they are for", target.name);
            assert!(count > 0 && bytes <= SEED_BYTES_MAX, "{}: {count} seeds of {bytes} bytes", target.name);
        }
    }

    /// An input that says nothing is one like any other.
    #[test]
    fn no_input_at_all_passes() {
        for target in TARGETS {
            let _reached = (target.run)(&[]);
        }
    }
}
