//! What waits to be sent to one peer.
//!
//! Everybody who has something for a peer puts it here and goes on; the peer's stream takes all of
//! it at once whenever the transport has room, as one frame. So the busier the node, the larger
//! its frames, with no timer and no batch size to choose.
//!
//! The queue knows which connection it feeds. What waits when a connection ends goes with it:
//! Raft repeats what still matters, and a forward that never left is answered as such.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Instant,
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use tokio_stream::Stream;

use super::forward::{ForwardError, ForwardResponder, Waiting};
use crate::node::wire::MESSAGE_BYTES_MAX;

pub(crate) use crate::limits::{QUEUE_BYTES_MAX, QUEUE_ITEMS_MAX};
/// A frame is closed before it grows beyond this; with one message of its largest size it still
/// fits into a gRPC message.
const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// What an item costs beside its payloads, about.
const ITEM_BYTES: usize = 64;
/// What a payload costs beside its bytes, about.
const PAYLOAD_BYTES: usize = 8;

/// One connection to a peer, of all there ever were in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionId(u64);

/// Whether something was taken or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It will be sent, unless the connection ends first.
    Queued,
    /// There is no connection.
    NotConnected,
    /// Too much waits already.
    Full,
}

/// What waits to be sent to one peer.
#[derive(Default)]
pub(crate) struct PeerQueue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: u64,
    current: Option<Connection>,
    waker: Option<Waker>,
    bytes: usize,
    messages: VecDeque<v1::RaftMessage>,
    beats: Vec<v1::Beat>,
    beat_replies: Vec<v1::BeatReply>,
    group_members: Vec<v1::GroupMembers>,
    forwards: VecDeque<v1::Forward>,
    forward_replies: VecDeque<v1::ForwardReply>,
    waiting: Waiting,
}

#[derive(Clone, Copy)]
struct Connection {
    id: ConnectionId,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Introductions are under way.
    Greeting,
    /// Both sides know each other.
    Established,
}

impl fmt::Debug for PeerQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("PeerQueue").field("bytes", &state.bytes).finish_non_exhaustive()
    }
}

impl PeerQueue {
    /// Begins a connection. An earlier one ends.
    pub(super) fn begin(&self) -> ConnectionId {
        let mut state = self.lock();
        state.connections += 1;
        let id = ConnectionId(state.connections);
        let ended = state.end();
        state.current = Some(Connection { id, stage: Stage::Greeting });
        drop(state);
        ended.answer();
        id
    }

