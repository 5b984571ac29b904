//! The session of requests that come without one.
//!
//! A partition remembers the outcomes of a client's newest requests, so ids must not run far ahead
//! of a request that is still under way: its id would count as forgotten. A request therefore waits
//! for its turn while the oldest one under way is too far behind.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, OnceLock},
};

use tokio::sync::Notify;

use super::prepare::Session;
use crate::{
    error::{ClusterError, ErrorCode},
    limits::SESSION_OUTCOMES_MAX,
    runtime::random,
};

/// Ids from the oldest request under way to the newest, at most.
const SPAN_MAX: u64 = SESSION_OUTCOMES_MAX as u64 / 2;

/// A session of this process, under a client id that nobody else has.
#[derive(Debug, Default)]
pub(crate) struct OwnSession {
    client_id: OnceLock<String>,
    ids: Mutex<Ids>,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Ids {
    last: u64,
    under_way: BTreeSet<u64>,
}

/// A request's place in the session, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    owner: &'a OwnSession,
    session: Session,
}

impl OwnSession {
    /// The next request's place in the session; waits while too many are under way.
    ///
    /// # Errors
    /// Where the system gives no random bytes for the client id.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, ClusterError> {
        let client_id = self.client_id()?;
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Listening before looking: an end in between is not missed.
            ended.as_mut().enable();
            if let Some((request_id, acked_below)) = self.ids().take() {
                let session = Session { client_id: client_id.to_owned(), request_id, acked_below };
                return Ok(Turn { owner: self, session });
            }
            ended.await;
        }
    }

    fn client_id(&self) -> Result<&str, ClusterError> {
        if let Some(client_id) = self.client_id.get() {
            return Ok(client_id);
        }
        let mut bytes = [0; 16];
        random::fill(&mut bytes).map_err(|error| {
            ClusterError::new(ErrorCode::Internal, format!("the system gives no random bytes: {error}"))
        })?;
        Ok(self.client_id.get_or_init(|| format!("node-{:032x}", u128::from_be_bytes(bytes))))
    }

    fn ids(&self) -> MutexGuard<'_, Ids> {
        self.ids.lock().expect("no holder of this lock panics")
    }
}

impl Ids {
    /// The next id, and the id below which every request has ended.
    fn take(&mut self) -> Option<(u64, u64)> {
        let next = self.last + 1;
        let oldest = self.under_way.first().copied().unwrap_or(next);
        if next - oldest >= SPAN_MAX {
            return None;
        }
        self.last = next;
        self.under_way.insert(next);
        Some((next, oldest))
    }
}

impl Turn<'_> {
    pub(crate) fn session(&self) -> Session {
        self.session.clone()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.owner.ids().under_way.remove(&self.session.request_id);
        self.owner.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_rise_and_wait_for_the_oldest_request() {
        let session = OwnSession::default();
        let oldest = session.turn().await.expect("there are random bytes");
        assert_eq!((oldest.session().request_id, oldest.session().acked_below), (1, 1));
        for expected in 2..=SPAN_MAX {
            let turn = session.turn().await.expect("there is room");
            assert_eq!((turn.session().request_id, turn.session().acked_below), (expected, 1));
        }
        assert_eq!(session.ids().take(), None);
        let (next, ()) = tokio::join!(session.turn(), async { drop(oldest) });
        let next = next.expect("there is room again");
        assert_eq!((next.session().request_id, next.session().acked_below), (SPAN_MAX + 1, SPAN_MAX + 1));
    }
}
