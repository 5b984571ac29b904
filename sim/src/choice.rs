//! Where every choice of a simulated run comes from.
//!
//! A run asks for a number at a [`Point`]: what is decided, and for whom. Zero is always the calm
//! answer: no fault, no delay, no operation, the first of the alternatives. So a run is described
//! by its choices that are not zero, its [`Schedule`], and making a failure smaller means making
//! choices zero. Choices are counted per point, not over the whole run: the third delay on the link
//! from 1 to 2 stays the third delay on that link when a crash elsewhere is taken out.
//!
//! One world therefore serves a random search ([`Seeded`]), a fuzzer that looks for coverage
//! ([`FuzzBytes`]), shrinking and replay ([`Recorded`]).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use serde::{Deserialize, Serialize};

/// What is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// How the run is set up: sizes, limits, which faults there are and how often.
    Profile,
    /// The randomness that is handed to a replica.
    Seed,
    /// Whether a message is lost, repeated, or held back.
    Message,
    /// How long a message travels.
    Delay,
    /// How links change.
    Link,
    /// Crashes, restarts, pauses, wiped directories.
    Process,
    /// What a disk does to what was not flushed.
    Crash,
    /// How long a disk takes.
    DiskTime,
    /// Faults of disks.
    Disk,
    /// Faults of clocks.
    Clock,
    /// When work of a process is done: applying, snapshots, completions.
    Scheduling,
    /// Changes of members.
    Members,
    /// What clients do.
    Client,
    /// What the last phase keeps alive.
    Core,
}

impl Topic {
    /// Whether such choices are many, and each is of little consequence.
    const fn is_frequent(self) -> bool {
        match self {
            Self::Message | Self::Delay | Self::DiskTime | Self::Crash | Self::Scheduling => true,
            Self::Profile
            | Self::Seed
            | Self::Link
            | Self::Process
            | Self::Disk
            | Self::Clock
            | Self::Members
            | Self::Client
            | Self::Core => false,
        }
    }
}

/// A place where a choice is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// What is decided.
    pub topic: Topic,
    /// For whom: a host, a client, a link, or 0.
    pub of: u32,
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.topic, self.of)
    }
}

/// Answers choices.
pub trait Source: fmt::Debug + Send {
    /// A number below `below`, which is at least 1. Zero is the calm answer.
    fn number(&mut self, point: Point, below: u64) -> u64;

    /// Yes in about `permille` of 1,000 cases; no is the calm answer.
    fn chance(&mut self, point: Point, permille: u32) -> bool {
        // Zero must mean no, so the numbers that mean yes come behind it.
        (1..=u64::from(permille)).contains(&self.number(point, 1_000))
    }

    /// Another source that gives the same answers from here on.
    fn boxed(&self) -> Box<dyn Source>;
}

impl Source for Box<dyn Source> {
    fn number(&mut self, point: Point, below: u64) -> u64 {
        (**self).number(point, below)
    }

    fn chance(&mut self, point: Point, permille: u32) -> bool {
        (**self).chance(point, permille)
    }

    fn boxed(&self) -> Box<dyn Source> {
        (**self).boxed()
    }
}

/// Asks a source. `Clone` gives a twin that is asked for the same.
#[derive(Debug)]
pub struct Chooser(Box<dyn Source>);

impl Clone for Chooser {
    fn clone(&self) -> Self {
        Self(self.0.boxed())
    }
}

impl Chooser {
    /// A chooser that asks this source.
    pub fn new(source: impl Source + 'static) -> Self {
        Self(Box::new(source))
    }

    /// A chooser whose every answer is the calm one.
    #[must_use]
    pub fn calm() -> Self {
        Self::new(Recorded::new(&Schedule::default()))
    }

    /// A number below `below`; zero where there is nothing to choose.
    pub fn below(&mut self, topic: Topic, of: u32, below: u64) -> u64 {
        if below <= 1 {
            return 0;
        }
        let number = self.0.number(Point { topic, of }, below);
        assert!(number < below, "a source keeps to its bound");
        number
    }

