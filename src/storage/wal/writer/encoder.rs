//! From writes to records, and from records to the state they leave behind.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    raft::Position,
    storage::wal::{
        BatchSequence, Entry, GroupId, GroupWrite, Place, SegmentNumber,
        batch::{BatchBuilder, Buffers, Destination, Link, record_bytes},
        codec::{BATCH_HEADER_BYTES, Chain, MIRROR_BYTES, RecordKind, encode_configuration},
        state::GroupState,
    },
};

/// Turns writes into records.
pub(super) struct Encoder<'a> {
    builder: BatchBuilder<'a>,
    groups: &'a BTreeMap<GroupId, GroupState>,
    sequence: BatchSequence,
    segment: SegmentNumber,
    /// The last record of each group in this batch, and whether the group is there after it.
    chains: BTreeMap<GroupId, (Chain, bool)>,
    places: Vec<(GroupId, Position, Place)>,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(
        to: Destination<'a>,
        buffers: &'a mut Buffers,
        groups: &'a BTreeMap<GroupId, GroupState>,
        segment: SegmentNumber,
    ) -> Self {
        let sequence = to.sequence;
        let builder = BatchBuilder::new(to, buffers);
        Self { builder, groups, sequence, segment, chains: BTreeMap::new(), places: Vec::new() }
    }

    pub(super) fn write(&mut self, write: &GroupWrite) {
        let group = write.group;
        if write.remove && self.is_there(group) {
            let link = self.link(group);
            self.builder.record(link, RecordKind::Remove, &[]);
            self.chains.insert(group, (link.chain, false));
        }
        if let Some(hard_state) = write.hard_state {
            let link = self.link(group);
            self.builder.mirrored(link, RecordKind::HardState(hard_state), &[], hard_state);
        }
        if let Some(meta) = &write.install {
            let link = self.link(group);
            let configuration = encode_configuration(&meta.configuration);
            self.builder.record(link, RecordKind::Install(meta.position), &configuration);
        }
        if let Some(from) = write.truncate_from {
            let link = self.link(group);
            self.builder.record(link, RecordKind::Truncate(from), &[]);
        }
        for entry in &write.entries {
            let link = self.link(group);
            let offset = self.builder.entry(link, entry);
            self.places.push((group, entry.position(), place_of(self.segment, offset, entry)));
        }
        if let Some(meta) = &write.purge {
            let link = self.link(group);
            let configuration = encode_configuration(&meta.configuration);
            self.builder.record(link, RecordKind::Purge(meta.position), &configuration);
        }
    }

    fn is_there(&self, group: GroupId) -> bool {
        self.chains.get(&group).map_or_else(|| self.groups.contains_key(&group), |&(_, there)| there)
    }

    /// The next place in a group's chain.
    fn link(&mut self, group: GroupId) -> Link {
        let before = match self.chains.get(&group) {
            Some(&before) => Some(before),
            None => self.groups.get(&group).map(|state| (state.chain, true)),
        };
        let (chain, first) = match before {
            Some((chain, true)) => (chain.next(), false),
            Some((chain, false)) => (Chain::beginning(self.sequence).max(chain.next()), true),
            None => (Chain::beginning(self.sequence), true),
        };
        self.chains.insert(group, (chain, true));
        Link { group, chain, first }
    }

    #[expect(clippy::type_complexity, reason = "taken apart at once by its only caller")]
    pub(super) fn finish(self) -> (u32, Vec<(GroupId, Position, Place)>, BTreeMap<GroupId, (Chain, bool)>) {
        (self.builder.finish(), self.places, self.chains)
    }
}

/// Bytes that writes will take.
pub(super) struct Size {
    pub(super) bytes: u64,
    pub(super) mirror_bytes: u64,
}

pub(super) fn size_of(writes: &[GroupWrite]) -> Size {
    let mut size = Size { bytes: BATCH_HEADER_BYTES as u64, mirror_bytes: 0 };
    for write in writes {
        let metas = write.install.iter().chain(&write.purge);
        size.bytes +=
            metas.map(|meta| record_bytes(encode_configuration(&meta.configuration).len())).sum::<u64>();
        size.bytes += write.entries.iter().map(|entry| record_bytes(entry.payload.len())).sum::<u64>();
        let plain = [write.remove, write.hard_state.is_some(), write.truncate_from.is_some()];
        size.bytes += plain.iter().filter(|&&present| present).count() as u64 * record_bytes(0);
        size.mirror_bytes += if write.hard_state.is_some() { MIRROR_BYTES as u64 } else { 0 };
    }
    size
}

pub(super) fn place_of(segment: SegmentNumber, offset: u64, entry: &Entry) -> Place {
    Place {
        segment: Some(segment),
        offset: u32::try_from(offset).expect("segments are shorter than 4 GiB"),
        length: u32::try_from(entry.payload.len()).expect("payloads are shorter than a segment"),
    }
}

/// Changes a group's state as its records say.
pub(super) fn apply(
    groups: &mut BTreeMap<GroupId, GroupState>,
    write: &GroupWrite,
    chains: &BTreeMap<GroupId, (Chain, bool)>,
    places: &mut impl Iterator<Item = Place>,
) {
    if write.remove {
        groups.remove(&write.group);
    }
    let Some(&(chain, _)) = chains.get(&write.group) else { return };
    let state = groups.entry(write.group).or_insert_with(|| GroupState::new(chain));
    state.chain = chain;
    if let Some(hard_state) = write.hard_state {
        state.hard_state = hard_state;
    }
    if let Some(meta) = &write.install {
        state.begin_at(meta.clone());
    }
    if let Some(from) = write.truncate_from {
        state.truncate(from);
    }
    for entry in &write.entries {
        state.push(entry.term, places.next().expect("every entry of the batch has a place"));
    }
    if let Some(meta) = &write.purge {
        state.begin_at(meta.clone());
    }
}
