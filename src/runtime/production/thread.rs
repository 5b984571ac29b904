//! Threads of the operating system.
//!
//! The body of a thread is a future so that a simulator can run it as a task. Here nothing in it
//! is ever pending: whatever it waits for blocks its thread.

use std::{
    future::Future,
    io,
    pin::pin,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::oneshot;

/// Sends to an [`Inbox`].
pub(crate) use std::sync::mpsc::Sender as Outbox;

/// A running thread.
#[derive(Debug)]
pub(crate) struct Thread<T>(oneshot::Receiver<T>);

impl<T> Thread<T> {
    /// Waits until the thread's body has ended. `None`: it panicked.
    pub(crate) async fn join(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Starts a thread.
///
/// # Errors
/// Where the operating system has no thread left.
pub(crate) fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl Future<Output = T> + Send + 'static,
) -> io::Result<Thread<T>> {
    let (told, ended) = oneshot::channel();
    let run = move || {
        // Nobody may wait for the end.
        let _ = told.send(complete(body));
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(Thread(ended))
}

fn complete<T>(body: impl Future<Output = T>) -> T {
    match pin!(body).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("what a thread's body waits for blocks the thread"),
    }
}

/// What arrives for a thread, in order.
#[derive(Debug)]
pub(crate) struct Inbox<T>(Receiver<T>);

/// A way to send to a thread, and its other end. `thread` is the name of the thread.
pub(crate) fn channel<T>(_thread: &'static str) -> (Outbox<T>, Inbox<T>) {
    let (outbox, receiver) = mpsc::channel();
    (outbox, Inbox(receiver))
}

impl<T> Inbox<T> {
    /// Waits for the next one; `None` when there will be no more.
    #[expect(clippy::unused_async, reason = "waits without blocking where a thread is a task")]
    pub(crate) async fn recv(&mut self) -> Option<T> {
        self.0.recv().ok()
    }

    /// What waits already, if anything.
    pub(crate) fn try_recv(&mut self) -> Option<T> {
        self.0.try_recv().ok()
    }

    /// Waits for the next one, but not for ever.
    #[expect(clippy::unused_async, reason = "waits without blocking where a thread is a task")]
    pub(crate) async fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.0.recv_timeout(timeout)
    }
}

/// Waits.
#[expect(clippy::unused_async, reason = "waits without blocking where a thread is a task")]
#[expect(clippy::disallowed_methods, reason = "threads of the shell may wait")]
pub(crate) async fn sleep(duration: Duration) {
    std::thread::sleep(duration);
}
