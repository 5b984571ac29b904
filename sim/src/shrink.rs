//! Making a failing run small: fewer choices that are not calm, until taking any more of them out
//! makes the failure go away (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
//! input", 2002).
//!
//! Whole topics go first (all delays, all faults of disks, ...), then ever smaller pieces, then the
//! numbers that are left are made smaller. A run that fails another check is another failure.

use crate::{
    check::Check,
    choice::{Choice, Schedule, Topic},
};

/// A schedule that was made small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// What is left.
    pub schedule: Schedule,
    /// How often the world was run for it.
    pub runs: u64,
}

/// Makes a schedule small. `fails` runs one and says which check fails; at most `runs_max` times.
pub fn shrink(
    schedule: &Schedule,
    check: Check,
    runs_max: u64,
    mut fails: impl FnMut(&Schedule) -> Option<Check>,
) -> Shrunk {
    let mut search =
        Search { choices: schedule.choices.clone(), runs: 0, runs_max, fails: &mut fails, check };
    search.drop_topics();
    loop {
        let before = search.choices.len();
        search.drop_pieces();
        if search.choices.len() == before || search.is_over() {
            break;
        }
    }
    search.lower_numbers();
    Shrunk { schedule: Schedule { choices: search.choices }, runs: search.runs }
}

struct Search<'a> {
    choices: Vec<Choice>,
    runs: u64,
    runs_max: u64,
    fails: &'a mut dyn FnMut(&Schedule) -> Option<Check>,
    check: Check,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.runs >= self.runs_max
    }

    /// Keeps these choices, if they fail the same way.
    fn keep(&mut self, choices: Vec<Choice>) -> bool {
        if self.is_over() {
            return false;
        }
        self.runs += 1;
        let candidate = Schedule { choices };
        let same = (self.fails)(&candidate) == Some(self.check);
        if same {
            self.choices = candidate.choices;
        }
        same
    }

    fn drop_topics(&mut self) {
        let mut topics: Vec<Topic> = self.choices.iter().map(|choice| choice.point.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        // What most choices are about goes first.
        topics.sort_by_key(|topic| {
            std::cmp::Reverse(self.choices.iter().filter(|choice| choice.point.topic == *topic).count())
        });
        for topic in topics {
            let left = self.choices.iter().copied().filter(|choice| choice.point.topic != topic).collect();
            self.keep(left);
        }
    }

    /// One pass over the choices, in pieces from half of them down to single ones. The last ones
    /// first: what comes late matters least for how the run got there.
    fn drop_pieces(&mut self) {
        let mut size = (self.choices.len() / 2).max(1);
        loop {
            let mut end = self.choices.len();
            while end > 0 && !self.is_over() {
                let start = end.saturating_sub(size);
                let mut left = self.choices.clone();
                left.drain(start..end.min(left.len()));
                self.keep(left);
                end = start;
            }
            if size == 1 || self.is_over() {
                return;
            }
            size /= 2;
        }
    }

    fn lower_numbers(&mut self) {
        for at in 0..self.choices.len() {
            while let Some(number) = self.choices.get(at).map(|choice| choice.number)
                && number > 1
            {
                let mut lower = self.choices.clone();
                lower[at].number = number / 2;
                if !self.keep(lower) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::Point;

    #[test]
    fn what_is_not_needed_goes_and_what_is_stays() {
        let choice = |topic, nth, number| Choice { point: Point { topic, of: 0 }, nth, number };
        let choices: Vec<_> = (0..200)
            .map(|nth| choice(if nth % 3 == 0 { Topic::Delay } else { Topic::Process }, nth, 1_000))
            .collect();
        // Fails where two certain choices are there, one of them at least 10.
        let fails = |schedule: &Schedule| {
            let has = |nth, least| schedule.choices.iter().any(|c| c.nth == nth && c.number >= least);
            (has(50, 10) && has(121, 1)).then_some(Check::LogMatching)
        };
        let shrunk = shrink(&Schedule { choices }, Check::LogMatching, 10_000, fails);
        let left: Vec<_> = shrunk.schedule.choices.iter().map(|choice| (choice.nth, choice.number)).collect();
        assert_eq!(left, [(50, 15), (121, 1)]);
        assert!(shrunk.runs < 200, "{} runs", shrunk.runs);
    }

    #[test]
    fn another_failure_is_not_taken_for_the_same() {
        let choices = vec![Choice { point: Point { topic: Topic::Link, of: 0 }, nth: 0, number: 1 }];
        let schedule = Schedule { choices };
        let shrunk = shrink(&schedule, Check::LogMatching, 100, |schedule| {
            Some(if schedule.choices.is_empty() { Check::Liveness } else { Check::LogMatching })
        });
        assert_eq!(shrunk.schedule, schedule);
    }
}
