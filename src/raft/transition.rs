//! Every change of role, in one place.

use alloc::vec::Vec;

use super::{
    contract::{Output, Refusal},
    durability::Change,
    progress::{Progress, Window},
    replica::Replica,
    role::{Candidate, Follower, Following, Leader, Reads, Role, Snapshots},
    types::{HardState, Index, Instant, Now, ReplicaId, Round, Term},
};

impl Replica {
    /// Adopts a later term, as a follower that knows no leader.
    pub(super) fn adopt_term(&mut self, now: Now, term: Term) {
        assert!(term > self.term(), "a term is adopted only where it is later");
        self.hard_state = HardState { term, vote: self.hard_state.vote.filter(|_| mutant!(M06)) };
        let hard_state = Some(self.hard_state).filter(|_| !mutant!(M02));
        self.write(now, Change { hard_state, ..Change::default() });
        self.step_down(now);
    }

    /// Becomes a follower that knows no leader, in the current term.
    pub(super) fn step_down(&mut self, now: Now) {
        self.end_leadership();
        self.await_leader(now);
    }

    /// Waits for a leader, for a full time-out.
    pub(super) fn await_leader(&mut self, now: Now) {
        let deadline = now.monotonic + self.election_timeout();
        self.role = Role::Follower(Follower { leader: None, deadline });
    }

    /// Follows `leader`, heard of just now. Election Safety: there is no other leader in this term.
    pub(super) fn follow(&mut self, now: Now, leader: ReplicaId) {
        assert!(!matches!(self.role, Role::Leader(_)), "a leader follows nobody in its own term");
        let deadline = now.monotonic + self.election_timeout();
        match &mut self.role {
            Role::Follower(Follower { leader: Some(following), deadline: at })
                if following.leader == leader =>
            {
                following.heard = now.monotonic;
                following.unreachable = false;
                *at = deadline;
            }
            Role::Follower(_)
            | Role::PreCandidate(_)
            | Role::Candidate(_)
            | Role::Leader(_)
            | Role::Faulted(_) => {
                let following = Following {
                    leader,
                    heard: now.monotonic,
                    unreachable: false,
                    // Committed entries are equal everywhere, so they need no proof.
                    verified: None,
                    acknowledged: Index::ZERO,
                    round: Round(0),
                    incoming: None,
                };
                self.role = Role::Follower(Follower { leader: Some(following), deadline });
            }
        }
    }

    /// Asks whether an election would be won; term and vote stay (thesis, section 9.6).
    pub(super) fn become_pre_candidate(&mut self, now: Now) {
        assert!(self.may_campaign(), "only an intact voter stands for election");
        self.role =
            Role::PreCandidate(Candidate { votes: Vec::new(), deadline: self.candidate_deadline(now) });
    }

    /// Stands for election in the next term, and votes for itself.
    pub(super) fn become_candidate(&mut self, now: Now) {
        assert!(matches!(self.role, Role::PreCandidate(_)), "a trial precedes every election");
        self.hard_state = HardState { term: self.term().next(), vote: Some(self.settings.id) };
        let hard_state = Some(self.hard_state);
        self.write(now, Change { hard_state, ..Change::default() });
        self.role = Role::Candidate(Candidate { votes: Vec::new(), deadline: self.candidate_deadline(now) });
    }

    /// Leads the current term, of which nothing is committed yet.
    pub(super) fn become_leader(&mut self, now: Now) {
        assert!(matches!(self.role, Role::Candidate(_)), "only a candidate wins an election");
        assert_eq!(self.hard_state.vote, Some(self.settings.id), "a leader voted for itself");
        let next = self.log.last().index.next();
        let members = self.configuration().members();
        let others = members.into_iter().filter(|&member| member != self.settings.id);
        let followers = others.map(|member| (member, Progress::unknown(next, now.monotonic))).collect();
        self.role = Role::Leader(Leader {
            first_of_term: next,
            followers,
            round: Round(0),
            next_beat: self.next_beat(now.monotonic),
            quorum_check: now.monotonic + self.settings.timing.election,
            reads: Reads::default(),
            uncommitted: Window::default(),
            snapshots: Snapshots::default(),
        });
        self.counters.elections_won += 1;
    }

    /// Gives up what only a leader may promise.
    pub(super) fn end_leadership(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        let mut reads = core::mem::take(&mut leader.reads);
        if mutant!(M36) {
            for (_, index, reads) in reads.confirming.drain(..) {
                self.outputs.extend(reads.into_iter().map(|read| Output::ReadReady { read, index }));
            }
        }
        let confirming = reads.confirming.into_iter().flat_map(|(_, _, reads)| reads);
        for read in reads.queued.into_iter().chain(confirming) {
            self.outputs.push_back(Output::ReadRefused { read, reason: Refusal::LeadershipLost });
        }
    }

    /// Beats fall on a grid of the node's clock, so that those of all groups leave together.
    pub(super) fn next_beat(&self, now: Instant) -> Instant {
        let interval = u64::try_from(self.settings.timing.heartbeat.as_nanos()).unwrap_or(u64::MAX).max(1);
        Instant((now.0 / interval).saturating_add(1).saturating_mul(interval))
    }

    /// A random time in `[election, 2 election)` (Raft paper, section 5.2).
    fn election_timeout(&mut self) -> core::time::Duration {
        let election = self.settings.timing.election;
        self.draw_duration(election, election)
    }

    /// Candidates that split the vote meet again soon, at different times.
    fn candidate_deadline(&mut self, now: Now) -> Instant {
        let election = self.settings.timing.election;
        now.monotonic + self.draw_duration(election / 2, election / 2)
    }
}
