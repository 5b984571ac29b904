//! Elections (Raft paper, sections 5.2 and 5.4.1; pre-vote and stickiness: thesis, section 9.6 and 4.2.3).

use alloc::vec::Vec;
use core::time::Duration;

use super::{
    durability::Change,
    message::{Ballot, Body, VoteAsk, VoteReply},
    quorum::{self, Election},
    replica::Replica,
    role::{Follower, Role},
    types::{HardState, Now, ReplicaId, Term},
};

impl Replica {
    /// Something is due.
    pub(super) fn tick(&mut self, now: Now) {
        if self.deadline().is_none_or(|at| now.monotonic < at) {
            return;
        }
        match &self.role {
            Role::Follower(_) => self.campaign(now),
            // A trial or an election that was not decided in time: try again.
            Role::PreCandidate(_) | Role::Candidate(_) if self.may_campaign() => self.campaign(now),
            Role::PreCandidate(_) | Role::Candidate(_) => self.await_leader(now),
            Role::Leader(_) => self.leader_tick(now),
            Role::Faulted(_) => {}
        }
    }

    /// Stands for election where nobody leads: the embedder wants this replica first.
    pub(super) fn campaign_if_leaderless(&mut self, now: Now) {
        if let Role::Follower(Follower { leader: None, .. }) = self.role
            && self.may_campaign()
        {
            self.campaign(now);
        }
    }

    fn campaign(&mut self, now: Now) {
        // While the disk does not answer, an election could not be won; while a snapshot is being
        // installed, the log is not what it will be.
        if !self.durability.is_settled() {
            self.await_leader(now);
            return;
        }
        self.counters.campaigns += 1;
        self.become_pre_candidate(now);
        let campaign_term = self.term().next();
        for voter in self.other_voters() {
            self.send(voter, self.vote_ask(Ballot::Pre, campaign_term));
        }
        self.record_vote(now, self.settings.id, true);
    }

    fn stand(&mut self, now: Now) {
        self.become_candidate(now);
        // A request leaves only when the term, the vote and every entry it boasts of are durable:
        // after a crash the candidate must still be what it claimed (Leader Completeness).
        for voter in self.other_voters() {
            let ask = self.message(voter, self.vote_ask(Ballot::Real, self.term()));
            if mutant!(M05) {
                self.outputs.push_back(super::Output::Send(ask));
            } else {
                self.send_when_durable(ask);
            }
        }
    }

    /// Its own vote counts like any other: once it is durable.
    pub(super) fn count_own_vote(&mut self, now: Now) {
        if self.durability.is_settled() {
            self.record_vote(now, self.settings.id, true);
        }
    }

    fn vote_ask(&self, ballot: Ballot, campaign_term: Term) -> Body {
        Body::VoteAsk(VoteAsk { ballot, campaign_term, last: self.log.last() })
    }

    fn other_voters(&self) -> Vec<ReplicaId> {
        let configuration = self.configuration();
        let members = configuration.members().into_iter();
        members.filter(|&id| id != self.settings.id && configuration.is_voter(id)).collect()
    }

    /// Another replica asks for a vote. Terms are not compared before: a trial must not change
    /// ours, and one who disturbs a group with a living leader must not either.
    pub(super) fn on_vote_ask(&mut self, now: Now, from: ReplicaId, ask: VoteAsk) {
        if self.is_content(now) {
            // Told all the same, so that a later term of ours is learnt.
            self.answer_vote(from, &ask, false);
            return;
        }
        if ask.ballot == Ballot::Real && ask.campaign_term > self.term() {
            self.adopt_term(now, ask.campaign_term);
        }
        if mutant!(B05) && ask.ballot == Ballot::Pre {
            self.await_leader(now);
        }
        let granted = self.would_grant(now, from, &ask);
        if granted && ask.ballot == Ballot::Real {
            self.grant(now, from);
        }
        self.answer_vote(from, &ask, granted);
    }

