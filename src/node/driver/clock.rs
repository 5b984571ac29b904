//! The one clock of a node, as the core sees it.

use tokio::time::Instant as RuntimeInstant;

use crate::{
    raft::{Instant, Now},
    runtime::clock,
};

/// Reads the node's monotonic clock for the core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: RuntimeInstant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self { origin: clock::now() }
    }

    /// The time for the core. There is no bounded wall time here.
    pub(crate) fn now(&self) -> Now {
        let elapsed = clock::now().saturating_duration_since(self.origin);
        let nanos = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        Now { monotonic: Instant(nanos), wall: None }
    }

    /// When the runtime reaches a time of the core.
    pub(crate) fn at(&self, instant: Instant) -> RuntimeInstant {
        clock::wake_at(self.origin + std::time::Duration::from_nanos(instant.0))
    }
}
