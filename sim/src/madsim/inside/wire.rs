//! The network between the nodes: connections that are slow, hang, break, and cross no partition.
//!
//! A connection is two pipes of bytes in order, as TCP gives them. A link that is cut lets nothing
//! through in its direction, in either a connection's life or its beginning: what was sent waits
//! and arrives when the link is whole again, an end of file and a reset included. So a partition
//! looks to both sides as it does outside: like silence.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use kotoba_db_cluster::runtime::{Acceptor, Connection};
use madsim::{
    Config,
    plugin::Simulator,
    rand::{GlobalRng, Rng as _},
    task::NodeId,
    time::{Sleep, TimeHandle},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes on their way in one direction of a connection, at most.
const PIPE_BYTES_MAX: usize = 4 << 20;
/// How long a segment travels, in microseconds, unless a link is slow.
const LATENCY_MICROS: std::ops::Range<u64> = 100..2_000;
/// How long a sender waits before it sends a lost segment again, at first and at most.
const RESEND_AFTER: Duration = Duration::from_millis(200);
const RESEND_MAX: Duration = Duration::from_secs(3);

/// Whether a process still runs: what one that crashed inside a disk operation says is not heard.
pub(super) type IsHalted = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// The network.
#[derive(Clone)]
pub(super) struct Wires(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    rng: GlobalRng,
    time: TimeHandle,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<IpAddr, NodeId>,
    addresses: BTreeMap<NodeId, IpAddr>,
    lives: BTreeMap<NodeId, Life>,
    listeners: BTreeMap<SocketAddr, Listening>,
    /// Directions in which nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Directions that take this much longer.
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    /// Directions in which segments get lost: in how many of 1,000 cases.
    lossy: BTreeMap<(NodeId, NodeId), u32>,
    pipes: Vec<Weak<Pipe>>,
    /// Who wants to connect where it cannot be done now.
    hanging: Vec<Waker>,
    segments: u64,
    is_halted: Option<IsHalted>,
}

/// A node's processes, one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    number: u64,
    /// The machine has no power: it does not even refuse.
    dark: bool,
}

#[derive(Default)]
struct Listening {
    life: u64,
    arrived: VecDeque<Endpoint>,
    waker: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: NodeId,
    to: NodeId,
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    segments: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    last_due: Option<Instant>,
    /// The sender is done: nothing comes behind the segments.
    ended: Option<Instant>,
    /// From then on both sides are told that the connection is gone.
    broken: Option<Instant>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake(&mut self) {
        for waker in self.reader.take().into_iter().chain(self.writer.take()) {
            waker.wake();
        }
    }
}

impl Pipe {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulator for Wires {
    fn new(rng: &GlobalRng, time: &TimeHandle, _: &Config) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), rng: rng.clone(), time: time.clone() }))
    }
}

