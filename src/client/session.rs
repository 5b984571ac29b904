//! The request ids of one client: they count up, and the cluster is told which were answered.

use std::collections::BTreeSet;

use crate::{
    error::{ClusterError, ErrorCode},
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
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { next: 1, unanswered: BTreeSet::new() }
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

    /// The id was answered, or is given up and will not be sent again.
    pub(super) fn end(&mut self, id: u64) {
        self.unanswered.remove(&id);
    }

    /// Every id below this one is done with, so that partitions may forget their outcomes.
    pub(super) fn acked_below(&self) -> u64 {
        self.unanswered.first().copied().unwrap_or(self.next)
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
    fn client_ids_differ() {
        let (a, b) = (random_client_id().unwrap(), random_client_id().unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
