//! Whoever hears of a later term adopts it (Raft paper, section 5.1). A request for a vote is the
//! exception: a trial is for a term that nobody is in, and one who has a leader does not listen
//! (thesis, sections 9.6 and 4.2.3).

use kotoba_db_cluster::raft::{Body, GroupId, Message, Replica, ReplicaId, RoleKind, Term};

use super::{Check, Verdict, Violation};

/// What a message says about terms, kept until its receiver has handled it.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    to: ReplicaId,
    term: Term,
}

impl Told {
    /// What is to be learnt from a message, if anything is.
    pub fn by(message: &Message) -> Option<Self> {
        let Message { to, term, .. } = *message;
        let teaches = !matches!(message.body, Body::VoteAsk(_));
        teaches.then_some(Self { to, term })
    }

    /// The receiver has handled the message.
    ///
    /// # Errors
    /// Where it is still in an earlier term. One that has stopped for good learns nothing.
    pub fn check(self, group: GroupId, replica: &Replica) -> Verdict {
        let report = replica.role();
        if replica.id() != self.to || report.role == RoleKind::Faulted || report.term >= self.term {
            return Ok(());
        }
        let message = format!(
            "{group}: {} was told of {} and stays {:?} in {}",
            self.to, self.term, report.role, report.term
        );
        Err(Violation::new(Check::LaterTerms, message))
    }
}
