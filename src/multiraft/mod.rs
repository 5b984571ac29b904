//! All groups of one node, as one pure state machine.
//!
//! A node routes inputs to its groups by id and messages to peers by replica. Heartbeats of all
//! groups to one peer leave as one batch (leaders beat on a common grid of the node's clock), so
//! that their number does not grow with the number of groups.
//!
//! One group is stepped at a time, and nothing shared is touched before its step has returned: a
//! violated invariant stops that group, not the node (see [`Node::quarantine_stepping`]).

mod routes;

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use crate::raft::{Body, GroupId, Input, Instant, Message, Now, Output, PeerId, Replica, ReplicaId};

pub use routes::Routes;

/// A message and the group it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupMessage {
    /// The group.
    pub group: GroupId,
    /// The message.
    pub message: Message,
}

/// Something that happened to the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeInput {
    /// Time passed. Due whenever [`Node::deadline`] has been reached.
    Tick,
    /// An input of one group. For a group this node does not have it is counted and dropped.
    Group {
        /// The group.
        group: GroupId,
        /// Its input.
        input: Input,
    },
    /// A batch of heartbeats and answers to heartbeats, of any groups.
    Beats(Vec<GroupMessage>),
    /// The connection to a peer was closed by the other side: a hint that it may be dead.
    PeerClosed(PeerId),
    /// The disk has no room, or has room again.
    DiskFull(bool),
}

/// Something the node wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeOutput {
    /// An output of one group: anything but [`Output::Send`], which is routed to a peer below.
    Group {
        /// The group.
        group: GroupId,
        /// Its output.
        output: Output,
    },
    /// Send this message to a peer.
    Send {
        /// The peer.
        peer: PeerId,
        /// The message.
        message: GroupMessage,
    },
    /// Send these heartbeats and answers to a peer, together.
    Beats {
        /// The peer.
        peer: PeerId,
        /// All due ones of all groups.
        messages: Vec<GroupMessage>,
    },
}

/// What the node counted and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct NodeCounters {
    /// Inputs for groups the node does not have.
    pub unknown_group: u64,
    /// Messages to replicas whose node is not known.
    pub unknown_route: u64,
}

/// All groups of one node.
///
/// The contract is that of a [`Replica`]: after every `handle`, drain `poll_output` to `None`
/// before the next `handle`; carry out writes in order and durably before reporting them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Node {
    groups: BTreeMap<GroupId, Group>,
    deadlines: BTreeSet<(Instant, GroupId)>,
    outputs: VecDeque<NodeOutput>,
    beats: BTreeMap<PeerId, Vec<GroupMessage>>,
    stepping: Option<GroupId>,
    counters: NodeCounters,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Group {
    replica: Replica,
    routes: Routes,
    deadline: Option<Instant>,
}

impl Node {
    /// A node without groups.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a group, or replaces this node's replica of it. `routes` says on which peers the
    /// group's replicas live.
    pub fn add_group(&mut self, group: GroupId, replica: Replica, routes: Routes) {
        self.remove_group(group);
        let deadline = replica.deadline();
        self.deadlines.extend(deadline.map(|at| (at, group)));
        self.groups.insert(group, Group { replica, routes, deadline });
    }

    /// Takes a group out. Returns its replica, where there was one.
    pub fn remove_group(&mut self, group: GroupId) -> Option<Replica> {
        let removed = self.groups.remove(&group)?;
        if let Some(at) = removed.deadline {
            self.deadlines.remove(&(at, group));
        }
        Some(removed.replica)
    }

    /// Tells where a group's replicas live. Unknown groups are left alone.
    pub fn set_routes(&mut self, group: GroupId, routes: Routes) {
        if let Some(entry) = self.groups.get_mut(&group) {
            entry.routes = routes;
        }
    }

    /// This node's replica of a group.
    #[must_use]
    pub fn replica(&self, group: GroupId) -> Option<&Replica> {
        self.groups.get(&group).map(|entry| &entry.replica)
    }

    /// The peer a replica of a group lives on.
    #[must_use]
    pub fn peer_of(&self, group: GroupId, replica: ReplicaId) -> Option<PeerId> {
        self.groups.get(&group)?.routes.peer_of(replica)
    }

