//! Clients: they ask, wait, ask again elsewhere, and give up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kotoba_db_cluster::{
    multiraft::NodeInput,
    raft::{GroupId, Index, Input, PayloadId, Proposal, ReadId, Refusal, RoleKind},
};

use super::{
    World,
    event::Event,
    host::{Asker, Held},
    network::nanos,
};
use crate::{
    check::read_index,
    choice::Topic,
    history::{End, History, Operation, TrueTime},
    machine::{Request, StateMachine},
    situations::Situation,
    trace::Kind,
};

/// How long a request or an answer travels.
const TRAVEL_NANOS: u64 = 300_000;
/// Ways of clients are numbered from here: no link between hosts has such a number.
pub(crate) const FIRST_WAY: u32 = 1_000;
/// How long a client that was sent away waits before it asks elsewhere.
const RETRY_NANOS: u64 = 30_000_000;

/// All clients.
#[derive(Clone, Debug)]
pub(crate) struct Clients<M: StateMachine> {
    clients: Vec<Client<M>>,
    /// Operations begun by all of them.
    serials: u64,
    pub(crate) history: History<M::Operation, M::Answer>,
    /// Whether new operations are begun.
    pub(crate) open: bool,
    /// Payloads that ask for another operation under an id that was used.
    pub(crate) reused: BTreeSet<Bytes>,
    /// Operations answered since that was last set to zero, by group: writes and reads.
    pub(crate) answered: BTreeMap<GroupId, (u64, u64)>,
}

#[derive(Clone, Debug)]
struct Client<M: StateMachine> {
    asking: BTreeMap<u64, Asking<M>>,
    /// The last write that was answered, by its place in the history.
    written: Option<usize>,
    /// The host that answered last.
    favourite: BTreeMap<GroupId, usize>,
}

/// An operation under way.
#[derive(Clone, Debug)]
struct Asking<M: StateMachine> {
    group: GroupId,
    operation: M::Operation,
    attempt: u32,
    /// Its place in the history.
    place: usize,
    /// What was known when it began.
    after: Index,
}

impl<M: StateMachine> Clients<M> {
    pub(crate) fn new(count: u32) -> Self {
        let client = Client { asking: BTreeMap::new(), written: None, favourite: BTreeMap::new() };
        Self {
            clients: vec![client; count as usize],
            serials: 0,
            history: History::default(),
            open: true,
            reused: BTreeSet::new(),
            answered: BTreeMap::new(),
        }
    }

    /// Whether nobody waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.asking.is_empty())
    }
}

impl<M: StateMachine> World<M> {
    /// A client may begin something.
    pub(super) fn wake(&mut self, client: u32) {
        let think = nanos(self.profile.think);
        // A calm client is a busy one: zero is the mean.
        self.choices.next_turn_of_client(client);
        let wait = match self.choices.below(Topic::ClientTime, client, 4) {
            0 => think,
            1 => think / 4,
            2 => think * 2,
            _ => 1 + self.choices.below(Topic::ClientTime, client, think),
        };
        self.agenda.plan(self.now + wait, Event::Wake { client });
        let busy = !self.clients.clients[client as usize].asking.is_empty();
        // The calm answer is to do nothing, so that shrinking takes operations out.
        let idle = self.choices.below(Topic::Asks, client, IDLE_ONE_IN) == 0;
        if busy || !self.clients.open || (idle && self.insist.is_none()) {
            return;
        }
        self.maybe_reuse(client);
        let burst = self.choices.below(Topic::Burst, client, self.profile.burst) + 1;
        let mut askers: BTreeMap<GroupId, Vec<Asker>> = BTreeMap::new();
        for _ in 0..burst {
            self.clients.serials += 1;
            let serial = self.clients.serials;
            let operation = M::draw(self.insist.as_mut().unwrap_or(&mut self.choices), client, serial);
            // Who insists asks every group, also where the machine has but one key.
            let spread = if self.insist.is_some() { serial } else { M::key(&operation) };
            let groups = u64::from(self.profile.groups);
            let group = GroupId(u32::try_from(spread % groups).expect("few groups") + 1);
            let place = self.clients.history.operations.len();
            self.say(Kind::Client, None, || {
                format!("client {client} asks {group} for {operation:?} ({serial})")
            });
            self.clients.history.operations.push(Operation {
                client,
                serial,
                group,
                operation: operation.clone(),
                invoked: self.now,
                end: End::Unknown,
            });
            let after = self.checks.real_time.invoked(group);
            let asking = Asking { group, operation, attempt: 0, place, after };
            self.clients.clients[client as usize].asking.insert(serial, asking);
            askers.entry(group).or_default().push(Asker { client, serial });
        }
        for (group, askers) in askers {
            self.ask(group, askers);
        }
    }

