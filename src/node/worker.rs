//! Threads of a node: one job after the other, beside the driver loop.

use super::room::Gate;
use crate::runtime::thread::{self, Inbox, Outbox, Thread};

/// Sends jobs to a thread, which does them in order.
#[derive(Debug)]
pub(crate) struct Worker<J> {
    jobs: Outbox<J>,
    thread: Thread<()>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread that hands each job to `work` until that returns false or nobody can send
    /// another one. `died` hears of a panic: what waits for the thread would wait for ever.
    ///
    /// # Errors
    /// Where the operating system has no thread left.
    pub(crate) fn start(
        name: &'static str,
        work: impl FnMut(J) -> bool + Send + 'static,
        died: impl FnOnce(&'static str) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, arriving) = thread::channel(name);
        let thread = thread::spawn(name, async move {
            let _obituary = Obituary { name, died: Some(died) };
            run(arriving, work).await;
        })?;
        Ok(Self { jobs, thread })
    }

    /// The same, where every job has to pass a gate first.
    ///
    /// # Errors
    /// Where the operating system has no thread left.
    pub(crate) fn start_behind<F: Fn(bool) + Send + 'static>(
        mut gate: Gate<F>,
        name: &'static str,
        mut work: impl FnMut(J) -> bool + Send + 'static,
        died: impl FnOnce(&'static str) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, mut arriving) = thread::channel(name);
        let thread = thread::spawn(name, async move {
            let _obituary = Obituary { name, died: Some(died) };
            while let Some(job) = arriving.recv().await {
                gate.pass().await;
                if !work(job) {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, thread })
    }

    /// Adds a job. A thread that ended, because its node stopped, does no more.
    pub(crate) fn send(&self, job: J) {
        let _ = self.jobs.send(job);
    }

    /// Another way to send jobs, for closures.
    pub(crate) fn sender(&self) -> Outbox<J> {
        self.jobs.clone()
    }

    /// Waits until the thread has ended. A panic of its was reported when it happened.
    pub(crate) async fn join(self) {
        let Self { jobs, thread } = self;
        drop(jobs);
        let _ = thread.join().await;
    }
}

/// Tells that its thread panicked.
struct Obituary<F: FnOnce(&'static str)> {
    name: &'static str,
    died: Option<F>,
}

impl<F: FnOnce(&'static str)> Drop for Obituary<F> {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(died) = self.died.take()
        {
            died(self.name);
        }
    }
}

async fn run<J>(mut arriving: Inbox<J>, mut work: impl FnMut(J) -> bool) {
    while let Some(job) = arriving.recv().await {
        if !work(job) {
            return;
        }
    }
}
