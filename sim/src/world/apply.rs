//! Applying, compacting, and snapshots.

use std::sync::Arc;

use kotoba_db_cluster::{
    raft::{BuiltSnapshot, GroupId, Index, Input, Position, SnapshotDescriptor, SnapshotId, SnapshotMeta},
    storage::wal::{Entry, EntryKind},
};

use super::{
    World,
    event::Event,
    host::{Asker, Incoming},
    network::nanos,
    packet::{Received, Snapshot},
};
use crate::{check::Check, choice::Topic, machine::StateMachine, situations::Situation, trace::Kind};

impl<M: StateMachine> World<M> {
    /// Plans that a process applies what is committed.
    pub(super) fn plan_apply(&mut self, at: usize, group: GroupId) {
        let host = &mut self.hosts[at];
        let life = host.life;
        let Some(hosted) = host.process.as_mut().and_then(|process| process.groups.get_mut(&group)) else {
            return;
        };
        if std::mem::replace(&mut hosted.applying, true) {
            return;
        }
        self.later(at, Event::Apply { host: at, life, group });
    }

    /// Plans a piece of work of a process: mostly at once, sometimes late.
    pub(super) fn later(&mut self, at: usize, event: Event<M::Answer>) {
        let number = self.hosts[at].number;
        let (chance, longest) = self.profile.late;
        if self.choices.chance(Topic::Tardy, number, chance) {
            self.situations.count(Situation::Late);
            let wait = self.choices.below(Topic::Scheduling, number, nanos(longest));
            self.agenda.plan(self.now + wait, event);
        } else {
            self.at_once.push_back(event);
        }
    }

