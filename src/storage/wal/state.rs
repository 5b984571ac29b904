//! What the log holds of one group: the same in the writer, which changes it with each write, and in
//! recovery, which repeats those changes.

use super::{Damage, EntryIndex, Place, codec::Chain};
use crate::raft::{HardState, Index, Position, SnapshotMeta, Term};

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupState {
    pub(super) hard_state: HardState,
    /// Where its log begins: the entries up to this position are gone.
    pub(super) start: SnapshotMeta,
    /// The entries behind the start.
    pub(super) index: EntryIndex,
    /// Its last record.
    pub(super) chain: Chain,
    /// Why it takes no writes.
    pub(super) damage: Option<Damage>,
}

impl GroupState {
    /// A group that begins anew.
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            hard_state: HardState::default(),
            start: SnapshotMeta::default(),
            index: EntryIndex::new(Position::ZERO),
            chain,
            damage: None,
        }
    }

    /// A snapshot or a purge: the log begins behind `meta`.
    pub(super) fn begin_at(&mut self, meta: SnapshotMeta) {
        if meta.position.index >= self.start.position.index {
            self.index.purge(meta.position);
            self.start = meta;
        }
    }

    /// Entries from `from` on are void.
    pub(super) fn truncate(&mut self, from: Index) {
        self.index.truncate(from);
    }

    /// An entry was added.
    pub(super) fn push(&mut self, term: Term, place: Place) {
        self.index.push(term, place);
    }
}
