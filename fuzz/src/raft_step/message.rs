//! Well-formed but hostile messages: mostly what a leader, follower or candidate could say at this moment,
//! with one thing or another that none would.

use std::rc::Rc;

use kotoba_db_cluster::{
    limits::APPEND_ENTRIES_MAX,
    raft::{
        Append, AppendOutcome, AppendReply, Ballot, Beat, BeatReply, Body, Configuration, EntryRange, Index,
        Message, Position, ReplicaId, RoleKind, Round, SnapshotChunk, SnapshotDescriptor, SnapshotId,
        SnapshotMeta, SnapshotReply, Status, Term, TermRuns, VoteAsk, VoteReply,
    },
};

use super::{
    OWN,
    shell::{Cargo, Entry, Payload, Shell, State, Wire},
};
use crate::choices::Choices;

/// Draws a message to the replica in `shell`.
pub(super) fn draw(
    choices: &mut Choices<'_>,
    shell: &Shell,
    arrived: &[(SnapshotDescriptor, u64)],
    built: &[Position],
) -> Wire {
    let status = shell.replica().status();
    let mut liar = Liar { choices, shell, status, arrived, built };
    let from = liar.sender();
    let term = liar.term();
    let (body, cargo) = liar.body(term);
    let to = if liar.choices.once_in(64) { ReplicaId(2) } else { OWN };
    Wire { message: Message { from, to, term, body }, cargo }
}

/// The vote that the replica waits for, from this voter.
pub(super) fn grant(shell: &Shell, from: ReplicaId) -> Wire {
    let role = shell.replica().status().role;
    let (ballot, campaign_term) = match role.role {
        RoleKind::PreCandidate => (Ballot::Pre, role.term.next()),
        RoleKind::Follower | RoleKind::Candidate | RoleKind::Leader | RoleKind::Faulted => {
            (Ballot::Real, role.term)
        }
    };
    let body = Body::VoteReply(VoteReply { ballot, campaign_term, granted: true });
    Wire { message: Message { from, to: OWN, term: role.term, body }, cargo: Cargo::None }
}

struct Liar<'c, 'b, 's> {
    choices: &'c mut Choices<'b>,
    shell: &'s Shell,
    status: Status,
    arrived: &'s [(SnapshotDescriptor, u64)],
    built: &'s [Position],
}

/// Where arithmetic ends.
const EXTREMES: [u64; 5] = [1 << 62, (1 << 62) + 1, (1 << 63) - 1, u64::MAX - 1, u64::MAX];