impl Wires {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        self.0.time.now_instant()
    }

    /// Who tells whether a machine has crashed.
    pub(super) fn ask_whether_halted(&self, is_halted: IsHalted) {
        self.state().is_halted = Some(is_halted);
    }

    /// A node has this address.
    pub(super) fn attach(&self, node: NodeId, ip: IpAddr) {
        let mut state = self.state();
        state.nodes.insert(ip, node);
        state.addresses.insert(node, ip);
    }

    /// Lets nothing through from one node to another.
    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.state().cut.insert((from, to));
    }

    /// Lets everything through again.
    pub(super) fn mend(&self, from: NodeId, to: NodeId) {
        self.state().cut.remove(&(from, to));
        self.stir();
    }

    /// Whether nothing gets through.
    pub(super) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state().cut.contains(&(from, to))
    }

    /// Makes a direction slower by this much.
    pub(super) fn slow(&self, from: NodeId, to: NodeId, by: Duration) {
        self.state().slow.insert((from, to), by);
    }

    /// Lets a direction lose this many of 1,000 segments.
    pub(super) fn lose(&self, from: NodeId, to: NodeId, permille: u32) {
        self.state().lossy.insert((from, to), permille);
    }

    /// All links are whole and fast.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.cut.clear();
        state.slow.clear();
        state.lossy.clear();
        drop(state);
        self.stir();
    }

    /// Breaks all connections between two nodes. Returns how many there were.
    pub(super) fn break_between(&self, one: NodeId, other: NodeId) -> usize {
        let at = self.now();
        let pipes = self.pipes(|pipe| [(one, other), (other, one)].contains(&(pipe.from, pipe.to)));
        for pipe in &pipes {
            break_at(pipe, at);
        }
        pipes.len() / 2
    }

    /// A process has ended. Where its machine lives on, that tells the others at once.
    pub(super) fn end(&self, node: NodeId, dark: bool) {
        let mut state = self.state();
        let life = state.lives.entry(node).or_default();
        life.number += 1;
        life.dark = dark;
        let ip = state.addresses.get(&node).copied();
        let gone: Vec<_> = state.listeners.extract_if(.., |address, _| Some(address.ip()) == ip).collect();
        drop(state);
        // Connections that were not accepted end outside the lock.
        drop(gone);
        if !dark {
            self.reset(node);
        }
    }

    /// The machine has power again: connections of the process before are refused.
    pub(super) fn begin(&self, node: NodeId) {
        self.state().lives.entry(node).or_default().dark = false;
        self.reset(node);
        self.stir();
    }

    fn reset(&self, node: NodeId) {
        let at = self.now() + Duration::from_millis(1);
        for pipe in self.pipes(|pipe| pipe.from == node || pipe.to == node) {
            break_at(&pipe, at);
        }
    }

    /// Segments that were sent.
    pub(super) fn segments(&self) -> u64 {
        self.state().segments
    }

    fn pipes(&self, wanted: impl Fn(&Pipe) -> bool) -> Vec<Arc<Pipe>> {
        let mut state = self.state();
        state.pipes.retain(|pipe| pipe.strong_count() > 0);
        state.pipes.iter().filter_map(Weak::upgrade).filter(|pipe| wanted(pipe)).collect()
    }

    /// Lets everybody who waits look again.
    fn stir(&self) {
        for pipe in self.pipes(|_| true) {
            pipe.flow().wake();
        }
        let hanging = std::mem::take(&mut self.state().hanging);
        hanging.into_iter().for_each(Waker::wake);
    }

    fn life(&self, node: NodeId) -> u64 {
        self.state().lives.entry(node).or_default().number
    }

    fn is_mute(&self, node: NodeId, life: u64) -> bool {
        let state = self.state();
        let over = state.lives.get(&node).is_some_and(|present| present.number != life);
        let is_halted = state.is_halted.clone();
        drop(state);
        over || is_halted.is_some_and(|is_halted| is_halted(node))
    }

    fn latency(&self, from: NodeId, to: NodeId) -> Duration {
        let mut rng = self.0.rng.clone();
        let state = self.state();
        let slow = state.slow.get(&(from, to)).copied().unwrap_or_default();
        let loss = state.lossy.get(&(from, to)).copied().unwrap_or_default();
        drop(state);
        // What is lost is sent again, each time after twice as long.
        let mut again = Duration::ZERO;
        let mut patience = RESEND_AFTER;
        while loss > 0 && rng.gen_range(0..1_000) < loss && patience < RESEND_MAX {
            again += patience;
            patience *= 2;
        }
        Duration::from_micros(rng.gen_range(LATENCY_MICROS)) + slow + again
    }

    /// Begins to listen.
    ///
    /// # Errors
    /// Where the address is another node's, or taken.
    pub(super) fn listen(&self, node: NodeId, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        let mut state = self.state();
        let own = state.addresses.get(&node).copied();
        if !address.ip().is_unspecified() && Some(address.ip()) != own {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let ip = own.ok_or(io::ErrorKind::AddrNotAvailable)?;
        let free = |port: &u16| !state.listeners.contains_key(&SocketAddr::new(ip, *port));
        let port = Some(address.port()).filter(|port| *port != 0);
        let port = port.or_else(|| (49_152..u16::MAX).find(free)).ok_or(io::ErrorKind::AddrInUse)?;
        let address = SocketAddr::new(ip, port);
        if state.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let life = state.lives.entry(node).or_default().number;
        state.listeners.insert(address, Listening { life, ..Listening::default() });
        drop(state);
        Ok(Box::new(Listener { wires: self.clone(), address, life }))
    }

    /// Connects. Hangs where nothing gets through, or nobody is there to refuse.
    pub(super) async fn connect(self, from: NodeId, to: SocketAddr) -> io::Result<Box<dyn Connection>> {
        let Some(other) = self.state().nodes.get(&to.ip()).copied() else {
            return Err(io::ErrorKind::HostUnreachable.into());
        };
        let life = self.life(from);
        loop {
            poll_fn(|context| self.poll_way(from, other, context)).await;
            let time = self.latency(from, other) + self.latency(other, from);
            self.0.time.sleep(time).await;
            if self.is_mute(from, life) {
                std::future::pending::<()>().await;
            }
            let mut state = self.state();
            if !state.is_open(from, other) {
                continue;
            }
            let answering = state.lives.entry(other).or_default().number;
            let Some(listening) = state.listeners.get_mut(&to) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let pipe = |from, to| Arc::new(Pipe { from, to, flow: Mutex::default() });
            let (there, back) = (pipe(from, other), pipe(other, from));
            let end = |owner, life, read: &Arc<Pipe>, write: &Arc<Pipe>| Endpoint {
                wires: self.clone(),
                owner,
                life,
                read: Arc::clone(read),
                write: Arc::clone(write),
                timer: None,
            };
            listening.arrived.push_back(end(other, answering, &there, &back));
            if let Some(waker) = listening.waker.take() {
                waker.wake();
            }
            state.pipes.extend([Arc::downgrade(&there), Arc::downgrade(&back)]);
            return Ok(Box::new(end(from, life, &back, &there)));
        }
    }

    fn poll_way(&self, from: NodeId, to: NodeId, context: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if state.is_open(from, to) {
            return Poll::Ready(());
        }
        state.hanging.push(context.waker().clone());
        Poll::Pending
    }
}

