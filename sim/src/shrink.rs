//! Making a failing run small: fewer choices that are not calm, until taking any more of them out
//! makes the failure go away (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input", 2002).
//!
//! What goes is tried from coarse to fine: all of a topic (all delays, all flips of bits), all of a
//! host, a link or a client, each choice of the profile, all of a fault or of a client's turn, then
//! pieces of the rest, from halves to single choices. Every success is replaced by what the run
//! really asked for up to the failure, so what comes later, and what nobody asks for any more, goes
//! by itself.
//!
//! Some failures need luck more than they need any one choice: without the ten thousand delays
//! around it, the same story meets another time-out. So where cutting alone leaves many, the run is
//! also drawn again, with the profile and the topics that are left and everything else calm
//! ([`Redraw`]), and the smallest run that fails the same check goes on. A run that fails another
//! check is another failure.
//!
//! Runs are tried on several threads, yet the result is that of trying them one after the other.

mod cuts;
mod redraw;
mod retime;
mod words;

pub use redraw::Redraw;
pub use retime::Waits;
pub use words::in_words;

use std::collections::BTreeSet;

use crate::{
    check::Check,
    choice::{Choice, Point, Recorded, Schedule, Source, Topic},
    history::TrueTime,
};

/// A schedule that was made small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// What is left.
    pub schedule: Schedule,
    /// How often the world was run for it.
    pub runs: u64,
}

/// A choice, and when it was made.
pub type Noted = (TrueTime, Choice);

/// What came of trying a run.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The check that failed, if one did.
    pub check: Option<Check>,
    /// The choices that were made and are not calm, and when.
    pub choices: Vec<Noted>,
    /// How long calm waits are in it.
    pub waits: Waits,
    /// Events, the measure of effort.
    pub events: u64,
    /// When the run ended.
    pub at: TrueTime,
}

/// How much effort shrinking may take. All but the threads decide the result.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs, at most.
    pub runs: u64,
    /// Events in all runs together, at most.
    pub events: u64,
    /// Threads.
    pub jobs: usize,
}

impl Default for Effort {
    /// Most of a minute on one core, with as many threads as there are cores.
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Self { runs: 20_000, events: 30_000_000, jobs }
    }
}

/// Runs the choices of a source and says what came of it. The run may end at the time given, failed
/// or not.
pub type Run<'a> = &'a (dyn Fn(Box<dyn Source>, TrueTime) -> Attempt + Sync);

/// Makes a schedule small that fails `check`.
pub fn shrink(schedule: &Schedule, check: Check, effort: Effort, run: Run<'_>) -> Shrunk {
    let mut search = Search {
        best: schedule.choices.clone(),
        noted: Vec::new(),
        waits: Waits::default(),
        until: TrueTime::MAX,
        check,
        spent: Spent::default(),
        effort,
        run,
    };
    // The run itself first, to know when it fails.
    let attempts = search.try_together(&[Trial::Cut(search.best.clone())]);
    for attempt in attempts.into_iter().filter(|attempt| attempt.check == Some(check)) {
        search.spend(&attempt);
        search.adopt(attempt);
        search.work();
    }
    Shrunk { schedule: Schedule { choices: search.best }, runs: search.spent.runs }
}

/// A choice by its place.
type Key = (Point, u32);

fn key(choice: &Choice) -> Key {
    (choice.point, choice.nth)
}

/// Below this many choices each is worth a run of its own.
const FEW: usize = 400;
/// With at most this many, nothing is drawn again.
const SMALL: usize = 40;
/// Runs drawn again at a time; the smallest that fails is taken.
const DRAWN_TOGETHER: u64 = 24;

/// A run to try.
#[derive(Clone, Debug)]
enum Trial {
    Cut(Vec<Choice>),
    Redraw(Box<Redraw>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    runs: u64,
    events: u64,
}

struct Search<'a> {
    best: Vec<Choice>,
    /// The same, with their moments.
    noted: Vec<Noted>,
    waits: Waits,
    /// Later than this a candidate's run need not go.
    until: TrueTime,
    check: Check,
    spent: Spent,
    effort: Effort,
    run: Run<'a>,
}

