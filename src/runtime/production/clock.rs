//! The system's monotonic clock, which the runtime's timers run by.

use tokio::time::Instant;

/// What the node's clock shows.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// When the runtime reaches a time of the node's clock.
pub(crate) fn wake_at(time: Instant) -> Instant {
    time
}
