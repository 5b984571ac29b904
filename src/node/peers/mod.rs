//! Talking to the other nodes.
//!
//! Two nodes share one long-lived bidirectional stream for everything but bulk: the one with the
//! smaller number dials, both send. Each side's first frame introduces it; a node that is not who
//! the meta group knows under its number is refused, with the reason, before anything it says is
//! looked at. Snapshots travel on connections of their own ([`bulk`]), so that they never delay a
//! heartbeat.
//!
//! ```text
//! driver, coordinator ── send, forward ──▶ PeerQueue ── FrameStream ──▶ transport
//! driver ◀── Command::Frame, Command::PeerClosed ── receive ◀── transport
//! coordinator ◀── ForwardHandler ──┘
//! ```
//!
//! Sending never waits: what finds no room or no connection is dropped and counted, which Raft
//! tolerates, or answered as not sent. Receiving waits for the driver, so that a slow node slows
//! only the streams into it.

mod bulk;
mod forward;
mod hello;
mod inbound;
mod outbound;
mod queue;
mod refusals;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};

pub(crate) use forward::{ForwardError, ForwardHandler, ForwardReplier, ForwardResponder, ForwardResult};
pub(crate) use hello::{
    ERROR_CODE_METADATA, HelloError, HelloRefusal, LocalHello, PROTOCOL_VERSION, PeerCluster, PeerHello,
    PeerRecord,
};
pub(crate) use inbound::PeerServer;

use self::{
    bulk::BulkSender,
    hello::Known,
    queue::{PeerQueue, Pushed},
    refusals::Refusals,
};
pub(crate) use super::wire::InboundFrame;
use super::{handle::Command, tls::Tls};
use crate::{
    api::config::NetworkTuning,
    error::{ClusterError, ErrorCode},
    placement::{ADDRESS_BYTES_MAX, ClusterId, Incarnation, MemberStatus, MetaState},
    raft::PeerId,
};

/// What a node needs to talk to others.
pub(crate) struct PeersConfig {
    /// This node's number.
    pub(crate) own: PeerId,
    /// The cluster.
    pub(crate) cluster_id: ClusterId,
    /// How this node introduces itself.
    pub(crate) hello: LocalHello,
    /// Certificates, where connections are encrypted.
    pub(crate) tls: Option<Tls>,
    /// Time-outs.
    pub(crate) network: NetworkTuning,
    /// Where frames go.
    pub(crate) commands: mpsc::Sender<Command>,
    /// Other addresses at which members may be: where they do not answer at the one they are known
    /// by, they may have moved, all at the same time.
    pub(crate) listed: Vec<String>,
}

/// The streams to the other nodes. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Inner>);

struct Inner {
    config: PeersConfig,
    members: RwLock<Members>,
    handler: OnceLock<Arc<dyn ForwardHandler>>,
    counters: Counters,
    refusals: Mutex<Refusals>,
    /// What ends this node: another one says that it does not count any more.
    ousted: watch::Sender<Option<ClusterError>>,
    /// Where connections live: who sends need not be there.
    runtime: Handle,
}

#[derive(Default)]
struct Members {
    closed: bool,
    by_peer: BTreeMap<PeerId, Arc<Member>>,
    replaced: BTreeMap<PeerId, Incarnation>,
}

impl Members {
    fn known(&self, peer: PeerId) -> Known<'_> {
        match (self.by_peer.get(&peer), self.replaced.get(&peer)) {
            (Some(member), _) => Known::Member(&member.record),
            (None, Some(&incarnation)) => Known::Replaced(incarnation),
            (None, None) => Known::Nothing,
        }
    }
}

/// One other node.
struct Member {
    record: PeerRecord,
    queue: Arc<PeerQueue>,
    bulk: BulkSender,
    /// Dials it, where that is this node's part.
    dialer: OnceLock<JoinHandle<()>>,
    /// Where it said it is, if that is not where it is known to be.
    heard_at: Mutex<Option<String>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(dialer) = self.dialer.get() {
            dialer.abort();
        }
        self.queue.close_current();
    }
}

/// What the streams counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct PeerCounters {
    /// Messages that found no connection or no room. Raft repeats what still matters.
    pub(crate) messages_dropped: u64,
    /// Messages that arrived and were not well formed.
    pub(crate) messages_malformed: u64,
    /// Frames that arrived.
    pub(crate) frames_received: u64,
    /// Connections that came about.
    pub(crate) connections: u64,
    /// Introductions that were refused, by either side.
    pub(crate) refusals: u64,
}

#[derive(Default)]
struct Counters {
    messages_dropped: AtomicU64,
    messages_malformed: AtomicU64,
    frames_received: AtomicU64,
    connections: AtomicU64,
    refusals: AtomicU64,
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("own", &self.0.config.own).finish_non_exhaustive()
    }
}