impl Liar<'_, '_, '_> {
    fn extreme(&mut self) -> u64 {
        match self.choices.below(6) {
            5 => self.choices.number(),
            at => EXTREMES[usize::try_from(at).expect("small")],
        }
    }

    fn sender(&mut self) -> ReplicaId {
        let leader = self.status.role.leader.filter(|&leader| leader != OWN);
        match (leader, self.choices.below(4)) {
            (Some(leader), 0..=2) => leader,
            (None, 0..=2) => ReplicaId(2),
            (_, _) => ReplicaId(self.choices.below(8)),
        }
    }

    fn term(&mut self) -> Term {
        let now = self.status.role.term.0;
        Term(match self.choices.below(16) {
            0..=10 => now,
            11 => now + 1,
            12 => now + self.choices.below(3),
            13 => self.choices.below(now + 1),
            14 => now.saturating_sub(1),
            _ if self.choices.once_in(8) => self.extreme(),
            _ => now,
        })
    }

    fn index(&mut self) -> Index {
        let Status { start, last, commit, durable, .. } = self.status;
        Index(match self.choices.below(16) {
            0..=5 => last.index.0,
            6 => commit.0,
            7 => start.index.0,
            8 => durable.0,
            9 => last.index.0 + 1,
            10 => commit.0 + 1,
            11 | 12 => self.choices.below(last.index.0 + 3),
            13 => last.index.0 + self.choices.below(5_000),
            14 => 0,
            _ => self.extreme(),
        })
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        let start = self.status.start;
        let held = self.shell.log.get(&index).map(|entry| entry.term);
        held.or_else(|| (start.index == index).then_some(start.term))
    }

    fn position(&mut self) -> Position {
        let index = self.index();
        let held = self.term_at(index);
        let term = match (held, self.choices.below(8)) {
            (Some(term), 0..=5) => term,
            (_, _) => self.term(),
        };
        Position::new(index, term)
    }

    fn round(&mut self) -> Round {
        Round(if self.choices.once_in(16) { self.extreme() } else { self.choices.below(12) })
    }

    fn configuration(&mut self) -> Configuration {
        let mut list = |most: usize| -> Vec<ReplicaId> {
            let count = self.choices.place(most + 1);
            (0..count).map(|_| ReplicaId(1 + self.choices.below(6))).collect()
        };
        let (mut voters, outgoing, learners) = (list(4), list(2), list(2));
        voters.push(ReplicaId(2));
        let mut configuration = Configuration { voters, outgoing, learners, auto_leave: false };
        if !self.choices.once_in(6) {
            // Mostly what every honest replica makes of it.
            configuration.outgoing.clear();
            configuration.voters.sort_unstable();
            configuration.voters.dedup();
            let voters = configuration.voters.clone();
            configuration.learners.retain(|learner| !voters.contains(learner));
            configuration.learners.sort_unstable();
            configuration.learners.dedup();
        }
        configuration
    }

    fn body(&mut self, term: Term) -> (Body, Cargo) {
        let leads = self.status.role.role == RoleKind::Leader;
        match self.choices.below(if leads { 24 } else { 16 }) {
            0..=6 => self.append(term),
            7 => (self.beat(), Cargo::None),
            8..=10 => self.chunk(term),
            11 | 12 => (self.vote_ask(term), Cargo::None),
            13 => (self.vote_reply(), Cargo::None),
            14 | 16..=18 => (self.append_reply(), Cargo::None),
            15 | 19 | 20 => (self.beat_reply(), Cargo::None),
            _ => (self.snapshot_reply(), Cargo::None),
        }
    }

    fn append(&mut self, term: Term) -> (Body, Cargo) {
        let prev = self.position();
        let (mut runs, mut last) = (TermRuns::default(), prev);
        for _ in 0..self.choices.below(5) {
            let count = match self.choices.below(24) {
                0 => self.extreme(),
                1 => APPEND_ENTRIES_MAX - 1 + self.choices.below(3),
                few => few % 4,
            };
            let rise = if self.choices.once_in(12) { self.extreme() } else { self.choices.below(3) };
            let risen = last.term.0.saturating_add(rise);
            let tame = !self.choices.once_in(8);
            last = Position::new(
                Index(last.index.0.saturating_add(count)),
                Term(if tame { risen.min(term.0) } else { risen }),
            );
            let _room = runs.push(last);
        }
        let first =
            if self.choices.once_in(16) { self.index() } else { Index(prev.index.0.saturating_add(1)) };
        let bytes = if self.choices.once_in(16) { self.extreme() } else { self.choices.below(70_000) };
        let entries = EntryRange { first, bytes, runs };
        let count = last.index.0.saturating_sub(prev.index.0).min(APPEND_ENTRIES_MAX);
        let mut payloads = vec![Payload::Empty; usize::try_from(count).expect("few")];
        for _ in 0..self.choices.below(3) {
            if !payloads.is_empty() {
                let at = self.choices.place(payloads.len());
                payloads[at] = Payload::Members(self.configuration());
            }
        }
        let carried = !payloads.is_empty() && !self.choices.once_in(16);
        let append = Append {
            prev,
            entries,
            configurations: Vec::new(),
            commit: self.index(),
            round: self.round(),
            clock: None,
        };
        let entry = |payload| Entry { term: Term(0), payload };
        let cargo =
            if carried { Cargo::Entries(payloads.into_iter().map(entry).collect()) } else { Cargo::None };
        (Body::Append(append), cargo)
    }

    fn chunk(&mut self, term: Term) -> (Body, Cargo) {
        let (snapshot, from) = match self.arrived.last() {
            Some((snapshot, stored)) if !self.choices.once_in(3) => (snapshot.clone(), *stored),
            Some(_) | None => {
                let mut position = self.position();
                if !self.choices.once_in(4) {
                    let ahead = self.status.last.index.0 + self.choices.below(4);
                    position = Position::new(Index(ahead), position.term.min(term));
                }
                let meta = SnapshotMeta { position, configuration: self.configuration() };
                let bytes = if self.choices.once_in(12) { self.extreme() } else { 8 * self.choices.below(4) };
                (SnapshotDescriptor { id: SnapshotId(1), meta, bytes }, 0)
            }
        };
        let offset = if self.choices.once_in(8) { self.extreme() } else { from };
        let length = if self.choices.once_in(8) { self.extreme() } else { 8 };
        let state = State { applied: snapshot.meta.position.index, ..State::default() };
        let cargo = if self.choices.once_in(16) { Cargo::None } else { Cargo::Chunk(Rc::new(state)) };
        (Body::SnapshotChunk(SnapshotChunk { snapshot, offset, length }), cargo)
    }

    fn ballot(&mut self) -> Ballot {
        if self.choices.once_in(2) { Ballot::Pre } else { Ballot::Real }
    }

    fn vote_ask(&mut self, term: Term) -> Body {
        let ballot = self.ballot();
        let campaign_term = match ballot {
            _ if self.choices.once_in(8) => self.term(),
            Ballot::Pre => Term(term.0.saturating_add(1)),
            Ballot::Real => term,
        };
        Body::VoteAsk(VoteAsk { ballot, campaign_term, last: self.position() })
    }

    fn vote_reply(&mut self) -> Body {
        let ballot = self.ballot();
        let next = Term(self.status.role.term.0 + u64::from(ballot == Ballot::Pre));
        let campaign_term = if self.choices.once_in(8) { self.term() } else { next };
        Body::VoteReply(VoteReply { ballot, campaign_term, granted: !self.choices.once_in(4) })
    }

    fn beat(&mut self) -> Body {
        Body::Beat(Beat { commit: self.index(), round: self.round(), sent: self.index() })
    }

    fn beat_reply(&mut self) -> Body {
        let verified = (!self.choices.once_in(4)).then(|| self.index());
        Body::BeatReply(BeatReply { round: self.round(), verified })
    }

    fn append_reply(&mut self) -> Body {
        let outcome = if self.choices.once_in(3) {
            AppendOutcome::Rejected { prev: self.index(), hint: self.position() }
        } else {
            AppendOutcome::Accepted(self.index())
        };
        Body::AppendReply(AppendReply { outcome, round: self.round() })
    }

    fn snapshot_reply(&mut self) -> Body {
        let position = match self.choices.pick(self.built) {
            Some(position) if !self.choices.once_in(6) => position,
            Some(_) | None => self.position(),
        };
        let next_offset = match self.choices.below(4) {
            0 => self.extreme(),
            1 => self.choices.below(4 << 20),
            _ => self.choices.below(13) * (256 << 10),
        };
        Body::SnapshotReply(SnapshotReply { position, next_offset })
    }
}
