//! Client writes on their way to another node, and the answers on their way back.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kotoba_db_cluster_proto::v1;
use thiserror::Error;
use tokio::sync::mpsc;

use super::queue::{ConnectionId, PeerQueue};
use crate::raft::PeerId;

pub(crate) use crate::limits::FORWARDS_WAITING_MAX;
/// An answer that has not come by then is not waited for any longer: whoever asked gave up long
/// before.
const FORWARD_LIFETIME: Duration = Duration::from_secs(60);

/// Why a forwarded write has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum ForwardError {
    /// It was not sent: nothing changed, and sending it again is safe.
    #[error("the peer is not connected")]
    Unavailable,
    /// It was not sent, because too many are under way: nothing changed.
    #[error("too many writes are on their way to the peer")]
    Busy,
    /// It was sent, and the connection broke before the answer: it may have happened. The same
    /// session id may be sent again.
    #[error("the connection broke before the answer")]
    Unknown,
}

/// What became of a forwarded write.
pub(crate) type ForwardResult = Result<v1::ClientResponse, ForwardError>;

/// Where the answer to a forward goes: many forwards share one channel.
#[derive(Debug)]
pub(crate) struct ForwardResponder {
    /// The asker's own number for the forward.
    pub(crate) id: u64,
    /// Receives `(id, answer)`.
    pub(crate) to: mpsc::UnboundedSender<(u64, ForwardResult)>,
}

impl ForwardResponder {
    /// Sends the answer. An asker that is gone does not want it.
    pub(crate) fn answer(self, result: ForwardResult) {
        let _ = self.to.send((self.id, result));
    }
}

/// Proposes what other nodes forward to this one.
pub(crate) trait ForwardHandler: Send + Sync {
    /// Takes the forwards of one frame. Must return without waiting; each forward is to be
    /// answered, in any order.
    fn handle(&self, from: PeerId, forwards: Vec<v1::Forward>, reply: ForwardReplier);
}

/// Answers forwards of one connection. Once that connection is gone, so is whoever asked, and
/// answers go nowhere.
#[derive(Clone, Debug)]
pub(crate) struct ForwardReplier {
    pub(super) queue: Arc<PeerQueue>,
    pub(super) connection: ConnectionId,
}

impl ForwardReplier {
    /// Answers one forward.
    pub(crate) fn reply(&self, id: u64, response: v1::ClientResponse) {
        self.queue.push_reply(self.connection, v1::ForwardReply { id, response: Some(response) });
    }
}

/// Forwards that wait for their answers.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    next: u64,
    waiting: BTreeMap<u64, (Instant, ForwardResponder)>,
}

impl Waiting {
    /// Takes a number for a forward, or gives the responder back where too many wait.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        responder: ForwardResponder,
    ) -> Result<u64, ForwardResponder> {
        self.expire(now);
        if self.waiting.len() >= FORWARDS_WAITING_MAX {
            return Err(responder);
        }
        // Never given out twice in the life of a process, and answers of an earlier life come on
        // no connection of this one.
        self.next += 1;
        self.waiting.insert(self.next, (now, responder));
        Ok(self.next)
    }

    /// The responder of an answered forward; `None` where nobody waits for it.
    pub(super) fn leave(&mut self, id: u64) -> Option<ForwardResponder> {
        self.waiting.remove(&id).map(|(_, responder)| responder)
    }

    /// Everybody who waits.
    pub(super) fn drain(&mut self) -> Vec<ForwardResponder> {
        std::mem::take(&mut self.waiting).into_values().map(|(_, responder)| responder).collect()
    }

    fn expire(&mut self, now: Instant) {
        while let Some(entry) = self.waiting.first_entry() {
            if now.duration_since(entry.get().0) < FORWARD_LIFETIME {
                break;
            }
            entry.remove().1.answer(Err(ForwardError::Unknown));
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "deadlines of forwards are by the real clock")]
mod tests {
    use super::*;

    fn shared(id: u64, to: &mpsc::UnboundedSender<(u64, ForwardResult)>) -> ForwardResponder {
        ForwardResponder { id, to: to.clone() }
    }

    #[test]
    fn numbers_are_never_reused() {
        let (to, _answers) = mpsc::unbounded_channel();
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let first = waiting.enter(now, shared(1, &to)).expect("there is room");
        assert!(waiting.leave(first).is_some());
        assert!(waiting.leave(first).is_none());
        let second = waiting.enter(now, shared(2, &to)).expect("there is room");
        assert!(second > first);
    }

    #[test]
    fn too_many_are_refused_and_old_ones_given_up() {
        let (to, mut answers) = mpsc::unbounded_channel();
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for id in 0..FORWARDS_WAITING_MAX as u64 {
            waiting.enter(now, shared(id, &to)).expect("there is room");
        }
        assert!(waiting.enter(now, shared(7, &to)).is_err());
        waiting.enter(now + FORWARD_LIFETIME, shared(8, &to)).expect("all others are given up");
        assert_eq!(answers.try_recv().map(|(id, result)| (id, result.is_err())), Ok((0, true)));
        assert_eq!(waiting.drain().len(), 1);
    }
}
