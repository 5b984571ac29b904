//! Clusters of real `kotoba-cluster` processes, and what befalls them: kills at any moment, pauses,
//! deleted directories, wrong commands. `docs/testing.md` tells what each test shows.
//!
//! Every wait polls for what it waits for and has a deadline; no sleep decides a test. The clusters of
//! one run stand one after the other, so that a machine with few cores is not the cause of elections.
#![allow(clippy::disallowed_methods, reason = "tests of real processes live in real time")]
#![allow(clippy::print_stderr, reason = "a failed test shows what its processes said")]

mod all_killed;
mod altered_state;
mod bad_luck;
mod checks;
mod command;
mod damaged_log;
mod full_disk;
mod harness;
mod kill_leader;
mod load;
mod moved_node;
mod paused_node;
mod reflection;
mod refused_values;
mod spread_partitions;
mod unknown_outcome;
mod value_limits;
mod wiped_node;

use std::path::{Path, PathBuf};

/// The program under test.
fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_kotoba-cluster")).to_owned()
}