    /// Applies some of what is committed.
    pub(super) fn apply(&mut self, at: usize, group: GroupId) {
        let batch_max = usize::try_from(self.profile.apply_batch).expect("small");
        let host = &mut self.hosts[at];
        let number = host.number;
        let process = host.process.as_mut().expect("only running processes apply");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        hosted.applying = false;
        let count = batch_max.min(hosted.queue.len());
        let entries: Vec<Entry> = hosted.queue.drain(..count).collect();
        let Some(last) = entries.last().map(Entry::position) else { return };
        let Some(machine) = &mut hosted.machine else {
            return self.fail(Check::Assertion, format!("{group}: host {number} applies without a state"));
        };
        let commands: Vec<_> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Normal)
            .map(|entry| (entry.position(), entry.payload.clone()))
            .collect();
        let answers = machine.apply_batch(&commands);
        hosted.applied = last;
        let verdict = self.ledgers[&group].state(number, last.index, machine);
        let more = !hosted.queue.is_empty();
        process.log.applied(group, last.index);
        let mut told = Vec::new();
        for ((position, _), answer) in commands.iter().zip(answers) {
            if let Some((term, asker)) = process.waiting.remove(&(group, position.index)) {
                let answer = if term == position.term { answer } else { None };
                told.push((asker, answer.map(|answer| (position.index, answer))));
            }
        }
        let lost: Vec<_> =
            process.waiting.range((group, Index::ZERO)..=(group, last.index)).map(|(&key, _)| key).collect();
        for key in lost {
            let (_, asker) = process.waiting.remove(&key).expect("just listed");
            self.situations.count(Situation::ProposalLost);
            told.push((asker, None));
        }
        self.judge(verdict);
        for (asker, answer) in told {
            self.reply(at, asker, answer);
        }
        self.serve_reads(at, group);
        self.group_input(at, group, Input::Applied(last.index));
        if more {
            self.plan_apply(at, group);
        }
        if self.choices.chance(Topic::Compaction, number, self.profile.administration.compactions) {
            self.compact(at, group);
        }
        self.look_at_group(at, group);
    }

    /// Begins to make the state durable, so that the log can forget what it holds the effect of.
    fn compact(&mut self, at: usize, group: GroupId) {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("it has just applied");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        let Some(machine) = &hosted.machine else { return };
        // One at a time.
        if hosted.flushing.is_none() {
            hosted.flushing = Some((hosted.applied, machine.clone()));
            let life = host.life;
            self.later(at, Event::Flushed { host: at, life, group });
        }
    }

    /// A state is durable: the log may forget most of what it holds the effect of.
    pub(super) fn flushed(&mut self, at: usize, group: GroupId) {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only running processes flush");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        // An installation took its place.
        let Some((position, machine)) = hosted.flushing.take() else { return };
        let stored = host.groups.get_mut(&group).expect("hosts know their groups");
        stored.durable = Some((position, machine));
        let kept =
            self.choices.below(Topic::Compaction, host.number, self.profile.administration.kept_entries + 1);
        let index = Index(position.index.0.saturating_sub(kept));
        self.group_input(at, group, Input::Compact(index));
        self.look_at_group(at, group);
    }

    /// Builds a snapshot.
    pub(super) fn build(&mut self, at: usize, group: GroupId, at_least: Index) {
        let fails = self.choices.chance(Topic::Build, self.hosts[at].number, self.profile.disk.failed_builds);
        let padding =
            self.choices.below(Topic::Padding, self.hosts[at].number, self.profile.snapshot_padding + 1);
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only running processes build snapshots");
        let name = process.name();
        let Some(hosted) = process.groups.get(&group) else { return };
        let built = match &hosted.machine {
            Some(_) if fails => {
                self.situations.count(Situation::BuildFailed);
                None
            }
            Some(machine) if hosted.applied.index >= at_least => {
                let data = machine.snapshot(hosted.applied);
                let bytes = data.len() as u64 + padding + 1;
                let snapshot = Snapshot { position: hosted.applied, data, bytes };
                let built = BuiltSnapshot { id: SnapshotId(name), index: hosted.applied.index, bytes };
                process.snapshots.insert(built.id, Arc::new(snapshot));
                while process.snapshots.len() > SNAPSHOTS_MAX {
                    process.snapshots.pop_first();
                }
                self.situations.count(Situation::SnapshotBuilt);
                Some(built)
            }
            // Not there yet: asked again when it is needed.
            Some(_) | None => None,
        };
        self.say(Kind::Snapshot, Some(at), || format!("{group} builds a snapshot: {built:?}"));
        self.group_input(at, group, Input::SnapshotBuilt(built));
        self.look_at_group(at, group);
    }

    /// A chunk arrived.
    pub(super) fn store_chunk(
        &mut self,
        at: usize,
        group: GroupId,
        descriptor: &SnapshotDescriptor,
        (offset, length): (u64, u64),
        bytes: Arc<Snapshot>,
    ) {
        let host = &mut self.hosts[at];
        let (life, number) = (host.life, host.number);
        let process = host.process.as_mut().expect("it has just been stepped");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        let position = descriptor.meta.position;
        if bytes.position != position {
            return self.fail(
                Check::Assertion,
                format!("{group}: a chunk of {} passes for one of {position}", bytes.position),
            );
        }
        match &mut hosted.incoming {
            _ if offset == 0 => {
                let meta = descriptor.meta.clone();
                hosted.incoming = Some(Incoming { meta, snapshot: bytes, next_offset: length, mixed: false });
            }
            Some(incoming) if incoming.meta.position == position && incoming.next_offset == offset => {
                incoming.next_offset = offset + length;
                incoming.mixed |=
                    incoming.snapshot.data != bytes.data || incoming.snapshot.bytes != bytes.bytes;
            }
            Some(_) | None => {
                let message = format!(
                    "{group}: host {number} is to store a chunk at {offset} of {position} out of order"
                );
                return self.fail(Check::Assertion, message);
            }
        }
        let next_offset = offset + length;
        self.later(at, Event::Stored { host: at, life, group, position, next_offset });
    }

    /// A chunk is stored.
    pub(super) fn stored(&mut self, at: usize, group: GroupId, position: Position, next_offset: u64) {
        let damage = self.profile.disk.damage > 0;
        let spoilt = damage && self.choices.chance(Topic::Chunk, self.hosts[at].number, SPOILT_CHUNKS);
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only running processes store chunks");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        // A later transfer may have begun anew meanwhile.
        let Some(incoming) = hosted.incoming.as_ref().filter(|incoming| incoming.meta.position == position)
        else {
            return;
        };
        let complete = next_offset >= incoming.snapshot.bytes;
        if spoilt || (complete && incoming.mixed) {
            hosted.incoming = None;
            self.group_input(at, group, Input::SnapshotDamaged(position));
        } else {
            if complete && incoming.next_offset >= incoming.snapshot.bytes {
                let received = Received { meta: incoming.meta.clone(), snapshot: incoming.snapshot.clone() };
                let stored = host.groups.get_mut(&group).expect("hosts know their groups");
                stored.received.insert(position.index, received);
            }
            self.group_input(at, group, Input::ChunkStored { position, next_offset });
        }
        self.look_at_group(at, group);
    }

    /// The log says that a snapshot stands for its beginning: the state takes it.
    pub(super) fn install(&mut self, at: usize, group: GroupId, meta: &SnapshotMeta) {
        let host = &mut self.hosts[at];
        let number = host.number;
        let stored = host.groups.get_mut(&group).expect("hosts know their groups");
        let Some(received) =
            stored.received.get(&meta.position.index).filter(|received| received.meta == *meta).cloned()
        else {
            return self.fail(
                Check::Assertion,
                format!("{group}: host {number} installs a snapshot it has not received"),
            );
        };
        let position = meta.position;
        let process = host.process.as_ref().expect("only running processes install");
        let before = process.groups.get(&group).and_then(|hosted| hosted.machine.as_ref());
        let data = &received.snapshot.data;
        let machine = match before {
            Some(before) => before.replaced(group, position, data),
            None => M::restore(group, position, data),
        };
        let machine = match machine.and_then(|machine| machine.audit().map(|()| machine)) {
            Ok(machine) => machine,
            Err(error) => {
                return self.fail(Check::Assertion, format!("{group}: a snapshot cannot be read: {error}"));
            }
        };
        stored.received.retain(|other, _| *other > position.index);
        stored.durable = Some((position, machine.clone()));
        let process = host.process.as_mut().expect("only running processes install");
        let Some(hosted) = process.groups.get_mut(&group) else { return };
        let verdict = self.ledgers[&group].state(number, position.index, &machine);
        hosted.machine = Some(machine);
        hosted.applied = position;
        hosted.flushing = None;
        hosted.start = position.index;
        hosted.dispatched = hosted.dispatched.max(position.index);
        hosted.queue.retain(|entry| entry.index > position.index);
        // A later one may be on its way already.
        hosted.incoming.take_if(|incoming| incoming.meta.position.index <= position.index);
        process.log.applied(group, position.index);
        let lost: Vec<_> = process
            .waiting
            .range((group, Index::ZERO)..=(group, position.index))
            .map(|(&key, _)| key)
            .collect();
        let lost: Vec<Asker> =
            lost.iter().filter_map(|key| process.waiting.remove(key)).map(|(_, asker)| asker).collect();
        self.situations.count(Situation::SnapshotInstalled);
        self.say(Kind::Snapshot, Some(at), || format!("{group} installs the snapshot at {position}"));
        self.judge(verdict);
        for asker in lost {
            self.reply(at, asker, None);
        }
        self.serve_reads(at, group);
    }
}

/// Snapshots a process keeps to send.
const SNAPSHOTS_MAX: usize = 8;
/// Chance that a chunk is spoilt on its way to the disk, where disks are damaged at all.
const SPOILT_CHUNKS: u32 = 20;
