//! Handing inputs to a process, and carrying out what its core wants.

use bytes::Bytes;
use kotoba_db_cluster::{
    multiraft::{GroupMessage, NodeInput, NodeOutput},
    raft::{
        AppendPlan, Body, Configuration, ConfigurationEntry, EntrySource, GroupId, Index, Input, Output,
        PayloadId, PeerId, ReplicaId, RoleKind, RoleReport, SnapshotMeta, WritePlan,
    },
    storage::wal::{Entry, EntryKind, GatherError, GroupWrite, LogReader},
};

use super::{
    World,
    event::Event,
    host::{Held, Submitted},
    network::{Fate, nanos},
    packet::{Cargo, Packet},
};
use crate::{
    check::{
        Check, Violation, commit_durability, current_term_commit, later_terms::Told, leader_completeness,
        log_matching, member_changes, promise, recovery,
    },
    choice::Topic,
    machine::StateMachine,
    situations::Situation,
    trace::Kind,
};

/// Payload bytes taken from the log at once to be applied.
const DISPATCH_BYTES_MAX: u64 = 4 << 20;

impl<M: StateMachine> World<M> {
    /// Gives a process an input, and carries out everything that follows from it at once.
    pub(super) fn input(&mut self, at: usize, input: NodeInput, held: Option<(PayloadId, Held)>) {
        let host = &mut self.hosts[at];
        let now = host.clock.now(self.now);
        let Some(process) = &mut host.process else { return };
        self.trace.event(self.now, host.number, &input);
        process.node.handle(now, input);
        let mut outputs = std::mem::take(&mut self.outputs);
        outputs.extend(std::iter::from_fn(|| process.node.poll_output()));
        let mut held = held;
        for output in outputs.drain(..) {
            self.carry_out(at, output, &mut held);
        }
        self.outputs = outputs;
        self.submit(at);
        self.rewake(at);
    }

    /// Gives an input to one group of a process.
    pub(super) fn group_input(&mut self, at: usize, group: GroupId, input: Input) {
        self.input(at, NodeInput::Group { group, input }, None);
    }

    /// Notes when the process wants to be woken.
    pub(super) fn rewake(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(process) = &mut host.process else { return };
        host.wake = match process.node.deadline() {
            Some(deadline) => {
                host.clock.when(deadline, self.now).max(host.paused_until).max(host.timers_from)
            }
            None => u64::MAX,
        };
    }

    /// Looks at one group's replica after a step that may have moved it.
    pub(super) fn look_at_group(&mut self, at: usize, group: GroupId) {
        let host = &mut self.hosts[at];
        let Some(process) = &mut host.process else { return };
        let (Some(replica), Some(hosted)) = (process.node.replica(group), process.groups.get_mut(&group))
        else {
            return;
        };
        let counted = hosted.marks.has_committed_as_leader(replica).then(|| {
            let held = process.log.term_at(group, replica.commit());
            current_term_commit::committed(group, replica.id(), replica.role().term, replica.commit(), held)
        });
        let verdict = hosted.marks.look(group, replica, hosted.applied.index, hosted.start);
        let decided = self.decided.entry(group).or_default();
        let leads = replica.role().role == RoleKind::Leader && replica.commit() > *decided;
        let committed = leads.then(|| {
            *decided = replica.commit();
            let term = process.log.term_at(group, replica.commit());
            (replica.id(), replica.configuration().clone(), replica.commit(), term)
        });
        self.judge(verdict);
        self.judge(counted.unwrap_or(Ok(())));
        if let Some((leader, configuration, index, Some(term))) = committed {
            let position = kotoba_db_cluster::raft::Position::new(index, term);
            let holds = |voter| {
                match self.host_of(group, voter) {
                    Some(host) => self.hosts[host].holds(group, position),
                    // It held it when it was counted.
                    None => self.lost.get(&(group, voter)).is_some_and(|kept| kept.holds(group, position)),
                }
            };
            let verdict = commit_durability::committed(group, leader, &configuration, position, holds);
            self.judge(verdict);
        }
    }