    /// A client uses the id of its last write for another operation: a bug of its own.
    fn maybe_reuse(&mut self, client: u32) {
        if M::refuses_reuse(None).is_none()
            || !self.choices.chance(Topic::Client, client, self.profile.reused_ids)
        {
            return;
        }
        let Some(place) = self.clients.clients[client as usize].written else { return };
        let Operation { serial, group, operation, .. } = self.clients.history.operations[place].clone();
        let other = M::draw(&mut self.choices, client, self.clients.serials + 1);
        if M::is_read(&other) || other == operation {
            return;
        }
        let payload = M::encode(Request { client, serial, acked_below: serial }, &other);
        self.clients.reused.insert(payload.clone());
        self.say(Kind::Client, None, || {
            format!("client {client} asks {group} for {other:?} under a used id ({serial})")
        });
        let host = self.leaders.get(&group).map_or(0, |&(at, _)| at);
        self.agenda.plan(self.now + TRAVEL_NANOS, Event::Reuse { host, group, payload });
    }

    /// Another operation under a used id arrives at a host.
    pub(super) fn reuse(&mut self, at: usize, group: GroupId, payload: Bytes) {
        self.propose_payloads(at, group, Vec::new(), vec![payload]);
    }

    fn ask(&mut self, group: GroupId, askers: Vec<Asker>) {
        let client = askers[0].client;
        let hosts = self.hosts.len() as u64;
        let favourite = self.clients.clients[client as usize].favourite.get(&group).copied();
        let stray = self.choices.chance(Topic::Stray, client, 50);
        let host = match favourite {
            Some(favourite) if !stray => favourite,
            _ => {
                // The calm client knows who leads.
                let leader = self.leaders.get(&group).map(|&(at, _)| at);
                match (self.choices.below(Topic::Asked, client, hosts + 1), leader) {
                    (0, Some(leader)) => leader,
                    (host, _) => usize::try_from(host.saturating_sub(1)).expect("few hosts"),
                }
            }
        };
        let patience = nanos(self.profile.patience.0);
        for asker in &askers {
            let asking = self.clients.clients[client as usize].asking.get_mut(&asker.serial);
            let attempt = asking.map_or(0, |asking| {
                asking.attempt += 1;
                asking.attempt
            });
            self.agenda.plan(self.now + patience, Event::Timeout { asker: *asker, attempt });
        }
        if !self.choices.chance(Topic::Message, way_to(client), self.profile.network.loss) {
            if self.choices.chance(Topic::Repeat, way_to(client), self.profile.network.duplication) {
                let again = self.choices.below(Topic::Delay, way_to(client), 2 * patience);
                let wait = TRAVEL_NANOS + again;
                self.agenda.plan(self.now + wait, Event::Request { host, askers: askers.clone() });
            }
            self.agenda.plan(self.now + TRAVEL_NANOS, Event::Request { host, askers });
        }
    }

