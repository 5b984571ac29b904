//! The world as a simulator plays it.
//!
//! Tasks, timers and channels are the simulator's own tokio. Everything else is asked of the
//! [`Host`](host::Host), which the simulator installs before it starts a node.

pub(crate) mod clock;
pub(crate) mod fs;
pub(crate) mod host;
pub(crate) mod net;
pub(crate) mod random;
mod stream;
pub(crate) mod tasks;
pub(crate) mod thread;
pub(crate) mod watcher;
