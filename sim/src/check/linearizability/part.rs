//! Cutting a history into parts that can be judged apart, and into beginnings.

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{GroupId, Index};

use super::Model;
use crate::history::{End, History, TrueTime};

/// The operations about one key of one group.
pub(super) struct Part<'h, M: Model> {
    pub(super) group: GroupId,
    pub(super) key: u64,
    /// In the order they were called.
    pub(super) calls: Vec<Call<'h, M>>,
}

/// One operation, as a search sees it.
pub(super) struct Call<'h, M: Model> {
    /// Its place in the history.
    pub(super) at: usize,
    pub(super) operation: &'h M::Operation,
    pub(super) invoked: TrueTime,
    /// `None`: it takes effect at any time behind its call, or never.
    pub(super) answered: Option<Answered<'h, M>>,
    /// Where it stands in the log, as far as that is known: a hint.
    pub(super) effect: Option<Index>,
}

/// How a call ended.
pub(super) struct Answered<'h, M: Model> {
    pub(super) at: TrueTime,
    pub(super) answer: &'h M::Answer,
}

impl<M: Model> Clone for Call<'_, M> {
    fn clone(&self) -> Self {
        Self { answered: self.answered.clone(), ..*self }
    }
}

impl<M: Model> Clone for Answered<'_, M> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<M: Model> Call<'_, M> {
    /// A read that was never answered says nothing.
    fn matters(&self) -> bool {
        self.answered.is_some() || !M::is_read(self.operation)
    }

    /// Nothing says that it ever took effect.
    pub(super) fn is_a_guess(&self) -> bool {
        self.answered.is_none() && self.effect.is_none()
    }
}

/// The parts of a history.
pub(super) fn parts<'h, M: Model>(
    history: &'h History<M::Operation, M::Answer>,
    effect: &dyn Fn(usize) -> Option<Index>,
) -> Vec<Part<'h, M>> {
    let mut parts = BTreeMap::<_, Vec<Call<'_, M>>>::new();
    for (at, operation) in history.operations.iter().enumerate() {
        let (answered, effect) = match &operation.end {
            // A repeat may have been answered, whose place is behind the one that counts.
            End::Answered { at: ended, answer, index } => {
                (Some(Answered { at: *ended, answer }), effect(at).or(Some(*index)))
            }
            End::Unknown => (None, effect(at)),
        };
        let (group, invoked, operation) = (operation.group, operation.invoked, &operation.operation);
        let call = Call { at, operation, invoked, answered, effect };
        if call.matters() {
            parts.entry((group, M::key(call.operation))).or_default().push(call);
        }
    }
    for calls in parts.values_mut() {
        calls.sort_by_key(|call| call.invoked);
    }
    parts.into_iter().map(|((group, key), calls)| Part { group, key, calls }).collect()
}

impl<M: Model> Part<'_, M> {
    /// The calls in the order of the log, as far as it is known; a read stands behind the writes it
    /// was answered after. Only a guess, but a good one.
    pub(super) fn order_of_the_log(&self) -> Vec<usize> {
        let known = |at: &usize| self.calls[*at].effect.is_some();
        let mut order: Vec<usize> = (0..self.calls.len()).filter(known).collect();
        // Where the log does not tell them apart they stay in the order they were called.
        order.sort_by_key(|&at| (self.calls[at].effect, M::is_read(self.calls[at].operation)));
        order
    }

    /// Whether this order of calls explains every answer: what a search found is looked at again.
    pub(super) fn is_explained_by(&self, order: &[usize]) -> bool {
        let mut left: Vec<Option<&Call<'_, M>>> = self.calls.iter().map(Some).collect();
        let (mut state, mut latest_call) = (M::default(), 0);
        for &at in order {
            let Some(call) = left[at].take() else {
                return false;
            };
            latest_call = latest_call.max(call.invoked);
            let answer = state.step(call.operation);
            let fits = call.answered.as_ref().is_none_or(|answered| {
                // Nothing that was called behind this answer stands before it.
                *answered.answer == answer && answered.at >= latest_call
            });
            if !fits {
                return false;
            }
        }
        left.into_iter().flatten().all(|call| call.answered.is_none())
    }
}

/// Places in `calls` of those that were answered, in the order of their answers.
pub(super) fn by_answer<M: Model>(calls: &[Call<'_, M>]) -> Vec<usize> {
    let mut answered: Vec<(TrueTime, usize)> =
        calls.iter().enumerate().filter_map(|(at, call)| Some((call.answered.as_ref()?.at, at))).collect();
    answered.sort_unstable();
    answered.into_iter().map(|(_, at)| at).collect()
}

/// The calls as they were known when the last of these answers came: later ones had not come.
pub(super) fn beginning<'h, M: Model>(calls: &[Call<'h, M>], answers: &[usize]) -> Vec<Call<'h, M>> {
    let end = answers.last().and_then(|&last| calls[last].answered.as_ref()).map_or(0, |last| last.at);
    let mut known: Vec<_> = calls.iter().map(|call| Call { answered: None, ..call.clone() }).collect();
    for &at in answers {
        known[at].answered.clone_from(&calls[at].answered);
    }
    known.retain(|call| call.invoked <= end && call.matters());
    known
}
