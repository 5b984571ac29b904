//! A clock for each node: it drifts, and it jumps.
//!
//! Only what the consensus core is told of time comes from here. Time-outs of connections and
//! requests run by the runtime's clock; nothing about safety hangs on them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use madsim::{Config, plugin::Simulator, rand::GlobalRng, task::NodeId, time::TimeHandle};

const MILLION: u128 = 1_000_000;

/// The clocks of all nodes.
pub(super) struct Clocks {
    clocks: Mutex<BTreeMap<NodeId, Clock>>,
    time: TimeHandle,
}

/// Straight from its last change on.
#[derive(Clone, Copy, Debug)]
struct Clock {
    since: Instant,
    showed: Instant,
    /// Parts per million by which it is fast; negative: slow.
    drift: i64,
}

impl Clock {
    fn at(&self, now: Instant) -> Instant {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        self.showed + nanos(passed * self.rate() / MILLION)
    }

    fn rate(&self) -> u128 {
        u128::try_from(1_000_000 + self.drift).expect("no clock stands still")
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).expect("a run is shorter than 500 years"))
}

impl Simulator for Clocks {
    fn new(_: &GlobalRng, time: &TimeHandle, _: &Config) -> Self {
        Self { clocks: Mutex::default(), time: time.clone() }
    }
}

impl Clocks {
    fn with<T>(&self, node: NodeId, act: impl FnOnce(&mut Clock, Instant) -> T) -> T {
        let now = self.time.now_instant();
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        act(clocks.entry(node).or_insert(Clock { since: now, showed: now, drift: 0 }), now)
    }

    /// What a node's clock shows.
    pub(super) fn show(&self, node: NodeId) -> Instant {
        self.with(node, |clock, now| clock.at(now))
    }

    /// When a node's clock will show `time`, if nothing happens to it until then.
    pub(super) fn wake_at(&self, node: NodeId, time: Instant) -> Instant {
        self.with(node, |clock, now| {
            let left = time.saturating_duration_since(clock.at(now)).as_nanos();
            now + nanos((left * MILLION).div_ceil(clock.rate()))
        })
    }

    /// Makes a node's clock fast or slow, in parts per million.
    pub(super) fn drift(&self, node: NodeId, drift: i64) {
        self.with(node, |clock, now| *clock = Clock { since: now, showed: clock.at(now), drift });
    }

    /// Makes a node's clock jump forward.
    pub(super) fn jump(&self, node: NodeId, by: Duration) {
        self.with(node, |clock, now| {
            *clock = Clock { since: now, showed: clock.at(now) + by, drift: clock.drift };
        });
    }
}
