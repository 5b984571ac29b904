//! The search for an order (see the [module](super)).
//!
//! An operation of unknown outcome is never forced to take effect, so that a search that lets it do
//! so in vain would go on to try all orders of all such operations. So there are rounds, which bound
//! how many of them take effect in a row. Each may use a part of the steps; only a round that was
//! not held back by its bound can say that there is no order.

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

/// Looks for an order of the calls of one part.
pub(super) fn search<M: Model>(calls: &[Call<'_, M>], steps: u64) -> Searched<M> {
    let mut left = steps;
    for unknown_in_a_row_max in UNKNOWN_IN_A_ROW {
        let round_steps = if unknown_in_a_row_max == usize::MAX { left } else { left / ROUND_SHARE };
        let mut round = Round::new(calls, unknown_in_a_row_max, round_steps);
        match round.run() {
            Searched::Stuck(_) if round.was_held_back => {}
            Searched::OutOfSteps => {}
            found => return found,
        }
        left -= round_steps - round.steps;
    }
    Searched::OutOfSteps
}

/// The bounds of the rounds.
const UNKNOWN_IN_A_ROW: [usize; 4] = [1, 2, 4, usize::MAX];
/// A round with a bound may use one in so many of the steps that are left.
const ROUND_SHARE: u64 = 4;

struct Round<'c, 'h, M: Model> {
    calls: &'c [Call<'h, M>],
    events: Events,
    /// What is placed, in order.
    order: Vec<usize>,
    placed: Placed,
    unanswered_for: usize,
    seen: BTreeSet<(Placed, u64)>,
    best: Option<((usize, usize), Stuck<M>)>,
    /// Those that are left.
    steps: u64,
    unknown_in_a_row_max: usize,
    was_held_back: bool,
}

/// A state of the search, and what can be tried from it.
struct Level<M> {
    state: M,
    digest: u64,
    candidates: Vec<usize>,
    tried: usize,
    /// How many operations at the end of the order took effect without a known reason.
    unknown_in_a_row: usize,
    /// The last place in the log that the order has come to.
    log: Option<Index>,
}

impl<'c, 'h, M: Model> Round<'c, 'h, M> {
    fn new(calls: &'c [Call<'h, M>], unknown_in_a_row_max: usize, steps: u64) -> Self {
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
            unknown_in_a_row_max,
            was_held_back: false,
        }
    }

    fn run(&mut self) -> Searched<M> {
        let mut levels = vec![self.level(M::default(), 0, None)];
        while self.unanswered_for > 0 {
            let level = levels.last_mut().expect("the search ends with its first level");
            let Some(&call) = level.candidates.get(level.tried) else {
                self.note_stuck(level);
                levels.pop();
                let Some(last) = self.order.pop() else {
                    assert!(self.placed.is_empty(), "what is not in the order is not placed");
                    return Searched::Stuck(self.best.take().expect("a level was noted").1);
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
                let unknown_in_a_row =
                    if self.calls[call].is_a_guess() { level.unknown_in_a_row + 1 } else { 0 };
                // A read may fit before its place.
                let is_read = M::is_read(self.calls[call].operation);
                let log = if is_read { level.log } else { level.log.max(self.calls[call].effect) };
                levels.push(self.level(state, unknown_in_a_row, log));
            }
        }
        Searched::Explained(std::mem::take(&mut self.order))
    }

    /// Places a call next, where its answer is the one that was given and this leads to something new.
    fn place(&mut self, level: &mut Level<M>, at: usize) -> Option<M> {
        let call = &self.calls[at];
        if call.is_a_guess() && level.unknown_in_a_row == self.unknown_in_a_row_max {
            self.was_held_back = true;
            return None;
        }
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

    fn level(&self, state: M, unknown_in_a_row: usize, log: Option<Index>) -> Level<M> {
        // Reads first, because they are placed for good; then in the order of the log, as far as
        // it is known; other effects that nobody was told of only where nothing else fits, and the
        // latest of them first: operations rarely take effect long after they were called.
        let rank = |&at: &usize| {
            let call = &self.calls[at];
            match (&call.answered, call.effect) {
                (Some(_), effect) if M::is_read(call.operation) => (0, effect),
                (Some(_), effect) => (1, effect),
                // Where the order has passed it, it had no effect when its turn came.
                (None, effect @ Some(_)) if effect > log => (1, effect),
                (None, _) => (2, Some(Index(u64::MAX - call.invoked))),
            }
        };
        let mut candidates = self.events.called_before_the_first_answer();
        candidates.sort_by_key(rank);
        Level { digest: state.digest(), state, candidates, tried: 0, unknown_in_a_row, log }
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

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&bits| bits == 0)
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
