//! Deterministic simulation: a cluster, everything that can break around it, and somebody who
//! watches. The same seed is the same run.

pub mod check;
pub mod choice;
pub mod cli;
pub mod fuzzed;
pub mod history;
pub mod machine;
pub mod madsim;
pub mod profile;
pub mod report;
pub mod runner;
pub mod shrink;
pub mod situations;
pub mod trace;
pub mod world;
