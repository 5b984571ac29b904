//! The unanswered writes, in a ring indexed by request id.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    client::{backoff::Backoff, failure::Trace},
    placement::PartitionId,
};

/// Where a write is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Sent on this lane at this time.
    Sent { lane: usize, at: Instant },
    /// To be sent (again) at this time.
    Waiting { until: Instant },
    /// Refused and kept, so that the session's floor stays below it.
    Held,
}

/// One unanswered write.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) message: Bytes,
    pub(super) partition: Option<PartitionId>,
    pub(super) began: Instant,
    pub(super) stage: Stage,
    pub(super) backoff: Backoff,
    pub(super) trace: Trace,
}

/// Flights by id, all within `span` of the oldest.
#[derive(Debug)]
pub(super) struct Window {
    span: u64,
    base: u64,
    slots: VecDeque<Option<Flight>>,
    open: usize,
}

impl Window {
    pub(super) fn new(span: usize) -> Self {
        Self { span: span as u64, base: 1, slots: VecDeque::with_capacity(span), open: 0 }
    }

    /// Writes that are neither answered nor held.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Every id below this one is done with.
    pub(super) fn acked_below(&self) -> u64 {
        self.base
    }

    /// Whether the span rule allows this id now.
    pub(super) fn admits(&self, id: u64) -> bool {
        self.slots.is_empty() || id - self.base < self.span
    }

    /// Takes in the next id; ids rise.
    pub(super) fn insert(&mut self, id: u64, flight: Flight) {
        assert!(self.admits(id), "the span rule: {id} from {}", self.base);
        if self.slots.is_empty() {
            self.base = id;
        }
        assert!(id >= self.base + self.slots.len() as u64, "request ids rise");
        while self.base + (self.slots.len() as u64) < id {
            self.slots.push_back(None);
        }
        self.slots.push_back(Some(flight));
        self.open += 1;
    }

    pub(super) fn flight(&mut self, id: u64) -> Option<&mut Flight> {
        let at = usize::try_from(id.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(at)?.as_mut().filter(|flight| flight.stage != Stage::Held)
    }

    /// The write is done with.
    pub(super) fn remove(&mut self, id: u64) -> Option<Flight> {
        let at = usize::try_from(id.checked_sub(self.base)?).ok()?;
        let slot = self.slots.get_mut(at)?;
        if slot.as_ref().is_none_or(|flight| flight.stage == Stage::Held) {
            return None;
        }
        let flight = slot.take();
        self.open -= 1;
        while let Some(None) = self.slots.front() {
            self.slots.pop_front();
            self.base += 1;
        }
        flight
    }

    /// The write is answered, but the floor must not pass it.
    pub(super) fn hold(&mut self, id: u64) -> Option<Instant> {
        let flight = self.flight(id)?;
        flight.stage = Stage::Held;
        let began = flight.began;
        self.open -= 1;
        Some(began)
    }

    /// The ids and flights that are neither answered nor held, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Flight)> {
        let ids = self.base..;
        ids.zip(&self.slots).filter_map(|(id, slot)| {
            slot.as_ref().filter(|flight| flight.stage != Stage::Held).map(|flight| (id, flight))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn flight() -> Flight {
        let now = Instant::now();
        Flight {
            message: Bytes::new(),
            partition: None,
            began: now,
            stage: Stage::Waiting { until: now },
            backoff: Backoff::default(),
            trace: Trace::default(),
        }
    }

    #[test]
    fn a_held_write_pins_the_floor_and_is_no_longer_answered() {
        let mut window = Window::new(8);
        for id in [3, 4, 6] {
            window.insert(id, flight());
        }
        assert!(window.hold(4).is_some());
        assert!(window.remove(3).is_some() && window.remove(6).is_some());
        assert_eq!((window.acked_below(), window.open()), (4, 0));
        assert!(window.remove(4).is_none() && window.hold(4).is_none());
        assert!(window.admits(11) && !window.admits(12));
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_ids(steps in prop::collection::vec((any::<bool>(), 0_u64..40), 1..200)) {
            let mut window = Window::new(16);
            let (mut set, mut last) = (BTreeSet::new(), 0);
            for (insert, draw) in steps {
                if insert {
                    let id = last + 1 + draw % 5;
                    let allowed = set.first().is_none_or(|oldest| id - oldest < 16);
                    prop_assert_eq!(window.admits(id), allowed);
                    if allowed {
                        window.insert(id, flight());
                        set.insert(id);
                        last = id;
                    }
                } else {
                    let id = last.saturating_sub(draw);
                    prop_assert_eq!(window.remove(id).is_some(), set.remove(&id));
                }
                prop_assert_eq!(window.open(), set.len());
                prop_assert!(window.iter().map(|(id, _)| id).eq(set.iter().copied()));
                // Never beyond an unanswered id: what is below may be forgotten by the cluster.
                prop_assert!(set.first().is_none_or(|oldest| window.acked_below() == *oldest));
                prop_assert!(window.acked_below() <= last + 1);
            }
        }
    }
}
