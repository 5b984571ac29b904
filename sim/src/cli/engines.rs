//! Which engine runs a seed.

use clap::ValueEnum;

/// How much of a node is real.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Engine {
    /// The pure node, its log and its state machine, driven by hand: thousands of simulated seconds a
    /// second.
    #[default]
    World,
    /// The whole program with its threads, gRPC and TLS, on a simulated network, disk and clock: one
    /// process a seed. Built by cargo when it is first asked for.
    Madsim,
}