    /// True in about `permille` of 1,000 cases; false is the calm answer.
    pub fn chance(&mut self, topic: Topic, of: u32, permille: u32) -> bool {
        permille > 0 && self.0.chance(Point { topic, of }, permille)
    }

    /// One of these; the first is the calm one.
    pub fn one_of<T: Copy>(&mut self, topic: Topic, of: u32, list: &[T]) -> T {
        let at = self.below(topic, of, list.len() as u64);
        list[usize::try_from(at).expect("below a length")]
    }
}

/// Random choices: the same seed gives the same ones, on every machine.
#[derive(Clone, Debug)]
pub struct Seeded(ChaCha8Rng);

impl Seeded {
    /// The choices of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }
}

impl Source for Seeded {
    fn number(&mut self, _: Point, below: u64) -> u64 {
        // The bias of one in 2^32 or less is of no consequence here.
        if below <= 1 << 32 {
            (u64::from(self.0.next_u32()) * below) >> 32
        } else {
            self.0.next_u64() % below
        }
    }

    fn boxed(&self) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

/// Choices from a fuzzer's bytes; calm ones when they are used up.
///
/// What is asked for often and decides little (how a message fares, how long a disk takes, which
/// sectors survive a crash, what is late) is read from the end of the bytes, everything else from the beginning. So a byte more or
/// less for a delay leaves alone what happens to processes and links, and two inputs can be spliced
/// with some sense.
#[derive(Clone, Debug)]
pub struct FuzzBytes {
    bytes: Arc<[u8]>,
    /// Bytes read at the beginning, and at the end.
    read: (usize, usize),
}

impl FuzzBytes {
    /// The choices these bytes stand for.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), read: (0, 0) }
    }

    /// The next byte for a topic, or zero.
    fn byte(&mut self, topic: Topic) -> u64 {
        let (front, back) = self.read;
        if front + back >= self.bytes.len() {
            return 0;
        }
        let at = if topic.is_frequent() {
            self.read.1 += 1;
            self.bytes.len() - 1 - back
        } else {
            self.read.0 += 1;
            front
        };
        u64::from(self.bytes[at])
    }
}

/// A byte is worth so much of a choice.
const BYTE: u64 = 256;

impl Source for FuzzBytes {
    /// One byte decides: where there is more to choose from, one of 256 numbers that lie evenly.
    fn number(&mut self, point: Point, below: u64) -> u64 {
        let byte = self.byte(point.topic);
        if below <= BYTE { byte % below } else { byte * (below / BYTE) }
    }

    fn chance(&mut self, point: Point, permille: u32) -> bool {
        let odds = (u64::from(permille) * BYTE / 1_000).max(1);
        (1..=odds).contains(&self.byte(point.topic))
    }

    fn boxed(&self) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

/// A choice that is not the calm one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Choice {
    /// Where.
    pub point: Point,
    /// The how-manieth choice at that point; the first is 0.
    pub nth: u32,
    /// The number chosen.
    pub number: u64,
}

/// All choices of a run that are not calm ones.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// In the order they were made.
    pub choices: Vec<Choice>,
}

/// The choices of a schedule; calm ones everywhere else.
#[derive(Clone, Debug)]
pub struct Recorded {
    numbers: Arc<BTreeMap<(Point, u32), u64>>,
    asked: BTreeMap<Point, u32>,
}

impl Recorded {
    /// The choices of this schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let numbers = schedule.choices.iter().map(|choice| ((choice.point, choice.nth), choice.number));
        Self { numbers: Arc::new(numbers.collect()), asked: BTreeMap::new() }
    }
}

impl Source for Recorded {
    fn number(&mut self, point: Point, below: u64) -> u64 {
        let asked = self.asked.entry(point).or_default();
        let number = self.numbers.get(&(point, *asked)).copied().unwrap_or(0);
        *asked += 1;
        // A bound may have shrunk with the schedule.
        number.min(below - 1)
    }

    fn boxed(&self) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}

/// Notes the choices of another source. The notes are shared by clones.
#[derive(Debug)]
pub struct Recorder {
    source: Box<dyn Source>,
    asked: BTreeMap<Point, u32>,
    notes: Notes,
}

