//! Replicas in a world where messages are lost, repeated and reordered, disks are slow and forget,
//! processes crash, pause and are replaced, and the observer checks the paper's properties after
//! every step. A failure names its seed; `KOTOBA_CHAOS_SEEDS=17..18` repeats one.
#![allow(clippy::print_stdout, reason = "tells what was exercised, and which seed failed")]

#[path = "raft/checks.rs"]
mod checks;
#[path = "raft/mutant.rs"]
mod mutant;
#[path = "raft/random.rs"]
mod random;
#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "raft/shell.rs"]
mod shell;
#[path = "raft/world.rs"]
mod world;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use checks::Counts;
use world::World;

fn seeds() -> Range<u64> {
    let given = std::env::var("KOTOBA_CHAOS_SEEDS").ok();
    let parsed = given.as_deref().and_then(|text| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    parsed.unwrap_or(0..24)
}

fn run(seed: u64) -> Counts {
    let mut world = World::new(seed, [3, 5, 4, 3][usize::try_from(seed % 4).expect("small")]);
    world.run(Duration::from_secs(25));
    world.heal();
    world.assert_live(seed);
    world.checks.counts
}

#[test]
fn safety_holds_through_chaos_and_liveness_returns_after_it() {
    mutant::put_in();
    let mut total = Counts::default();
    let mut failed = Vec::new();
    let keep_going = std::env::var_os("KOTOBA_CHAOS_KEEP_GOING").is_some();
    for seed in seeds() {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(counts) => total.add(counts),
            Err(panic) if !keep_going => {
                println!("failed with KOTOBA_CHAOS_SEEDS={seed}..{}", seed + 1);
                resume_unwind(panic);
            }
            Err(_) => failed.push(seed),
        }
    }
    println!("{total:?}");
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    if std::env::var_os("KOTOBA_CHAOS_SEEDS").is_none() {
        // A run that exercised nothing is not a pass.
        let Counts { leaders, commits, reads, snapshots, truncations, crashes, members, purges } = total;
        for (what, count) in [
            ("elections", leaders),
            ("commits", commits),
            ("reads", reads),
            ("snapshots installed", snapshots),
            ("truncations", truncations),
            ("crashes", crashes),
            ("changes of members", members),
            ("purges", purges),
        ] {
            assert!(count > 0, "no {what}");
        }
    }
}
