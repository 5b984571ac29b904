//! A writer on a thread of its own.
//!
//! Requests queue in a channel. The thread takes whatever waits, up to a bound, and makes it one
//! batch: the longer a flush takes, the more the next one carries. A second thread prepares the
//! file of the next segment, so that the writer seldom has to.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::RecvTimeoutError,
    },
    time::{Duration, Instant},
};

use super::{
    Disk, GroupWrite, SpareOrder, SpareReady, WalCounters, WalWriter, WriteError, WriteReceipt,
    prepare_spare, writer::Staging,
};
use crate::runtime::thread::{self, Inbox, Outbox, Thread};

/// Payload bytes after which no further request joins a batch.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// What a record costs besides its payload, for the bound of a batch.
const RECORD_OVERHEAD_BYTES: usize = 64;
/// The writer's thread, and that which prepares segments for it.
const THREAD: &str = "wal";
const SPARE_THREAD: &str = "wal-spare";
/// How often a full disk is tried again, unless told otherwise.
const FULL_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Writes to be made durable together.
#[derive(Debug)]
pub struct WalRequest<T> {
    /// What to write.
    pub writes: Vec<GroupWrite>,
    /// The embedder's name for the request.
    pub tag: T,
}

/// Requests that are answered.
#[derive(Debug)]
pub struct Completion<T> {
    /// Which, in the order they were submitted.
    pub tags: Vec<T>,
    /// Whether they are durable. After a [`Fault`](WriteError::Fault) every later request gets it too.
    pub result: Result<WriteReceipt, WriteError>,
}

/// What the writer's thread reports.
#[derive(Debug)]
pub enum WalEvent<T> {
    /// Requests are answered.
    Completed(Completion<T>),
    /// The disk is full: requests wait, unanswered (`true`). Or there is room again (`false`).
    Full(bool),
}

/// What the embedder hears from the threads. All are called on the writer's thread and must not wait.
pub struct WalHooks<T> {
    /// Takes each event.
    pub on_event: Box<dyn FnMut(WalEvent<T>) + Send>,
    /// Takes the duration of each batch's write and flush, a new segment's included.
    pub on_sync: Box<dyn FnMut(Duration) + Send>,
    /// How often a full disk is tried again.
    pub full_poll_interval: Duration,
}

impl<T> WalHooks<T> {
    /// Hooks that listen to events only.
    #[must_use]
    pub fn new(on_event: impl FnMut(WalEvent<T>) + Send + 'static) -> Self {
        Self {
            on_event: Box::new(on_event),
            on_sync: Box::new(|_| {}),
            full_poll_interval: FULL_POLL_INTERVAL,
        }
    }
}

impl<T> fmt::Debug for WalHooks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalHooks")
            .field("full_poll_interval", &self.full_poll_interval)
            .finish_non_exhaustive()
    }
}

/// Figures of a running writer, to be read from anywhere.
#[derive(Debug, Default)]
pub struct WalMetrics {
    /// Flushes of segment files since the log was opened.
    pub syncs: AtomicU64,
    /// Bytes written to segment files.
    pub bytes: AtomicU64,
    /// Batches written.
    pub batches: AtomicU64,
    /// Records written.
    pub records: AtomicU64,
    /// Segments begun.
    pub segments: AtomicU64,
    /// The oldest segment that is needed.
    pub oldest_segment: AtomicU64,
    /// The segment being written.
    pub newest_segment: AtomicU64,
}

impl WalMetrics {
    fn publish<D: Disk>(&self, writer: &WalWriter<D>) {
        let WalCounters { syncs, bytes, batches, records, segments } = writer.counters();
        let (oldest, newest) = writer.segments();
        self.syncs.store(syncs, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.batches.store(batches, Relaxed);
        self.records.store(records, Relaxed);
        self.segments.store(segments, Relaxed);
        self.oldest_segment.store(oldest.0.into(), Relaxed);
        self.newest_segment.store(newest.0.into(), Relaxed);
    }
}

/// The writer's thread has ended; the request was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalClosed;

impl fmt::Display for WalClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log's writer has ended; nothing was written")
    }
}

impl std::error::Error for WalClosed {}

/// A running writer. Dropping it lets the thread write what waits and end.
#[derive(Debug)]
pub struct WalHandle<T> {
    requests: Outbox<WalRequest<T>>,
    metrics: Arc<WalMetrics>,
    thread: Thread<Result<(), WriteError>>,
}

impl<T: Send + 'static> WalHandle<T> {
    /// Starts the threads. `spare_disk` is the same directory as the writer's disk.
    ///
    /// # Errors
    /// Where the system has no thread left.
    pub fn start<D: Disk + Send + 'static>(
        mut writer: WalWriter<D>,
        spare_disk: D,
        hooks: WalHooks<T>,
    ) -> std::io::Result<Self> {
        let metrics = Arc::new(WalMetrics::default());
        metrics.publish(&writer);
        let (requests, queue) = thread::channel(THREAD);
        let (orders, spares) = start_spare_thread(spare_disk)?;
        let order = writer.order_spare();
        let mut shift = Shift {
            writer,
            hooks,
            metrics: Arc::clone(&metrics),
            orders,
            spares,
            ordered: order.is_some(),
            carried: None,
        };
        if let Some(order) = order {
            shift.send_order(order);
        }
        let thread = thread::spawn(THREAD, shift.run(queue))?;
        Ok(Self { requests, metrics, thread })
    }

    /// Queues a request. It is answered by an event, unless the thread was told to end.
    ///
    /// # Errors
    /// Where the thread has ended.
    pub fn submit(&self, request: WalRequest<T>) -> Result<(), WalClosed> {
        self.requests.send(request).map_err(|_| WalClosed)
    }

    /// The writer's figures.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<WalMetrics> {
        &self.metrics
    }

    /// Writes what waits, marks the log's end, and ends the thread; returns when that is done.
    ///
    /// # Errors
    /// Where the log could not be written to its end.
    pub async fn close(self) -> Result<(), WriteError> {
        let Self { requests, metrics: _, thread } = self;
        drop(requests);
        // A panic in a hook: what was answered is durable all the same.
        let panicked = Err(WriteError::Fault(crate::raft::WriteFault::WriteFailed));
        thread.join().await.unwrap_or(panicked)
    }
}