    fn carry_out(&mut self, at: usize, output: NodeOutput, held: &mut Option<(PayloadId, Held)>) {
        match output {
            NodeOutput::Group { group, output } => self.carry_out_for(at, group, output, held),
            NodeOutput::Send { peer, message } => self.send(at, peer, message),
            NodeOutput::Beats { peer, messages } => {
                for GroupMessage { group, message } in &messages {
                    self.check_promise(at, *group, message);
                }
                self.transmit(at, peer, Packet::Beats(messages));
            }
        }
    }

    fn carry_out_for(
        &mut self,
        at: usize,
        group: GroupId,
        output: Output,
        held: &mut Option<(PayloadId, Held)>,
    ) {
        match output {
            Output::Write(plan) => self.begin_write(at, group, plan, held),
            Output::Send(_) => unreachable!("multiraft routes messages to peers"),
            Output::Commit(index) => self.dispatch(at, group, index),
            Output::Proposed { first, last, .. } => self.on_proposed(at, group, first, last, held),
            Output::ProposalRefused { payload, reason } => {
                self.on_proposal_refused(at, group, payload, reason, held);
            }
            Output::ReadReady { read, index } => self.on_read_ready(at, group, read, index),
            Output::ReadRefused { read, reason } => self.on_read_refused(at, read, reason),
            Output::RoleChanged(report) => self.on_role(at, group, report),
            Output::Members(members) => self.on_members(at, group, &members),
            Output::Purge(meta) => self.purge(at, group, meta),
            Output::BuildSnapshot { at_least } => {
                let life = self.hosts[at].life;
                self.later(at, Event::Build { host: at, life, group, at_least });
            }
            Output::StoreChunk { snapshot, offset, length, .. } => {
                let Some((_, Held::Cargo { cargo: Cargo::Chunk(bytes), .. })) = held.take() else {
                    return self.fail(Check::Assertion, "a chunk is stored that nobody sent");
                };
                self.store_chunk(at, group, &snapshot, (offset, length), bytes);
            }
            Output::Faulted(fault) => {
                self.say(Kind::Disk, Some(at), || format!("{group} is faulted: {fault:?}"));
            }
        }
    }

    fn begin_write(
        &mut self,
        at: usize,
        group: GroupId,
        plan: WritePlan,
        held: &mut Option<(PayloadId, Held)>,
    ) {
        let WritePlan { token, hard_state, install, truncate_from, append } = plan;
        let entries = match append {
            Some(append) => match entries_of(append, held) {
                Some(entries) => entries,
                None => return self.fail(Check::Assertion, "entries are written that nobody gave"),
            },
            None => Vec::new(),
        };
        self.hosts[at].asked.insert(group, token);
        let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
        if truncate_from.is_some() {
            self.situations.count(Situation::Truncated);
        }
        let write = GroupWrite {
            hard_state,
            install: install.clone(),
            truncate_from,
            entries,
            ..GroupWrite::of(group)
        };
        let held = install.as_ref().and_then(|meta| process.log.term_at(group, meta.position.index));
        let installed = recovery::installed(group, &write, held);
        process.log.submitted(&write);
        let verdict = match write.entries.first() {
            Some(first) => match process.log.term_at(group, first.index.previous()) {
                Some(before) => self.checks.log_matching.appended(group, before, &write.entries),
                None => {
                    Err(Violation::new(Check::LogMatching, format!("{group}: a gap before {}", first.index)))
                }
            },
            None => Ok(()),
        };
        process.turn.writes.push(write);
        let installs = install.is_some();
        process.turn.tokens.push(Submitted { group, token, install });
        let aimed = 20 * self.profile.process.aimed_crashes;
        if installs && self.choices.chance(Topic::AimAtWrite, self.hosts[at].number, aimed) {
            // Killed between the log's record of a snapshot and the state that it stands for.
            let life = self.hosts[at].life;
            self.agenda.plan(self.now + AIMED_NANOS, Event::Kill { host: at, life });
        }
        self.judge(installed);
        self.judge(verdict);
    }

    fn purge(&mut self, at: usize, group: GroupId, meta: SnapshotMeta) {
        let host = &mut self.hosts[at];
        let state = host.groups.get(&group).and_then(|stored| stored.durable.as_ref());
        let state = state.map_or(Index::ZERO, |(position, _)| position.index);
        let verdict = recovery::purged(group, host.number, meta.position.index, state);
        let process = host.process.as_mut().expect("it has just been stepped");
        if let Some(hosted) = process.groups.get_mut(&group) {
            hosted.start = meta.position.index;
        }
        let write = GroupWrite { purge: Some(meta), ..GroupWrite::of(group) };
        process.log.submitted(&write);
        process.turn.writes.push(write);
        self.situations.count(Situation::Purged);
        self.judge(verdict);
    }

