//! What the simulator's tokio lacks.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use tokio::task::{JoinError, JoinHandle};

use super::host::host;

/// Runs what takes long where it does not hold up tasks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Infallible> {
    host().job("blocking").await;
    Ok(work())
}

/// Tasks that are waited for together. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct JoinSet<T>(Vec<JoinHandle<T>>);

impl<T: Send + 'static> JoinSet<T> {
    /// No tasks.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Starts a task.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.0.push(tokio::spawn(task));
    }

    /// The next task that ends; `None` when all have.
    pub(crate) async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        if self.0.is_empty() {
            return None;
        }
        poll_fn(|context| {
            for (at, task) in self.0.iter_mut().enumerate() {
                if let Poll::Ready(result) = Pin::new(task).poll(context) {
                    self.0.remove(at);
                    return Poll::Ready(Some(result));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// What all of them return.
    pub(crate) async fn join_all(mut self) -> Vec<T> {
        let mut results = Vec::new();
        while let Some(result) = self.join_next().await {
            results.push(result.expect("nobody ends these tasks"));
        }
        results
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
