//! Running seeds, and what comes of them.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    check::{Check, Violation},
    choice::{Chooser, Notes, Recorded, Recorder, Schedule, Seeded, Source},
    history::TrueTime,
    machine::StateMachine,
    profile::Setup,
    shrink::{Attempt, Effort, Waits, shrink as cut},
    situations::Situations,
    trace::Trace,
    world::World,
};

thread_local! {
    /// Where the last panic of this thread happened.
    static PANICKED: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Whether this thread is in a run, whose panics are told by its outcome.
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Lets panics inside of runs be told as what failed, instead of printed: the engine's assertions
/// are checks. Other panics are printed, as before.
pub fn silence_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !RUNNING.get() {
            return before(info);
        }
        let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PANICKED.with(|panicked| *panicked.borrow_mut() = place);
    }));
}

/// CPU time of this thread so far.
///
/// # Panics
/// Never: the clock never runs backwards from zero.
#[must_use]
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("it is not negative");
    let nanos = u32::try_from(time.tv_nsec).expect("it is below a second");
    Duration::new(seconds, nanos)
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// Hash of every event.
    pub hash: u64,
    /// Events.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// What was met.
    pub situations: Situations,
}

impl Outcome {
    fn of<M: StateMachine>(world: &World<M>, panic: Option<Violation>) -> Self {
        Self {
            violation: panic.or_else(|| world.violation().cloned()),
            hash: world.trace().hash(),
            events: world.trace().events(),
            simulated: Duration::from_nanos(world.now()),
            situations: world.situations().clone(),
        }
    }
}

/// Runs a world to its end. A panic of the engine is a violation like any other.
pub fn run_world<M: StateMachine>(world: &mut World<M>) -> Outcome {
    run_world_until(world, TrueTime::MAX)
}

fn run_world_until<M: StateMachine>(world: &mut World<M>, until: TrueTime) -> Outcome {
    RUNNING.set(true);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        if Duration::from_nanos(until) < world.profile().chaos {
            world.run_until(until);
        } else {
            world.run();
        }
    }));
    RUNNING.set(false);
    let panic = caught.err().map(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without words".to_owned());
        let place = PANICKED.with(|panicked| panicked.borrow_mut().take());
        let message = place.map_or(message.clone(), |place| format!("{message} ({place})"));
        Violation::new(Check::Assertion, message)
    });
    Outcome::of(world, panic)
}

/// Runs one seed.
#[must_use]
pub fn run_seed<M: StateMachine>(seed: u64, setup: impl Into<Setup>) -> Outcome {
    run_source::<M>(Seeded::new(seed), setup)
}

/// Runs the choices of a source.
#[must_use]
pub fn run_source<M: StateMachine>(source: impl Source + 'static, setup: impl Into<Setup>) -> Outcome {
    run_world(&mut World::<M>::new(Chooser::new(source), setup, Trace::hashing()))
}

/// Runs one seed and notes its choices.
#[must_use]
pub fn record_seed<M: StateMachine>(seed: u64, setup: impl Into<Setup>) -> (Outcome, Schedule) {
    let (recorder, notes): (Recorder, Notes) = Recorder::new(Seeded::new(seed));
    let outcome = run_source::<M>(recorder, setup);
    (outcome, notes.schedule())
}

/// Runs a schedule.
#[must_use]
pub fn run_schedule<M: StateMachine>(schedule: &Schedule, setup: impl Into<Setup>) -> Outcome {
    run_source::<M>(Recorded::new(schedule), setup)
}

/// Runs the choices of a source and notes those that are not calm. A run that goes beyond `until`
/// while faults still happen ends there: whoever shrinks does not care how it would have gone on.
#[must_use]
pub fn attempt<M: StateMachine>(
    source: impl Source + 'static,
    setup: impl Into<Setup>,
    until: TrueTime,
) -> Attempt {
    let (recorder, notes) = Recorder::new(source);
    let mut world = World::<M>::new(Chooser::new(recorder), setup, Trace::hashing());
    let outcome = run_world_until(&mut world, until);
    Attempt {
        check: outcome.violation.map(|violation| violation.check),
        choices: notes.timed(),
        waits: Waits { think: world.profile().think, fault_every: world.profile().fault_every },
        events: outcome.events,
        at: world.now(),
    }
}

/// A failing run, made small.
#[derive(Clone, Debug)]
pub struct Small {
    /// What fails in it.
    pub violation: Violation,
    /// The choices there were.
    pub before: usize,
    /// The choices that are left.
    pub schedule: Schedule,
    /// How often the world was run for it.
    pub runs: u64,
}

/// Makes a run small: the fewest choices that fail the same check. Nothing where it does not fail.
#[must_use]
pub fn shrink<M: StateMachine>(
    source: impl Source + 'static,
    setup: impl Into<Setup>,
    effort: Effort,
) -> Option<Small> {
    let setup = setup.into();
    let first = attempt::<M>(source, setup, TrueTime::MAX);
    let (check, before) = (first.check?, first.choices.len());
    let choices = first.choices.into_iter().map(|(_, choice)| choice).collect();
    let run = |source, until| attempt::<M>(source, setup, until);
    let shrunk = cut(&Schedule { choices }, check, effort, &run);
    let violation = run_schedule::<M>(&shrunk.schedule, setup).violation?;
    Some(Small { violation, before, schedule: shrunk.schedule, runs: shrunk.runs })
}