    /// Hands committed entries over to be applied.
    fn dispatch(&mut self, at: usize, group: GroupId, index: Index) {
        loop {
            let number = self.hosts[at].number;
            let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
            let Some(hosted) = process.groups.get_mut(&group) else { return };
            let first = hosted.dispatched.next();
            if first > index {
                break;
            }
            let entries = match process.log.entries(group, first, index, DISPATCH_BYTES_MAX) {
                Ok(entries) => entries,
                Err(GatherError::OnDisk(plan)) => {
                    self.situations.count(Situation::ReadFromDisk);
                    match LogReader::new(process.writer.disk(), process.writer.log_id()).read(&plan) {
                        Ok(entries) => entries,
                        // Damage that nobody had met before: the group cannot go on here.
                        Err(_) if self.hosts[at].damage != super::host::Damage::None => {
                            return self.refuse_group(at, group);
                        }
                        Err(error) => return self.fail(Check::Assertion, format!("{group}: {error}")),
                    }
                }
                Err(error) => {
                    let message = format!("host {number} {group}: committed {first} to {index}: {error}");
                    return self.fail(Check::Assertion, message);
                }
            };
            hosted.dispatched = entries.last().expect("at least one is gathered").index;
            for entry in &entries {
                self.committed(at, group, entry);
            }
            let process = self.hosts[at].process.as_mut().expect("it has just been stepped");
            let hosted = process.groups.get_mut(&group).expect("looked at above");
            hosted.queue.extend(entries);
        }
        self.say(Kind::Commit, Some(at), || format!("{group} commits up to {index}"));
        self.plan_apply(at, group);
    }

    fn committed(&mut self, at: usize, group: GroupId, entry: &Entry) {
        let number = self.hosts[at].number;
        let ledger = self.ledgers.get_mut(&group).expect("every group has a ledger");
        match ledger.committed(number, entry) {
            Err(violation) => self.judge(Err(violation)),
            Ok(None) => {}
            Ok(Some(answer)) => {
                self.situations.count(Situation::Committed);
                let request = M::request_of(&entry.payload);
                if self.clients.reused.contains(&entry.payload) {
                    self.situations.count(Situation::IdReused);
                    let refused = M::refuses_reuse(answer.as_ref()).unwrap_or(true);
                    let verdict = self.checks.exactly_once.reused(
                        group,
                        request,
                        entry.index,
                        answer.as_ref(),
                        refused,
                    );
                    return self.judge(verdict);
                }
                if self.checks.exactly_once.effect(group, (request.client, request.serial)).is_some() {
                    self.situations.count(Situation::Repeated);
                }
                if answer.is_none() {
                    self.situations.count(Situation::RefusedAsOver);
                }
                let verdict = self.checks.exactly_once.executed(group, request, entry.index, answer.as_ref());
                self.judge(verdict);
            }
        }
    }

    fn on_role(&mut self, at: usize, group: GroupId, report: RoleReport) {
        let Some(process) = &self.hosts[at].process else { return };
        let Some(replica) = process.node.replica(group).map(kotoba_db_cluster::raft::Replica::id) else {
            return;
        };
        let detail = self.role_detail(at, group);
        self.show(Kind::Role, at, detail, || match report.leader {
            Some(leader) if leader != replica => {
                format!("{group} {replica} {:?} in {} of {leader}", report.role, report.term)
            }
            _ => format!("{group} {replica} {:?} in {}", report.role, report.term),
        });
        if let Some(leader) = report.leader.filter(|leader| *leader != replica) {
            let follows = self.checks.election_safety.follows(group, report.term, replica, leader);
            self.judge(follows);
        }
        if report.role != RoleKind::Leader {
            if self.leaders.get(&group) == Some(&(at, report.term)) {
                self.situations.count(Situation::SteppedDown);
            }
            return;
        }
        self.situations.count(Situation::Elected);
        self.leaders.insert(group, (at, report.term));
        let committed = self.ledgers[&group].last();
        self.after_election(at, group);
        let process = self.hosts[at].process.as_ref().expect("looked at above");
        let complete = leader_completeness::elected(group, replica, report.term, &process.log, committed);
        let safe = self.checks.election_safety.leads(group, report.term, replica);
        self.judge(safe);
        self.judge(complete);
    }

