//! Whether writes continue the logs they are for: decided before anything is written.

use alloc::collections::BTreeMap;

use crate::{
    raft::Index,
    storage::wal::{GroupId, GroupWrite, WriteError, state::GroupState},
};

/// What the groups' logs will be after the writes admitted so far.
#[derive(Default)]
pub(in crate::storage::wal) struct Staging {
    groups: BTreeMap<GroupId, Staged>,
}

#[derive(Clone, Copy)]
struct Staged {
    start: Index,
    last: Index,
    damaged: bool,
}

impl Staging {
    /// Checks that a write continues its group's log.
    pub(super) fn admit(
        &mut self,
        groups: &BTreeMap<GroupId, GroupState>,
        write: &GroupWrite,
    ) -> Result<(), WriteError> {
        let fresh = Staged { start: Index::ZERO, last: Index::ZERO, damaged: false };
        let staged = self.groups.entry(write.group).or_insert_with(|| {
            groups.get(&write.group).map_or(fresh, |state| Staged {
                start: state.start.position.index,
                last: state.index.last().index,
                damaged: state.damage.is_some(),
            })
        });
        if write.remove {
            *staged = fresh;
        }
        if staged.damaged {
            return Err(WriteError::Damaged(write.group));
        }
        staged.change(write)
    }
}

impl Staged {
    fn change(&mut self, write: &GroupWrite) -> Result<(), WriteError> {
        let refuse = |expected, found| Err(WriteError::OutOfOrder { group: write.group, expected, found });
        if let Some(meta) = &write.install {
            let to = meta.position.index;
            if to < self.start {
                return refuse(self.start, to);
            }
            (self.start, self.last) = (to, self.last.max(to));
        }
        if let Some(from) = write.truncate_from {
            if from <= self.start {
                return refuse(self.start.next(), from);
            }
            self.last = self.last.min(from.previous());
        }
        for entry in &write.entries {
            if entry.index != self.last.next() {
                return refuse(self.last.next(), entry.index);
            }
            self.last = entry.index;
        }
        if let Some(meta) = &write.purge {
            if meta.position.index > self.last {
                return refuse(self.last, meta.position.index);
            }
            self.start = self.start.max(meta.position.index);
        }
        Ok(())
    }
}
