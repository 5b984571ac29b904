//! A connection as the transport sees it.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::host::Connection;

/// A connection that flushes only what was written, and breaks where nothing is heard for too long.
///
/// The transport's own keep-alive runs by the operating system's timers where this side dialled.
/// The other side asks for signs of life by the simulator's, so that a healthy connection is never
/// silent for long.
pub(super) struct Watched {
    inner: Box<dyn Connection>,
    unflushed: bool,
    patience: Option<Patience>,
}

struct Patience {
    limit: Duration,
    heard: Instant,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes, as long as it has not.
    waker: Option<Waker>,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Connection>, limit: Option<Duration>) -> Self {
        let now = tokio::time::Instant::now();
        let patience = limit.map(|limit| Patience {
            limit,
            heard: now,
            timer: Box::pin(sleep_until(now + limit)),
            waker: None,
        });
        Self { inner, unflushed: false, patience }
    }
}

impl Patience {
    /// Ready where nothing was heard for too long.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // A timer that was asked is not asked again: each time costs the simulator one more.
            if self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()))
                && !self.timer.is_elapsed()
            {
                return Poll::Pending;
            }
            if self.timer.as_mut().poll(context).is_pending() {
                self.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            let until = self.heard + self.limit;
            if tokio::time::Instant::now() >= until {
                return Poll::Ready(());
            }
            self.waker = None;
            self.timer = Box::pin(sleep_until(until));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut *self.inner).poll_read(context, into);
        let Some(patience) = &mut self.patience else { return read };
        if read.is_ready() {
            patience.heard = tokio::time::Instant::now();
            return read;
        }
        ready!(patience.poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut *self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(&mut *self.inner).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}