    fn on_members(&mut self, at: usize, group: GroupId, members: &Configuration) {
        let process = self.hosts[at].process.as_ref().expect("it has just been stepped");
        let Some(replica) = process.node.replica(group) else { return };
        let (leads, place) =
            (replica.role().role == RoleKind::Leader, (replica.last().index, replica.role().term));
        let (id, commit) = (replica.id(), replica.commit());
        let committed = (commit, process.log.term_at(group, commit));
        let new = ConfigurationEntry {
            index: replica.status().configuration_index,
            configuration: members.clone(),
        };
        let index = new.index;
        let Some(before) = self.configurations.insert((at, group), new) else { return };
        if index < before.index {
            self.situations.count(Situation::MembersRolledBack);
        }
        let (before_index, before) = (before.index, before.configuration);
        if before == *members {
            return;
        }
        if leads {
            self.situations.count(Situation::MembersChanged);
            let verdict = self.checks.quorum_intersection.follows(group, place, &before, members);
            self.judge(verdict);
            let verdict = member_changes::appended(group, (id, place.1), before_index, committed);
            self.judge(verdict);
        }
        let role = self.role_detail(at, group);
        self.show(Kind::Members, at, role, || format!("{group} has members {members:?}"));
    }

    fn check_promise(&mut self, at: usize, group: GroupId, message: &kotoba_db_cluster::raft::Message) {
        let process = self.hosts[at].process.as_ref().expect("it has just been stepped");
        let verdict = match process.writer.durable(group) {
            Some(durable) => promise::sent(group, message, durable),
            None => Ok(()),
        };
        if matches!(message.body, Body::Append(_) | Body::Beat(_)) {
            let leads = self.checks.election_safety.leads(group, message.term, message.from);
            self.judge(leads);
        }
        self.judge(verdict);
    }

    fn send(&mut self, at: usize, peer: PeerId, message: GroupMessage) {
        self.check_promise(at, message.group, &message.message);
        // Entries that must be read from disk are read beside everything else: they may be gone by then.
        let late = matches!(&message.message.body, Body::Append(append) if !append.entries.is_empty())
            && self.choices.chance(Topic::Tardy, self.hosts[at].number, self.profile.late_reads.0);
        if late {
            let longest = nanos(self.profile.late_reads.1);
            let wait = self.choices.below(Topic::Scheduling, self.hosts[at].number, longest);
            let life = self.hosts[at].life;
            self.agenda
                .plan(self.now + wait, Event::Gather { host: at, life, peer, message: Box::new(message) });
        } else {
            self.gather(at, peer, message);
        }
    }

