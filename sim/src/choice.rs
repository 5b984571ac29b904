//! Where every choice of a simulated run comes from.
//!
//! A run asks for a number at a [`Point`]: what is decided, for whom, and when. Zero is always the
//! calm answer: no fault, no delay, no operation, the first of the alternatives. So a run is
//! described by its choices that are not zero, its [`Schedule`], and making a failure smaller means
//! making choices zero. That only works where taking one choice out leaves the others what they
//! were, so nothing is counted over the whole run: the loss of a message is known by its link and
//! its moment, and stays that when a crash elsewhere goes; the fifth fault stays the fifth fault
//! when the fourth is taken out ([`Pace`]).
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

use crate::history::TrueTime;

macro_rules! topics {
    ($($pace:ident { $($(#[$doc:meta])* $name:ident,)* })*) => {
        /// What is decided.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Topic {
            $($($(#[$doc])* $name,)*)*
        }

        impl Topic {
            /// All of them.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// What its choices are told apart by.
            #[must_use]
            pub const fn pace(self) -> Pace {
                match self {
                    $($(Self::$name => Pace::$pace,)*)*
                }
            }
        }
    };
}

topics! {
    Once {
        /// How the run is set up: sizes, limits, which faults there are and how often.
        Profile,
        /// What the last phase keeps alive.
        Core,
    }
    Faults {
        /// Which fault comes next.
        Fault,
        /// How long until the one after it.
        FaultTime,
        /// Whom a fault hits.
        Victim,
        /// How links change.
        Link,
        /// Outages, pauses, stale completions, hints.
        Process,
        /// Faults of disks.
        Disk,
        /// Faults of clocks.
        Clock,
        /// Changes of members.
        Members,
    }
    Clients {
        /// What a client asks for.
        Client,
        /// When a client wakes next.
        ClientTime,
        /// Whether a client asks for anything when it wakes.
        Asks,
        /// How much it asks for at once.
        Burst,
        /// Whether it asks another host than the one that answered last.
        Stray,
        /// The host it asks.
        Asked,
    }
    Moments {
        /// The randomness that is handed to a replica.
        Seed,
        /// Whether a message is lost.
        Message,
        /// Whether a message is late.
        Late,
        /// Whether a message arrives twice.
        Repeat,
        /// Whether a message arrives once more, seconds later.
        Replay,
        /// How long a message travels.
        Delay,
        /// When a flapping link turns over.
        Flap,
        /// What a crash does to a disk.
        Crash,
        /// How long a process stays down, or lives on with a failed disk.
        Down,
        /// Whether a host hears that another one went away, and when.
        Hearsay,
        /// Whether a process is killed around a certain message.
        Aim,
        /// Whether a process is killed around a certain write.
        AimAtWrite,
        /// What follows an election at once.
        Elected,
        /// Whether a completion of an earlier life comes while something is written.
        Stale,
        /// Whether a snapshot can be built.
        Build,
        /// How long a disk takes.
        DiskTime,
        /// Whether a chunk of a snapshot is spoilt.
        Chunk,
        /// Whether work of a process is late: applying, snapshots, completions.
        Tardy,
        /// How late.
        Scheduling,
        /// Whether a log is compacted, and how much is left.
        Compaction,
        /// How much longer than it is a snapshot claims to be.
        Padding,
        /// Whether an operator is impatient, or asks twice.
        Operator,
    }
}

/// What choices of a topic are told apart by, besides whom they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing: they are made once.
    Once,
    /// How many faults were due before.
    Faults,
    /// How often the client woke before.
    Clients,
    /// When they are made.
    Moments,
}

impl Topic {
    /// Whether such choices are many, and each is of little consequence.
    const fn is_frequent(self) -> bool {
        matches!(
            self,
            Self::Message
                | Self::Late
                | Self::Repeat
                | Self::Replay
                | Self::Delay
                | Self::DiskTime
                | Self::Crash
                | Self::Tardy
                | Self::Scheduling
                | Self::Compaction
                | Self::Padding
        )
    }
}

/// A place where a choice is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Point {
    /// What is decided.
    pub topic: Topic,
    /// For whom: a host, a client, a link, or 0.
    pub of: u32,
    /// When, by the topic's [`Pace`].
    pub turn: u32,
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}/{}", self.topic, self.of, self.turn)
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

    /// It is now this time.
    fn now(&mut self, now: TrueTime) {
        let _ = now;
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

    fn now(&mut self, now: TrueTime) {
        (**self).now(now);
    }

    fn boxed(&self) -> Box<dyn Source> {
        (**self).boxed()
    }
}

/// Asks a source. `Clone` gives a twin that is asked for the same.
#[derive(Debug)]
pub struct Chooser {
    source: Box<dyn Source>,
    moment: u32,
    faults: u32,
    clients: Vec<u32>,
}

/// Choices of a topic that is told apart by moments are made in the same one when they lie this
/// close together: a change elsewhere that shifts things by less leaves them what they are.
const MOMENT_NANOS: TrueTime = 10_000_000;
/// Clients whose turns are counted.
const CLIENTS_MAX: usize = 1_024;

impl Clone for Chooser {
    fn clone(&self) -> Self {
        let Self { source, moment, faults, clients } = self;
        Self { source: source.boxed(), moment: *moment, faults: *faults, clients: clients.clone() }
    }
}

impl Chooser {
    /// A chooser that asks this source.
    pub fn new(source: impl Source + 'static) -> Self {
        Self { source: Box::new(source), moment: 0, faults: 0, clients: Vec::new() }
    }

    /// A chooser whose every answer is the calm one.
    #[must_use]
    pub fn calm() -> Self {
        Self::new(Recorded::new(&Schedule::default()))
    }

    /// It is now this time.
    pub fn now(&mut self, now: TrueTime) {
        self.moment = u32::try_from(now / MOMENT_NANOS).unwrap_or(u32::MAX);
        self.source.now(now);
    }

    /// A fault is due.
    pub fn next_turn_of_faults(&mut self) {
        self.faults += 1;
    }

    /// A client wakes.
    pub fn next_turn_of_client(&mut self, client: u32) {
        let at = client as usize;
        if at >= self.clients.len() && at < CLIENTS_MAX {
            self.clients.resize(at + 1, 0);
        }
        if let Some(turn) = self.clients.get_mut(at) {
            *turn += 1;
        }
    }

    fn point(&self, topic: Topic, of: u32) -> Point {
        let turn = match topic.pace() {
            Pace::Once => 0,
            Pace::Faults => self.faults,
            Pace::Clients => self.clients.get(of as usize).copied().unwrap_or(0),
            Pace::Moments => self.moment,
        };
        Point { topic, of, turn }
    }

    /// A number below `below`; zero where there is nothing to choose.
    pub fn below(&mut self, topic: Topic, of: u32, below: u64) -> u64 {
        if below <= 1 {
            return 0;
        }
        let number = self.source.number(self.point(topic, of), below);
        assert!(number < below, "a source keeps to its bound");
        number
    }

    /// True in about `permille` of 1,000 cases; false is the calm answer.
    pub fn chance(&mut self, topic: Topic, of: u32, permille: u32) -> bool {
        permille > 0 && self.source.chance(self.point(topic, of), permille)
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
    #[serde(flatten)]
    pub point: Point,
    /// The how-manieth choice at that point; the first is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nth: u32,
    /// The number chosen.
    pub number: u64,
}

fn is_zero(nth: &u32) -> bool {
    *nth == 0
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
    asked: Asked,
}

/// How often each point was asked. Turns do not come back, so only the last one of each is kept.
#[derive(Clone, Debug, Default)]
struct Asked(BTreeMap<(Topic, u32), (u32, u32)>);

impl Asked {
    /// The how-manieth choice at this point is asked for now.
    fn next(&mut self, point: Point) -> u32 {
        let (turn, next) = self.0.entry((point.topic, point.of)).or_default();
        if *turn != point.turn {
            (*turn, *next) = (point.turn, 0);
        }
        *next += 1;
        *next - 1
    }
}

impl Recorded {
    /// The choices of this schedule.
    #[must_use]
    pub fn new(schedule: &Schedule) -> Self {
        let numbers = schedule.choices.iter().map(|choice| ((choice.point, choice.nth), choice.number));
        Self { numbers: Arc::new(numbers.collect()), asked: Asked::default() }
    }
}

impl Source for Recorded {
    fn number(&mut self, point: Point, below: u64) -> u64 {
        let nth = self.asked.next(point);
        let number = self.numbers.get(&(point, nth)).copied().unwrap_or(0);
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
    now: TrueTime,
    asked: Asked,
    notes: Notes,
}

/// What a [`Recorder`] noted.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Mutex<Vec<(TrueTime, Choice)>>>);

impl Notes {
    /// What was noted so far.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule { choices: self.timed().into_iter().map(|(_, choice)| choice).collect() }
    }

    /// What was noted so far, and when each choice was made.
    #[must_use]
    pub fn timed(&self) -> Vec<(TrueTime, Choice)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Recorder {
    /// Notes what `source` answers.
    pub fn new(source: impl Source + 'static) -> (Self, Notes) {
        let notes = Notes::default();
        (Self { source: Box::new(source), now: 0, asked: Asked::default(), notes: notes.clone() }, notes)
    }

    fn note(&mut self, point: Point, number: u64) {
        let nth = self.asked.next(point);
        if number != 0 {
            let mut choices = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
            choices.push((self.now, Choice { point, nth, number }));
        }
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

    fn now(&mut self, now: TrueTime) {
        self.now = now;
        self.source.now(now);
    }

    fn boxed(&self) -> Box<dyn Source> {
        let Self { source, now, asked, notes } = self;
        Box::new(Self { source: source.boxed(), now: *now, asked: asked.clone(), notes: notes.clone() })
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
        let point = Point { topic: Topic::Delay, of: 0, turn: 0 };
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

    #[test]
    fn a_choice_stays_what_it_is_when_others_are_taken_out() {
        // Two clients wake in turn and ask for different amounts; messages are lost at their moments.
        let run = |chooser: &mut Chooser| {
            let mut seen = Vec::new();
            for step in 0..40_u32 {
                chooser.now(u64::from(step) * 25_000_000);
                let client = step % 2;
                chooser.next_turn_of_client(client);
                for at in 0..=chooser.below(Topic::Burst, client, 3) {
                    seen.push((step, at, chooser.below(Topic::Client, client, 100)));
                }
                seen.push((step, 9, u64::from(chooser.chance(Topic::Message, client, 500))));
            }
            seen.retain(|(_, _, number)| *number != 0);
            seen
        };
        let (recorder, notes) = Recorder::new(Seeded::new(5));
        let all = run(&mut Chooser::new(recorder));
        let mut schedule = notes.schedule();
        schedule.choices.retain(|choice| choice.point.turn > 10 && choice.point.topic != Topic::Burst);
        let some = run(&mut Chooser::new(Recorded::new(&schedule)));
        assert!(!some.is_empty() && some.len() < all.len());
        assert!(some.iter().all(|one| all.contains(one)), "{some:?} is no part of {all:?}");
    }
}
