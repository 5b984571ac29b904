//! The language of the golden scripts: a cluster of which every step is a command.
//!
//! | command | effect |
//! |---|---|
//! | `cluster n=3 [retained=BYTES]` | new group; every disk answers at once |
//! | `campaign 1`, `tick 1`, `advance MS` | an election begun; the deadline of a replica reached; time passes without ticks |
//! | `deliver [from=A] [to=B] [max=N]` | messages in flight arrive, oldest first; answers stay in flight |
//! | `drop`, `duplicate` with the same choice | messages in flight are lost, or there twice |
//! | `settle` | delivers until nothing is in flight, without showing messages |
//! | `beats 1 N` | N times the leader's deadline, and a `settle` |
//! | `partition 1`, `heal` | replicas named are cut off from the others; nobody is |
//! | `propose 1 [count=N] [bytes=B]`, `read 1`, `add 1 4`, `promote 1 4`, `remove 1 3` | requests to replica 1 |
//! | `hold 1 [chunks]`, `release 1 [max=N]`, `fail 1`, `full 1 on\|off` | its disk stops, goes on, fails, is full |
//! | `apply 1`, `compact 1 INDEX`, `build 1 [bytes=B]`, `damage 1` | its state machine and snapshots |
//! | `crash 1`, `restart 1`, `blank 4`, `closed 2 about=1` | processes end, start, begin empty; a connection closed |
//! | `late 1 boot=B write=N` | a write is reported that may be of an earlier life |
//! | `status`, `log 1`, `inflight` | what there is |

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    time::Duration,
};

use kotoba_db_cluster::raft::{
    AppendOutcome, Ballot, Body, BootEpoch, Configuration, ConfigurationChange, EntrySource, Index, Input,
    Instant, Message, Now, Output, PayloadId, Position, ReadId, ReplicaId, RoleKind, SnapshotId, WriteFault,
    WritePlan, WriteToken,
};

use super::shell::{Payload, Shell, Wire};

#[derive(Debug, Default)]
pub struct Script {
    shells: BTreeMap<ReplicaId, Shell>,
    flight: Vec<Wire>,
    held: BTreeSet<ReplicaId>,
    held_chunks: BTreeSet<ReplicaId>,
    cut: BTreeSet<ReplicaId>,
    incoming: BTreeMap<ReplicaId, Position>,
    millis: u64,
    names: u64,
    out: String,
    quiet: bool,
}

/// A command line: its verb, its plain words, its `key=value` words.
struct Command<'a> {
    verb: &'a str,
    words: Vec<&'a str>,
    keys: BTreeMap<&'a str, &'a str>,
}

impl<'a> Command<'a> {
    fn parse(line: &'a str) -> Self {
        let mut parts = line.split_whitespace();
        let verb = parts.next().expect("a command has a verb");
        let (mut words, mut keys) = (Vec::new(), BTreeMap::new());
        for part in parts {
            match part.split_once('=') {
                Some((key, value)) => drop(keys.insert(key, value)),
                None => words.push(part),
            }
        }
        Self { verb, words, keys }
    }

    fn word(&self, at: usize) -> u64 {
        let word = self.words.get(at).unwrap_or_else(|| panic!("{} needs another word", self.verb));
        word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
    }

    fn id(&self, at: usize) -> ReplicaId {
        ReplicaId(self.word(at))
    }

    fn key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).map(|value| value.parse().expect("a number"))
    }

    fn chooses(&self, wire: &Wire) -> bool {
        self.key("from").is_none_or(|id| wire.message.from.0 == id)
            && self.key("to").is_none_or(|id| wire.message.to.0 == id)
    }
}