    /// Attaches bytes to a message and sends it.
    pub(super) fn gather(&mut self, at: usize, peer: PeerId, message: GroupMessage) {
        let GroupMessage { group, message } = message;
        let process = self.hosts[at].process.as_ref().expect("it has just been stepped");
        let cargo = match &message.body {
            Body::Append(append) if !append.entries.is_empty() => {
                let first = append.entries.first;
                let gathered = match process.log.gather(group, first, &append.entries.runs) {
                    Err(GatherError::OnDisk(plan)) => {
                        self.situations.count(Situation::ReadFromDisk);
                        LogReader::new(process.writer.disk(), process.writer.log_id()).read(&plan).ok()
                    }
                    Err(GatherError::Gone | GatherError::Damaged) => None,
                    Ok(entries) => Some(entries),
                };
                let Some(entries) = gathered else {
                    return self.report_gather_failed(at, group, message.to, first);
                };
                let positions: Vec<_> = entries.iter().map(Entry::position).collect();
                let verdict = log_matching::gathered(group, &append.entries.runs, &positions);
                if verdict.is_err() {
                    return self.judge(verdict);
                }
                Cargo::Entries(entries.into_iter().map(|entry| (entry.kind, entry.payload)).collect())
            }
            Body::SnapshotChunk(chunk) => match process.snapshots.get(&chunk.snapshot.id) {
                Some(snapshot) => Cargo::Chunk(snapshot.clone()),
                // Too many others were built meanwhile: it was removed.
                None if chunk.snapshot.id.0 <= process.names => {
                    return self.report_gather_failed(
                        at,
                        group,
                        message.to,
                        chunk.snapshot.meta.position.index,
                    );
                }
                None => return self.fail(Check::Assertion, "a chunk is sent of a snapshot nobody built"),
            },
            Body::Append(_)
            | Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_)
            | Body::SnapshotReply(_) => Cargo::None,
        };
        self.transmit(at, peer, Packet::Message(Box::new(GroupMessage { group, message }), cargo));
    }

    fn report_gather_failed(&mut self, at: usize, group: GroupId, to: ReplicaId, index: Index) {
        self.situations.count(Situation::GatherFailed);
        let life = self.hosts[at].life;
        let input = Input::GatherFailed { to, index };
        self.agenda.plan(self.now + 1, Event::Input { host: at, life, group, input });
    }

    fn transmit(&mut self, from: usize, peer: PeerId, packet: Packet) {
        let Some(&to) = self.peers.get(&peer) else { return };
        if packet.replicates() && self.replication_fails(from, to) {
            return self.situations.count(Situation::MessageLost);
        }
        let fate = self.network.send(&mut self.choices, &self.profile.network, (from, to));
        match fate {
            Fate::Lost => {
                self.situations.count(Situation::MessageLost);
                self.show_packet(Kind::Lost, (from, to), self.now, &packet);
            }
            Fate::Held => self.network.hold((from, to), packet),
            Fate::Arrives(first, again) => {
                if let Some(again) = again {
                    self.situations.count(Situation::MessageRepeated);
                    let packet = packet.clone();
                    self.agenda
                        .plan(self.now + again, Event::Deliver { from, to, peer, sent: self.now, packet });
                }
                if first > LATE_NANOS {
                    self.situations.count(Situation::MessageOvertaken);
                }
                self.agenda.plan(self.now + first, Event::Deliver { from, to, peer, sent: self.now, packet });
            }
        }
    }

    fn replication_fails(&mut self, from: usize, to: usize) -> bool {
        let failed = u64::from(self.profile.network.failed_replication);
        let number = self.network.number(from, to);
        failed > 0 && (1..=failed).contains(&self.choices.below(Topic::Message, number, 1_000_000))
    }

    /// A message arrives.
    pub(super) fn deliver(&mut self, from: usize, to: usize, sent: u64, packet: Packet) {
        self.show_packet(Kind::Message, (from, to), sent, &packet);
        match packet {
            Packet::Beats(messages) => {
                self.input(to, NodeInput::Beats(messages.clone()), None);
                for GroupMessage { group, message } in messages {
                    self.check_learnt(to, group, Told::by(&message));
                    self.look_at_group(to, group);
                }
            }
            Packet::Message(message, cargo) => {
                let GroupMessage { group, mut message } = *message;
                let mut first = Index::ZERO;
                if let (Body::Append(append), Cargo::Entries(entries)) = (&mut message.body, &cargo) {
                    first = append.entries.first;
                    append.configurations = configurations_of(first, entries);
                }
                let aimed = matters(&message.body);
                let told = Told::by(&message);
                let process =
                    self.hosts[to].process.as_mut().expect("only running processes are given messages");
                let answers_trial = matches!(message.body, Body::VoteReply(_))
                    && process.node.replica(group).is_some_and(|replica| {
                        self.checks.trials.entry((to, group)).or_default().hear(replica, &message)
                    });
                let payload = (!matches!(cargo, Cargo::None)).then(|| PayloadId(process.name()));
                let held = payload.map(|payload| (payload, Held::Cargo { first, cargo }));
                let input = Input::Message { message, payload };
                self.input(to, NodeInput::Group { group, input }, held);
                self.check_learnt(to, group, told);
                if answers_trial {
                    self.check_trial(to, group);
                }
                self.look_at_group(to, group);
                if aimed {
                    self.maybe_aim(from, to);
                }
            }
        }
    }

    fn check_learnt(&mut self, at: usize, group: GroupId, told: Option<Told>) {
        let replica = self.hosts[at].process.as_ref().and_then(|process| process.node.replica(group));
        if let (Some(told), Some(replica)) = (told, replica) {
            let verdict = told.check(group, replica);
            self.judge(verdict);
        }
    }

    fn check_trial(&mut self, at: usize, group: GroupId) {
        let replica = self.hosts[at].process.as_ref().and_then(|process| process.node.replica(group));
        if let (Some(replica), Some(trial)) = (replica, self.checks.trials.get(&(at, group))) {
            let verdict = trial.check(group, replica);
            self.judge(verdict);
        }
    }

    /// A crash right where it hurts.
    fn maybe_aim(&mut self, from: usize, to: usize) {
        let chance = self.profile.process.aimed_crashes;
        let link = self.network.number(from, to);
        if !self.choices.chance(Topic::Aim, link, chance) {
            return;
        }
        match self.choices.below(Topic::Aim, link, 3) {
            0 => self.crash(from),
            1 => self.crash(to),
            // What it says next is lost.
            _ => self.silence(to, link),
        }
    }

    /// Trouble that follows an election at once: the new leader dies, or is asked for other members.
    fn after_election(&mut self, at: usize, group: GroupId) {
        let (number, life) = (self.hosts[at].number, self.hosts[at].life);
        if self.choices.chance(Topic::Elected, number, self.profile.process.aimed_crashes) {
            let wait = self.choices.below(Topic::Elected, number, MOMENTS_NANOS);
            self.agenda.plan(self.now + wait, Event::Kill { host: at, life });
        }
        if self.choices.chance(Topic::Operator, number, self.profile.administration.impatience) {
            let wait = self.choices.below(Topic::Operator, number, MOMENTS_NANOS);
            self.agenda.plan(self.now + wait, Event::Hasty { host: at, life, group });
        }
    }
}

