//! Where entities are that cannot be told from their CID.
//!
//! A node's partition follows from its CID. An edge lives with its source, a version with its
//! entity: their partitions have to be learnt. Such a location never changes, so a remembered one
//! is never stale; the memory is bounded, and what was forgotten is asked again.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Mutex,
};

use crate::limits::LOCATIONS_MAX;
use crate::{graph::Cid, placement::PartitionId};

/// A bounded memory of locations; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(crate) struct Locations(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    places: BTreeMap<Cid, PartitionId>,
    order: VecDeque<Cid>,
}

impl Locations {
    /// Where the entity is, if remembered.
    pub(crate) fn get(&self, cid: &Cid) -> Option<PartitionId> {
        self.known().places.get(cid).copied()
    }

    /// Remembers where an entity is.
    pub(crate) fn remember(&self, cid: Cid, partition: PartitionId) {
        let mut known = self.known();
        if known.places.insert(cid, partition).is_some() {
            return;
        }
        known.order.push_back(cid);
        if known.order.len() > LOCATIONS_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.places.remove(&oldest);
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
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
        assert_eq!(locations.known().places.len(), LOCATIONS_MAX);
    }
}
