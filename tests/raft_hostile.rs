//! Whatever a remote says, and whatever an embedder reports late or twice, no replica panics.

#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "raft/shell.rs"]
mod shell;

use kotoba_db_cluster::raft::{
    Append, AppendOutcome, AppendReply, Ballot, Beat, BeatReply, Body, BootEpoch, Configuration, EntryRange,
    Index, Input, Instant, Message, Now, Output, Position, ReplicaId, RoleKind, Round, SnapshotChunk,
    SnapshotDescriptor, SnapshotId, SnapshotMeta, SnapshotReply, Term, TermRuns, VoteAsk, VoteReply,
    WriteToken,
};
use proptest::prelude::*;
use shell::{Cargo, Entry, Payload, Shell, Wire};

const OWN: ReplicaId = ReplicaId(1);

/// Small numbers meet the replica's own; large ones try its arithmetic.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![20 => 0..12u64, 1 => Just(1 << 62), 1 => Just(u64::MAX), 1 => any::<u64>()]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(index, term)| Position::new(Index(index), Term(term)))
}

fn configuration() -> impl Strategy<Value = Configuration> {
    let ids = || prop::collection::vec((1..7u64).prop_map(ReplicaId), 0..4);
    (ids(), ids(), ids(), any::<bool>(), any::<bool>()).prop_map(
        |(voters, outgoing, learners, auto_leave, tidy)| {
            let mut configuration = Configuration { voters, outgoing, learners, auto_leave };
            if tidy {
                configuration.outgoing.clear();
                configuration.learners.clear();
                configuration.voters.push(ReplicaId(2));
                configuration.voters.sort_unstable();
                configuration.voters.dedup();
            }
            configuration
        },
    )
}

fn append() -> impl Strategy<Value = (Body, Vec<Payload>)> {
    let runs = prop::collection::vec((0..4u64, 0..3u64), 0..4);
    let numbers = (number(), number(), number(), number());
    (position(), runs, configuration(), prop::option::of(0..4usize), numbers).prop_map(
        |(prev, steps, configuration, at, (commit, round, first, bytes))| {
            let (mut runs, mut last) = (TermRuns::default(), prev);
            for (count, rise) in steps {
                last.index = Index(last.index.0.saturating_add(count));
                last.term = Term(last.term.0.saturating_add(rise));
                let _room = runs.push(last);
            }
            // Mostly where it belongs.
            let first = if first < 11 { Index(prev.index.0.saturating_add(1)) } else { Index(first) };
            let entries = EntryRange { first, bytes, runs };
            let count = last.index.0.saturating_sub(prev.index.0).min(64);
            let mut payloads = vec![Payload::Empty; usize::try_from(count).expect("few")];
            if let Some(slot) = at.and_then(|at| payloads.get_mut(at))
                && configuration.check().is_ok()
            {
                *slot = Payload::Members(configuration);
            }
            let configurations = Vec::new();
            let round = Round(round);
            let append = Append { prev, entries, configurations, commit: Index(commit), round, clock: None };
            (Body::Append(append), payloads)
        },
    )
}

fn chunk() -> impl Strategy<Value = Body> {
    (position(), configuration(), number(), number(), 0..3u64).prop_map(
        |(position, configuration, offset, length, bytes)| {
            let meta = SnapshotMeta { position, configuration };
            let snapshot = SnapshotDescriptor { id: SnapshotId(1), meta, bytes: bytes * 8 };
            Body::SnapshotChunk(SnapshotChunk { snapshot, offset: offset & !7, length: length & !7 })
        },
    )
}

