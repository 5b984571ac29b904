use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::choice::{Chooser, Recorder, Seeded};

const EFFORT: Effort = Effort { runs: 20_000, events: 10_000_000, jobs: 2 };

/// A run of 60 turns of three clients with messages that are late, and faults; `fails` looks at what
/// happened so far.
fn story(source: Box<dyn Source>, fails: impl Fn(&[(u64, Topic, u64)]) -> Option<Check>) -> Attempt {
    let (recorder, notes) = Recorder::new(source);
    let mut chooser = Chooser::new(recorder);
    let mut seen = Vec::new();
    let hosts = 3 + chooser.below(Topic::Profile, 0, 5);
    let mut check = None;
    let mut now = 0;
    for turn in 0..60_u64 {
        now = turn * 100_000_000;
        chooser.now(now);
        chooser.next_turn_of_faults();
        seen.push((turn, Topic::Fault, chooser.below(Topic::Fault, 0, 20)));
        for host in 0..hosts {
            let host = u32::try_from(host).expect("small");
            chooser.next_turn_of_client(host);
            seen.push((turn, Topic::Asks, chooser.below(Topic::Asks, host, 8)));
            seen.push((turn, Topic::Delay, chooser.below(Topic::Delay, host, 1_000_000)));
        }
        check = fails(&seen);
        if check.is_some() {
            break;
        }
    }
    Attempt { check, choices: notes.timed(), waits: Waits::default(), events: seen.len() as u64, at: now }
}

/// Fails after a fault of at least 10 in turn 12 or later, then another of at least 3, with 5
/// questions between them.
fn needs_two_faults(seen: &[(u64, Topic, u64)]) -> Option<Check> {
    let first =
        seen.iter().position(|&(turn, topic, number)| topic == Topic::Fault && turn >= 12 && number >= 10)?;
    let rest = &seen[first + 1..];
    let second = rest.iter().rposition(|&(_, topic, number)| topic == Topic::Fault && number >= 3)?;
    let asked =
        rest[..second].iter().filter(|&&(_, topic, number)| topic == Topic::Asks && number > 0).count();
    (asked >= 5).then_some(Check::LogMatching)
}

fn schedule_of(seed: u64, fails: impl Fn(&[(u64, Topic, u64)]) -> Option<Check>) -> Schedule {
    let attempt = story(Box::new(Seeded::new(seed)), fails);
    assert!(attempt.check.is_some(), "seed {seed} must fail");
    Schedule { choices: attempt.choices.into_iter().map(|(_, choice)| choice).collect() }
}

#[test]
fn what_is_not_needed_goes_and_what_is_stays() {
    for seed in 0..20 {
        let schedule = schedule_of(seed, needs_two_faults);
        let run = |source, _| story(source, needs_two_faults);
        let shrunk = shrink(&schedule, Check::LogMatching, EFFORT, &run);
        assert!(schedule.choices.len() > 50, "seed {seed}: {} choices", schedule.choices.len());
        // Two faults and five questions; where those are asked at once, that many hosts.
        let left = &shrunk.schedule.choices;
        assert!((7..=8).contains(&left.len()), "seed {seed}: {left:?}");
        let of = |topic| left.iter().filter(move |choice| choice.point.topic == topic);
        assert_eq!((of(Topic::Fault).count(), of(Topic::Asks).count(), of(Topic::Delay).count()), (2, 5, 0));
        assert!(of(Topic::Asks).all(|choice| choice.number == 1), "seed {seed}: {left:?}");
        assert!(shrunk.runs < 2_000, "seed {seed}: {} runs", shrunk.runs);
    }
}

#[test]
fn the_result_is_the_same_with_any_number_of_threads() {
    let schedule = schedule_of(3, needs_two_faults);
    let run = |source, _| story(source, needs_two_faults);
    let results: Vec<_> = [1, 2, 5]
        .map(|jobs| shrink(&schedule, Check::LogMatching, Effort { jobs, ..EFFORT }, &run))
        .into_iter()
        .collect();
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn luck_is_drawn_again_where_cutting_does_not_help() {
    // Any change of the delays is another run, that fails or not by their sum; fewer are luck too.
    let by_luck = |seen: &[(u64, Topic, u64)]| {
        let sum: u64 =
            seen.iter().filter(|(_, topic, _)| *topic == Topic::Delay).map(|(.., number)| number).sum();
        let delays = seen.iter().filter(|(_, topic, number)| *topic == Topic::Delay && *number > 0).count();
        (delays > 4 && sum % 16 == 3).then_some(Check::Liveness)
    };
    let schedule = schedule_of(1, by_luck);
    let run = |source, _| story(source, by_luck);
    let shrunk = shrink(&schedule, Check::Liveness, EFFORT, &run);
    assert!(shrunk.schedule.choices.len() <= 8, "{:?}", shrunk.schedule);
}

#[test]
fn another_failure_is_not_taken_for_the_same() {
    let either = |seen: &[(u64, Topic, u64)]| {
        let late = seen.iter().any(|(_, topic, number)| *topic == Topic::Delay && *number > 0);
        Some(if late { Check::LogMatching } else { Check::Liveness })
    };
    let schedule = schedule_of(1, either);
    let shrunk = shrink(&schedule, Check::LogMatching, EFFORT, &|source, _| story(source, either));
    assert_eq!(shrunk.schedule.choices.len(), 1);
    assert_eq!(shrunk.schedule.choices[0].point.topic, Topic::Delay);
}

#[test]
fn effort_is_bounded() {
    let schedule = schedule_of(3, needs_two_faults);
    let runs = AtomicU64::new(0);
    let run = |source, _| {
        runs.fetch_add(1, Ordering::Relaxed);
        story(source, needs_two_faults)
    };
    let shrunk = shrink(&schedule, Check::LogMatching, Effort { runs: 10, ..EFFORT }, &run);
    assert!(shrunk.runs <= 10 + DRAWN_TOGETHER, "{} runs", shrunk.runs);
    assert!(runs.into_inner() <= 2 * (10 + DRAWN_TOGETHER));
}