    /// Requests arrive at a host.
    pub(super) fn request(&mut self, at: usize, askers: Vec<Asker>) {
        if !self.hosts[at].is_running(self.now) {
            return;
        }
        let mut writes = Vec::new();
        let mut group_of = None;
        for asker in askers {
            // A repeated request may outlive its client's interest.
            let place = usize::try_from(asker.serial - 1).expect("operations are counted from 1");
            let Operation { group, operation, .. } = &self.clients.history.operations[place];
            let group = *group;
            if M::is_read(operation) {
                self.begin_read(at, group, Some(asker));
            } else {
                let asking = &self.clients.clients[asker.client as usize].asking;
                let oldest = asking.keys().next().copied().unwrap_or(asker.serial);
                let acked_below = oldest.min(asker.serial);
                let request = Request { client: asker.client, serial: asker.serial, acked_below };
                writes.push((asker, M::encode(request, operation)));
                group_of = Some(group);
            }
        }
        let Some(group) = group_of else { return };
        let most = usize::try_from(self.profile.limits.append_entries).expect("bounds are small").max(1);
        let mut writes = writes.into_iter();
        loop {
            let batch: Vec<_> = writes.by_ref().take(most).collect();
            if batch.is_empty() || self.hosts[at].process.is_none() {
                return;
            }
            self.propose(at, group, batch);
        }
    }

    fn propose(&mut self, at: usize, group: GroupId, writes: Vec<(Asker, Bytes)>) {
        let (askers, payloads) = writes.into_iter().unzip();
        self.propose_payloads(at, group, askers, payloads);
    }

    fn propose_payloads(&mut self, at: usize, group: GroupId, askers: Vec<Asker>, payloads: Vec<Bytes>) {
        let process = self.hosts[at].process.as_mut().expect("it runs");
        let payload = PayloadId(process.name());
        let count = u32::try_from(payloads.len()).expect("bursts are small");
        let bytes = payloads.iter().map(|command| command.len() as u64).sum();
        self.proposing = askers;
        let held = Held::Commands(payloads);
        let input = Input::Propose(Proposal { count, bytes, payload });
        self.input(at, NodeInput::Group { group, input }, Some((payload, held)));
        self.look_at_group(at, group);
    }

    pub(super) fn begin_read(&mut self, at: usize, group: GroupId, asker: Option<Asker>) {
        let process = self.hosts[at].process.as_mut().expect("it runs");
        let read = ReadId(process.name());
        let committed = self.decided.get(&group).copied().unwrap_or_default();
        process.reads.insert(read, (asker, committed));
        self.group_input(at, group, Input::Read(read));
        self.look_at_group(at, group);
    }

    pub(super) fn on_proposed(
        &mut self,
        at: usize,
        group: GroupId,
        first: Index,
        last: kotoba_db_cluster::raft::Position,
        _: &mut Option<(PayloadId, Held)>,
    ) {
        let askers = std::mem::take(&mut self.proposing);
        let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
        for (index, asker) in (first.0..).zip(askers) {
            process.waiting.insert((group, Index(index)), (last.term, asker));
        }
    }

    pub(super) fn on_proposal_refused(
        &mut self,
        at: usize,
        group: GroupId,
        _: PayloadId,
        reason: Refusal,
        held: &mut Option<(PayloadId, Held)>,
    ) {
        if held.is_none() {
            self.situations.count(Situation::MembersRefused);
            self.say(Kind::Members, Some(at), || format!("{group} refuses a change: {reason:?}"));
            return;
        }
        if matches!(reason, Refusal::Busy(_)) {
            self.situations.count(Situation::RefusedBusy);
        }
        for asker in std::mem::take(&mut self.proposing) {
            self.reply(at, asker, None);
        }
    }

    pub(super) fn on_read_ready(&mut self, at: usize, group: GroupId, read: ReadId, index: Index) {
        let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
        let Some((asker, committed)) = process.reads.remove(&read) else { return };
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        hosted.ready.extend(asker.map(|asker| (index, asker)));
        let verdict = read_index::served(group, self.hosts[at].number, committed, index);
        self.judge(verdict);
        self.serve_reads(at, group);
    }

    pub(super) fn on_read_refused(&mut self, at: usize, read: ReadId, _: Refusal) {
        let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
        if let Some((Some(asker), _)) = process.reads.remove(&read) {
            self.reply(at, asker, None);
        }
    }

    /// Answers the confirmed reads whose state is there.
    pub(super) fn serve_reads(&mut self, at: usize, group: GroupId) {
        let process = self.hosts[at].process.as_mut().expect("it runs");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        let applied = hosted.applied.index;
        let Some(machine) = &hosted.machine else { return };
        let mut served = Vec::new();
        let clients = &self.clients.clients;
        hosted.ready.retain(|(index, asker)| {
            if *index > applied {
                return true;
            }
            if let Some(asking) = clients[asker.client as usize].asking.get(&asker.serial) {
                served.push((*asker, machine.read(&asking.operation)));
            }
            false
        });
        for (asker, answer) in served {
            self.reply(at, asker, Some((applied, answer)));
        }
    }

