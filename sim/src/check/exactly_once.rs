//! A request takes effect once, however often it stands in the log, and every answer to it is the
//! first one (Raft thesis, section 6.3).

use std::{collections::BTreeMap, fmt::Debug};

use kotoba_db_cluster::raft::{GroupId, Index};

use super::{Check, Verdict, Violation};
use crate::machine::Request;

/// What each request answered when it first stood in a committed log.
#[derive(Clone, Debug)]
pub struct ExactlyOnce<A> {
    first: BTreeMap<(GroupId, u32, u64), (Index, Option<A>)>,
    /// What each client has said it is done with, in the committed log.
    done_below: BTreeMap<(GroupId, u32), u64>,
}

impl<A> Default for ExactlyOnce<A> {
    fn default() -> Self {
        Self { first: BTreeMap::new(), done_below: BTreeMap::new() }
    }
}

impl<A: Clone + Debug + PartialEq> ExactlyOnce<A> {
    /// A committed entry asks for a request; the machine answers so. `None`: it was refused, because
    /// its client was done with it.
    ///
    /// # Errors
    /// Where it was answered otherwise before, or refused although its client is not done with it.
    pub fn executed(
        &mut self,
        group: GroupId,
        Request { client, serial, acked_below }: Request,
        index: Index,
        answer: Option<&A>,
    ) -> Verdict {
        let done_below = self.done(group, client, acked_below);
        if answer.is_none() && serial >= done_below {
            let message = format!(
                "{group}: request {serial} of client {client} is forgotten at {index}; the client is done with those below {done_below}"
            );
            return Err(Violation::new(Check::ExactlyOnce, message));
        }
        let (first, known) =
            self.first.entry((group, client, serial)).or_insert_with(|| (index, answer.cloned()));
        // A repeat may be refused, once its client was told of the first.
        if answer.is_none() || known.as_ref() == answer {
            return Ok(());
        }
        let message = format!(
            "{group}: request {serial} of client {client} answered {known:?} at {first} and {answer:?} at {index}"
        );
        Err(Violation::new(Check::ExactlyOnce, message))
    }

    /// A client says what it is done with. Returns all that it is done with.
    fn done(&mut self, group: GroupId, client: u32, below: u64) -> u64 {
        let done_below = self.done_below.entry((group, client)).or_default();
        *done_below = below.max(*done_below);
        *done_below
    }

    /// Where a request took effect.
    #[must_use]
    pub fn effect(&self, group: GroupId, (client, serial): (u32, u64)) -> Option<(Index, Option<&A>)> {
        self.first.get(&(group, client, serial)).map(|(index, answer)| (*index, answer.as_ref()))
    }

    /// A committed entry asks for another operation under the id of a request that took effect;
    /// `refused` says whether the machine refuses that.
    ///
    /// # Errors
    /// Where it does not.
    pub fn reused(
        &mut self,
        group: GroupId,
        Request { client, serial, acked_below }: Request,
        index: Index,
        answer: Option<&A>,
        refused: bool,
    ) -> Verdict {
        self.done(group, client, acked_below);
        if refused {
            return Ok(());
        }
        let message = format!(
            "{group}: another operation under the id {serial} of client {client} is answered {answer:?} at {index}"
        );
        Err(Violation::new(Check::ExactlyOnce, message))
    }

    /// A client is told an answer.
    ///
    /// # Errors
    /// Where the request is in no committed log, or answered otherwise there.
    pub fn answered(&self, group: GroupId, request: (u32, u64), answer: &A) -> Result<Index, Violation> {
        match self.effect(group, request) {
            Some((index, Some(known))) if known == answer => Ok(index),
            known => {
                let (client, serial) = request;
                let message = format!(
                    "{group}: client {client} is told {answer:?} for request {serial}, which the log answers {known:?}"
                );
                Err(Violation::new(Check::ExactlyOnce, message))
            }
        }
    }
}