    /// Both sides of the connection know each other: from now on there is something to send it.
    /// Returns whether it is still the current one.
    pub(super) fn establish(&self, connection: ConnectionId) -> bool {
        let mut state = self.lock();
        match &mut state.current {
            Some(current) if current.id == connection => {
                current.stage = Stage::Established;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends a connection and whatever waits for it. Returns whether it was established and still
    /// the current one.
    pub(super) fn close(&self, connection: ConnectionId) -> bool {
        let mut state = self.lock();
        let Some(current) = state.current.filter(|current| current.id == connection) else {
            return false;
        };
        let ended = state.end();
        drop(state);
        ended.answer();
        current.stage == Stage::Established
    }

    /// Ends the current connection, whichever it is.
    pub(super) fn close_current(&self) {
        let ended = self.lock().end();
        ended.answer();
    }

    /// Whether there is an established connection.
    pub(super) fn is_connected(&self) -> bool {
        self.lock().is_established()
    }

    /// Whether this is the current connection.
    pub(super) fn is_current(&self, connection: ConnectionId) -> bool {
        self.lock().is_current(connection)
    }

    /// Adds a message.
    pub(super) fn push(&self, message: v1::RaftMessage) -> Pushed {
        let size = message_bytes(&message);
        self.push_with(size, |state| state.messages.push_back(message))
    }

    /// Adds heartbeats and answers to heartbeats.
    pub(super) fn push_beats(&self, beats: Vec<v1::Beat>, replies: Vec<v1::BeatReply>) -> Pushed {
        let size = (beats.len() + replies.len()) * ITEM_BYTES;
        self.push_with(size, |state| {
            append(&mut state.beats, beats);
            append(&mut state.beat_replies, replies);
        })
    }

    /// Adds members of groups.
    pub(super) fn push_members(&self, reports: Vec<v1::GroupMembers>) -> Pushed {
        let size = reports.iter().map(members_bytes).sum();
        self.push_with(size, |state| append(&mut state.group_members, reports))
    }

    /// Adds a client's write. Its responder is answered in every case.
    #[expect(clippy::disallowed_methods, reason = "an answer is not waited for for ever")]
    pub(super) fn push_forward(&self, partition: u32, command: Bytes, responder: ForwardResponder) {
        let mut state = self.lock();
        let size = ITEM_BYTES + command.len();
        let refusal = match state.room(size) {
            Pushed::Queued => None,
            Pushed::NotConnected => Some(ForwardError::Unavailable),
            Pushed::Full => Some(ForwardError::Busy),
        };
        let entered = match refusal {
            Some(error) => Err((error, responder)),
            None => state.waiting.enter(Instant::now(), responder).map_err(|back| (ForwardError::Busy, back)),
        };
        match entered {
            Ok(id) => {
                state.bytes += size;
                state.forwards.push_back(v1::Forward { id, partition, command });
                state.wake();
            }
            Err((error, responder)) => {
                drop(state);
                responder.answer(Err(error));
            }
        }
    }

    /// Adds the answer to a forward that came on this connection. Never refused for want of room:
    /// there are no more of them than forwards were let in.
    pub(super) fn push_reply(&self, connection: ConnectionId, reply: v1::ForwardReply) {
        let mut state = self.lock();
        if state.is_current(connection) {
            state.bytes += reply_bytes(&reply);
            state.forward_replies.push_back(reply);
            state.wake();
        }
    }

    /// Hands an answer that arrived on this connection to whoever waits for it.
    pub(super) fn complete(&self, connection: ConnectionId, reply: v1::ForwardReply) {
        let mut state = self.lock();
        if !state.is_current(connection) {
            return;
        }
        let responder = state.waiting.leave(reply.id);
        drop(state);
        if let (Some(responder), Some(response)) = (responder, reply.response) {
            responder.answer(Ok(response));
        }
    }

    fn push_with(&self, size: usize, add: impl FnOnce(&mut State)) -> Pushed {
        let mut state = self.lock();
        let room = state.room(size);
        if room == Pushed::Queued {
            state.bytes += size;
            add(&mut state);
            state.wake();
        }
        room
    }

    fn poll_frame(&self, connection: ConnectionId, context: &Context<'_>) -> Poll<Option<v1::PeerFrame>> {
        let mut state = self.lock();
        if !state.is_current(connection) {
            return Poll::Ready(None);
        }
        match state.take_frame() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

/// Those who waited for answers on a connection that ended.
#[must_use]
struct Ended {
    unsent: Vec<ForwardResponder>,
    sent: Vec<ForwardResponder>,
    waker: Option<Waker>,
}

impl Ended {
    /// Tells them, outside the lock, and lets the connection's stream see its end.
    fn answer(self) {
        for responder in self.unsent {
            responder.answer(Err(ForwardError::Unavailable));
        }
        for responder in self.sent {
            responder.answer(Err(ForwardError::Unknown));
        }
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}

impl State {
    fn is_current(&self, connection: ConnectionId) -> bool {
        self.current.is_some_and(|current| current.id == connection)
    }

    fn is_established(&self) -> bool {
        self.current.is_some_and(|current| current.stage == Stage::Established)
    }

    fn items(&self) -> usize {
        let beats = self.beats.len() + self.beat_replies.len();
        self.messages.len() + beats + self.group_members.len() + self.forwards.len()
    }

    fn room(&self, size: usize) -> Pushed {
        if !self.is_established() {
            Pushed::NotConnected
        } else if self.bytes + size > QUEUE_BYTES_MAX || self.items() >= QUEUE_ITEMS_MAX {
            Pushed::Full
        } else {
            Pushed::Queued
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn end(&mut self) -> Ended {
        let queued = mem::take(&mut self.forwards);
        let unsent = queued.iter().filter_map(|forward| self.waiting.leave(forward.id)).collect();
        self.messages.clear();
        self.beats.clear();
        self.beat_replies.clear();
        self.group_members.clear();
        self.forward_replies.clear();
        self.bytes = 0;
        self.current = None;
        Ended { unsent, sent: self.waiting.drain(), waker: self.waker.take() }
    }

    /// All that waits, up to a frame's size; `None` where nothing does. What is small and urgent
    /// goes first.
    fn take_frame(&mut self) -> Option<v1::PeerFrame> {
        if self.items() == 0 && self.forward_replies.is_empty() {
            return None;
        }
        let mut frame = v1::PeerFrame {
            beats: mem::take(&mut self.beats),
            beat_replies: mem::take(&mut self.beat_replies),
            group_members: mem::take(&mut self.group_members),
            ..v1::PeerFrame::default()
        };
        let members: usize = frame.group_members.iter().map(members_bytes).sum();
        let mut room = Room { used: (frame.beats.len() + frame.beat_replies.len()) * ITEM_BYTES + members };
        room.fill(&mut self.forward_replies, &mut frame.forward_replies, reply_bytes);
        room.fill(&mut self.forwards, &mut frame.forwards, |forward| ITEM_BYTES + forward.command.len());
        room.fill(&mut self.messages, &mut frame.messages, message_bytes);
        self.bytes -= room.used;
        Some(frame)
    }
}

/// How much of a frame is used.
struct Room {
    used: usize,
}

impl Room {
    /// Moves items while the frame is below its size.
    fn fill<T>(&mut self, from: &mut VecDeque<T>, to: &mut Vec<T>, size: impl Fn(&T) -> usize) {
        while self.used < FRAME_BYTES_MAX {
            let Some(item) = from.pop_front() else { return };
            self.used += size(&item);
            to.push(item);
        }
    }
}

fn append<T>(to: &mut Vec<T>, mut items: Vec<T>) {
    if to.is_empty() {
        *to = items;
    } else {
        to.append(&mut items);
    }
}

/// What a message takes in memory and on the wire, about.
pub(super) fn message_bytes(message: &v1::RaftMessage) -> usize {
    use v1::raft_message::Body;
    let payloads = match &message.body {
        Some(Body::Append(append)) => {
            append.payloads.iter().map(|payload| payload.len() + PAYLOAD_BYTES).sum()
        }
        Some(Body::SnapshotChunk(chunk)) => chunk.data.len() + chunk.configuration.len(),
        Some(Body::VoteAsk(_) | Body::VoteReply(_) | Body::AppendReply(_) | Body::SnapshotReply(_))
        | None => 0,
    };
    ITEM_BYTES + payloads
}

fn members_bytes(report: &v1::GroupMembers) -> usize {
    ITEM_BYTES + report.replicas.len() * PAYLOAD_BYTES
}

fn reply_bytes(reply: &v1::ForwardReply) -> usize {
    let texts = reply.response.as_ref().map_or(0, |response| {
        response.client_id.len()
            + response.error_message.len()
            + response.result_cid.len()
            + response.version_cid.len()
    });
    ITEM_BYTES + texts
}

/// The outgoing half of a connection: its first frame introduces this node, every other one is all
/// that waits. Ends when the connection does.
#[derive(Debug)]
pub(super) struct FrameStream {
    queue: Arc<PeerQueue>,
    connection: ConnectionId,
    hello: Option<Box<v1::Hello>>,
}

impl FrameStream {
    pub(super) fn new(queue: Arc<PeerQueue>, connection: ConnectionId, hello: v1::Hello) -> Self {
        Self { queue, connection, hello: Some(Box::new(hello)) }
    }
}

impl Stream for FrameStream {
    type Item = v1::PeerFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(v1::PeerFrame { hello: Some(*hello), ..v1::PeerFrame::default() }));
        }
        self.queue.poll_frame(self.connection, context)
    }
}

#[cfg(test)]
mod tests;
