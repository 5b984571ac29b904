//! Payload bytes the core has not decided about yet.
//!
//! Received entries and proposed ones are kept here under a number while the core looks at their
//! metadata; a write plan takes them, anything else forgets them.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    node::wire::WireEntry,
    raft::{Index, PayloadId},
};

/// Payloads under their numbers.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    next: u64,
    kept: BTreeMap<PayloadId, Payload>,
}

/// What is kept.
#[derive(Debug)]
pub(super) enum Payload {
    /// Entries of a received message, from `first` on.
    Entries { first: Index, entries: Vec<WireEntry> },
    /// Entries of a proposal, wherever they will stand.
    Proposal(Vec<Bytes>),
    /// A part of a snapshot.
    Chunk(Bytes),
}

impl Payloads {
    /// Keeps a payload under a new number.
    pub(super) fn keep(&mut self, payload: Payload) -> PayloadId {
        let id = self.reserve();
        self.kept.insert(id, payload);
        id
    }

    /// A number without a payload: names a request.
    pub(super) fn reserve(&mut self) -> PayloadId {
        self.next += 1;
        PayloadId(self.next)
    }

    /// Takes a payload that the core asked for.
    pub(super) fn take(&mut self, id: PayloadId) -> Option<Payload> {
        self.kept.remove(&id)
    }

    /// Forgets a payload that the core did not ask for.
    pub(super) fn forget(&mut self, id: PayloadId) {
        self.kept.remove(&id);
    }
}