impl Script {
    /// Carries out one command. Returns what there is to see.
    pub fn run(&mut self, line: &str) -> String {
        let command = Command::parse(line);
        match command.verb {
            "cluster" => self.cluster(&command),
            "campaign" => self.input(command.id(0), Input::Campaign),
            "tick" => self.tick(command.id(0)),
            "advance" => self.millis += command.word(0),
            "deliver" => self.deliver(&command),
            "drop" => self.flight.retain(|wire| !command.chooses(wire)),
            "duplicate" => {
                let again: Vec<_> =
                    self.flight.iter().filter(|wire| command.chooses(wire)).cloned().collect();
                self.flight.extend(again);
            }
            "settle" => self.settle(),
            "partition" => self.cut = (0..command.words.len()).map(|at| command.id(at)).collect(),
            "heal" => self.cut.clear(),
            "propose" => self.propose(&command),
            "read" => {
                self.names += 1;
                self.input(command.id(0), Input::Read(ReadId(self.names)));
            }
            "add" => self.reconfigure(&command, ConfigurationChange::AddLearner),
            "promote" => self.reconfigure(&command, ConfigurationChange::Promote),
            "remove" => self.reconfigure(&command, ConfigurationChange::Remove),
            "hold" if command.words.len() > 1 => drop(self.held_chunks.insert(command.id(0))),
            "hold" => drop(self.held.insert(command.id(0))),
            "beats" => {
                self.quiet = true;
                for _ in 0..command.word(1) {
                    self.tick(command.id(0));
                    self.settle();
                }
                self.quiet = false;
            }
            "late" => {
                let boot = BootEpoch(command.key("boot").expect("which life"));
                let sequence = command.key("write").expect("which write");
                let token = WriteToken { boot, sequence };
                self.input(command.id(0), Input::Persisted { token, result: Ok(()) });
            }
            "release" => self.release(&command),
            "fail" => self.fail(command.id(0)),
            "full" => self.input(command.id(0), Input::DiskFull(command.words[1] == "on")),
            "apply" => self.apply(command.id(0)),
            "compact" => self.input(command.id(0), Input::Compact(Index(command.word(1)))),
            "build" => self.build(&command),
            "damage" => {
                let position = self.incoming[&command.id(0)];
                self.input(command.id(0), Input::SnapshotDamaged(position));
            }
            "crash" => {
                self.shell(command.id(0)).crash();
                self.held.remove(&command.id(0));
            }
            "restart" => self.restart(command.id(0)),
            "blank" => {
                self.shells.insert(command.id(0), Shell::blank(command.id(0), 1));
                self.restart(command.id(0));
            }
            "closed" => {
                let about = ReplicaId(command.key("about").expect("about whom"));
                self.input(command.id(0), Input::Unreachable(about));
            }
            "status" => self.status(),
            "log" => self.log(command.id(0)),
            "inflight" => {
                for wire in self.flight.clone() {
                    self.say(&describe(&wire.message));
                }
            }
            other => panic!("{other} is not a command"),
        }
        std::mem::take(&mut self.out)
    }

    fn say(&mut self, line: &str) {
        writeln!(self.out, "{line}").expect("strings take everything");
    }

