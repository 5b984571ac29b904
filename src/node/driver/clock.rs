//! The one clock of a node: the runtime's, so that a simulator can replace it.

use tokio::time::Instant as RuntimeInstant;

use crate::raft::{Instant, Now};

/// Reads the runtime's monotonic clock for the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: RuntimeInstant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self { origin: RuntimeInstant::now() }
    }

    /// The time for the core. There is no bounded wall time here.
    pub(crate) fn now(&self) -> Now {
        let nanos = u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Now { monotonic: Instant(nanos), wall: None }
    }

    /// When the runtime reaches a time of the core.
    pub(crate) fn at(&self, instant: Instant) -> RuntimeInstant {
        self.origin + std::time::Duration::from_nanos(instant.0)
    }
}