impl Peers {
    /// Knows nobody yet: see [`Peers::set_members`]. To be called from within a runtime, in which
    /// all connections are kept from then on.
    pub(crate) fn new(config: PeersConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            members: RwLock::default(),
            handler: OnceLock::new(),
            counters: Counters::default(),
            refusals: Mutex::default(),
            ousted: watch::Sender::new(None),
            runtime: Handle::current(),
        }))
    }

    /// Who takes what others forward. Until it is set, forwards are answered as unavailable; a
    /// second handler is ignored.
    pub(crate) fn set_forward_handler(&self, handler: Arc<dyn ForwardHandler>) {
        let _ = self.0.handler.set(handler);
    }

    /// The other members, from the meta group's state; to be called whenever that changes. Streams
    /// to members that are as before go on, others end.
    pub(crate) fn set_members_of(&self, state: &MetaState) {
        let record = |(peer, member): (PeerId, &crate::placement::Member)| PeerRecord {
            peer,
            node_id: member.node.clone(),
            address: member.address.clone(),
            incarnation: member.incarnation,
        };
        let replaced = state.members.iter().filter(|(_, member)| member.status == MemberStatus::Replaced);
        let replaced = replaced.map(|(&peer, member)| (peer, member.incarnation)).collect();
        self.set_members(state.active().map(record), replaced);
    }

    /// The other members; this node itself is left out. And the data directories that were replaced.
    fn set_members(
        &self,
        records: impl IntoIterator<Item = PeerRecord>,
        replaced: BTreeMap<PeerId, Incarnation>,
    ) {
        let mut members = self.0.members.write().expect("no holder of this lock panics");
        if members.closed {
            return;
        }
        members.replaced = replaced;
        let mut before = std::mem::take(&mut members.by_peer);
        for record in records.into_iter().filter(|record| record.peer != self.0.config.own) {
            let member = match before.remove(&record.peer) {
                Some(member) if member.record == record => member,
                Some(_) | None => self.member(record),
            };
            members.by_peer.insert(member.record.peer, member);
        }
        drop(members);
        // Those that are left end here, outside the lock, because their forwards are answered.
        for gone in before.into_values() {
            gone.queue.close_current();
        }
    }

    /// Queues a message without payload, or an append. Dropped and counted where there is no
    /// connection or no room.
    pub(crate) fn send(&self, peer: PeerId, message: v1::RaftMessage) {
        let pushed = self.member_of(peer).map_or(Pushed::NotConnected, |member| member.queue.push(message));
        self.note(pushed, 1);
    }

    /// Queues heartbeats and answers to heartbeats.
    pub(crate) fn send_beats(&self, peer: PeerId, beats: Vec<v1::Beat>, replies: Vec<v1::BeatReply>) {
        let messages = (beats.len() + replies.len()) as u64;
        let pushed = self
            .member_of(peer)
            .map_or(Pushed::NotConnected, |member| member.queue.push_beats(beats, replies));
        self.note(pushed, messages);
    }

    /// Queues members of groups, for the node that leads the meta group.
    pub(crate) fn send_members(&self, peer: PeerId, reports: Vec<v1::GroupMembers>) {
        let messages = reports.len() as u64;
        let pushed =
            self.member_of(peer).map_or(Pushed::NotConnected, |member| member.queue.push_members(reports));
        self.note(pushed, messages);
    }

    /// Queues a part of a snapshot, on a connection of its own that is made when needed. Dropped
    /// and counted where there is no room; what waits when that connection breaks is lost.
    pub(crate) fn send_bulk(&self, peer: PeerId, message: v1::RaftMessage) {
        let pushed =
            self.member_of(peer).map_or(Pushed::NotConnected, |member| member.bulk.send(self, peer, message));
        self.note(pushed, 1);
    }

    /// Sends a client's write to the node that leads its partition; answered through `responder`, in
    /// every case. Waits for nothing.
    pub(crate) fn forward_with(
        &self,
        peer: PeerId,
        partition: u32,
        command: Bytes,
        responder: ForwardResponder,
    ) {
        match self.member_of(peer) {
            Some(member) => member.queue.push_forward(partition, command, responder),
            None => responder.answer(Err(ForwardError::Unavailable)),
        }
    }

    /// The peers there is a stream to, in ascending order.
    pub(crate) fn connected(&self) -> Vec<PeerId> {
        let members = self.0.members.read().expect("no holder of this lock panics");
        let connected = members.by_peer.iter().filter(|(_, member)| member.queue.is_connected());
        connected.map(|(&peer, _)| peer).collect()
    }

    /// What was counted so far.
    pub(crate) fn counters(&self) -> PeerCounters {
        let Counters { messages_dropped, messages_malformed, frames_received, connections, refusals } =
            &self.0.counters;
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounters {
            messages_dropped: load(messages_dropped),
            messages_malformed: load(messages_malformed),
            frames_received: load(frames_received),
            connections: load(connections),
            refusals: load(refusals),
        }
    }

    /// Ends all streams for good. Has to come before a graceful stop of the server, which waits
    /// for calls under way, and a stream is one.
    pub(crate) fn close(&self) {
        let mut members = self.0.members.write().expect("no holder of this lock panics");
        members.closed = true;
        let gone = std::mem::take(&mut members.by_peer);
        drop(members);
        for member in gone.into_values() {
            if let Some(dialer) = member.dialer.get() {
                dialer.abort();
            }
            member.bulk.close();
            member.queue.close_current();
        }
    }

    fn member(&self, record: PeerRecord) -> Arc<Member> {
        let dials = self.0.config.own < record.peer;
        let member = Arc::new(Member {
            record,
            queue: Arc::default(),
            bulk: BulkSender::default(),
            dialer: OnceLock::new(),
            heard_at: Mutex::default(),
        });
        let (record, queue) = (member.record.clone(), Arc::clone(&member.queue));
        let dialer = if dials {
            self.0.runtime.spawn(outbound::keep_connected(self.clone(), record, queue))
        } else {
            self.0.runtime.spawn(outbound::watch_address(self.clone(), record, queue))
        };
        let _ = member.dialer.set(dialer);
        member
    }

    fn member_of(&self, peer: PeerId) -> Option<Arc<Member>> {
        self.0.members.read().expect("no holder of this lock panics").by_peer.get(&peer).map(Arc::clone)
    }

    /// The member that an introduction is of.
    fn recognise(&self, hello: &v1::Hello) -> Result<Arc<Member>, HelloRefusal> {
        let members = self.0.members.read().expect("no holder of this lock panics");
        match hello::recognise(hello, self.0.config.cluster_id, |peer| members.known(peer)) {
            Ok(record) => Ok(Arc::clone(&members.by_peer[&record.peer])),
            Err(refusal) => {
                count(&self.0.counters.refusals, 1);
                Err(refusal)
            }
        }
    }

    /// The member that dialled this node. Who is refused is told so, and so is the operator.
    fn admit(&self, hello: &v1::Hello) -> Result<Arc<Member>, HelloRefusal> {
        self.recognise(hello).inspect_err(|refusal| {
            let mut refusals = self.0.refusals.lock().expect("no holder of this lock panics");
            if refusals.is_news(refusal, Instant::now()) {
                let error = ClusterError::from(refusal.clone());
                tracing::warn!("a node that dialled is refused: {}", error.report());
            } else {
                tracing::debug!("a node that dialled is refused: {refusal}");
            }
        })
    }

    /// Listens to a node that introduces itself without a stream: a member may say that it moved.
    ///
    /// # Errors
    /// Where it is a data directory that was replaced, which has to learn of it. Anybody else may ask.
    fn listen_to(&self, hello: &v1::Hello) -> Result<(), HelloRefusal> {
        let members = self.0.members.read().expect("no holder of this lock panics");
        match hello::recognise(hello, self.0.config.cluster_id, |peer| members.known(peer)) {
            Ok(record) if record.address != hello.address && hello.address.len() <= ADDRESS_BYTES_MAX => {
                let heard_at = &members.by_peer[&record.peer].heard_at;
                *heard_at.lock().expect("no holder of this lock panics") = Some(hello.address.clone());
                Ok(())
            }
            Err(refusal) if refusal.code == ErrorCode::Superseded => Err(refusal),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Where else a member may be: where it said it is, and the addresses this node was told of that
    /// are no member's.
    fn other_addresses(&self, peer: PeerId) -> Vec<String> {
        let members = self.0.members.read().expect("no holder of this lock panics");
        let heard_at = members
            .by_peer
            .get(&peer)
            .and_then(|member| member.heard_at.lock().expect("no holder of this lock panics").clone());
        let taken = |address: &str| members.by_peer.values().any(|member| member.record.address == address);
        let listed = self.0.config.listed.iter().filter(|address| !taken(address)).cloned();
        heard_at.into_iter().chain(listed).collect()
    }

    /// Why this node does not count any more, once another one says so: its data directory was
    /// replaced. A node that is stopped first never learns it.
    pub(crate) async fn ousted(&self) -> ClusterError {
        let mut ousted = self.0.ousted.subscribe();
        match ousted.wait_for(Option::is_some).await.map(|told| told.clone()) {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn oust(&self, by: &PeerRecord) {
        let what = format!(
            "this data directory was replaced by a newer one of the same node, says {} at {}",
            by.node_id, by.address
        );
        self.0.ousted.send_replace(Some(ClusterError::new(ErrorCode::Superseded, what)));
    }

    /// Who answers at an address, whichever node that is; `None` where nobody does that is
    /// understood.
    pub(crate) async fn who_answers(&self, address: &str) -> Option<PeerHello> {
        let patience = self.0.config.network.connect_timeout * 2;
        let hello = timeout(patience, outbound::introduce(self, address)).await.ok()?.ok()?;
        PeerHello::parse(hello).ok()
    }

    /// Whether there is a stream to a peer.
    pub(crate) fn is_connected(&self, peer: PeerId) -> bool {
        self.member_of(peer).is_some_and(|member| member.queue.is_connected())
    }

    fn note(&self, pushed: Pushed, messages: u64) {
        match pushed {
            Pushed::Queued => {}
            Pushed::NotConnected | Pushed::Full => count(&self.0.counters.messages_dropped, messages),
        }
    }
}

#[cfg(test)]
mod tests;
