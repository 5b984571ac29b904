//! Repeating the changes that the records of a log describe, and noticing those that are missing.
//!
//! A record that is lost cannot say whose it was. So when bytes of acknowledged batches are lost,
//! every group is *suspect*. The next record of a group settles it: its number in the group's chain
//! follows the last one known, or it does not and the group has *lost* something. A checkpoint
//! settles it too, because it says what the group's state was, by a writer that knew.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::{
    Damage, DamageKind, EntryIndex, EntryKind, GroupId, Place, RecoveredGroup, SegmentNumber,
    codec::{Chain, Checkpoint, Mirror, RecordHeader, RecordKind, decode_configuration},
    state::GroupState,
};
use crate::raft::{Configuration, ConfigurationEntry, HardState, Index, Position, SnapshotMeta};

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) segment: SegmentNumber,
    pub(super) offset: u64,
}

impl At {
    pub(super) fn damage(self, kind: DamageKind) -> Damage {
        Damage { segment: self.segment, offset: self.offset, kind }
    }
}

/// All groups, as far as the log has been read.
#[derive(Debug, Default)]
pub(super) struct Replay {
    groups: BTreeMap<GroupId, GroupReplay>,
    /// Everything found damaged, whoever it concerns.
    damage: Vec<Damage>,
}

#[derive(Debug)]
struct GroupReplay {
    state: GroupState,
    /// The record that brought the hard state.
    hard_chain: Chain,
    /// Bytes were lost since the group's last record, and some may have been its own.
    suspect: Option<Damage>,
    /// Records of the group are lost.
    lost: Option<Damage>,
    /// Entries came or went after a loss: the log in memory may be none that ever was.
    ungrounded: bool,
    /// Where entries became unknown because a checkpoint names later ones.
    missing: Option<At>,
    /// Entries whose record is known and whose payload is not.
    unreadable: BTreeMap<Index, Damage>,
    configurations: Vec<ConfigurationEntry>,
}

/// A group after the last record.
#[derive(Debug)]
pub(super) struct Replayed {
    pub(super) recovered: RecoveredGroup,
    pub(super) state: GroupState,
}

impl Replay {
    /// Acknowledged bytes are lost here: any group may have lost a record.
    pub(super) fn lose(&mut self, damage: Damage) {
        self.damage.push(damage);
        for group in self.groups.values_mut() {
            group.suspect.get_or_insert(damage);
        }
    }

    /// A segment begins with a checkpoint of these groups: every other one was removed before,
    /// whether or not the record that says so can be read.
    pub(super) fn keep_only(&mut self, checkpointed: &BTreeSet<GroupId>) {
        self.groups.retain(|id, _| checkpointed.contains(id));
    }

    /// The next record. Without a payload where that does not match its checksum.
    pub(super) fn record(&mut self, header: &RecordHeader, payload: Option<&[u8]>, at: At) {
        if payload.is_none() {
            self.damage.push(at.damage(match header.kind {
                RecordKind::Entry(position, _) => {
                    DamageKind::Entries { first: position.index, last: position.index }
                }
                _ => DamageKind::Records,
            }));
        }
        let group = self.follow(header, at);
        match &header.kind {
            RecordKind::Remove => {
                self.groups.remove(&header.group);
            }
            RecordKind::HardState(hard_state) => group.set_hard_state(*hard_state, header.chain),
            RecordKind::Truncate(from) => group.truncate(*from),
            RecordKind::Install(position) | RecordKind::Purge(position) => {
                group.begin_at(*position, payload.and_then(decode_configuration), at);
            }
            RecordKind::Entry(position, kind) => {
                group.entry(*position, *kind, header.payload_bytes, payload, at);
            }
            RecordKind::Checkpoint(last) => {
                group.checkpoint(*last, payload.and_then(Checkpoint::decode), header.chain, at);
            }
        }
    }

