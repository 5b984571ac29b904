//! tokio's tasks.

use tokio::task::{JoinError, spawn_blocking};

pub(crate) use tokio::task::JoinSet;

/// Runs what takes long where it does not hold up tasks.
///
/// # Errors
/// Where it panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    spawn_blocking(work).await
}