    /// The node's groups in ascending order.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Replica)> {
        self.groups.iter().map(|(&group, entry)| (group, &entry.replica))
    }

    /// When [`NodeInput::Tick`] is due; `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// What was counted and dropped so far.
    #[must_use]
    pub fn counters(&self) -> NodeCounters {
        self.counters
    }

    /// Handles one input.
    pub fn handle(&mut self, now: Now, input: NodeInput) {
        assert!(self.outputs.is_empty(), "drain poll_output to None before the next handle");
        match input {
            NodeInput::Tick => self.tick(now),
            NodeInput::Group { group, input } => self.step(now, group, input),
            NodeInput::Beats(messages) => {
                let first = messages.first().map(|message| message.group);
                for GroupMessage { group, message } in messages {
                    let group = first.filter(|_| mutant!(M37)).unwrap_or(group);
                    if matches!(message.body, Body::Beat(_) | Body::BeatReply(_)) {
                        self.step(now, group, Input::Message { message, payload: None });
                    }
                }
            }
            NodeInput::PeerClosed(peer) => self.peer_closed(now, peer),
            NodeInput::DiskFull(full) => {
                let groups: Vec<_> = self.groups.keys().copied().collect();
                for group in groups {
                    self.step(now, group, Input::DiskFull(full));
                }
            }
        }
        self.flush_beats();
    }

    /// The next thing to do; `None` when everything is done.
    pub fn poll_output(&mut self) -> Option<NodeOutput> {
        self.outputs.pop_front()
    }

    /// After a step panicked (an invariant of that group does not hold): takes the group out and
    /// names it. Every other group is as it was. The outputs the group had emitted before are
    /// dropped with it, except those already polled.
    pub fn quarantine_stepping(&mut self) -> Option<GroupId> {
        let group = self.stepping.take()?;
        self.remove_group(group);
        Some(group)
    }

    fn tick(&mut self, now: Now) {
        // A step may set a deadline that is due again at once; those wait for the next tick.
        let due: Vec<_> = self
            .deadlines
            .iter()
            .take_while(|(at, _)| *at <= now.monotonic)
            .map(|&(_, group)| group)
            .collect();
        for group in due {
            self.step(now, group, Input::Tick);
        }
    }

    fn peer_closed(&mut self, now: Now, peer: PeerId) {
        let affected: Vec<_> = self
            .groups
            .iter()
            .filter_map(|(&group, entry)| Some((group, entry.routes.replica_on(peer)?)))
            .collect();
        for (group, replica) in affected {
            self.step(now, group, Input::Unreachable(replica));
        }
    }

    fn step(&mut self, now: Now, group: GroupId, input: Input) {
        let Some(entry) = self.groups.get_mut(&group) else {
            self.counters.unknown_group += 1;
            return;
        };
        self.stepping = Some(group);
        entry.replica.handle(now, input);
        while let Some(output) = entry.replica.poll_output() {
            let Output::Send(message) = output else {
                self.outputs.push_back(NodeOutput::Group { group, output });
                continue;
            };
            let Some(peer) = entry.routes.peer_of(message.to) else {
                self.counters.unknown_route += 1;
                continue;
            };
            let beat = matches!(message.body, Body::Beat(_) | Body::BeatReply(_));
            let message = GroupMessage { group, message };
            if beat && mutant!(M38) {
                self.beats.insert(peer, Vec::from([message]));
            } else if beat {
                self.beats.entry(peer).or_default().push(message);
            } else {
                self.outputs.push_back(NodeOutput::Send { peer, message });
            }
        }
        let deadline = entry.replica.deadline();
        if deadline != entry.deadline {
            let taken = |at: &Instant| self.deadlines.iter().any(|(other, _)| other == at);
            let timer = deadline.filter(|at| !mutant!(M39) || !taken(at));
            self.deadlines.extend(timer.map(|at| (at, group)));
            if let Some(at) = core::mem::replace(&mut entry.deadline, deadline) {
                self.deadlines.remove(&(at, group));
            }
        }
        self.stepping = None;
    }

    fn flush_beats(&mut self) {
        for (&peer, messages) in &mut self.beats {
            if !messages.is_empty() {
                self.outputs.push_back(NodeOutput::Beats { peer, messages: core::mem::take(messages) });
            }
        }
    }
}
