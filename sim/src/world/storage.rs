//! The disk of a process: one batch at a time, and everything that waits becomes the next one.

use std::time::Duration;

use kotoba_db_cluster::{
    multiraft::NodeInput,
    raft::{GroupId, Index, Input, SnapshotMeta, WriteFault},
    storage::wal::{GroupWrite, SegmentNumber, WriteError, recovery::segment_name},
};

use super::{
    World,
    event::Event,
    host::{LastBatch, Submission, Submitted},
    network::nanos,
};
use crate::{check::Check, choice::Topic, machine::StateMachine, situations::Situation, trace::Kind};

/// How long a write and its flush take at least.
const WRITE_NANOS: u64 = 100_000;
/// How often a full disk is tried again.
const FULL_POLL: Duration = Duration::from_millis(250);
/// How long a process whose disk failed lives on at most.
const FAULTED_LIFE: Duration = Duration::from_secs(2);

impl<M: StateMachine> World<M> {
    /// Hands this turn's writes to the disk.
    pub(super) fn submit(&mut self, at: usize) {
        let Some(process) = &mut self.hosts[at].process else { return };
        if process.turn.writes.is_empty() {
            return;
        }
        let turn = std::mem::take(&mut process.turn);
        process.queue.push_back(turn);
        self.begin_batch(at);
    }

    /// Begins to write what waits, if the disk is free.
    fn begin_batch(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let Some(process) = &mut host.process else { return };
        if process.writing.is_some() || process.queue.is_empty() {
            return;
        }
        let mut batch = Submission::default();
        for submission in process.queue.drain(..) {
            batch.writes.extend(submission.writes);
            batch.tokens.extend(submission.tokens);
        }
        process.writing = Some(batch);
        process.batch += 1;
        let batch = process.batch;
        let slow = nanos(self.profile.disk.latency);
        let took = WRITE_NANOS + self.choices.below(Topic::DiskTime, host.number, slow);
        let done = (self.now + took).max(host.stalled_until);
        self.agenda.plan(done, Event::DiskDone { host: at, life: host.life, batch });
        let stale = if self.profile.process.stale_completions > 0 { STALE_COMPLETIONS } else { 0 };
        if self.choices.chance(Topic::Stale, host.number, stale) {
            let wait = self.choices.below(Topic::Stale, host.number, took);
            self.agenda.plan(self.now + wait, Event::Stale { host: at, life: host.life });
        }
    }

    /// A disk that stalled works again.
    pub(super) fn resume_disk(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let stalled = std::mem::replace(&mut host.stalled_until, self.now);
        if let Some(process) = host.process.as_ref().filter(|process| process.writing.is_some())
            && stalled > self.now
        {
            let (life, batch) = (host.life, process.batch);
            self.agenda.plan(self.now, Event::DiskDone { host: at, life, batch });
        }
    }

    /// The disk has written a batch, or has not.
    pub(super) fn disk_done(&mut self, at: usize, number: u64) {
        let host = &mut self.hosts[at];
        if host.stalled_until > self.now {
            let (until, life) = (host.stalled_until, host.life);
            return self.agenda.plan(until, Event::DiskDone { host: at, life, batch: number });
        }
        let process = host.process.as_mut().expect("only running processes have disks that are done");
        if process.batch != number {
            return;
        }
        // Done already, by a disk that was healed.
        let Some(batch) = process.writing.take() else { return };
        let (segment, offset) = process.writer.tail();
        match process.writer.write(&batch.writes) {
            Ok(receipt) => {
                let tail = process.writer.tail();
                let last = place(segment, offset, tail, &batch.writes);
                host.batches_before.push_back(std::mem::replace(&mut host.last_batch, last));
                if host.batches_before.len() > BATCHES_BEFORE_MAX {
                    host.batches_before.pop_front();
                }
                process.log.written(&receipt);
                if std::mem::take(&mut host.disk_full) {
                    self.say(Kind::Disk, Some(at), || "the disk has room again".to_owned());
                    self.input(at, NodeInput::DiskFull(false), None);
                }
                self.complete(at, batch.tokens, Ok(()));
                self.damage_promise(at);
            }
            Err(WriteError::Full) => {
                process.writing = Some(batch);
                let life = host.life;
                if !std::mem::replace(&mut host.disk_full, true) {
                    self.input(at, NodeInput::DiskFull(true), None);
                }
                self.agenda
                    .plan(self.now + nanos(FULL_POLL), Event::DiskDone { host: at, life, batch: number });
                return;
            }
            Err(WriteError::Fault(fault)) => {
                self.say(Kind::Disk, Some(at), || format!("the disk fails: {fault:?}"));
                let host = &mut self.hosts[at];
                let life = host.life;
                if host.in_doubt.is_empty() {
                    host.in_doubt = batch.writes;
                }
                self.complete(at, batch.tokens, Err(fault));
                let wait = self.choices.below(Topic::Down, self.hosts[at].number, nanos(FAULTED_LIFE));
                self.agenda.plan(self.now + wait, Event::Kill { host: at, life });
                return;
            }
            Err(error @ (WriteError::Damaged(_) | WriteError::OutOfOrder { .. })) => {
                return self.fail(Check::Assertion, format!("host {}: {error}", self.hosts[at].number));
            }
        }
        self.begin_batch(at);
    }

