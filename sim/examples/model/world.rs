//! A group of replicas, the messages between them, and every step there is.

use std::{fmt, panic::AssertUnwindSafe};

use kotoba_db_cluster::raft::{
    Ballot, Body, Configuration, ConfigurationChange, Index, Input, Message, Output, PayloadId, Replica,
    ReplicaId, RoleKind, VoteReply,
};

use super::{
    network::{Network, Shared},
    node::{Node, Wire},
    observer::{Observer, Violation},
    scope::{Scope, Start},
};

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    nodes: Vec<Shared<Node>>,
    network: Network,
    pub(crate) observer: Observer,
    left: Scope,
    /// Replicas that ever timed out; see [`World::may_time_out`].
    woken: u8,
}

/// One step, and what becomes of the writes it asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Action {
    event: Event,
    disk: DiskSpeed,
}

/// When the writes that a step asks for are done. Behind a write that is under way, every write waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskSpeed {
    /// At once.
    Fast,
    /// At some later step, or never.
    Slow,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// A replica that does not lead times out, and wins its trial where it begins one.
    TimeOut(ReplicaId),
    /// A leader's beat is due.
    Beat(ReplicaId),
    /// A leader has not heard of a majority for too long, or its disk has not answered.
    LoseMajority(ReplicaId),
    /// A client proposes to a leader.
    Propose(ReplicaId),
    /// A client wants a leader to change the members.
    Reconfigure(ReplicaId, ConfigurationChange),
    /// A message arrives.
    Deliver(Shared<Wire>, Delivery),
    /// The oldest writes of a replica, that many, are done and reported.
    Complete(ReplicaId, usize),
    /// A replica crashes and restarts; that many of its oldest writes were done, and the state machine is
    /// as of this index.
    Crash(ReplicaId, usize, Index),
}

/// How a message arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// Once, to one who has heard of its leader just now, if it has one.
    Plain,
    /// Once, to one who has not heard of its leader for long.
    Doubting,
    /// Not for the last time.
    Repeated,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.event)?;
        match self.disk {
            DiskSpeed::Fast => Ok(()),
            DiskSpeed::Slow => f.write_str(", whose writes wait"),
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeOut(id) => write!(f, "{id} times out and stands for election"),
            Self::Beat(id) => write!(f, "{id} beats"),
            Self::LoseMajority(id) => write!(f, "{id} hears of no majority"),
            Self::Propose(id) => write!(f, "a client proposes to {id}"),
            Self::Reconfigure(id, change) => write!(f, "a client asks {id} to {change:?}"),
            Self::Deliver(wire, delivery) => {
                let Message { from, to, term, body } = &wire.get().message;
                write!(f, "{from} to {to} in {term} ({delivery:?}): {body:?}")
            }
            Self::Complete(id, count) => write!(f, "{count} writes of {id} are done"),
            Self::Crash(id, survive, applied) => {
                write!(f, "{id} crashes with {survive} of its writes done, its state at {applied}")
            }
        }
    }
}

impl Event {
    /// Whether the replica it happens to may ask for writes then.
    fn may_write(&self) -> bool {
        match self {
            Self::TimeOut(_) | Self::Propose(_) | Self::Reconfigure(..) | Self::Deliver(..) => true,
            Self::Beat(_) | Self::LoseMajority(_) | Self::Complete(..) | Self::Crash(..) => false,
        }
    }
}

impl World {
    /// A new group.
    fn new(scope: Scope) -> Self {
        let ids = |from: u8, count: u8| (from..from + count).map(|id| ReplicaId(u64::from(id)));
        let voters = ids(1, scope.voters);
        let learners: Vec<_> = ids(1 + scope.voters, scope.learners).collect();
        let genesis = Configuration {
            learners: learners.clone(),
            ..Configuration::of_voters(voters.clone()).expect("voters make a group")
        };
        let nodes = voters.chain(learners).map(|id| Shared::new(Node::new(id, genesis.clone())));
        Self {
            nodes: nodes.collect(),
            network: Network::default(),
            observer: Observer::default(),
            left: scope,
            woken: 0,
        }
    }

    /// The state that a scope begins with. One other than that of a new group is reached by steps of this
    /// model, so it is reachable.
    pub(crate) fn start(scope: Scope) -> Self {
        match scope.start {
            Start::Genesis => Self::new(scope),
            Start::Figure8 => Self::figure_8(scope),
        }
    }

    fn figure_8(scope: Scope) -> Self {
        let [one, two, three] = [1, 2, 3].map(ReplicaId);
        let mut world = Self::new(Scope { proposals: 1, crashes: 2, slow_writes: 0, ..scope });
        world.take(Event::TimeOut(one));
        world.take_message(one, two);
        world.take_message(two, one);
        world.take(Event::Propose(one));
        world.take(Event::Crash(one, 0, Index(1)));
        world.network = Network::default();
        world.take(Event::TimeOut(two));
        // It refuses, but learns of term 3, so that the next election is in term 4.
        world.take_message(two, one);
        world.take_message(two, three);
        world.take_message(three, two);
        world.take(Event::Crash(two, 0, Index(1)));
        world.network = Network::default();
        world.left = scope;
        world
    }

