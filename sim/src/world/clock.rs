//! A host's clock: it began at a moment of its own, runs a little too fast or too slow, and jumps.

use kotoba_db_cluster::raft::{Instant, Now, WallInterval};

use crate::history::TrueTime;

/// Unix time at which every run begins: 2030, far from both ends of the scale.
const EPOCH_NANOS: u64 = 1_893_456_000_000_000_000;
/// How far the bounds of wall time lie from the truth, in nanoseconds.
const WALL_ERROR_NANOS: u64 = 2_000_000;
const MILLION: i64 = 1_000_000;

/// A monotonic clock as one host sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostClock {
    /// At this moment of true time...
    anchor: TrueTime,
    /// ...it showed this.
    shown: u64,
    /// Parts per million that it is too fast.
    drift_ppm: i64,
    wall: bool,
}

impl HostClock {
    /// A clock that shows `offset` when the run begins.
    pub(crate) fn new(offset: u64, drift_ppm: i64, wall: bool) -> Self {
        assert!(drift_ppm > -MILLION, "a clock does not run backwards");
        Self { anchor: 0, shown: offset, drift_ppm, wall }
    }

    /// What it shows.
    pub(crate) fn at(&self, truth: TrueTime) -> Instant {
        let passed = i64::try_from(truth - self.anchor).expect("runs are short");
        let shown = passed + passed / MILLION * self.drift_ppm + passed % MILLION * self.drift_ppm / MILLION;
        Instant(self.shown + u64::try_from(shown).expect("a clock does not run backwards"))
    }

    /// The time an input is handled at.
    pub(crate) fn now(&self, truth: TrueTime) -> Now {
        let wall = self.wall.then(|| WallInterval {
            earliest: EPOCH_NANOS + truth - WALL_ERROR_NANOS.min(truth),
            latest: EPOCH_NANOS + truth + WALL_ERROR_NANOS,
        });
        Now { monotonic: self.at(truth), wall }
    }

    /// The first moment, not before `truth`, at which it shows at least `instant`.
    pub(crate) fn when(&self, instant: Instant, truth: TrueTime) -> TrueTime {
        let shown = self.at(truth);
        if instant <= shown {
            return truth;
        }
        let left = u128::from(instant.0 - shown.0);
        let rate = u128::try_from(MILLION + self.drift_ppm).expect("a clock does not run backwards");
        let wait = (left * u128::from(MILLION.unsigned_abs())).div_ceil(rate);
        let mut at = truth + u64::try_from(wait).unwrap_or(u64::MAX >> 2);
        // Rounding may leave it a nanosecond short.
        while self.at(at) < instant {
            at += 1;
        }
        at
    }

    /// Jumps forward; a monotonic clock has no other way.
    pub(crate) fn jump(&mut self, truth: TrueTime, by: u64) {
        self.shown = self.at(truth).0 + by;
        self.anchor = truth;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_met_when_the_clock_shows_it() {
        for drift in [-50_000, -1, 0, 3, 50_000] {
            let mut clock = HostClock::new(77, drift, false);
            for truth in [0, 1, 999, 5_000_000_123] {
                for wait in [0, 1, 17, 1_000_000_007] {
                    let deadline = Instant(clock.at(truth).0 + wait);
                    let at = clock.when(deadline, truth);
                    assert!(clock.at(at) >= deadline, "drift {drift}");
                    assert!(
                        at == truth || clock.at(at.saturating_sub(2)) < deadline,
                        "drift {drift}: too late"
                    );
                }
            }
            clock.jump(6_000_000_000, 500);
            assert!(clock.at(7_000_000_000) > clock.at(6_000_000_000));
        }
    }
}