/// What a [`Recorder`] noted.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Vec<Choice>>>);

impl Notes {
    /// What was noted so far.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        let choices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Schedule { choices: choices.clone() }
    }
}

impl Recorder {
    /// Notes what `source` answers.
    pub fn new(source: impl Source + 'static) -> (Self, Notes) {
        let notes = Notes::default();
        (Self { source: Box::new(source), asked: BTreeMap::new(), notes: notes.clone() }, notes)
    }

    fn note(&mut self, point: Point, number: u64) {
        let asked = self.asked.entry(point).or_default();
        if number != 0 {
            let mut choices = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
            choices.push(Choice { point, nth: *asked, number });
        }
        *asked += 1;
    }
}

impl Source for Recorder {
    fn number(&mut self, point: Point, below: u64) -> u64 {
        let number = self.source.number(point, below);
        self.note(point, number);
        number
    }

    fn chance(&mut self, point: Point, permille: u32) -> bool {
        let yes = self.source.chance(point, permille);
        self.note(point, u64::from(yes));
        yes
    }

    fn boxed(&self) -> Box<dyn Source> {
        Box::new(Self { source: self.source.boxed(), asked: self.asked.clone(), notes: self.notes.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(chooser: &mut Chooser) -> Vec<u64> {
        (0..50)
            .map(|at| {
                let of = at % 3;
                let number = chooser.below(Topic::Delay, of, 1 + u64::from(at) * 1_000);
                number + u64::from(chooser.chance(Topic::Message, of, 300))
            })
            .collect()
    }

    #[test]
    fn a_seed_always_means_the_same_choices() {
        let first = ask(&mut Chooser::new(Seeded::new(7)));
        assert_eq!(first, ask(&mut Chooser::new(Seeded::new(7))));
        assert_ne!(first, ask(&mut Chooser::new(Seeded::new(8))));
        let mut source = Seeded::new(7);
        let point = Point { topic: Topic::Delay, of: 0 };
        // Pinned: a seed in a corpus must mean the same run for ever.
        assert_eq!([0; 4].map(|_| source.number(point, 1_000_000)), GOLDEN);
    }

    const GOLDEN: [u64; 4] = [140_003, 157_796, 182_055, 167_989];

    #[test]
    fn a_recorded_run_repeats_the_one_it_was_recorded_from() {
        let (recorder, notes) = Recorder::new(Seeded::new(3));
        let answers = ask(&mut Chooser::new(recorder));
        assert_eq!(answers, ask(&mut Chooser::new(Recorded::new(&notes.schedule()))));
    }

    #[test]
    fn an_empty_schedule_is_calm() {
        assert!(
            ask(&mut Chooser::new(Recorded::new(&Schedule::default()))).iter().all(|&number| number == 0)
        );
        assert!(ask(&mut Chooser::new(FuzzBytes::new(&[]))).iter().all(|&number| number == 0));
    }

    #[test]
    fn a_byte_more_for_delays_leaves_the_rest_alone() {
        let faults = |bytes: &[u8]| {
            let mut chooser = Chooser::new(FuzzBytes::new(bytes));
            let mut faults = Vec::new();
            for _ in 0..20 {
                faults.push(chooser.below(Topic::Process, 0, 1_000_000));
                let _delay = chooser.below(Topic::Delay, 1, 1_000);
            }
            faults
        };
        let bytes: Vec<u8> = (1..=60).collect();
        let more = [&bytes[..], &[7]].concat();
        assert_eq!(faults(&bytes), faults(&more));
        assert!(faults(&bytes).iter().all(|&number| (1..1_000_000).contains(&number)));
    }

    #[test]
    fn a_chance_keeps_its_odds() {
        let mut chooser = Chooser::new(Seeded::new(1));
        let hits = (0..10_000).filter(|_| chooser.chance(Topic::Message, 0, 250)).count();
        assert!((2_300..2_700).contains(&hits), "{hits} of 10,000 at 250 permille");
        assert!(!(0..1_000).any(|_| chooser.chance(Topic::Message, 0, 0)));
    }
}