/// A crash that is aimed at a write under way comes this much later.
const AIMED_NANOS: u64 = 90_000;
/// What follows an election at once comes this much later at most.
const MOMENTS_NANOS: u64 = 3_000_000;
/// A message that travels longer than this is late.
const LATE_NANOS: u64 = 1_000_000;

/// Whether a crash around this message is of interest.
fn matters(body: &Body) -> bool {
    match body {
        Body::VoteReply(_) | Body::AppendReply(_) | Body::SnapshotReply(_) => true,
        Body::VoteAsk(_) | Body::Append(_) | Body::Beat(_) | Body::BeatReply(_) | Body::SnapshotChunk(_) => {
            false
        }
    }
}

fn configurations_of(first: Index, entries: &[(EntryKind, Bytes)]) -> Vec<ConfigurationEntry> {
    (first.0..)
        .zip(entries)
        .filter(|(_, (kind, _))| *kind == EntryKind::Configuration)
        .filter_map(|(index, (_, payload))| {
            let configuration = Configuration::decode(payload).ok()?;
            Some(ConfigurationEntry { index: Index(index), configuration })
        })
        .collect()
}

fn entries_of(append: AppendPlan, held: &mut Option<(PayloadId, Held)>) -> Option<Vec<Entry>> {
    let AppendPlan { range, source } = append;
    let entry = |index: u64, kind, payload| {
        let index = Index(index);
        let term = range.runs.term_at(index).expect("a range names the term of each of its entries");
        Entry { index, term, kind, payload }
    };
    let entries: Vec<Entry> = match source {
        EntrySource::Empty => vec![entry(range.first.0, EntryKind::Empty, Bytes::new())],
        EntrySource::Configuration(configuration) => {
            vec![entry(range.first.0, EntryKind::Configuration, configuration.encode().into())]
        }
        EntrySource::Payload(id) => match held {
            Some((name, Held::Commands(commands))) if *name == id => (range.first.0..)
                .zip(commands.iter().cloned())
                .map(|(index, payload)| entry(index, EntryKind::Normal, payload))
                .collect(),
            Some((name, Held::Cargo { first, cargo: Cargo::Entries(entries) })) if *name == id => (first.0..)
                .zip(entries.iter().cloned())
                .skip_while(|(index, _)| *index < range.first.0)
                .map(|(index, (kind, payload))| entry(index, kind, payload))
                .collect(),
            Some(_) | None => return None,
        },
    };
    (entries.len() as u64 == range.count()).then_some(entries)
}
