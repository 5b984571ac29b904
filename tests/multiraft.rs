//! Several groups on several nodes: their beats travel together, and keep every leader in office.

#[path = "raft/mutant.rs"]
mod mutant;

use std::collections::{BTreeMap, BTreeSet};

use kotoba_db_cluster::{
    multiraft::{GroupMessage, Node, NodeInput, NodeOutput, Routes},
    raft::{
        Body, BootEpoch, Configuration, GroupId, HardState, Index, Input, Instant, Message, Now, Output,
        PayloadId, PeerId, Position, Replica, ReplicaId, Restored, RoleKind, Settings, SnapshotMeta, Term,
        Timing,
    },
};

const NODES: u64 = 3;
const GROUPS: u32 = 8;
/// Every message and every write takes this long.
const DELAY: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Nodes on a network that loses nothing.
#[derive(Default)]
struct Network {
    nodes: Vec<Node>,
    now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), (usize, NodeInput)>,
    /// Elections won, by group.
    won: BTreeMap<GroupId, u64>,
    /// Batches that held beats of several groups.
    shared_batches: u64,
}

fn replica_id(group: u32, node: u64) -> ReplicaId {
    ReplicaId(1 + u64::from(group) * NODES + node)
}

fn replica(group: u32, node: u64) -> Replica {
    let voters = (0..NODES).map(|node| replica_id(group, node));
    let configuration = Configuration::of_voters(voters).expect("voters make a group");
    let position = Position::new(Index(1), Term(1));
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        start: SnapshotMeta { position, configuration },
        applied: Index(1),
        ..Restored::default()
    };
    let settings = Settings {
        id: replica_id(group, node),
        boot: BootEpoch(1),
        seed: 7,
        timing: Timing::default(),
        retained_bytes: 0,
        limits: kotoba_db_cluster::raft::Limits::default(),
    };
    Replica::recover(settings, restored, Now::default()).expect("a new replica starts")
}

impl Network {
    fn new() -> Self {
        let mut network = Self::default();
        for node in 0..NODES {
            let mut groups = Node::new();
            for group in 0..GROUPS {
                let routes: Routes = (0..NODES).map(|peer| (replica_id(group, peer), PeerId(peer))).collect();
                groups.add_group(GroupId(group), replica(group, node), routes);
            }
            network.nodes.push(groups);
        }
        network
    }

    fn run(&mut self, nanos: u64) {
        let until = self.now + nanos;
        loop {
            let due = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((node.deadline()?.0, at)));
            let tick = due.min();
            let queued = self.queue.first_key_value().map(|(&(at, _), _)| at);
            let (at, node, input) = match (tick, queued) {
                (Some((at, node)), queued) if queued.is_none_or(|queued| at < queued) => {
                    (at, node, NodeInput::Tick)
                }
                (_, Some(at)) => {
                    let (_, (node, input)) = self.queue.pop_first().expect("looked at just now");
                    (at, node, input)
                }
                (_, None) => unreachable!("somebody always waits for something"),
            };
            self.now = self.now.max(at);
            if self.now >= until {
                // Not lost: it comes first in the next run.
                self.sequence += 1;
                self.queue.insert((at, 0), (node, input));
                return;
            }
            self.handle(node, input);
        }
    }

    fn handle(&mut self, at: usize, input: NodeInput) {
        let now = Now { monotonic: Instant(self.now), wall: None };
        self.nodes[at].handle(now, input);
        while let Some(output) = self.nodes[at].poll_output() {
            match output {
                NodeOutput::Send { peer, message: GroupMessage { group, message } } => {
                    let payload = has_entries(&message).then_some(PayloadId(0));
                    self.later(peer, NodeInput::Group { group, input: Input::Message { message, payload } });
                }
                NodeOutput::Beats { peer, messages } => {
                    let groups: BTreeSet<_> = messages.iter().map(|message| message.group).collect();
                    self.shared_batches += u64::from(groups.len() > 1);
                    self.later(peer, NodeInput::Beats(messages));
                }
                NodeOutput::Group { group, output } => self.carry_out(at, group, output),
            }
        }
    }

    fn carry_out(&mut self, at: usize, group: GroupId, output: Output) {
        let input = match output {
            Output::Write(plan) => Input::Persisted { token: plan.token, result: Ok(()) },
            Output::Commit(index) => Input::Applied(index),
            Output::RoleChanged(report) => {
                *self.won.entry(group).or_default() += u64::from(report.role == RoleKind::Leader);
                return;
            }
            Output::Send(_)
            | Output::Proposed { .. }
            | Output::ProposalRefused { .. }
            | Output::ReadReady { .. }
            | Output::ReadRefused { .. }
            | Output::Members(_)
            | Output::Purge(_)
            | Output::BuildSnapshot { .. }
            | Output::StoreChunk { .. }
            | Output::Faulted(_) => panic!("nobody asked for {output:?}"),
        };
        self.later(PeerId(at as u64), NodeInput::Group { group, input });
    }

    fn later(&mut self, peer: PeerId, input: NodeInput) {
        self.sequence += 1;
        let node = usize::try_from(peer.0).expect("few nodes");
        self.queue.insert((self.now + DELAY, self.sequence), (node, input));
    }
}

fn has_entries(message: &Message) -> bool {
    matches!(&message.body, Body::Append(append) if !append.entries.is_empty())
}

#[test]
fn leaders_of_many_groups_stay_while_nothing_happens() {
    mutant::put_in();
    let mut network = Network::new();
    network.run(10 * SECOND);
    let first = network.won.clone();
    assert_eq!(first.len(), GROUPS as usize, "every group has a leader");
    network.run(60 * SECOND);
    assert_eq!(network.won, first, "nobody was elected since");
    assert!(network.shared_batches > 1000, "only {} batches were shared", network.shared_batches);
    for node in &network.nodes {
        assert_eq!(node.counters().unknown_group + node.counters().unknown_route, 0);
        for (group, replica) in node.groups() {
            assert!(replica.status().role.leader.is_some(), "{group} knows its leader");
        }
    }
}
