//! Disks that change what they hold.
//!
//! Only one host at a time, and only where every group keeps a majority of sound voters: what is lost
//! with it can be had from others, and the host must say that it is damaged. Terms and votes are
//! written twice, so that one copy may be damaged on any host at any time.

use kotoba_db_cluster::storage::wal::{MemDisk, ReadDisk};

use super::{
    World,
    event::Event,
    host::{Damage, LastBatch},
};
use crate::{choice::Topic, machine::StateMachine, situations::Situation, trace::Kind};

impl<M: StateMachine> World<M> {
    /// Damages a disk where it can be told from a torn tail: anywhere but in the last batch.
    pub(super) fn damage(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let number = host.number;
        let (last_name, last_offset) = (host.last_batch.name.clone(), host.last_batch.begin);
        let disk = match &mut host.process {
            Some(process) => process.writer.disk_mut(),
            None => &mut host.disk,
        };
        let mut names: Vec<_> = disk.list().expect("a disk lists its files");
        names.retain(|name| name.ends_with(".wal"));
        names.sort_unstable();
        let count = names.len() as u64;
        let Some(name) = usize::try_from(self.choices.below(Topic::Disk, number, count.max(1)))
            .ok()
            .and_then(|chosen| names.get(chosen).cloned())
        else {
            return;
        };
        let length = disk.length(&name).expect("it was just listed");
        let end = if name == last_name { last_offset } else { length };
        let offset = self.choices.below(Topic::Disk, number, end.max(1));
        let (name, offset, end, length) = match self.recent_place(at) {
            Some((name, offset)) => (name, offset, last_offset, u64::MAX),
            None => (name, offset, end, length),
        };
        let host = &mut self.hosts[at];
        let disk = match &mut host.process {
            Some(process) => process.writer.disk_mut(),
            None => &mut host.disk,
        };
        let bit = self.choices.below(Topic::Disk, number, 9);
        let place = usize::try_from(offset).expect("files are small");
        if bit < 8 {
            disk.flip_bit(&name, place, u32::try_from(bit).expect("below 8"));
        } else if end == length || (place / 512 + 1) * 512 <= usize::try_from(end).expect("files are small") {
            disk.lose_sector(&name, place);
        } else {
            return;
        }
        host.damage = Damage::Hidden;
        self.situations.count(Situation::Damaged);
        self.say(Kind::Fault, Some(at), || format!("its disk is damaged: {name} at {offset}"));
        // Found only by a restart, mostly; what is written meanwhile may make up for it.
        let longest = match self.choices.below(Topic::Disk, number, 3) {
            0 => return,
            1 => DAMAGED_LIFE,
            _ => DAMAGED_LIFE_SHORT,
        };
        let wait = self.choices.below(Topic::Disk, number, longest);
        let life = self.hosts[at].life;
        self.agenda.plan(self.now + wait, Event::Kill { host: at, life });
    }

    /// A place in what was written a few batches ago: only the newest records are not written down
    /// again in what follows them.
    fn recent_place(&mut self, at: usize) -> Option<(String, u64)> {
        let number = self.hosts[at].number;
        let chosen = self.choices.below(Topic::Disk, number, 1 + 2 * BATCHES as u64);
        let chosen = usize::try_from(chosen.checked_sub(1)?).expect("few");
        let host = &self.hosts[at];
        let mut before = host.batches_before.iter().rev();
        let purge = before.clone().find(|batch| batch.purges_only);
        let (from, LastBatch { name, begin, end, .. }) = match purge {
            // The header of its first record.
            Some(batch) if chosen >= BATCHES => (BATCH_HEADER_BYTES, batch.clone()),
            Some(_) | None => (0, before.nth(chosen % BATCHES)?.clone()),
        };
        if begin == 0 || name != host.last_batch.name {
            return None;
        }
        let length = if from > 0 { RECORD_HEADER_BYTES } else { end - begin };
        Some((name, begin + from + self.choices.below(Topic::Disk, number, length)))
    }

