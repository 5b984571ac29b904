//! Deterministic simulation: a cluster, everything that can break around it, and somebody who
//! watches. The same seed is the same run.