    /// A host answers; `None` sends the client away.
    pub(super) fn reply(&mut self, at: usize, asker: Asker, answer: Option<(Index, M::Answer)>) {
        if self.choices.chance(Topic::Message, way_to(asker.client), self.profile.network.loss) {
            return;
        }
        let wait = TRAVEL_NANOS + if answer.is_none() { RETRY_NANOS } else { 0 };
        self.agenda.plan(self.now + wait, Event::Reply { host: at, asker, answer });
    }

    /// An answer arrives.
    pub(super) fn on_reply(&mut self, at: usize, asker: Asker, answer: Option<(Index, M::Answer)>) {
        let client = &mut self.clients.clients[asker.client as usize];
        // Only the first answer counts.
        let Some(asking) = client.asking.get(&asker.serial) else { return };
        let group = asking.group;
        let Some((index, answer)) = answer else {
            client.favourite.remove(&group);
            if asking.attempt < self.profile.patience.1 {
                self.situations.count(Situation::Retried);
                return self.ask(group, vec![asker]);
            }
            return self.give_up(asker);
        };
        client.favourite.insert(group, at);
        let Asking { operation, place, after, .. } =
            client.asking.remove(&asker.serial).expect("looked at above");
        self.say(Kind::Client, Some(at), || {
            format!("client {} is answered {answer:?} at {index} ({})", asker.client, asker.serial)
        });
        let counts = self.clients.answered.entry(group).or_default();
        let verdict = if M::is_read(&operation) {
            counts.1 += 1;
            self.situations.count(Situation::ReadAnswered);
            self.checks.real_time.read(group, after, index)
        } else {
            counts.0 += 1;
            self.situations.count(Situation::WriteAnswered);
            let request = (asker.client, asker.serial);
            self.clients.clients[asker.client as usize].written = Some(place);
            self.checks
                .exactly_once
                .answered(group, request, &answer)
                .and_then(|effect| self.checks.real_time.wrote(group, after, effect))
        };
        self.clients.history.operations[place].end = End::Answered { at: self.now, answer, index };
        self.judge(verdict);
    }

    /// A client has waited long enough.
    pub(super) fn timeout(&mut self, asker: Asker, attempt: u32) {
        let client = &self.clients.clients[asker.client as usize];
        let Some(asking) = client.asking.get(&asker.serial) else { return };
        if asking.attempt != attempt {
            return;
        }
        let group = asking.group;
        if attempt >= self.profile.patience.1 {
            return self.give_up(asker);
        }
        self.situations.count(Situation::Retried);
        self.clients.clients[asker.client as usize].favourite.remove(&group);
        self.ask(group, vec![asker]);
    }

    fn give_up(&mut self, asker: Asker) {
        self.situations.count(Situation::GivenUp);
        self.clients.clients[asker.client as usize].asking.remove(&asker.serial);
    }

    /// The replica that leads a group in the latest term, by what the running ones believe.
    pub(super) fn leader_of(&self, group: GroupId) -> Option<usize> {
        let leads = |at: &usize| {
            let replica = self.hosts[*at].process.as_ref()?.node.replica(group)?;
            let report = replica.role();
            (report.role == RoleKind::Leader).then_some((report.term, *at))
        };
        (0..self.hosts.len()).filter_map(|at| leads(&at)).max().map(|(_, at)| at)
    }

    /// How long a run may still take before every client has its answer or gave up.
    pub(super) fn longest_wait(&self) -> TrueTime {
        let (patience, attempts) = self.profile.patience;
        u64::from(attempts + 1) * nanos(patience)
    }
}

/// One in this many times a client that could ask does nothing.
const IDLE_ONE_IN: u64 = 8;

/// The number of the way between a client and the hosts, for choices about messages on it.
fn way_to(client: u32) -> u32 {
    FIRST_WAY + client
}
