//! The search for an order (see the [module](super)).

use std::collections::BTreeSet;

use kotoba_db_cluster::raft::Index;

use super::{
    Model,
    part::{Call, by_answer},
};

/// What came of a search.
pub(super) enum Searched<M> {
    /// An order that explains all answers: places in the calls.
    Explained(Vec<usize>),
    /// There is none.
    Stuck(Stuck<M>),
    /// The steps were used up.
    OutOfSteps,
}

/// As far as a search came: the order that accounts for the most answers.
pub(super) struct Stuck<M> {
    /// Places in the calls.
    pub(super) order: Vec<usize>,
    /// The state behind it.
    pub(super) state: M,
    /// The calls of which one would have to come next: places in the calls.
    pub(super) candidates: Vec<usize>,
}

/// A search over the calls of one part.
pub(super) struct Search<'c, 'h, M: Model> {
    calls: &'c [Call<'h, M>],
    events: Events,
    /// What is placed, in order.
    order: Vec<usize>,
    placed: Placed,
    unanswered_for: usize,
    seen: BTreeSet<(Placed, u64)>,
    best: Option<((usize, usize), Stuck<M>)>,
    steps: u64,
}

/// A state of the search, and what can be tried from it.
struct Level<M> {
    state: M,
    digest: u64,
    candidates: Vec<usize>,
    tried: usize,
}

impl<'c, 'h, M: Model> Search<'c, 'h, M> {
    pub(super) fn new(calls: &'c [Call<'h, M>], steps: u64) -> Self {
        let events = Events::new(calls);
        Self {
            calls,
            events,
            order: Vec::with_capacity(calls.len()),
            placed: Placed::new(calls.len()),
            unanswered_for: calls.iter().filter(|call| call.answered.is_some()).count(),
            seen: BTreeSet::new(),
            best: None,
            steps,
        }
    }

    pub(super) fn run(mut self) -> Searched<M> {
        let mut levels = vec![self.level(M::default())];
        while self.unanswered_for > 0 {
            let level = levels.last_mut().expect("the search ends with its first level");
            let Some(&call) = level.candidates.get(level.tried) else {
                self.note_stuck(level);
                levels.pop();
                let Some(last) = self.order.pop() else {
                    return Searched::Stuck(self.best.expect("a level was noted").1);
                };
                self.take_back(last);
                continue;
            };
            level.tried += 1;
            if self.steps == 0 {
                return Searched::OutOfSteps;
            }
            self.steps -= 1;
            if let Some(state) = self.place(level, call) {
                levels.push(self.level(state));
            }
        }
        Searched::Explained(self.order)
    }

    /// Places a call next, where its answer is the one that was given and this leads to something new.
    fn place(&mut self, level: &mut Level<M>, at: usize) -> Option<M> {
        let call = &self.calls[at];
        let mut state = level.state.clone();
        let answer = state.step(call.operation);
        let is_read = M::is_read(call.operation);
        match &call.answered {
            Some(answered) if *answered.answer != answer => return None,
            // A read that fits changes nothing for the others, so that placing it later explains
            // nothing that placing it now does not.
            Some(_) if is_read => level.tried = level.candidates.len(),
            Some(_) => {}
            // Nobody needs an effect that is none.
            None if state.digest() == level.digest => return None,
            None => {}
        }
        self.placed.toggle(at);
        let digest = if is_read { level.digest } else { state.digest() };
        if !self.seen.insert((self.placed.clone(), digest)) {
            self.placed.toggle(at);
            return None;
        }
        self.events.lift(at);
        self.order.push(at);
        self.unanswered_for -= usize::from(call.answered.is_some());
        Some(state)
    }

    fn take_back(&mut self, at: usize) {
        self.events.put_back(at);
        self.placed.toggle(at);
        self.unanswered_for += usize::from(self.calls[at].answered.is_some());
    }

    fn level(&self, state: M) -> Level<M> {
        // Reads first, because they are placed for good; then in the order of the log, as far as
        // it was told; effects that nobody was told of only where nothing else fits.
        let rank = |&at: &usize| {
            let call = &self.calls[at];
            match &call.answered {
                Some(answered) if M::is_read(call.operation) => (0, answered.index),
                Some(answered) => (1, answered.index),
                None => (2, Index::ZERO),
            }
        };
        let mut candidates = self.events.called_before_the_first_answer();
        candidates.sort_by_key(rank);
        Level { digest: state.digest(), state, candidates, tried: 0 }
    }

    fn note_stuck(&mut self, level: &Level<M>) {
        // Of equal ones that with the fewest effects that nobody was told of.
        let rank = (self.unanswered_for, self.order.len());
        if self.best.as_ref().is_none_or(|(best, _)| rank < *best) {
            let (order, state) = (self.order.clone(), level.state.clone());
            self.best = Some((rank, Stuck { order, state, candidates: level.candidates.clone() }));
        }
    }
}

/// Which calls are placed: a bit each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Placed(Box<[u64]>);

impl Placed {
    fn new(calls: usize) -> Self {
        Self(vec![0; calls.div_ceil(64)].into())
    }

    fn toggle(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// Calls and answers that are not accounted for, in the order of time, as a list that entries can be
/// taken from and put back to in the opposite order. The call at place `n` is entry `2n`, its
/// answer `2n + 1`; the list begins and ends at `end`.
struct Events {
    next: Vec<usize>,
    previous: Vec<usize>,
    has_answer: Vec<bool>,
    end: usize,
}

impl Events {
    fn new<M: Model>(calls: &[Call<'_, M>]) -> Self {
        let end = 2 * calls.len();
        let (mut next, mut previous) = (vec![end; end + 1], vec![end; end + 1]);
        let mut last = end;
        let mut append = |entry: usize| {
            next[last] = entry;
            previous[entry] = last;
            last = entry;
        };
        let mut answers = by_answer(calls).into_iter().peekable();
        let answered_at = |at: usize| calls[at].answered.as_ref().map(|answered| answered.at);
        for (at, call) in calls.iter().enumerate() {
            // At one moment calls come before answers: then neither operation is before the other.
            while let Some(answer) = answers.next_if(|&answer| answered_at(answer) < Some(call.invoked)) {
                append(2 * answer + 1);
            }
            append(2 * at);
        }
        answers.for_each(|answer| append(2 * answer + 1));
        next[last] = end;
        previous[end] = last;
        let has_answer = calls.iter().map(|call| call.answered.is_some()).collect();
        Self { next, previous, has_answer, end }
    }

    fn called_before_the_first_answer(&self) -> Vec<usize> {
        let mut called = Vec::new();
        let mut entry = self.next[self.end];
        while entry != self.end && entry.is_multiple_of(2) {
            called.push(entry / 2);
            entry = self.next[entry];
        }
        called
    }

    fn lift(&mut self, at: usize) {
        self.unlink(2 * at);
        if self.has_answer[at] {
            self.unlink(2 * at + 1);
        }
    }

    fn put_back(&mut self, at: usize) {
        if self.has_answer[at] {
            self.link(2 * at + 1);
        }
        self.link(2 * at);
    }

    fn unlink(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, entry: usize) {
        let (previous, next) = (self.previous[entry], self.next[entry]);
        self.next[previous] = entry;
        self.previous[next] = entry;
    }
}
