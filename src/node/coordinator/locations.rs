//! What never changes about entities, but cannot be told from their CID.
//!
//! A node's partition follows from its CID. An edge lives with its source, a version with its
//! entity: their partitions have to be learnt, and so has the node that an edge enters. None of this
//! ever changes, so what is remembered is never stale; the memory is bounded, and what was forgotten
//! is asked again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use crate::{graph::Cid, limits::LOCATIONS_MAX, placement::PartitionId};

/// The partitions of entities and versions.
pub(crate) type Locations = Remembered<PartitionId>;

/// The nodes that edges enter.
pub(crate) type Targets = Remembered<Cid>;

/// A bounded memory of facts by the CID of what they are about; the oldest is forgotten first.
#[derive(Debug)]
pub(crate) struct Remembered<T>(Mutex<Known<T>>);

#[derive(Debug)]
struct Known<T> {
    facts: BTreeMap<Cid, T>,
    order: VecDeque<Cid>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::new(Known { facts: BTreeMap::new(), order: VecDeque::new() }))
    }
}

impl<T: Copy> Remembered<T> {
    /// The fact, if remembered.
    pub(crate) fn get(&self, cid: &Cid) -> Option<T> {
        self.known().facts.get(cid).copied()
    }

    /// Remembers a fact.
    pub(crate) fn remember(&self, cid: Cid, fact: T) {
        let mut known = self.known();
        if known.facts.insert(cid, fact).is_some() {
            return;
        }
        known.order.push_back(cid);
        if known.order.len() > LOCATIONS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.facts.remove(&oldest);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known<T>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_location_is_forgotten_first() {
        let locations = Locations::default();
        let cids: Vec<Cid> =
            (0..=LOCATIONS_MAX as u64).map(|number| Cid::of(&number.to_be_bytes())).collect();
        for &cid in &cids {
            locations.remember(cid, PartitionId(7));
            locations.remember(cid, PartitionId(7));
        }
        assert_eq!(locations.get(&cids[0]), None);
        assert_eq!(locations.get(&cids[1]), Some(PartitionId(7)));
        assert_eq!(locations.get(&cids[LOCATIONS_MAX]), Some(PartitionId(7)));
        assert_eq!(locations.known().facts.len(), LOCATIONS_MAX);
    }
}
