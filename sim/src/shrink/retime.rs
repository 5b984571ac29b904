//! Times in few choices.
//!
//! A client wakes when the waits before it are over, so a question asked late in a run hangs on a
//! long chain of waits, each a choice, though nothing happened in between; and so do faults. The
//! same moment is reached by calm waits and one that makes up for the difference.

use std::{collections::BTreeMap, time::Duration};

use super::Noted;
use crate::{
    choice::{Choice, Pace, Point, Topic},
    history::TrueTime,
    world::{FIRST_FAULT, first_wake},
};

/// How long the calm waits of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waits {
    /// Between two turns of a client.
    pub think: Duration,
    /// Mean time between two faults.
    pub fault_every: Duration,
}

/// What was decided in each turn besides times, and when.
type Turns = BTreeMap<u32, (TrueTime, Vec<Choice>)>;

/// The same choices, each as near to when it was made as its kind allows, with as few choices about
/// times as that takes.
pub(super) fn retimed(noted: &[Noted], waits: Waits) -> Vec<Choice> {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(2);
    let mut choices: Vec<Choice> = Vec::new();
    let mut turns: BTreeMap<(bool, u32), Turns> = BTreeMap::new();
    for (at, choice) in noted {
        let point = choice.point;
        let whose = match point.topic.pace() {
            Pace::Clients => (true, point.of),
            Pace::Faults if point.turn > 0 => (false, 0),
            // What clocks are like is said before any fault.
            Pace::Once | Pace::Moments | Pace::Faults => {
                choices.push(*choice);
                continue;
            }
        };
        if !matches!(point.topic, Topic::FaultTime | Topic::ClientTime) {
            let turn = turns.entry(whose).or_default().entry(point.turn).or_insert((*at, Vec::new()));
            turn.1.push(*choice);
        }
    }
    for ((is_client, of), turns) in turns {
        let first = if is_client { first_wake(of) } else { FIRST_FAULT };
        let (mut turn, mut now) = (1, first);
        for (at, own) in turns.into_values() {
            if at > now {
                let gap = at - now;
                turn += if is_client {
                    client_waits(&mut choices, (of, turn), gap, nanos(waits.think))
                } else {
                    fault_waits(&mut choices, turn, gap, nanos(waits.fault_every))
                };
                now = at;
            }
            let moved = |choice: Choice| Choice { point: Point { turn, ..choice.point }, ..choice };
            choices.extend(own.into_iter().map(moved));
        }
    }
    choices
}

/// Waits of a client that take this long together. Returns how many.
fn client_waits(choices: &mut Vec<Choice>, (of, turn): (u32, u32), gap: TrueTime, think: TrueTime) -> u32 {
    let calm = (gap - 1) / think;
    let rest = gap - calm * think;
    if rest < think {
        let point = Point { topic: Topic::ClientTime, of, turn };
        // The fourth kind of wait is one of any length.
        choices.push(Choice { point, nth: 0, number: 3 });
        choices.push(Choice { point, nth: 1, number: rest - 1 });
    }
    u32::try_from(calm + 1).unwrap_or(u32::MAX)
}

/// Waits between faults that take this long together, or nearly. Returns how many.
fn fault_waits(choices: &mut Vec<Choice>, turn: u32, gap: TrueTime, every: TrueTime) -> u32 {
    let calm = 1 + every / 2;
    let count = (gap / calm).max(1);
    let rest = gap.saturating_sub(count * calm);
    if rest > 0 {
        let point = Point { topic: Topic::FaultTime, of: 0, turn };
        choices.push(Choice { point, nth: 0, number: rest });
    }
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITS: Waits =
        Waits { think: Duration::from_millis(200), fault_every: Duration::from_millis(1_500) };

    fn noted(at: TrueTime, topic: Topic, of: u32, turn: u32, number: u64) -> Noted {
        (at, Choice { point: Point { topic, of, turn }, nth: 0, number })
    }

    #[test]
    fn a_long_wait_takes_two_choices() {
        // The second client first wakes a millisecond after the beginning.
        let mut all: Vec<_> = (1..60).map(|turn| noted(0, Topic::ClientTime, 1, turn, 1)).collect();
        all.push(noted(1_000_000 + 2_950_000_000, Topic::Asks, 1, 60, 4));
        let short = retimed(&all, WAITS);
        let told: Vec<_> =
            short.iter().map(|choice| (choice.point.topic, choice.point.turn, choice.number)).collect();
        // One wait of 150 ms and 14 of 200 ms.
        let expected = [(Topic::ClientTime, 1, 3), (Topic::ClientTime, 1, 149_999_999), (Topic::Asks, 16, 4)];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_fault_takes_one_choice_about_its_time() {
        let mut all: Vec<_> = (1..9).map(|turn| noted(0, Topic::FaultTime, 0, turn, 700_000_000)).collect();
        all.push(noted(9_000_000_000, Topic::Fault, 0, 9, 2));
        all.push(noted(9_000_000_000, Topic::Victim, 0, 9, 1));
        let short = retimed(&all, WAITS);
        let told: Vec<_> =
            short.iter().map(|choice| (choice.point.topic, choice.point.turn, choice.number)).collect();
        // Ten waits of 750 ms and a nanosecond, and half a second.
        let expected = [(Topic::FaultTime, 1, 499_999_990), (Topic::Fault, 11, 2), (Topic::Victim, 11, 1)];
        assert_eq!(told, expected);
    }
}