    fn shell(&mut self, id: ReplicaId) -> &mut Shell {
        self.shells.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    fn clock(&self) -> Now {
        Now { monotonic: Instant(0) + Duration::from_millis(self.millis), wall: None }
    }

    fn cluster(&mut self, command: &Command<'_>) {
        let ids = (1..=command.key("n").expect("how many")).map(ReplicaId);
        let configuration = Configuration::of_voters(ids.clone()).expect("voters make a group");
        for id in ids {
            let mut shell = Shell::genesis(id, 1, configuration.clone());
            shell.retained_bytes = command.key("retained").unwrap_or(0);
            self.shells.insert(id, shell);
            self.restart(id);
        }
    }

    fn restart(&mut self, id: ReplicaId) {
        let now = self.clock();
        if let Err(error) = self.shell(id).start(now) {
            self.say(&format!("{id} does not start: {error}"));
        }
    }

    fn tick(&mut self, id: ReplicaId) {
        let Some(due) = self.shell(id).replica().deadline() else {
            return self.say(&format!("{id} waits for nothing"));
        };
        self.millis = self.millis.max(due.0.div_ceil(1_000_000));
        self.input(id, Input::Tick);
    }

    fn input(&mut self, id: ReplicaId, input: Input) {
        let now = self.clock();
        let outputs = self.shell(id).handle(now, input);
        self.follow_up(id, outputs);
    }

    fn follow_up(&mut self, id: ReplicaId, outputs: Vec<Output>) {
        for output in outputs {
            self.show(id, &output);
            match output {
                Output::Send(message) => match self.shell(id).gather(message) {
                    Some(wire) => self.flight.push(wire),
                    None => self.say(&format!("{id} cannot gather")),
                },
                Output::StoreChunk { snapshot, offset, length, .. } => {
                    let position = snapshot.meta.position;
                    self.incoming.insert(id, position);
                    if !self.held_chunks.contains(&id) {
                        self.input(id, Input::ChunkStored { position, next_offset: offset + length });
                    }
                }
                Output::Write(_)
                | Output::Commit(_)
                | Output::Proposed { .. }
                | Output::ProposalRefused { .. }
                | Output::ReadReady { .. }
                | Output::ReadRefused { .. }
                | Output::RoleChanged(_)
                | Output::Members(_)
                | Output::Purge(_)
                | Output::BuildSnapshot { .. }
                | Output::Faulted(_) => {}
            }
        }
        if !self.held.contains(&id) {
            self.flush(id, usize::MAX);
        }
    }

    fn flush(&mut self, id: ReplicaId, max: usize) {
        for _ in 0..max {
            if self.shell(id).writes_pending() == 0 {
                return;
            }
            if let Some(token) = self.shell(id).write_one() {
                let now = self.clock();
                let outputs = self.shell(id).complete(now, token);
                self.follow_up(id, outputs);
            }
        }
    }

    fn release(&mut self, command: &Command<'_>) {
        let max = command.key("max").map_or(usize::MAX, |max| usize::try_from(max).expect("small"));
        if max == usize::MAX {
            self.held_chunks.remove(&command.id(0));
            self.held.remove(&command.id(0));
        }
        self.flush(command.id(0), max);
    }

    fn fail(&mut self, id: ReplicaId) {
        let now = self.clock();
        let outputs = self.shell(id).fail_one(now, WriteFault::SyncFailed);
        self.follow_up(id, outputs);
    }

    fn deliver(&mut self, command: &Command<'_>) {
        let max = command.key("max").map_or(usize::MAX, |max| usize::try_from(max).expect("small"));
        let mut due = Vec::new();
        let mut later = Vec::new();
        for wire in std::mem::take(&mut self.flight) {
            if command.chooses(&wire) && due.len() < max { due.push(wire) } else { later.push(wire) }
        }
        self.flight = later;
        for wire in due {
            self.arrive(wire);
        }
    }

    fn arrive(&mut self, wire: Wire) {
        let (from, to) = (wire.message.from, wire.message.to);
        let reachable = self.cut.contains(&from) == self.cut.contains(&to);
        let now = self.clock();
        let Some(shell) = self.shells.get_mut(&to).filter(|shell| reachable && shell.replica.is_some())
        else {
            return;
        };
        let outputs = shell.receive(now, wire);
        self.follow_up(to, outputs);
    }

    fn settle(&mut self) {
        let quiet = std::mem::replace(&mut self.quiet, true);
        for _ in 0..10_000 {
            if self.flight.is_empty() {
                break;
            }
            let wire = self.flight.remove(0);
            self.arrive(wire);
        }
        assert!(self.flight.is_empty(), "the cluster does not come to rest");
        self.quiet = quiet;
    }

    fn propose(&mut self, command: &Command<'_>) {
        let count = command.key("count").unwrap_or(1);
        let values: Vec<_> = (0..count).map(|at| self.names + 1 + at).collect();
        self.names += count;
        let bytes = command.key("bytes").unwrap_or(count * 8);
        let now = self.clock();
        let outputs = self.shell(command.id(0)).propose_sized(now, &values, bytes);
        self.follow_up(command.id(0), outputs);
    }

    fn reconfigure(&mut self, command: &Command<'_>, change: fn(ReplicaId) -> ConfigurationChange) {
        let change = change(command.id(1));
        self.input(command.id(0), Input::Reconfigure { change, payload: PayloadId(0) });
    }

    fn apply(&mut self, id: ReplicaId) {
        let shell = self.shell(id);
        let _applied = shell.apply();
        shell.sync_state();
        let index = shell.state.applied;
        self.input(id, Input::Applied(index));
        self.say(&format!("{id} applied {index}"));
    }

    fn build(&mut self, command: &Command<'_>) {
        self.names += 1;
        let (name, bytes) = (SnapshotId(self.names), command.key("bytes").unwrap_or(100));
        let built = self.shell(command.id(0)).build_snapshot(name, bytes);
        self.input(command.id(0), Input::SnapshotBuilt(Some(built)));
    }

    fn status(&mut self) {
        for id in self.shells.keys().copied().collect::<Vec<_>>() {
            let Some(replica) = &self.shells[&id].replica else {
                self.say(&format!("{id} is down"));
                continue;
            };
            let status = replica.status();
            let leader = match status.role.leader {
                Some(leader) if leader != id => format!(" of {leader}"),
                Some(_) | None => String::new(),
            };
            self.say(&format!(
                "{id} {}{leader} {} log {}..{} durable {} commit {} members {:?}",
                role(status.role.role),
                status.role.term,
                status.start,
                status.last,
                status.durable,
                status.commit,
                status.configuration
            ));
        }
    }

    fn log(&mut self, id: ReplicaId) {
        let lines: Vec<_> = self.shells[&id]
            .log
            .iter()
            .map(|(index, entry)| {
                let payload = match &entry.payload {
                    Payload::Empty => "empty".to_owned(),
                    Payload::Data(value) => format!("value {value}"),
                    Payload::Members(configuration) => format!("members {configuration:?}"),
                };
                format!("{} {payload}", Position::new(*index, entry.term))
            })
            .collect();
        for line in lines {
            self.say(&line);
        }
    }

    fn show(&mut self, id: ReplicaId, output: &Output) {
        let line = match output {
            Output::Send(_) | Output::Write(_) | Output::StoreChunk { .. } if self.quiet => return,
            Output::Send(message) => describe(message),
            Output::Write(plan) => format!("{id} writes {}", describe_write(plan)),
            Output::Commit(index) => format!("{id} commits {index}"),
            Output::Proposed { first, last, .. } => format!("{id} appended {}..{last}", first.0),
            Output::ProposalRefused { reason, .. } => format!("{id} refuses: {reason:?}"),
            Output::ReadReady { read, index } => format!("{id} {read} at {index}"),
            Output::ReadRefused { read, reason } => format!("{id} refuses {read}: {reason:?}"),
            Output::RoleChanged(report) => match report.leader {
                Some(leader) if leader != id => format!("{id} follows {leader} in {}", report.term),
                Some(_) | None => format!("{id} is {} in {}", role(report.role), report.term),
            },
            Output::Members(configuration) => format!("{id} members {configuration:?}"),
            Output::Purge(meta) => format!("{id} purges to {}", meta.position),
            Output::BuildSnapshot { at_least } => format!("{id} wants a snapshot of {at_least} or later"),
            Output::StoreChunk { snapshot, offset, length, .. } => {
                format!(
                    "{id} stores {} bytes {offset}+{length} of {}",
                    snapshot.meta.position, snapshot.bytes
                )
            }
            Output::Faulted(fault) => format!("{id} is faulted: {fault:?}"),
        };
        self.say(&line);
    }
}

fn role(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::PreCandidate => "pre-candidate",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
        RoleKind::Faulted => "faulted",
    }
}

