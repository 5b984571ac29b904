//! The pause before another attempt: it doubles, and half of it is drawn, so that clients which
//! failed together do not come back together.

use std::time::Duration;

use crate::runtime::random;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_millis(500);

/// The pauses of one request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The pause before the next attempt.
    pub(super) fn next(&mut self) -> Duration {
        let full = self.ceiling();
        self.attempts = self.attempts.saturating_add(1);
        full / 2 + (full / 2).mul_f64(share())
    }

    fn ceiling(self) -> Duration {
        FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST)
    }
}

/// A number in `[0, 1)`. Without randomness the pauses are merely equal.
fn share() -> f64 {
    f64::from(random::u32().unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_never_vanish() {
        let mut backoff = Backoff::default();
        for attempt in 0..20 {
            let ceiling = backoff.ceiling();
            let pause = backoff.next();
            assert!(pause >= ceiling / 2 && pause <= ceiling, "attempt {attempt}: {pause:?} of {ceiling:?}");
        }
        assert_eq!(backoff.ceiling(), LONGEST);
    }
}