    /// A record whose first copy is damaged, known from its mirror. Returns whether that is all
    /// there was to know: a checkpoint says more than its mirror, but nothing new to a group whose
    /// records are all known.
    pub(super) fn mirrored_record(&mut self, mirror: &Mirror, at: At) {
        let known = self.groups.get(&mirror.group);
        let complete =
            known.is_some_and(|group| group.lost.is_none() && group.state.chain.next() == mirror.chain);
        let header = RecordHeader {
            group: mirror.group,
            kind: RecordKind::HardState(mirror.hard_state),
            chain: mirror.chain,
            first: mirror.first,
            payload_bytes: 0,
            payload_checksum: 0,
        };
        self.record(&header, Some(&[]), at);
        let is_checkpoint = mirror.payload_bytes > 0;
        self.damage.push(at.damage(DamageKind::Records));
        if is_checkpoint
            && !complete
            && let Some(group) = self.groups.get_mut(&mirror.group)
        {
            group.lost.get_or_insert(at.damage(DamageKind::Records));
        }
    }

    /// Looks at the second copies of hard states after a segment's batches. One that is newer than
    /// what its group is known to have promised was at least about to be promised: keeping it is
    /// always safe, losing it is not.
    pub(super) fn mirrors<'a>(&mut self, mirrors: impl Iterator<Item = &'a Mirror>) {
        for mirror in mirrors.filter(|_| !mutant!(M46)) {
            let Some(group) = self.groups.get_mut(&mirror.group) else { continue };
            let rank = |hard: &HardState| (hard.term, hard.vote.is_some());
            if mirror.chain > group.hard_chain && rank(&mirror.hard_state) > rank(&group.state.hard_state) {
                group.set_hard_state(mirror.hard_state, mirror.chain);
            }
        }
    }

    /// What became of all groups, and everything found damaged.
    pub(super) fn finish(self) -> (BTreeMap<GroupId, Replayed>, Vec<Damage>) {
        let groups = self.groups.into_iter().map(|(id, group)| (id, group.finish())).collect();
        (groups, self.damage)
    }

    /// Checks the record's place in its group's chain, and moves the chain on.
    fn follow(&mut self, header: &RecordHeader, at: At) -> &mut GroupReplay {
        let begins = header.first || matches!(header.kind, RecordKind::Checkpoint(_));
        let fresh = match self.groups.get(&header.group) {
            Some(_) => header.first,
            None => true,
        };
        if fresh {
            let mut group = GroupReplay::new(header);
            if !begins {
                group.lost = Some(at.damage(DamageKind::Records));
            }
            self.groups.insert(header.group, group);
        }
        let group = self.groups.get_mut(&header.group).expect("inserted where it was not there");
        if !fresh {
            group.follow(header.chain, at);
        }
        group
    }
}

impl GroupReplay {
    fn new(first: &RecordHeader) -> Self {
        Self {
            state: GroupState::new(first.chain),
            // Mirrors of an earlier replica's promises lie before the group's beginning.
            hard_chain: if first.first { first.chain } else { Chain(0) },
            suspect: None,
            lost: None,
            ungrounded: false,
            missing: None,
            unreadable: BTreeMap::new(),
            configurations: Vec::new(),
        }
    }

    fn follow(&mut self, chain: Chain, at: At) {
        let suspect = self.suspect.take();
        if chain != self.state.chain.next() && !mutant!(M52) {
            self.lost.get_or_insert(suspect.unwrap_or_else(|| at.damage(DamageKind::Records)));
        }
        self.state.chain = chain;
    }

    fn set_hard_state(&mut self, hard_state: HardState, chain: Chain) {
        self.state.hard_state = hard_state;
        self.hard_chain = chain;
    }

    fn truncate(&mut self, from: Index) {
        self.ungrounded |= self.lost.is_some();
        self.state.truncate(from);
        self.unreadable.retain(|&index, _| index < from);
        self.configurations.retain(|entry| entry.index < from);
    }

    fn begin_at(&mut self, position: Position, configuration: Option<Configuration>, at: At) {
        if configuration.is_none() {
            self.lost.get_or_insert(at.damage(DamageKind::Records));
        }
        let configuration = configuration.unwrap_or_default();
        self.state.begin_at(SnapshotMeta { position, configuration });
        self.forget_up_to(position.index);
    }