    /// A crash in the middle of a batch may leave the mark of the one before, by which it is known
    /// to have been complete: then it may be damaged too.
    pub(super) fn damage_in_crash(&mut self, at: usize, disk: &mut MemDisk) {
        let number = self.hosts[at].number;
        let LastBatch { name, begin, end, .. } = self.hosts[at].last_batch.clone();
        let chance = if self.profile.disk.damage > 0 { DAMAGE_IN_CRASH } else { 0 };
        // Where the next batch's own header is there too, that tells more than the mark.
        let marked = begin > 0
            && disk.contents(&name).is_some_and(|file| {
                let torn = usize::try_from(end).ok().and_then(|end| file.get(end..));
                torn.is_some_and(|next| !next.starts_with(b"KDBb"))
                    && MARKS.iter().any(|&mark| file.get(mark..).is_some_and(|mark| marks(mark, end)))
            });
        if !marked || !self.choices.chance(Topic::Crash, number, chance) {
            return;
        }
        if !self.all_sound() || !self.may_lose(at) {
            return;
        }
        let offset = begin + self.choices.below(Topic::Crash, number, end - begin);
        let bit = self.choices.below(Topic::Crash, number, 8);
        disk.flip_bit(
            &name,
            usize::try_from(offset).expect("files are small"),
            u32::try_from(bit).expect("below 8"),
        );
        self.hosts[at].damage = Damage::Hidden;
        self.situations.count(Situation::Damaged);
        self.say(Kind::Fault, Some(at), || format!("its last batch is damaged: {name} at {offset}"));
    }

    /// A bit of a term or vote flips as soon as it is written, and the process is killed. The second
    /// copy must make up for it: this is no damage to anyone.
    pub(super) fn damage_promise(&mut self, at: usize) {
        let LastBatch { name, begin, end, promises_only, .. } = self.hosts[at].last_batch.clone();
        let number = self.hosts[at].number;
        let chance = if self.profile.disk.damage > 0 { DAMAGED_PROMISES } else { 0 };
        if !promises_only || begin == 0 || !self.choices.chance(Topic::AimAtWrite, number, chance) {
            return;
        }
        let offset = begin + self.choices.below(Topic::AimAtWrite, number, end - begin);
        let bit = self.choices.below(Topic::AimAtWrite, number, 8);
        let host = &mut self.hosts[at];
        let life = host.life;
        if let Some(process) = &mut host.process {
            process.writer.disk_mut().flip_bit(
                &name,
                usize::try_from(offset).expect("files are small"),
                u32::try_from(bit).expect("below 8"),
            );
        }
        self.situations.count(Situation::PromiseDamaged);
        self.say(Kind::Fault, Some(at), || format!("one copy of a promise is damaged: {name} at {offset}"));
        self.agenda.plan(self.now + SHORT_LIFE, Event::Kill { host: at, life });
    }
}

/// Whether a mark (`docs/wal-format.md`) says that a batch which ends at `end` was complete.
fn marks(mark: &[u8], end: u64) -> bool {
    let named = mark.get(16..24).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    mark.starts_with(b"KDBm") && named.is_some_and(|named| named >= end)
}

/// How many batches ago something is damaged, at most.
const BATCHES: usize = 4;
/// Lengths of headers.
const BATCH_HEADER_BYTES: u64 = 56;
const RECORD_HEADER_BYTES: u64 = 48;
/// Where a segment's marks stand.
const MARKS: [usize; 2] = [8192, 12288];
/// Chance that a bit of the last batch flips in a crash.
const DAMAGE_IN_CRASH: u32 = 700;
/// Chance that a bit of a term or vote flips.
const DAMAGED_PROMISES: u32 = 100;
/// A process whose disk was damaged lives on this long at most.
const DAMAGED_LIFE: u64 = 1_000_000_000;
const DAMAGED_LIFE_SHORT: u64 = 3_000_000;
/// A process that is killed before its next write is done.
const SHORT_LIFE: u64 = 90_000;