/// Runs a world with a trace that can be read, up to a moment, or to its end.
pub fn read_world<M: StateMachine>(
    source: impl Source + 'static,
    setup: impl Into<Setup>,
) -> (Outcome, World<M>) {
    let mut world = World::<M>::new(Chooser::new(source), setup, Trace::reading());
    let outcome = run_world(&mut world);
    (outcome, world)
}

/// Nanoseconds as seconds to read.
#[must_use]
pub fn seconds(at: TrueTime) -> f64 {
    Duration::from_nanos(at).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::{
        check::linearizability::{Judgement, check_guided},
        choice::{Point, Topic},
        machine::{ExactlyOnce, Machine, Registers},
        profile::{FailureRate, Scale},
        situations::Situation,
    };

    /// A machine whose state is one part only, and which a calm client never reads.
    #[derive(Clone, Debug, Default, Serialize, Deserialize)]
    struct Counter(u64);

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Step {
        Count,
        Read,
    }

    impl Machine for Counter {
        type Operation = Step;
        type Answer = u64;

        fn draw(choices: &mut Chooser, client: u32, _: u64) -> Step {
            if choices.below(Topic::Client, client, 2) == 0 { Step::Count } else { Step::Read }
        }

        fn is_read(step: &Step) -> bool {
            *step == Step::Read
        }

        fn apply(&mut self, _: &Step) -> u64 {
            self.0 += 1;
            self.0
        }

        fn read(&self, _: &Step) -> u64 {
            self.0
        }

        fn key(_: &Step) -> u64 {
            0
        }
    }

    #[test]
    fn the_calmest_run_passes() {
        let calm = run_schedule::<ExactlyOnce<Registers>>(&Schedule::default(), Scale::Drawn);
        assert_eq!(calm.violation, None);
        let calm = run_schedule::<ExactlyOnce<Counter>>(&Schedule::default(), Scale::Drawn);
        assert_eq!(calm.violation, None);
    }

    #[test]
    fn every_group_is_asked_in_the_end_whatever_the_machine_s_key() {
        let groups = |seed| {
            let mut world = World::<ExactlyOnce<Counter>>::new(
                Chooser::new(Seeded::new(seed)),
                Scale::Drawn,
                Trace::hashing(),
            );
            (world.profile().groups, run_world(&mut world).violation)
        };
        let outcomes: Vec<_> = (0..12).map(groups).collect();
        assert!(outcomes.iter().any(|(groups, _)| *groups > 1), "some runs have several groups");
        assert!(outcomes.iter().all(|(_, violation)| violation.is_none()), "{outcomes:?}");
    }

    #[test]
    fn the_order_of_the_log_explains_what_clients_saw() {
        let mut refused = 0;
        for seed in 0..80 {
            let chooser = Chooser::new(Seeded::new(seed));
            let mut world = World::<ExactlyOnce<Registers>>::new(chooser, Scale::Short, Trace::hashing());
            let outcome = run_world(&mut world);
            assert_eq!(outcome.violation, None, "seed {seed}");
            refused += outcome.situations.of(Situation::RefusedAsOver);
            let judgement = check_guided::<Registers>(world.history(), 0, &|at| world.effect(at));
            assert_eq!(judgement, Judgement::Linearizable, "seed {seed}");
        }
        assert!(refused > 0, "the log also holds requests that had no effect");
    }

    /// A source that is calm about everything but the failures of replication.
    #[derive(Clone, Debug)]
    struct OnlyReplicationFails(Seeded);

    impl Source for OnlyReplicationFails {
        fn number(&mut self, point: Point, below: u64) -> u64 {
            let drawn = match point.topic {
                Topic::Asks | Topic::Client => true,
                topic => topic == Topic::Message && below == 1_000_000,
            };
            if drawn { self.0.number(point, below) } else { 0 }
        }

        fn boxed(&self) -> Box<dyn Source> {
            Box::new(self.clone())
        }
    }

    #[test]
    fn replication_fails_at_the_rate_that_was_asked_for() {
        let run = |share| {
            let failure_rate = FailureRate::new(share).expect("a share");
            let setup = Setup { scale: Scale::Short, failure_rate };
            let outcome = run_source::<ExactlyOnce<Registers>>(OnlyReplicationFails(Seeded::new(1)), setup);
            assert_eq!(outcome.violation, None, "{share}");
            let of = |situation| outcome.situations.of(situation);
            (of(Situation::MessageLost), of(Situation::WriteAnswered))
        };
        let (lost, all) = run(0.0);
        assert_eq!(lost, 0);
        let (lost, answered) = run(0.3);
        assert!(lost > 0 && answered > 0, "{lost} lost, {answered} answered");
        // Nothing is replicated until faults are over.
        let (lost, answered) = run(1.0);
        assert!(lost > 0 && answered < all / 2, "{lost} lost, {answered} of {all} answered");
        assert_eq!(FailureRate::new(1.5), None);
    }
}