fn describe_write(plan: &WritePlan) -> String {
    let mut parts = Vec::new();
    if let Some(state) = plan.hard_state {
        parts.push(match state.vote {
            Some(vote) => format!("{} vote {vote}", state.term),
            None => format!("{} no vote", state.term),
        });
    }
    parts.extend(plan.install.as_ref().map(|meta| format!("snapshot {}", meta.position)));
    parts.extend(plan.truncate_from.map(|from| format!("void from {from}")));
    parts.extend(plan.append.as_ref().map(|append| {
        let kind = match append.source {
            EntrySource::Payload(_) => "entries",
            EntrySource::Empty => "empty",
            EntrySource::Configuration(_) => "members",
        };
        format!("{kind} {}..{:?}", append.range.first.0, append.range.runs)
    }));
    parts.join(", ")
}

fn describe(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let ballot = |ballot: Ballot| match ballot {
        Ballot::Pre => "pre-vote",
        Ballot::Real => "vote",
    };
    let body = match body {
        Body::VoteAsk(ask) => format!("{}? for {} last {}", ballot(ask.ballot), ask.campaign_term, ask.last),
        Body::VoteReply(reply) => {
            let answer = if reply.granted { "yes" } else { "no" };
            format!("{} {answer} for {}", ballot(reply.ballot), reply.campaign_term)
        }
        Body::Append(append) => {
            let entries = if append.entries.is_empty() {
                "nothing".to_owned()
            } else {
                format!("{}..{:?}", append.entries.first.0, append.entries.runs)
            };
            format!("append {entries} after {} commit {}", append.prev, append.commit)
        }
        Body::AppendReply(reply) => match reply.outcome {
            AppendOutcome::Accepted(index) => format!("accepted {index}"),
            AppendOutcome::Rejected { prev, hint } => format!("rejected {prev} hint {hint}"),
        },
        Body::Beat(beat) => format!("beat {} commit {} sent {}", beat.round, beat.commit, beat.sent),
        Body::BeatReply(reply) => match reply.verified {
            Some(verified) => format!("beat answered {} verified {verified}", reply.round),
            None => format!("beat answered {}", reply.round),
        },
        Body::SnapshotChunk(chunk) => {
            let position = chunk.snapshot.meta.position;
            format!("snapshot {position} bytes {}+{} of {}", chunk.offset, chunk.length, chunk.snapshot.bytes)
        }
        Body::SnapshotReply(reply) => format!("snapshot {} next {}", reply.position, reply.next_offset),
    };
    format!("{from}>{to} {term} {body}")
}
