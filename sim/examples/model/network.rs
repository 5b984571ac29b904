//! What was sent and not yet delivered.
//!
//! Between any two replicas there are two links, one for beats and their answers (which a node sends for all
//! its groups at once) and one for the rest. A link holds the messages sent last, up to a number. Any of them may be
//! delivered at any time, in any order, or never: that is loss. What is sent into a full link drives
//! the oldest message out, and one equal to a message in the link is that message: both are losses
//! too. A duplicate is a delivery that leaves its message in the link.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use kotoba_db_cluster::raft::{Body, Message, ReplicaId, RoleKind, RoleReport};
use xxhash_rust::xxh3::Xxh3;

use super::node::{Node, Wire};

/// A value behind a pointer, with its hash: states share what a step does not touch.
#[derive(Clone, Debug)]
pub(crate) struct Shared<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        let mut hasher = Xxh3::new();
        value.hash(&mut hasher);
        Self { hash: hasher.finish(), value: Arc::new(value) }
    }
}

impl<T> Shared<T> {
    pub(crate) fn get(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.value == other.value
    }
}

impl<T: Eq> Eq for Shared<T> {}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// The messages on their way: link by link, in the order in which they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Network(Vec<Shared<Wire>>);

impl Network {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Shared<Wire>> {
        self.0.iter()
    }

    /// Sends a message over a link that holds `capacity`.
    pub(crate) fn insert(&mut self, wire: Wire, capacity: usize) {
        let wire = Shared::new(wire);
        let link = link_of(&wire);
        let from = self.0.partition_point(|held| link_of(held) < link);
        let to = self.0.partition_point(|held| link_of(held) <= link);
        if self.0[from..to].contains(&wire) {
            return;
        }
        self.0.insert(to, wire);
        if to - from == capacity {
            self.0.remove(from);
        }
    }

    pub(crate) fn remove(&mut self, wire: &Shared<Wire>) {
        self.0.retain(|held| held != wire);
    }

    /// Forgets the answers to `node` that it can never again take notice of: see [`is_dead`].
    pub(crate) fn forget_dead(&mut self, node: &Node) {
        let (id, role) = (node.replica.id(), node.replica.role());
        self.0.retain(|held| held.get().message.to != id || !is_dead(node, role, &held.get().message));
    }
}

/// From whom, to whom, and whether it is the link for beats.
fn link_of(wire: &Shared<Wire>) -> (ReplicaId, ReplicaId, bool) {
    let message = &wire.get().message;
    (message.from, message.to, matches!(message.body, Body::Beat(_) | Body::BeatReply(_)))
}

/// Whether delivering an answer to `node` could never have an effect, not even after crashes: the node's
/// disk knows the term, and the node is not what awaits such answers in that term. It cannot become so
/// again, since it stands for election in later terms only. States that differ in such messages only are
/// the same.
fn is_dead(node: &Node, now: RoleReport, message: &Message) -> bool {
    if node.disk.hard_state.term < message.term {
        return false;
    }
    let awaits = match &message.body {
        Body::VoteReply(_) => now.role == RoleKind::Candidate,
        Body::AppendReply(_) | Body::BeatReply(_) => {
            now.role == RoleKind::Leader || now.role == RoleKind::Candidate
        }
        Body::VoteAsk(_)
        | Body::Append(_)
        | Body::Beat(_)
        | Body::SnapshotChunk(_)
        | Body::SnapshotReply(_) => return false,
    };
    !(awaits && now.term == message.term)
}