type SpareChannels = (Outbox<SpareOrder>, Inbox<Option<SpareReady>>);

fn start_spare_thread<D: Disk + Send + 'static>(mut disk: D) -> std::io::Result<SpareChannels> {
    let (orders, mut ordered) = thread::channel::<SpareOrder>(SPARE_THREAD);
    let (ready, spares) = thread::channel(THREAD);
    thread::spawn(SPARE_THREAD, async move {
        while let Some(order) = ordered.recv().await {
            // Where it fails the writer tries by itself, and reports what it finds.
            if ready.send(prepare_spare(&mut disk, order).ok()).is_err() {
                return;
            }
        }
    })?;
    Ok((orders, spares))
}

/// The writer's thread.
struct Shift<D, T> {
    writer: WalWriter<D>,
    hooks: WalHooks<T>,
    metrics: Arc<WalMetrics>,
    orders: Outbox<SpareOrder>,
    spares: Inbox<Option<SpareReady>>,
    /// Whether a spare is being prepared.
    ordered: bool,
    /// A request that did not fit the batch before.
    carried: Option<WalRequest<T>>,
}

impl<D: Disk, T> Shift<D, T> {
    async fn run(mut self, mut queue: Inbox<WalRequest<T>>) -> Result<(), WriteError> {
        while let Some((writes, tags)) = self.next_batch(&mut queue).await {
            let result = self.write(&mut queue, &writes).await;
            // Before anybody hears of the write: its figures include it.
            self.metrics.publish(&self.writer);
            if !tags.is_empty() {
                (self.hooks.on_event)(WalEvent::Completed(Completion { tags, result }));
            }
            self.look_after_spare();
        }
        self.writer.close().map(|_| ())
    }

    /// Waits for a request and takes those that wait with it. None when there will be no more.
    async fn next_batch(&mut self, queue: &mut Inbox<WalRequest<T>>) -> Option<(Vec<GroupWrite>, Vec<T>)> {
        let first = match self.carried.take() {
            Some(request) => request,
            None => queue.recv().await?,
        };
        let mut writes = Vec::new();
        let mut tags = Vec::new();
        let mut staging = Staging::default();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            bytes += bytes_of(&request.writes);
            if bytes > BATCH_BYTES_MAX && !tags.is_empty() {
                self.carried = Some(request);
                break;
            }
            let before = writes.len();
            writes.extend(request.writes);
            match self.writer.admit(&mut staging, &writes[before..]) {
                Ok(()) => tags.push(request.tag),
                // A request that cannot be carried out takes no other one down with it.
                Err(error) => {
                    writes.truncate(before);
                    staging = Staging::default();
                    self.writer.admit(&mut staging, &writes).expect("these were admitted before");
                    let refused = Completion { tags: vec![request.tag], result: Err(error) };
                    (self.hooks.on_event)(WalEvent::Completed(refused));
                }
            }
            next = queue.try_recv();
        }
        Some((writes, tags))
    }

    /// Writes a batch, waiting for room where the disk is full.
    async fn write(
        &mut self,
        queue: &mut Inbox<WalRequest<T>>,
        writes: &[GroupWrite],
    ) -> Result<WriteReceipt, WriteError> {
        let mut full = false;
        loop {
            let began = now();
            let result = self.writer.write(writes);
            (self.hooks.on_sync)(began.elapsed());
            let is_full = result == Err(WriteError::Full);
            if is_full != full {
                full = is_full;
                (self.hooks.on_event)(WalEvent::Full(full));
            }
            if !is_full || !self.wait_for_room(queue).await {
                return result;
            }
        }
    }

    /// Waits before a full disk is tried again. Returns whether that makes sense: nobody may be left
    /// to hear of it.
    async fn wait_for_room(&mut self, queue: &mut Inbox<WalRequest<T>>) -> bool {
        let interval = self.hooks.full_poll_interval;
        if self.carried.is_some() {
            thread::sleep(interval).await;
            return true;
        }
        match queue.recv_timeout(interval).await {
            Ok(request) => {
                self.carried = Some(request);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    fn look_after_spare(&mut self) {
        if self.ordered {
            let Some(ready) = self.spares.try_recv() else { return };
            self.ordered = false;
            if let Some(spare) = ready {
                self.writer.offer_spare(spare);
            }
        }
        if let Some(order) = self.writer.order_spare() {
            self.send_order(order);
        }
    }

    fn send_order(&mut self, order: SpareOrder) {
        self.ordered = self.orders.send(order).is_ok();
    }
}

#[expect(clippy::disallowed_methods, reason = "measures how long a flush takes, decides nothing")]
fn now() -> Instant {
    Instant::now()
}

fn bytes_of(writes: &[GroupWrite]) -> usize {
    let entries = writes.iter().flat_map(|write| &write.entries);
    entries.map(|entry| entry.payload.len() + RECORD_OVERHEAD_BYTES).sum::<usize>()
        + writes.len() * RECORD_OVERHEAD_BYTES
}