impl State {
    fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        let dark = self.lives.get(&to).is_some_and(|life| life.dark);
        !dark && !self.cut.contains(&(from, to)) && !self.cut.contains(&(to, from))
    }
}

fn break_at(pipe: &Pipe, at: Instant) {
    let mut flow = pipe.flow();
    flow.broken.get_or_insert(at);
    flow.wake();
}

struct Listener {
    wires: Wires,
    address: SocketAddr,
    life: u64,
}

impl Acceptor for Listener {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>> {
        let mut state = self.wires.state();
        let listening = state.listeners.get_mut(&self.address).filter(|found| found.life == self.life);
        let Some(listening) = listening else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        if let Some(arrived) = listening.arrived.pop_front() {
            return Poll::Ready(Ok(Box::new(arrived)));
        }
        listening.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut state = self.wires.state();
        let own = state.listeners.get(&self.address).is_some_and(|found| found.life == self.life);
        // Those who were not accepted are dropped outside the lock: that ends their connections.
        let gone = if own { state.listeners.remove(&self.address) } else { None };
        drop(state);
        drop(gone);
    }
}

/// One side of a connection.
struct Endpoint {
    wires: Wires,
    owner: NodeId,
    life: u64,
    read: Arc<Pipe>,
    write: Arc<Pipe>,
    /// When the reader looks again, and whom that wakes.
    timer: Option<(Instant, Waker, Pin<Box<Sleep>>)>,
}

impl Endpoint {
    /// Pending until then.
    fn wait_until(&mut self, until: Instant, context: &mut Context<'_>) {
        if let Some((at, waker, timer)) = &self.timer
            && *at <= until
            && waker.will_wake(context.waker())
            && !timer.is_elapsed()
        {
            return;
        }
        let mut timer = Box::pin(self.wires.0.time.sleep_until(until));
        if timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        self.timer = Some((until, context.waker().clone(), timer));
    }
}

impl AsyncRead for Endpoint {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.wires.now();
        let cut = self.wires.is_cut(self.read.from, self.read.to);
        let pipe = Arc::clone(&self.read);
        let mut flow = pipe.flow();
        flow.reader = Some(context.waker().clone());
        if cut {
            return Poll::Pending;
        }
        let mut read = false;
        while into.remaining() > 0
            && let Some((due, segment)) = flow.segments.front_mut()
            && *due <= now
        {
            let piece = segment.len().min(into.remaining());
            into.put_slice(&segment[..piece]);
            segment.advance(piece);
            read = true;
            if segment.is_empty() {
                flow.segments.pop_front();
            }
            flow.bytes -= piece;
            if let Some(waker) = flow.writer.take() {
                waker.wake();
            }
        }
        if read {
            return Poll::Ready(Ok(()));
        }
        if let Some((due, _)) = flow.segments.front() {
            let due = *due;
            drop(flow);
            self.wait_until(due, context);
            return Poll::Pending;
        }
        match (flow.broken, flow.ended) {
            (Some(at), _) if at <= now => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            (_, Some(at)) if at <= now => Poll::Ready(Ok(())),
            (broken, ended) => {
                drop(flow);
                if let Some(at) = broken.into_iter().chain(ended).min() {
                    self.wait_until(at, context);
                }
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for Endpoint {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.wires.is_mute(self.owner, self.life) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let now = self.wires.now();
        let latency = self.wires.latency(self.write.from, self.write.to);
        // The news that the other side is gone comes from there.
        let deaf = self.wires.is_cut(self.write.to, self.write.from);
        let mut flow = self.write.flow();
        if !deaf && flow.broken.is_some_and(|at| at <= now) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if flow.bytes >= PIPE_BYTES_MAX {
            flow.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let due = (now + latency).max(flow.last_due.unwrap_or(now));
        flow.last_due = Some(due);
        flow.bytes += bytes.len();
        flow.segments.push_back((due, Bytes::copy_from_slice(bytes)));
        if let Some(waker) = flow.reader.take() {
            waker.wake();
        }
        drop(flow);
        self.wires.state().segments += 1;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Endpoint {
    fn finish(&self) {
        if self.wires.is_mute(self.owner, self.life) {
            return;
        }
        let at = self.wires.now() + self.wires.latency(self.write.from, self.write.to);
        let mut flow = self.write.flow();
        let at = at.max(flow.last_due.unwrap_or(at));
        flow.ended.get_or_insert(at);
        flow.wake();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.wires.is_mute(self.owner, self.life) {
            // The end of its process was told, or will be when its machine is up again.
            return;
        }
        self.finish();
        // Whoever still sends to this side hears that nobody reads.
        let at = self.wires.now() + self.wires.latency(self.read.to, self.read.from);
        break_at(&self.read, at);
    }
}
