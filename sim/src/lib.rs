//! Deterministic simulation: a cluster, everything that can break around it, and somebody who
//! watches. The same seed is the same run.

pub mod choice;
pub mod history;
pub mod machine;
pub mod profile;
