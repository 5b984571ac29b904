//! What a node needs of the world around it: threads, clocks, randomness, files, connections.
//!
//! This is the one place that differs between a node in production and the same node under a
//! deterministic simulator (`--cfg madsim`, with tokio's tasks and timers replaced by the
//! simulator's as a dependency). Both sides have the same modules with the same items:
//!
//! | module | in production | simulated |
//! |---|---|---|
//! | `clock` | the system's monotonic clock | a clock of the node's own: drift, jumps |
//! | `fs` | `std::fs` | a disk that loses what was not flushed, tears, fails, fills, stalls |
//! | `net` | sockets, tonic's server | the simulator's connections under the same HTTP/2 and TLS |
//! | `random` | the system's randomness | the run's seed |
//! | `tasks` | tokio's | what the simulator's tokio lacks |
//! | `thread` | threads of the system | tasks that do the same jobs, with pauses before each |
//! | `watcher` | nothing | checks what the driver loop does with the core |

#[cfg(not(madsim))]
mod production;
#[cfg(not(madsim))]
pub(crate) use self::production::{clock, fs, net, random, tasks, thread, watcher};

#[cfg(madsim)]
mod simulated;
#[cfg(madsim)]
pub use self::simulated::host::{
    Acceptor, Access, Connection, Disk, FileId, Host, Kind, Moment, Waiting, install,
};
#[cfg(madsim)]
pub(crate) use self::simulated::{clock, fs, net, random, tasks, thread, watcher};