    /// Reports plans as durable or failed, some of them late: so reports overtake each other.
    fn complete(&mut self, at: usize, tokens: Vec<Submitted>, result: Result<(), WriteFault>) {
        for Submitted { group, token, install } in tokens {
            if let (Some(meta), Ok(())) = (&install, result) {
                self.install(at, group, meta);
            }
            let host = &mut self.hosts[at];
            let input = Input::Persisted { token, result };
            let life = host.life;
            let (chance, longest) = self.profile.late;
            if self.choices.chance(Topic::Tardy, host.number, chance) {
                self.situations.count(Situation::Late);
                let wait = self.choices.below(Topic::Scheduling, self.hosts[at].number, nanos(longest));
                self.agenda.plan(self.now + wait, Event::Input { host: at, life, group, input });
            } else {
                self.persisted(at, group, input, install.as_ref());
            }
        }
    }

    fn persisted(&mut self, at: usize, group: GroupId, input: Input, install: Option<&SnapshotMeta>) {
        self.remember(at, group, &input);
        self.group_input(at, group, input);
        if let Some(meta) = install {
            self.group_input(at, group, Input::Applied(meta.position.index));
        }
        self.look_at_group(at, group);
    }

    /// Remembers a token that is reported now: it may be reported once more.
    fn remember(&mut self, at: usize, group: GroupId, input: &Input) {
        if let Input::Persisted { token, .. } = input {
            let old = &mut self.hosts[at].old_tokens;
            old.push_back((group, *token));
            if old.len() > OLD_TOKENS_MAX {
                old.pop_front();
            }
        }
    }

    /// A late report is due.
    pub(super) fn late_input(&mut self, at: usize, group: GroupId, input: Input) {
        self.remember(at, group, &input);
        self.group_input(at, group, input);
        let applied = self.hosts[at].process.as_ref().and_then(|process| process.groups.get(&group));
        let applied: Option<Index> = applied.map(|hosted| hosted.applied.index);
        if let Some(applied) = applied {
            // What an installation brought may not have been reported yet.
            self.group_input(at, group, Input::Applied(applied));
        }
        self.look_at_group(at, group);
    }
}

/// Tokens kept to be reported once more.
pub(super) const OLD_TOKENS_MAX: usize = 8;

/// Batches before the last one that are remembered.
const BATCHES_BEFORE_MAX: usize = 4;
/// Chance that a write is met by a completion of an earlier life.
const STALE_COMPLETIONS: u32 = 100;

/// Where the batch that ended at `tail` stands; a new segment begins with a copy of everything.
fn place(
    segment: SegmentNumber,
    offset: u64,
    (last, end): (SegmentNumber, u64),
    writes: &[GroupWrite],
) -> LastBatch {
    let promises_only = writes.iter().all(|write| {
        let promise = GroupWrite { hard_state: write.hard_state, ..GroupWrite::of(write.group) };
        *write == promise
    });
    let purges_only = writes.iter().all(|write| {
        let purge = GroupWrite { purge: write.purge.clone(), ..GroupWrite::of(write.group) };
        *write == purge
    });
    let begin = if last == segment { offset } else { 0 };
    LastBatch { name: segment_name(last), begin, end, promises_only, purges_only }
}