fn body() -> impl Strategy<Value = (Body, Vec<Payload>)> {
    let ballot = prop_oneof![Just(Ballot::Pre), Just(Ballot::Real)];
    let small = (ballot, number(), position(), any::<bool>(), number(), number(), 0..7u8).prop_map(
        |(ballot, term, position, granted, a, b, kind)| {
            let (campaign_term, index) = (Term(term), Index(a));
            let verified = granted.then_some(Index(b));
            match kind {
                0 => Body::VoteAsk(VoteAsk { ballot, campaign_term, last: position }),
                1 => Body::VoteReply(VoteReply { ballot, campaign_term, granted }),
                2 => Body::AppendReply(AppendReply {
                    outcome: AppendOutcome::Accepted(index),
                    round: Round(b),
                }),
                3 => Body::AppendReply(AppendReply {
                    outcome: AppendOutcome::Rejected { prev: index, hint: position },
                    round: Round(b),
                }),
                4 => Body::Beat(Beat { commit: index, round: Round(b), sent: Index(term) }),
                5 => Body::BeatReply(BeatReply { round: Round(a), verified }),
                _ => Body::SnapshotReply(SnapshotReply { position, next_offset: a }),
            }
        },
    );
    prop_oneof![
        3 => small.prop_map(|body| (body, Vec::new())),
        2 => append(),
        1 => chunk().prop_map(|body| (body, Vec::new())),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Hear { from: u64, term: u64, body: Body, payloads: Vec<Payload> },
    Persisted(u64),
    WriteAll,
    Wait(u64),
    Propose,
    Local(Input),
    Stored(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let hear = (1..6u64, number(), body()).prop_map(|(from, term, (mut body, payloads))| {
        // Well formed more often than chance would have it.
        if let (Body::VoteAsk(ask), true) = (&mut body, term < 12) {
            ask.campaign_term = if ask.ballot == Ballot::Pre { Term(term + 1) } else { Term(term) };
        }
        Step::Hear { from, term, body, payloads }
    });
    let local = (number(), position(), 1..6u64, 0..6u8).prop_map(|(number, position, id, kind)| {
        Step::Local(match kind {
            0 => Input::Compact(Index(number)),
            1 => Input::SnapshotDamaged(position),
            2 => Input::GatherFailed { to: ReplicaId(id), index: Index(number) },
            3 => Input::Unreachable(ReplicaId(id)),
            4 => Input::Campaign,
            _ => Input::DiskFull(number > 6),
        })
    });
    prop_oneof![
        12 => hear,
        2 => number().prop_map(Step::Persisted),
        4 => Just(Step::WriteAll),
        3 => (0..2000u64).prop_map(Step::Wait),
        1 => Just(Step::Propose),
        2 => local,
        2 => number().prop_map(Step::Stored),
    ]
}

struct Victim {
    shell: Shell,
    now: u64,
    arrived: Vec<Position>,
    roles: Vec<RoleKind>,
}

impl Victim {
    fn clock(&self) -> Now {
        Now { monotonic: Instant(self.now * 1_000_000), wall: None }
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::StoreChunk { snapshot, .. } => self.arrived.push(snapshot.meta.position),
                Output::RoleChanged(report) => self.roles.push(report.role),
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        let now = self.clock();
        let outputs = self.shell.handle(now, input);
        self.take(outputs);
    }

    fn write_all(&mut self) {
        while self.shell.writes_pending() > 0 {
            if let Some(token) = self.shell.write_one() {
                self.input(Input::Persisted { token, result: Ok(()) });
            }
        }
        let _applied = self.shell.apply();
        self.shell.sync_state();
        self.input(Input::Applied(self.shell.state.applied));
    }

    fn step(&mut self, step: Step) {
        let now = self.clock();
        match step {
            Step::Hear { from, term, body, payloads } => {
                let message = Message { from: ReplicaId(from), to: OWN, term: Term(term), body };
                let cargo = match &message.body {
                    Body::SnapshotChunk(chunk) => {
                        let applied = chunk.snapshot.meta.position.index;
                        let state = shell::State { applied, ..shell::State::default() };
                        Cargo::Chunk(state.into())
                    }
                    Body::Append(append) if !append.entries.is_empty() => {
                        let entries = payloads.into_iter().map(|payload| Entry { term: Term(0), payload });
                        Cargo::Entries(entries.collect())
                    }
                    _ => Cargo::None,
                };
                let outputs = self.shell.receive(now, Wire { message, cargo });
                self.take(outputs);
            }
            Step::Persisted(sequence) => {
                // Of an earlier life, or never asked for.
                let token = WriteToken { boot: BootEpoch(7), sequence };
                self.input(Input::Persisted { token, result: Ok(()) });
            }
            Step::WriteAll => self.write_all(),
            Step::Wait(millis) => {
                self.now += millis;
                self.input(Input::Tick);
            }
            Step::Propose => {
                let outputs = self.shell.propose(now, &[1, 2]);
                self.take(outputs);
            }
            // A shell only reports what is so: compaction of what is durable.
            Step::Local(Input::Compact(_)) => {
                self.input(Input::Compact(self.shell.disk.state.applied));
            }
            Step::Local(input) => self.input(input),
            Step::Stored(next_offset) => {
                if let Some(position) = self.arrived.last().copied() {
                    self.input(Input::ChunkStored { position, next_offset: next_offset & !7 });
                }
            }
        }
    }
}

fn role() -> impl Strategy<Value = RoleKind> {
    prop_oneof![Just(RoleKind::Follower), Just(RoleKind::Candidate), Just(RoleKind::Leader)]
}

/// A replica of three that was brought into a role in an honest way.
fn victim(role: RoleKind) -> Victim {
    let voters = Configuration::of_voters((1..=3).map(ReplicaId)).expect("voters make a group");
    let mut shell = Shell::genesis(OWN, 5, voters);
    shell.start(Now::default()).expect("a new group's member starts");
    let mut victim = Victim { shell, now: 2_000, arrived: Vec::new(), roles: Vec::new() };
    if role != RoleKind::Follower {
        victim.input(Input::Campaign);
        for ballot in [Ballot::Pre, Ballot::Real] {
            victim.write_all();
            if ballot == Ballot::Real && role != RoleKind::Leader {
                break;
            }
            let term = victim.shell.replica().status().role.term;
            let campaign_term = Term(2);
            let reply = VoteReply { ballot, campaign_term, granted: true };
            let (from, body) = (ReplicaId(2), Body::VoteReply(reply));
            victim.step(Step::Hear { from: from.0, term: term.0, body, payloads: Vec::new() });
        }
    }
    assert_eq!(victim.shell.replica().status().role.role, role);
    victim
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_message_and_no_completion_panics(start in role(), steps in prop::collection::vec(step(), 1..60)) {
        let mut victim = victim(start);
        for step in steps {
            victim.step(step);
        }
        let status = victim.shell.replica().status();
        prop_assert!(status.commit <= status.last.index && status.role.role != RoleKind::Faulted);
    }
}

/// What a leader of a later term hears from us waits until that term is durable, whatever it sent.
#[test]
fn an_answer_to_a_chunk_waits_for_its_term() {
    let mut victim = victim(RoleKind::Follower);
    let position = Position::new(Index(1), Term(1));
    let configuration = Configuration::of_voters((1..=3).map(ReplicaId)).expect("voters make a group");
    let meta = SnapshotMeta { position, configuration };
    let snapshot = SnapshotDescriptor { id: SnapshotId(1), meta, bytes: 8 };
    let body = Body::SnapshotChunk(SnapshotChunk { snapshot, offset: 0, length: 8 });
    let message = Message { from: ReplicaId(2), to: OWN, term: Term(7), body };
    let state = shell::State { applied: Index(1), ..shell::State::default() };
    let wire = Wire { message, cargo: Cargo::Chunk(state.into()) };
    let at_once = victim.shell.receive(victim.clock(), wire);
    assert!(!at_once.iter().any(|output| matches!(output, Output::Send(_))), "{at_once:?}");
    let token = victim.shell.write_one().expect("the term is written");
    let later = victim.shell.complete(victim.clock(), token);
    let answered = later.iter().any(|output| {
        matches!(output, Output::Send(Message { body: Body::AppendReply(_), term: Term(7), .. }))
    });
    assert!(answered, "{later:?}");
}

/// Votes for a candidacy that is not durable were never asked for.
#[test]
fn votes_that_come_before_they_are_asked_for_count_nothing() {
    let mut victim = victim(RoleKind::Follower);
    victim.input(Input::Campaign);
    let vote = |victim: &mut Victim, from: u64, ballot| {
        let term = victim.shell.replica().status().role.term.0;
        let body = Body::VoteReply(VoteReply { ballot, campaign_term: Term(2), granted: true });
        victim.step(Step::Hear { from, term, body, payloads: Vec::new() });
        victim.shell.replica().status().role.role
    };
    assert_eq!(vote(&mut victim, 2, Ballot::Pre), RoleKind::Candidate);
    assert_eq!(vote(&mut victim, 2, Ballot::Real), RoleKind::Candidate);
    assert_eq!(vote(&mut victim, 3, Ballot::Real), RoleKind::Candidate);
    victim.write_all();
    assert_eq!(victim.shell.replica().status().role.role, RoleKind::Candidate);
    assert_eq!(vote(&mut victim, 3, Ballot::Real), RoleKind::Leader);
}

/// No log holds as many bytes as a number can say; adding them up must not be tried.
#[test]
fn a_message_that_claims_more_bytes_than_there_are_is_dropped() {
    let mut victim = victim(RoleKind::Follower);
    let mut runs = TermRuns::one(Position::new(Index(2), Term(1)));
    assert!(runs.push(Position::new(Index(3), Term(2))));
    let entries = EntryRange { first: Index(2), bytes: u64::MAX, runs };
    let prev = Position::new(Index(1), Term(1));
    let (commit, round) = (Index(1), Round(1));
    let append = Append { prev, entries, configurations: Vec::new(), commit, round, clock: None };
    let payloads = vec![Payload::Empty; 2];
    victim.step(Step::Hear { from: 2, term: 2, body: Body::Append(append), payloads });
    let status = victim.shell.replica().status();
    assert_eq!((status.last.index, status.counters.hostile), (Index(1), 1));
}