    fn take(&mut self, event: Event) {
        let action = Action { event, disk: DiskSpeed::Fast };
        *self = self.after(&action).expect("a step of the beginning changes something");
    }

    fn take_message(&mut self, from: ReplicaId, to: ReplicaId) {
        let between = |wire: &&Shared<Wire>| {
            let message = &wire.get().message;
            (message.from, message.to) == (from, to)
        };
        let wire = self.network.iter().find(between).expect("there is such a message").clone();
        self.take(Event::Deliver(wire, Delivery::Plain));
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().map(Shared::get)
    }

    fn node(&self, id: ReplicaId) -> &Node {
        self.nodes[place(id)].get()
    }

    /// Every step that can be taken.
    pub(crate) fn actions(&self, actions: &mut Vec<Action>) {
        if self.observer.violation.is_some() {
            return;
        }
        let mut events = Vec::new();
        self.events(&mut events);
        for event in events {
            if self.left.slow_writes > 0 && event.may_write() {
                actions.push(Action { event: event.clone(), disk: DiskSpeed::Slow });
            }
            actions.push(Action { event, disk: DiskSpeed::Fast });
        }
    }

    fn events(&self, events: &mut Vec<Event>) {
        for node in self.nodes() {
            let id = node.replica.id();
            self.role_events(node, events);
            let pending = node.pending.len();
            if pending > 0 {
                events.push(Event::Complete(id, 1));
            }
            if pending > 1 {
                events.push(Event::Complete(id, pending));
            }
            if self.left.crashes > 0 {
                for applied in node.applied_choices() {
                    events.extend((0..=pending).map(|survive| Event::Crash(id, survive, applied)));
                }
            }
        }
        for wire in self.network.iter() {
            events.push(Event::Deliver(wire.clone(), Delivery::Plain));
            if self.may_doubt(&wire.get().message) {
                events.push(Event::Deliver(wire.clone(), Delivery::Doubting));
            }
            if self.left.duplicates > 0 {
                events.push(Event::Deliver(wire.clone(), Delivery::Repeated));
            }
        }
    }

    fn role_events(&self, node: &Node, events: &mut Vec<Event>) {
        let (id, role) = (node.replica.id(), node.replica.role());
        let configuration = node.replica.configuration();
        if role.role != RoleKind::Leader {
            // One that is in the last term could only stand for election in one that is out of scope; one whose
            // disk is slow does not stand at all.
            let stands = configuration.is_voter(id) && role.term < self.left.last_term();
            if stands && node.pending.is_empty() && self.may_time_out(id) {
                events.push(Event::TimeOut(id));
            }
            return;
        }
        if self.left.beats > 0 {
            events.push(Event::Beat(id));
        }
        if self.left.step_downs > 0 {
            events.push(Event::LoseMajority(id));
        }
        if self.left.proposals > 0 {
            events.push(Event::Propose(id));
        }
        if self.left.changes > 0 {
            for member in configuration.members() {
                if configuration.is_voter(member) {
                    events.push(Event::Reconfigure(id, ConfigurationChange::Remove(member)));
                } else {
                    events.push(Event::Reconfigure(id, ConfigurationChange::Promote(member)));
                }
            }
        }
    }

    /// Symmetry: the first voters are interchangeable, so it is enough to look at runs in which they
    /// time out for the first time in the order of their ids. Every other run is one of these
    /// with other names.
    fn may_time_out(&self, id: ReplicaId) -> bool {
        place(id) <= usize::from(self.woken) || place(id) >= usize::from(self.left.voters)
    }

    /// Whether it makes a difference when the receiver last heard of its leader.
    fn may_doubt(&self, message: &Message) -> bool {
        let role = self.node(message.to).replica.role();
        matches!(message.body, Body::VoteAsk(_)) && role.role == RoleKind::Follower && role.leader.is_some()
    }

    /// The world after a step; none where the step changes nothing but that a message is gone, which is
    /// the same as its loss.
    pub(crate) fn after(&self, action: &Action) -> Option<Self> {
        let mut next = self.clone();
        let disk = action.disk;
        let changed = match &action.event {
            Event::TimeOut(id) => {
                if place(*id) < usize::from(self.left.voters) {
                    next.woken = next.woken.max(u8::try_from(place(*id)).expect("few") + 1);
                }
                next.step(*id, disk, time_out)
            }
            Event::Beat(id) => {
                next.left.beats -= 1;
                next.step(*id, disk, |node| node.handle(node.replica.at_beat(), Input::Tick, &[]))
            }
            Event::LoseMajority(id) => {
                next.left.step_downs -= 1;
                next.step(*id, disk, |node| node.handle(Replica::LATE, Input::Tick, &[]))
            }
            Event::Propose(id) => {
                let value = self.left.proposals;
                next.left.proposals -= 1;
                next.step(*id, disk, |node| node.propose(value))
            }
            Event::Reconfigure(id, change) => {
                next.left.changes -= 1;
                let input = Input::Reconfigure { change: *change, payload: PayloadId(0) };
                next.step(*id, disk, |node| node.handle(Replica::SOON, input, &[]))
            }
            Event::Deliver(wire, delivery) => next.deliver(wire, *delivery, disk),
            Event::Complete(id, count) => next.step(*id, disk, |node| node.complete(*count)),
            Event::Crash(id, survive, applied) => {
                next.crash(*id, *survive, *applied);
                true
            }
        };
        changed.then_some(next)
    }

