//! What the driver keeps per group: who waits for what.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::oneshot;

use crate::{
    node::{
        handle::{GroupHint, RequestError, Responder},
        status::GroupFault,
    },
    raft::{Index, Position, Term},
};

/// What the driver keeps of one group.
#[derive(Debug)]
pub(super) struct GroupState {
    pub(super) hint: Arc<GroupHint>,
    /// Proposals that were appended here and are not committed: one an index, in order.
    waiting: VecDeque<(Position, Responder)>,
    /// Requests that wait for the state machine.
    applied_waiters: Vec<(Index, oneshot::Sender<Result<Index, RequestError>>)>,
    /// Entries up to here were handed to the applier.
    pub(super) dispatched: Index,
    /// Entries up to here are applied.
    pub(super) applied: Index,
    /// State digest at `applied`.
    pub(super) digest: u128,
}

impl GroupState {
    pub(super) fn new(applied: Index, digest: u128, fault: Option<GroupFault>) -> Self {
        let hint = Arc::new(GroupHint::default());
        hint.set_applied(applied);
        if let Some(fault) = fault {
            hint.set_fault(fault);
        }
        Self {
            hint,
            waiting: VecDeque::new(),
            applied_waiters: Vec::new(),
            dispatched: applied,
            applied,
            digest,
        }
    }

    /// What is damaged or failed.
    pub(super) fn fault(&self) -> Option<&GroupFault> {
        self.hint.fault()
    }

    /// Entries committed and not yet applied.
    pub(super) fn backlog(&self) -> u64 {
        self.dispatched.0.saturating_sub(self.applied.0)
    }

    /// Proposals were appended from `first` on.
    pub(super) fn await_commit(&mut self, first: Index, term: Term, responders: Vec<Responder>) {
        for (index, responder) in (first.0..).zip(responders) {
            self.waiting.push_back((Position::new(Index(index), term), responder));
        }
    }

    /// Takes those who wait for entries up to `index`. An entry of another term took the place of
    /// what they proposed: `term_at` tells.
    pub(super) fn take_committed(
        &mut self,
        index: Index,
        term_at: impl Fn(Index) -> Option<Term>,
    ) -> Vec<(Index, Responder)> {
        let mut taken = Vec::new();
        while let Some((position, _)) = self.waiting.front()
            && position.index <= index
        {
            let (position, responder) = self.waiting.pop_front().expect("looked at just now");
            if term_at(position.index) == Some(position.term) {
                taken.push((position.index, responder));
            } else {
                responder.answer(Err(RequestError::OutcomeUnknown));
            }
        }
        taken
    }

    /// This node no longer leads: what was proposed may or may not be committed by another.
    pub(super) fn leadership_lost(&mut self) {
        for (_, responder) in self.waiting.drain(..) {
            responder.answer(Err(RequestError::OutcomeUnknown));
        }
    }

    /// Answers once the state includes `index`.
    pub(super) fn await_applied(
        &mut self,
        index: Index,
        reply: oneshot::Sender<Result<Index, RequestError>>,
    ) {
        if let Some(fault) = self.fault() {
            let _ = reply.send(Err(RequestError::Faulted(fault.clone())));
        } else if self.applied >= index {
            let _ = reply.send(Ok(self.applied));
        } else {
            self.applied_waiters.push((index, reply));
        }
    }

    /// The state includes entries up to `index`.
    pub(super) fn set_applied(&mut self, index: Index, digest: u128) {
        self.applied = self.applied.max(index);
        self.dispatched = self.dispatched.max(index);
        self.digest = digest;
        self.hint.set_applied(self.applied);
        let applied = self.applied;
        for (_, reply) in self.applied_waiters.extract_if(.., |(wanted, _)| *wanted <= applied) {
            // One who no longer waits does not want the answer.
            let _ = reply.send(Ok(applied));
        }
    }

    /// The group stopped: nobody who waits will get what they wait for.
    pub(super) fn fail(&mut self, fault: &GroupFault) {
        self.hint.set_fault(fault.clone());
        for (_, responder) in self.waiting.drain(..) {
            responder.answer(Err(RequestError::OutcomeUnknown));
        }
        for (_, reply) in self.applied_waiters.drain(..) {
            let _ = reply.send(Err(RequestError::Faulted(fault.clone())));
        }
    }
}