    fn forget_up_to(&mut self, index: Index) {
        self.unreadable.retain(|&entry, _| entry > index);
        self.configurations.retain(|entry| entry.index > index);
    }

    fn entry(&mut self, position: Position, kind: EntryKind, length: u32, payload: Option<&[u8]>, at: At) {
        self.ungrounded |= self.lost.is_some();
        let offset = u32::try_from(at.offset).expect("segments are shorter than 4 GiB");
        let place = Place { segment: Some(at.segment), offset, length };
        if position.index == self.state.index.last().index.next() {
            self.state.push(position.term, place);
        } else if position.index > self.state.index.base().index && self.state.index.holds(position) {
            // Rewritten by a checkpoint whose own payload is damaged.
            self.state.index.locate(position, place);
        } else {
            self.lost.get_or_insert(at.damage(DamageKind::Records));
            return;
        }
        self.unreadable.remove(&position.index);
        let one = DamageKind::Entries { first: position.index, last: position.index };
        match (kind, payload) {
            (_, None) => {
                self.unreadable.insert(position.index, at.damage(one));
            }
            (EntryKind::Configuration, Some(bytes)) => match Configuration::decode(bytes) {
                Ok(configuration) => {
                    self.configurations.retain(|entry| entry.index < position.index);
                    self.configurations.push(ConfigurationEntry { index: position.index, configuration });
                }
                Err(_) => {
                    self.unreadable.insert(position.index, at.damage(one));
                }
            },
            (EntryKind::Normal | EntryKind::Empty, Some(_)) => {}
        }
    }

    fn checkpoint(&mut self, last: Position, checkpoint: Option<Checkpoint>, chain: Chain, at: At) {
        let Some(checkpoint) = checkpoint else {
            // To a group of which nothing is lost, a checkpoint is no news.
            if self.hard_chain == Chain(0) || self.state.index.last() != last {
                self.lost.get_or_insert(at.damage(DamageKind::Records));
            }
            return;
        };
        self.suspect = None;
        self.lost = checkpoint.damage.map(|words| Damage::from_words(words, at));
        self.set_hard_state(checkpoint.hard_state, chain);
        let start = checkpoint.start.position;
        if checkpoint.entries_follow {
            self.rebase(start);
        } else if self.state.index.holds(last) && !self.ungrounded {
            // Log Matching: a log that was once the replica's, and holds the position that is last
            // now, equals the log of now up to there.
            self.truncate(last.index.next());
            self.state.index.purge(start);
        } else {
            self.rebase(last);
            self.missing = Some(at);
        }
        self.state.start = checkpoint.start;
        self.forget_up_to(start.index);
    }

    fn rebase(&mut self, base: Position) {
        self.ungrounded = false;
        self.state.index = EntryIndex::new(base);
        self.unreadable.clear();
        self.configurations.clear();
    }

    fn finish(mut self) -> Replayed {
        self.state.damage = self.damage();
        let recovered = RecoveredGroup {
            hard_state: self.state.hard_state,
            start: self.state.start.clone(),
            runs: self.state.index.runs(),
            configurations: self.configurations,
            damage: self.state.damage,
            index: self.state.index.clone(),
            unreadable: self.unreadable.keys().copied().collect::<BTreeSet<_>>(),
        };
        Replayed { recovered, state: self.state }
    }

    fn damage(&self) -> Option<Damage> {
        let base = self.state.index.base();
        let start = self.state.start.position;
        let missing = (base != start).then(|| {
            let first = start.index.next();
            let at = self.missing.unwrap_or(At { segment: SegmentNumber(0), offset: 0 });
            at.damage(DamageKind::Entries { first, last: base.index.max(first) })
        });
        let unreadable = || {
            let (&first, damage) = self.unreadable.first_key_value()?;
            let (&last, _) = self.unreadable.last_key_value()?;
            Some(Damage { kind: DamageKind::Entries { first, last }, ..*damage })
        };
        self.lost.or(self.suspect).or(missing).or_else(unreadable)
    }
}
