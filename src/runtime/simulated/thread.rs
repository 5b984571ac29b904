//! Threads as tasks: each does one job after the other, and each job takes its time.

use std::{future::Future, io, sync::mpsc::RecvTimeoutError, time::Duration};

use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinHandle,
    time::timeout,
};

use super::host::host;

/// Sends to an [`Inbox`].
pub(crate) use tokio::sync::mpsc::UnboundedSender as Outbox;

/// A running thread.
#[derive(Debug)]
pub(crate) struct Thread<T>(JoinHandle<T>);

impl<T> Thread<T> {
    /// Waits until the thread's body has ended.
    pub(crate) async fn join(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Starts a thread.
#[expect(clippy::unnecessary_wraps, reason = "a system may have no thread left")]
pub(crate) fn spawn<T: Send + 'static>(
    _name: &'static str,
    body: impl Future<Output = T> + Send + 'static,
) -> io::Result<Thread<T>> {
    Ok(Thread(tokio::spawn(body)))
}

/// What arrives for a thread, in order.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    thread: &'static str,
    receiver: UnboundedReceiver<T>,
}

/// A way to send to a thread, and its other end. `thread` is the name of the thread.
pub(crate) fn channel<T>(thread: &'static str) -> (Outbox<T>, Inbox<T>) {
    let (outbox, receiver) = mpsc::unbounded_channel();
    (outbox, Inbox { thread, receiver })
}

impl<T> Inbox<T> {
    /// Waits for the next one; `None` when there will be no more. The time its job takes passes
    /// before it is handed out, so that it is under way while others arrive and nodes crash.
    pub(crate) async fn recv(&mut self) -> Option<T> {
        let received = self.receiver.recv().await?;
        host().job(self.thread).await;
        Some(received)
    }

    /// What waits already, if anything.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Waits for the next one, but not for ever.
    pub(crate) async fn recv_timeout(&mut self, patience: Duration) -> Result<T, RecvTimeoutError> {
        match timeout(patience, self.receiver.recv()).await {
            Ok(Some(received)) => Ok(received),
            Ok(None) => Err(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }
}

/// Waits.
pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}
