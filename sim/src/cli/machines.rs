//! Which state machine a run is about.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A state machine by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MachineName {
    /// A handful of registers: fast.
    #[default]
    Registers,
    /// The graph with its own sessions, digests and snapshots.
    Graph,
}

impl MachineName {
    /// Its name on the command line.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Registers => "registers",
            Self::Graph => "graph",
        }
    }
}

/// Evaluates an expression with `$machine` as the type that a name stands for.
macro_rules! with_machine {
    ($name:expr, $machine:ident => $body:expr) => {
        match $name {
            $crate::cli::machines::MachineName::Registers => {
                type $machine = $crate::machine::ExactlyOnce<$crate::machine::Registers>;
                $body
            }
            $crate::cli::machines::MachineName::Graph => {
                type $machine = $crate::machine::Graph;
                $body
            }
        }
    };
}

pub(super) use with_machine;
