//! One who asks whether an election would be won, and hears so from a majority, stands (Raft thesis,
//! section 9.6). A yes from a voter that is terms behind counts: where it is needed for a majority
//! there may be no other.

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{Ballot, Body, GroupId, Message, Replica, ReplicaId, RoleKind};

use super::{Check, Verdict, Violation};

/// The first answer of each voter to the trial of one replica that is under way.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    campaign: u64,
    answers: BTreeMap<ReplicaId, bool>,
}

impl Trial {
    /// A replica is given a message: notes an answer to its trial. Returns whether it is one.
    pub fn hear(&mut self, replica: &Replica, message: &Message) -> bool {
        let Body::VoteReply(reply) = &message.body else { return false };
        let report = replica.role();
        if reply.ballot != Ballot::Pre
            || report.role != RoleKind::PreCandidate
            || message.to != replica.id()
            || reply.campaign_term != report.term.next()
            // It is taken back to a follower by that.
            || message.term > report.term
        {
            return false;
        }
        let campaign = replica.status().counters.campaigns;
        if self.campaign != campaign {
            *self = Self { campaign, answers: BTreeMap::new() };
        }
        self.answers.entry(message.from).or_insert(reply.granted);
        true
    }

    /// It has handled that answer.
    ///
    /// # Errors
    /// Where it has a majority and goes on asking.
    pub fn check(&self, group: GroupId, replica: &Replica) -> Verdict {
        let asks = replica.role().role == RoleKind::PreCandidate
            && replica.status().counters.campaigns == self.campaign;
        let yes = |voter: &ReplicaId| *voter == replica.id() || self.answers.get(voter) == Some(&true);
        let configuration = replica.configuration();
        let won = [&configuration.voters, &configuration.outgoing]
            .into_iter()
            .all(|half| half.is_empty() || 2 * half.iter().filter(|voter| yes(voter)).count() > half.len());
        if !asks || !won {
            return Ok(());
        }
        let message = format!(
            "{group}: {} has a majority of {:?} for it and does not stand: {:?}",
            replica.id(),
            configuration.voters,
            self.answers
        );
        Err(Violation::new(Check::Trial, message))
    }
}
