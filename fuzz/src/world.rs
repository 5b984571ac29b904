//! A whole cluster in the simulator's world, of which the bytes are the schedule.
//!
//! The first byte says what is replicated, the others are the choices of a run of a few simulated
//! seconds: faults, clients, delays. Every check of the simulator is on, and a core of hosts must serve
//! and all members must agree in the end. `kotoba_sim::fuzzed` reads the bytes, and the simulator's own
//! program reads them too, so that what is found here can be watched, recorded and made small there.

use std::sync::Once;

use kotoba_sim::{fuzzed, runner, situations::Situation};

use crate::Situations;

/// What the seeds reach together: names of the simulator's situations.
pub const SITUATIONS: &[&str] = &[
    "crashes",
    "elections",
    "entries-committed",
    "entries-read-from-disk",
    "histories-explained",
    "late-work",
    "leaders-stepped-down",
    "member-changes",
    "messages-late",
    "messages-lost",
    "messages-repeated",
    "partitions",
    "pauses",
    "purges",
    "reads-answered",
    "requests-given-up",
    "requests-retried",
    "snapshots-built",
    "snapshots-installed",
    "writes-answered",
];

static SETUP: Once = Once::new();

/// Runs a cluster.
///
/// # Panics
/// Where a check fails.
pub fn run(bytes: &[u8]) -> Situations {
    SETUP.call_once(set_up);
    let outcome = fuzzed::run(bytes);
    if let Some(violation) = outcome.violation {
        panic!(
            "{violation}\nwhat happened, and a schedule of it, with the input's file in the place of FILE:\n  \
             cargo run --release -p kotoba-sim -- replay --fuzz-bytes FILE --to schedule.json"
        );
    }
    let mut situations = Situations::default();
    for &situation in Situation::ALL {
        let known = SITUATIONS.contains(&situation.name());
        situations.reach_if(known && outcome.situations.of(situation) > 0, situation.name());
    }
    situations
}

fn set_up() {
    runner::silence_panics();
    #[cfg(kotoba_mutants)]
    if let Ok(id) = std::env::var("KOTOBA_MUTANT") {
        let mutant = kotoba_db_cluster::mutants::Mutant::by_id(&id).expect("a bug of that name");
        kotoba_db_cluster::mutants::activate(Some(mutant));
    }
}