    fn crash(&mut self, id: ReplicaId, survive: usize, applied: Index) {
        self.left.crashes -= 1;
        let before = self.nodes[place(id)].clone();
        let node = before.get().crash(survive, applied);
        self.observe(id, &node, |observer, all| observer.restarted(before.get(), &node, all));
        self.network.forget_dead(&node);
        self.nodes[place(id)] = Shared::new(node);
    }

    /// Whether that made a difference.
    fn deliver(&mut self, wire: &Shared<Wire>, delivery: Delivery, disk: DiskSpeed) -> bool {
        match delivery {
            Delivery::Plain | Delivery::Doubting => self.network.remove(wire),
            Delivery::Repeated => self.left.duplicates -= 1,
        }
        let now = if delivery == Delivery::Doubting { Replica::LATE } else { Replica::SOON };
        self.step(wire.get().message.to, disk, |node| node.receive(now, wire.get()))
    }

    /// Lets one node handle something, and looks at what came of it. Returns whether anything did.
    fn step(
        &mut self,
        id: ReplicaId,
        disk: DiskSpeed,
        handle: impl FnOnce(&mut Node) -> Vec<Output>,
    ) -> bool {
        let before = self.nodes[place(id)].clone();
        let mut node = before.get().clone();
        let waits = !node.pending.is_empty();
        let mut sent = self.part(&mut node, handle);
        if !waits && disk == DiskSpeed::Slow {
            if node.pending.is_empty() {
                // The same as with a fast disk, unless it failed.
                return self.observer.violation.is_some();
            }
            self.left.slow_writes -= 1;
        }
        // What a write brings about may ask for another.
        while !waits && disk == DiskSpeed::Fast && !node.pending.is_empty() {
            sent |= self.part(&mut node, |node| node.complete(1));
        }
        let node = Shared::new(node);
        let changed = node != before;
        self.network.forget_dead(node.get());
        self.nodes[place(id)] = node;
        changed || sent || self.observer.violation.is_some()
    }

    /// A part of a step: the node handles one thing. Returns whether it sent anything.
    fn part(&mut self, node: &mut Node, handle: impl FnOnce(&mut Node) -> Vec<Output>) -> bool {
        let before = node.clone();
        let handled = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let outputs = handle(node);
            node.replica.abstract_history();
            outputs
        }));
        let Ok(outputs) = handled else {
            *node = before;
            node.pending.clear();
            self.observer.found(Violation::CoreInvariant);
            return true;
        };
        let id = node.replica.id();
        self.observe(id, node, |observer, all| observer.stepped(&before, node, &outputs, all));
        let mut sent = false;
        for output in outputs {
            if let Output::Send(message) = output
                && self.left.carries(&message)
            {
                self.network.insert(node.gather(message), usize::from(self.left.link));
                sent = true;
            }
        }
        sent
    }

    fn observe(&mut self, id: ReplicaId, node: &Node, look: impl FnOnce(&mut Observer, &[&Node])) {
        let all: Vec<&Node> = self
            .nodes
            .iter()
            .map(|other| if other.get().replica.id() == id { node } else { other.get() })
            .collect();
        look(&mut self.observer, &all);
    }

    pub(crate) fn leads_with_earlier_proposal(&self) -> bool {
        self.nodes().any(|node| {
            let role = node.replica.role();
            role.role == RoleKind::Leader && self.observer.has_committed_proposal_before(role.term)
        })
    }
}

fn place(id: ReplicaId) -> usize {
    usize::try_from(id.0 - 1).expect("few replicas")
}

/// Time-out, trial and its outcome in one. A trial changes nothing at those who are asked, so its
/// messages are left out and any trial may succeed: that is more than can happen. Nothing happens
/// to one who waits for the outcome that does not end its trial, so it may as well begin when it ends.
fn time_out(node: &mut Node) -> Vec<Output> {
    let mut outputs = node.handle(Replica::LATE, Input::Tick, &[]);
    let id = node.replica.id();
    let term = node.replica.role().term;
    for voter in node.replica.configuration().voters.clone() {
        if voter != id && node.replica.role().role == RoleKind::PreCandidate {
            let reply = VoteReply { ballot: Ballot::Pre, campaign_term: term.next(), granted: true };
            let message = Message { from: voter, to: id, term, body: Body::VoteReply(reply) };
            outputs.extend(node.handle(Replica::SOON, Input::Message { message, payload: None }, &[]));
        }
    }
    outputs
}