    /// Whether this replica has a leader and no reason to doubt it (thesis, section 4.2.3).
    fn is_content(&self, now: Now) -> bool {
        match &self.role {
            Role::Leader(_) => true,
            Role::Follower(Follower { leader: Some(following), .. }) => {
                !following.unreachable && now.monotonic.since(following.heard) < self.settings.timing.election
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => false,
        }
    }

    fn would_grant(&self, now: Now, from: ReplicaId, ask: &VoteAsk) -> bool {
        let free = match ask.ballot {
            // Its word would not be followed by a vote while its disk does not answer; encouraged again
            // and again, a candidate that cannot win would disturb the one that can.
            Ballot::Pre => ask.campaign_term > self.term() && (!self.is_stalled(now) || mutant!(M68)),
            Ballot::Real => {
                let kept = |vote| vote == from || mutant!(M03);
                ask.campaign_term == self.term() && self.hard_state.vote.is_none_or(kept)
            }
        };
        // Leader Completeness: a candidate that lacks a committed entry finds no majority.
        !self.damaged && free && ask.last.is_up_to_date_with(self.log.last())
    }

    fn grant(&mut self, now: Now, to: ReplicaId) {
        if self.hard_state.vote.is_none() {
            self.hard_state = HardState { vote: Some(to), ..self.hard_state };
            let hard_state = Some(self.hard_state).filter(|_| !mutant!(M01));
            self.write(now, Change { hard_state, ..Change::default() });
        }
        // One who has voted waits for the outcome before standing itself.
        self.await_leader(now);
    }

    fn answer_vote(&mut self, to: ReplicaId, ask: &VoteAsk, granted: bool) {
        let reply = VoteReply { ballot: ask.ballot, campaign_term: ask.campaign_term, granted };
        let message = self.message(to, Body::VoteReply(reply));
        match ask.ballot {
            // Election Safety: a vote that could be forgotten is not given.
            Ballot::Real if !mutant!(B01) => self.send_when_durable(message),
            Ballot::Real | Ballot::Pre => self.outputs.push_back(super::Output::Send(message)),
        }
    }

    /// A voter answered.
    pub(super) fn on_vote_reply(&mut self, now: Now, from: ReplicaId, reply: VoteReply) {
        let campaign_term = match (&self.role, reply.ballot) {
            (Role::PreCandidate(_), Ballot::Pre) => self.term().next(),
            (Role::Candidate(_), Ballot::Real) => self.term(),
            (
                Role::Follower(_)
                | Role::PreCandidate(_)
                | Role::Candidate(_)
                | Role::Leader(_)
                | Role::Faulted(_),
                Ballot::Pre | Ballot::Real,
            ) => return,
        };
        if reply.campaign_term != campaign_term {
            return;
        }
        if !self.term_is_durable() {
            // Nobody was asked yet: a candidacy that could be forgotten must not be won.
            self.counters.hostile += 1;
            return;
        }
        self.record_vote(now, from, reply.granted);
    }

    fn record_vote(&mut self, now: Now, voter: ReplicaId, granted: bool) {
        let (Role::PreCandidate(candidate) | Role::Candidate(candidate)) = &mut self.role else {
            unreachable!("votes are recorded only while one stands");
        };
        candidate.record(voter, granted);
        match (self.outcome(), &self.role) {
            (Election::Won, Role::PreCandidate(_)) => self.stand(now),
            (Election::Won, _) => self.lead(now),
            (Election::Lost, _) => self.retry_later(now),
            (Election::Open, _) => {}
        }
    }

    fn outcome(&self) -> Election {
        let (Role::PreCandidate(candidate) | Role::Candidate(candidate)) = &self.role else {
            return Election::Open;
        };
        let grants = || candidate.votes.iter().filter(|(_, granted)| *granted).count();
        if mutant!(B04) && 2 * grants() > self.configuration().voters.len() {
            return Election::Won;
        }
        quorum::election(self.configuration(), |voter| candidate.vote_of(voter))
    }

    /// Lost: somebody else leads, will win, or does not know yet that the leader is gone.
    fn retry_later(&mut self, now: Now) {
        let election = self.settings.timing.election;
        let deadline = now.monotonic + self.draw_duration(election / 4, election / 4);
        self.role = Role::Follower(Follower { leader: None, deadline });
    }

    /// The connection to a replica's node was closed. Where that replica led, stand for election
    /// soon, one voter after the other, so that the first has won before the second asks.
    pub(super) fn unreachable_hint(&mut self, now: Now, replica: ReplicaId) {
        self.follower_unreachable(replica);
        let rank = self.rank_behind(replica);
        let step = self.settings.timing.election / 16;
        let wait = self.draw_duration(step * rank, step / 2 + Duration::from_nanos(1));
        let Role::Follower(Follower { leader: Some(following), deadline }) = &mut self.role else { return };
        if following.leader == replica {
            following.unreachable = true;
            *deadline = (*deadline).min(now.monotonic + wait);
        }
    }

    /// How many voters stand between `leader` and this replica, around the ring of ids.
    fn rank_behind(&self, leader: ReplicaId) -> u32 {
        let voters = &self.configuration().voters;
        let place = |id| voters.partition_point(|&voter| voter < id);
        let steps = (place(self.settings.id) + voters.len()).saturating_sub(place(leader) + 1);
        u32::try_from(steps % voters.len().max(1)).unwrap_or(0)
    }
}
