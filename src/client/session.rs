//! The request ids of one client: they count up, and the cluster is told which were answered.

use std::collections::BTreeSet;

use crate::{
    error::{ClusterError, ErrorCode},
    limits::SESSION_OUTCOMES_MAX,
    runtime::random,
};

/// A random session name of 128 bits.
pub(super) fn random_client_id() -> Result<String, ClusterError> {
    let mut bytes = [0_u8; 16];
    random::fill(&mut bytes).map_err(|error| {
        ClusterError::new(ErrorCode::Internal, format!("the system gives no random numbers: {error}"))
    })?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}

/// Which ids were given out and which of them are unanswered.
#[derive(Debug)]
pub(super) struct RequestIds {
    next: u64,
    unanswered: BTreeSet<u64>,
    /// Those of `unanswered` that were given up: their outcomes are unknown and may be asked for again.
    unknown: BTreeSet<u64>,
    /// Nothing from here on is called answered: ids were skipped, and this session does not know why.
    skipped: Option<u64>,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { next: 1, unanswered: BTreeSet::new(), unknown: BTreeSet::new(), skipped: None }
    }
}

impl RequestIds {
    /// A new id.
    pub(super) fn begin(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        self.unanswered.insert(id);
        id
    }

    /// The caller's own id, used before or not.
    pub(super) fn begin_as(&mut self, id: u64) {
        if id > self.next {
            self.skipped.get_or_insert(self.next);
        }
        self.next = self.next.max(id.saturating_add(1));
        self.unknown.remove(&id);
        self.unanswered.insert(id);
    }

    /// The id was answered, or will not be sent again.
    pub(super) fn end(&mut self, id: u64) {
        self.unanswered.remove(&id);
        self.unknown.remove(&id);
    }

    /// The id was given up unanswered, and may be sent again. As many are kept as a partition keeps
    /// outcomes; the oldest beyond that is forgotten there, too.
    pub(super) fn give_up(&mut self, id: u64) {
        self.unknown.insert(id);
        if self.unknown.len() > SESSION_OUTCOMES_MAX
            && let Some(oldest) = self.unknown.pop_first()
        {
            self.unanswered.remove(&oldest);
        }
    }

    /// Every id below this one is done with, so that partitions may forget their outcomes.
    pub(super) fn acked_below(&self) -> u64 {
        let floor = self.unanswered.first().copied().unwrap_or(self.next);
        self.skipped.map_or(floor, |skipped| floor.min(skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acked_below_is_the_oldest_unanswered_id() {
        let mut ids = RequestIds::default();
        assert_eq!(ids.acked_below(), 1);
        let (a, b, c) = (ids.begin(), ids.begin(), ids.begin());
        assert_eq!((a, b, c), (1, 2, 3));
        ids.end(b);
        assert_eq!(ids.acked_below(), 1);
        ids.end(a);
        assert_eq!(ids.acked_below(), 3);
        ids.end(c);
        assert_eq!(ids.acked_below(), 4);
    }

    #[test]
    fn what_was_given_up_is_not_called_answered_until_it_is() {
        let mut ids = RequestIds::default();
        let (a, b) = (ids.begin(), ids.begin());
        ids.give_up(a);
        ids.end(b);
        assert_eq!(ids.acked_below(), 1);
        ids.begin_as(a);
        ids.end(a);
        assert_eq!(ids.acked_below(), 3);
        for _ in 0..=SESSION_OUTCOMES_MAX {
            let id = ids.begin();
            ids.give_up(id);
        }
        assert_eq!(ids.acked_below(), 4, "the oldest of too many is let go");
    }

    #[test]
    fn ids_that_were_skipped_are_never_called_answered() {
        let mut ids = RequestIds::default();
        ids.begin_as(7);
        assert_eq!(ids.acked_below(), 1);
        ids.end(7);
        assert_eq!((ids.acked_below(), ids.begin()), (1, 8));
        ids.begin_as(u64::MAX);
        assert_eq!(ids.acked_below(), 1);
    }

    #[test]
    fn client_ids_differ() {
        let (a, b) = (random_client_id().unwrap(), random_client_id().unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
