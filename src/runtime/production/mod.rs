//! The real world.

pub(crate) mod clock;
pub(crate) mod fs;
pub(crate) mod net;
pub(crate) mod random;
pub(crate) mod tasks;
pub(crate) mod thread;
pub(crate) mod watcher;
