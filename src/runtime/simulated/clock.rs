//! A clock of the node's own, which need not go as the runtime's does.

use tokio::time::Instant;

use super::host::host;

/// What the node's clock shows.
pub(crate) fn now() -> Instant {
    host().clock()
}

/// When the runtime reaches a time of the node's clock.
pub(crate) fn wake_at(time: Instant) -> Instant {
    host().wake_at(time)
}