impl Search<'_> {
    fn work(&mut self) {
        let mut salt = 0;
        loop {
            let before = self.best.len();
            self.cut_coarsely();
            if self.best.len() > SMALL {
                self.draw_again(&mut salt);
            }
            if self.best.len() >= before || self.is_over() {
                break;
            }
        }
        self.cut_finely();
        self.lower_numbers();
        self.cut_finely();
    }

    fn is_over(&self) -> bool {
        self.spent.runs >= self.effort.runs || self.spent.events >= self.effort.events
    }

    /// Coarse pieces, until they do not help any more.
    fn cut_coarsely(&mut self) {
        loop {
            let before = self.best.len();
            self.retime();
            self.cut_all(&cuts::topics(&self.best));
            self.cut_all(&cuts::lesser_halves(&self.best));
            self.cut_all(&cuts::places(&self.best));
            self.cut_all(&cuts::singles_of(&self.best, Topic::Profile));
            self.cut_all(&cuts::turns(&self.best));
            let mut pieces = 2;
            while pieces <= 64 && pieces <= self.best.len() {
                self.cut_all(&cuts::pieces(&self.best, pieces));
                pieces *= 2;
            }
            // Once more as long as it is worth it.
            if self.is_over() || self.best.len() * 10 >= before * 9 {
                return;
            }
        }
    }

    /// Says the same times in fewer choices.
    fn retime(&mut self) {
        let shorter = retime::retimed(&self.noted, self.waits);
        if shorter.len() < self.best.len() && !self.is_over() {
            self.first(&[Trial::Cut(shorter)]);
        }
    }

    /// Single choices, until none can go.
    fn cut_finely(&mut self) {
        loop {
            let before = self.best.len();
            self.retime();
            self.cut_all(&cuts::turns(&self.best));
            let mut pieces = 2;
            while pieces < self.best.len() {
                self.cut_all(&cuts::pieces(&self.best, pieces));
                pieces *= 2;
            }
            if self.best.len() <= FEW {
                self.cut_all(&cuts::pieces(&self.best, self.best.len()));
            }
            if self.best.len() == before || self.is_over() {
                return;
            }
        }
    }

    /// Tries to take each of these out, one after the other.
    fn cut_all(&mut self, cuts: &[BTreeSet<Key>]) {
        let mut next = 0;
        while next < cuts.len() && !self.is_over() {
            // Each as if those before it fail; after a success those behind it are cut from what is left.
            let mut trials = Vec::new();
            let mut end = next;
            while end < cuts.len() && trials.len() < self.jobs() {
                let left: Vec<Choice> =
                    self.best.iter().filter(|choice| !cuts[end].contains(&key(choice))).copied().collect();
                end += 1;
                if left.len() < self.best.len() {
                    trials.push((end, Trial::Cut(left)));
                }
            }
            let (ends, trials): (Vec<_>, Vec<_>) = trials.into_iter().unzip();
            next = self.first(&trials).map_or(end, |success| ends[success]);
        }
    }

    /// Draws runs again with what is left of the profile and the topics; takes the smallest.
    fn draw_again(&mut self, salt: &mut u64) {
        for thin in [1, 2, 4] {
            if self.is_over() {
                return;
            }
            let trials: Vec<_> = (0..DRAWN_TOGETHER)
                .map(|at| Trial::Redraw(Box::new(Redraw::like(&self.best, *salt + at, thin))))
                .collect();
            *salt += DRAWN_TOGETHER;
            let mut attempts = Vec::new();
            for some in trials.chunks(self.jobs()) {
                attempts.extend(self.try_together(some));
            }
            attempts.iter().for_each(|attempt| self.spend(attempt));
            attempts.retain(|attempt| self.improves(attempt));
            if let Some(smallest) = attempts.into_iter().min_by_key(|attempt| attempt.choices.len()) {
                self.adopt(smallest);
            }
        }
    }

    fn lower_numbers(&mut self) {
        for at in 0..self.best.len() {
            let lower = |choices: &[Choice], number| {
                let mut lower = choices.to_vec();
                lower[at].number = number;
                Trial::Cut(lower)
            };
            while let Some(number) = self.best.get(at).map(|choice| choice.number)
                && number > 1
            {
                let mut trials = vec![lower(&self.best, 1)];
                if number > 3 {
                    trials.push(lower(&self.best, number / 2));
                }
                if self.is_over() || self.first(&trials).is_none() {
                    break;
                }
            }
        }
    }

    fn jobs(&self) -> usize {
        self.effort.jobs.max(1)
    }

    /// Tries runs in order and takes the first that is an improvement. Returns which.
    fn first(&mut self, trials: &[Trial]) -> Option<usize> {
        for (begin, some) in trials.chunks(self.jobs()).enumerate() {
            for (at, attempt) in self.try_together(some).into_iter().enumerate() {
                self.spend(&attempt);
                if self.improves(&attempt) {
                    self.adopt(attempt);
                    return Some(begin * self.jobs() + at);
                }
            }
        }
        None
    }

    fn spend(&mut self, attempt: &Attempt) {
        self.spent.runs += 1;
        self.spent.events += attempt.events;
    }

    fn improves(&self, attempt: &Attempt) -> bool {
        let size = |choices: &[Choice]| {
            (choices.len(), choices.iter().map(|choice| u128::from(choice.number)).sum::<u128>())
        };
        let choices: Vec<Choice> = attempt.choices.iter().map(|(_, choice)| *choice).collect();
        attempt.check == Some(self.check) && size(&choices) < size(&self.best)
    }

    fn adopt(&mut self, attempt: Attempt) {
        self.best = attempt.choices.iter().map(|(_, choice)| *choice).collect();
        self.noted = attempt.choices;
        self.waits = attempt.waits;
        self.until = attempt.at + attempt.at / 2 + SLACK_NANOS;
    }

    fn try_together(&self, trials: &[Trial]) -> Vec<Attempt> {
        let (run, until) = (self.run, self.until);
        let source = |trial: &Trial| -> Box<dyn Source> {
            match trial {
                Trial::Cut(choices) => Box::new(Recorded::new(&Schedule { choices: choices.clone() })),
                Trial::Redraw(redraw) => redraw.boxed(),
            }
        };
        if let [trial] = trials {
            return vec![run(source(trial), until)];
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                trials.iter().map(|trial| scope.spawn(move || run(source(trial), until))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a run's panics are caught")).collect()
        })
    }
}

/// A candidate may fail this much later than what it was cut from, besides half of its time.
const SLACK_NANOS: TrueTime = 2_000_000_000;

#[cfg(test)]
mod tests;
