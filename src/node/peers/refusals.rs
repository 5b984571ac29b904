//! Telling an operator whom this node refuses.
//!
//! Who is refused dials again every second, and anybody may dial under any name: each refusal is told
//! once in a while, and only so many different ones.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::HelloRefusal;
use crate::error::ErrorCode;

/// The same refusal is told again after this time.
const TELL_AGAIN: Duration = Duration::from_secs(600);
/// Different refusals remembered, and so told, within that time.
const REMEMBERED_MAX: usize = 64;

/// The refusals told lately.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    first: Instant,
    told: bool,
}

impl Refusals {
    /// Whether a refusal is to be told now.
    pub(super) fn is_news(&mut self, refusal: &HelloRefusal, now: Instant) -> bool {
        if refusal.code == ErrorCode::Unavailable {
            // It is about to join.
            return false;
        }
        self.seen.retain(|_, seen| now.duration_since(seen.first) < TELL_AGAIN);
        // A member that has just come back with an empty disk may dial before this node has heard of it.
        let may_pass = refusal.code == ErrorCode::Superseded;
        if let Some(seen) = self.seen.get_mut(&refusal.what) {
            return !std::mem::replace(&mut seen.told, true);
        }
        if self.seen.len() >= REMEMBERED_MAX {
            return false;
        }
        self.seen.insert(refusal.what.clone(), Seen { first: now, told: !may_pass });
        !may_pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: ErrorCode, what: &str) -> HelloRefusal {
        HelloRefusal::new(code, what)
    }

    #[tokio::test]
    async fn each_refusal_is_told_once_in_a_while() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let other = refusal(ErrorCode::PeerOfOtherCluster, "n9 is in another cluster");
        let version = refusal(ErrorCode::ProtocolVersion, "n9 speaks version 2");
        assert!(refusals.is_news(&other, now));
        assert!(!refusals.is_news(&other, now + TELL_AGAIN / 2));
        assert!(refusals.is_news(&version, now), "another reason is news");
        assert!(refusals.is_news(&other, now + TELL_AGAIN), "it lasts");
    }

    #[tokio::test]
    async fn what_may_pass_is_told_when_it_has_not() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(!refusals.is_news(&refusal(ErrorCode::Unavailable, "n9 is in no cluster yet"), now));
        let unknown = refusal(ErrorCode::Superseded, "n9 says it is peer 9");
        assert!(!refusals.is_news(&unknown, now));
        assert!(refusals.is_news(&unknown, now));
        assert!(!refusals.is_news(&unknown, now));
    }

    #[tokio::test]
    async fn a_flood_of_names_is_not_told() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let flood = |number| refusal(ErrorCode::PeerOfOtherCluster, &format!("n{number} is a stranger"));
        let told = (0..10_000).filter(|&number| refusals.is_news(&flood(number), now)).count();
        assert_eq!(told, REMEMBERED_MAX);
        assert_eq!(refusals.seen.len(), REMEMBERED_MAX);
    }
}
