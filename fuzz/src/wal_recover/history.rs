//! A log's life up to the moment it is damaged: writes, restarts, crashes, full disks, failed flushes.

use bytes::Bytes;
use kotoba_db_cluster::{
    raft::{Configuration, HardState, Index, Position, ReplicaId, SnapshotMeta, Term, WriteFault},
    storage::wal::{
        Entry, EntryKind, GroupId, GroupWrite, LogId, MemDisk, OpenError, Recovery, WalOptions, WalWriter,
        WriteError, codec::SEGMENT_BYTES_MIN, prepare_spare,
    },
};

use super::{
    check,
    disk::SharedDisk,
    model::{Model, Written, apply},
};
use crate::{Situations, choices::Choices};

pub(super) const LOG: LogId = LogId(*b"the fuzzer's log");
const STEPS_MAX: usize = 60;

/// The log as its last writer left it.
#[derive(Debug)]
pub(super) struct History {
    pub(super) disk: MemDisk,
    pub(super) options: WalOptions,
    /// Whether the last batch is marked, so that its loss is noticed like any other.
    pub(super) closed: bool,
    /// The state before the last acknowledged batch, after it, and after one that was not acknowledged.
    pub(super) previous: Model,
    pub(super) acknowledged: Model,
    pub(super) attempted: Model,
    /// All that ever reached the writer.
    pub(super) written: Written,
}

/// Lives through what the choices say.
pub(super) fn live(choices: &mut Choices<'_>, situations: &mut Situations) -> History {
    let rewrite_bytes_max = choices.pick(&[2 << 20, 0, 600]).unwrap_or(0);
    let options = WalOptions { segment_bytes: SEGMENT_BYTES_MIN, rewrite_bytes_max, ..WalOptions::new(LOG) };
    let mut log = Log {
        choices,
        situations,
        disk: SharedDisk::default(),
        options,
        writer: None,
        previous: Model::new(),
        acknowledged: Model::new(),
        attempted: Model::new(),
        written: Written::default(),
        serial: 0,
    };
    log.open();
    for _ in 0..STEPS_MAX {
        if log.choices.are_over() || log.choices.once_in(12) {
            break;
        }
        log.step();
    }
    log.end()
}

struct Log<'c, 'b> {
    choices: &'c mut Choices<'b>,
    situations: &'c mut Situations,
    disk: SharedDisk,
    options: WalOptions,
    /// None after a fault, until the log is opened again.
    writer: Option<WalWriter<SharedDisk>>,
    previous: Model,
    acknowledged: Model,
    attempted: Model,
    written: Written,
    serial: u64,
}

impl Log<'_, '_> {
    fn step(&mut self) {
        match self.choices.below(24) {
            0..=15 => self.write(),
            16 => self.restart(),
            17 | 18 => self.crash(),
            19 | 20 => {
                let cut = self.choices.below(12);
                self.disk.with(|disk| disk.cut_power_at(cut));
            }
            21 => {
                let after = self.choices.below(3);
                self.disk.with(|disk| disk.fail_sync_after(after));
            }
            22 => self.full_disk(),
            _ => self.prepare_spare(),
        }
    }

    /// Opens the log on a disk that may fail meanwhile. What comes back must be what was written.
    fn open(&mut self) {
        match WalWriter::open(self.disk.clone(), self.options) {
            Ok((writer, recovery)) => {
                self.writer = Some(writer);
                self.take_up(&recovery);
            }
            Err(error) => {
                // The disk that failed is the one that was told to.
                assert!(matches!(error, OpenError::Disk { .. }), "{error}");
                self.writer = None;
            }
        }
    }

    fn take_up(&mut self, recovery: &Recovery) {
        let allowed = [&self.acknowledged, &self.attempted];
        // Read what the files hold now, though the power may have failed in the last step of opening.
        let found = check::sound(&self.disk.copy().crash(|n| n - 1), recovery, &allowed);
        self.situations.reach_if(recovery.torn.is_some(), "a torn tail cut");
        self.acknowledged = found;
        self.attempted.clone_from(&self.acknowledged);
        self.previous.clone_from(&self.acknowledged);
    }

    /// The process ends and begins again; the machine keeps what was written.
    fn restart(&mut self) {
        let Some(writer) = self.writer.take() else { return self.crash() };
        if self.choices.once_in(2) && writer.close().is_err() {
            return self.crash();
        }
        self.open();
    }

    /// The power fails; what was not flushed survives or not, sector by sector.
    fn crash(&mut self) {
        self.writer = None;
        let (disk, choices) = (self.disk.copy(), &mut *self.choices);
        self.disk.replace(disk.crash(|n| choices.place(n)));
        self.situations.reach("a crash");
        self.open();
    }

    fn full_disk(&mut self) {
        if self.choices.once_in(2) {
            self.disk.with(|disk| disk.set_capacity(Some(0)));
        } else {
            self.disk.with(|disk| disk.refuse_writes(true));
        }
        self.write();
        self.disk.with(|disk| {
            disk.set_capacity(None);
            disk.refuse_writes(false);
        });
    }

    fn prepare_spare(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        if let Some(order) = writer.order_spare()
            && let Ok(spare) = prepare_spare(&mut self.disk, order)
        {
            writer.offer_spare(spare);
        }
    }

    fn write(&mut self) {
        if self.writer.is_none() {
            return self.crash();
        }
        let mut model = self.acknowledged.clone();
        let mut writes = Vec::new();
        for _ in 0..=self.choices.below(3) {
            if let Some(write) = self.draw(&model) {
                apply(&mut model, &write);
                writes.push(write);
            }
        }
        let writer = self.writer.as_mut().expect("looked at just now");
        let (segment, batches) = (writer.segments().1, writer.counters().batches);
        match writer.write(&writes) {
            Ok(_) => {
                self.situations.reach_if(writer.segments().1 > segment, "a segment begun for want of room");
                writes.iter().for_each(|write| self.written.add(write));
                let before = std::mem::replace(&mut self.acknowledged, model);
                if writer.counters().batches > batches {
                    self.previous = before;
                }
                self.attempted.clone_from(&self.acknowledged);
            }
            Err(WriteError::Full) => self.situations.reach("a full disk"),
            Err(WriteError::Fault(fault)) => {
                self.situations.reach_if(fault == WriteFault::SyncFailed, "a failed flush");
                writes.iter().for_each(|write| self.written.add(write));
                self.attempted = model;
                self.writer = None;
            }
            Err(error) => panic!("a write that continues its log is taken: {error}"),
        }
    }

    /// A write that continues the log of some group.
    fn draw(&mut self, model: &Model) -> Option<GroupWrite> {
        let group = GroupId(u32::try_from(1 + self.choices.below(4)).expect("small"));
        let Some(now) = model.get(&group) else { return Some(self.genesis(group)) };
        let last = now.last();
        let write = GroupWrite::of(group);
        Some(match self.choices.below(16) {
            0..=5 => {
                let count = 1 + self.choices.below(5);
                GroupWrite { entries: self.entries(last, last.term, count), ..write }
            }
            6 | 7 => {
                let keep = now.entries.len() - self.choices.place(now.entries.len() + 1);
                let before = keep.checked_sub(1).map_or(now.start.position, |at| now.entries[at].position());
                let term = now.hard_state.term.next();
                let count = self.choices.below(3);
                GroupWrite {
                    hard_state: Some(HardState { term, vote: None }),
                    truncate_from: Some(before.index.next()),
                    entries: self.entries(before, term, count),
                    ..write
                }
            }
            8 | 9 => {
                let vote = Some(ReplicaId(1 + self.choices.below(3)));
                GroupWrite { hard_state: Some(HardState { term: now.hard_state.term.next(), vote }), ..write }
            }
            10 | 11 => {
                let places: Vec<_> = now.entries.iter().map(Entry::position).collect();
                GroupWrite { purge: Some(self.meta(self.choices_pick(&places)?)), ..write }
            }
            12 => {
                let to = Index(last.index.0 + self.choices.below(6));
                let term = now.hard_state.term;
                GroupWrite {
                    install: Some(self.meta(Position::new(to, term))),
                    truncate_from: Some(to.next()),
                    ..write
                }
            }
            13 => GroupWrite { remove: true, ..write },
            14 => GroupWrite { remove: true, ..self.genesis(group) },
            _ => {
                // More than a segment holds.
                self.serial += 1;
                let payload = vec![self.serial as u8; 22_000];
                let entry = Entry {
                    index: last.index.next(),
                    term: last.term,
                    kind: EntryKind::Normal,
                    payload: Bytes::from(payload),
                };
                GroupWrite { entries: vec![entry], ..write }
            }
        })
    }

    fn choices_pick(&self, places: &[Position]) -> Option<Position> {
        // Purging always keeps some choice of how much: the serial number moves on with every write.
        let at = usize::try_from(self.serial).expect("small").checked_rem(places.len())?;
        Some(places[at])
    }

    fn genesis(&mut self, group: GroupId) -> GroupWrite {
        let position = Position::new(Index(1), Term(1));
        GroupWrite {
            hard_state: Some(HardState { term: Term(1), vote: None }),
            install: Some(self.meta(position)),
            ..GroupWrite::of(group)
        }
    }

    fn meta(&self, position: Position) -> SnapshotMeta {
        let voters = (1..=1 + self.serial % 3).map(ReplicaId);
        SnapshotMeta { position, configuration: Configuration::of_voters(voters).expect("some voters") }
    }

    /// Entries behind `before`; no two are alike.
    fn entries(&mut self, before: Position, term: Term, count: u64) -> Vec<Entry> {
        (1..=count).map(|step| self.entry(Index(before.index.0 + step), term)).collect()
    }

    fn entry(&mut self, index: Index, term: Term) -> Entry {
        self.serial += 1;
        let (kind, payload) = match self.choices.below(8) {
            0 => (EntryKind::Empty, Vec::new()),
            1 => {
                let voters = (1..=1 + self.serial % 5).map(ReplicaId);
                let configuration = Configuration::of_voters(voters).expect("some voters");
                (EntryKind::Configuration, configuration.encode())
            }
            _ => {
                let length = self.choices.place(3) * self.choices.place(400);
                let mut payload = self.serial.to_le_bytes().to_vec();
                payload.resize(8 + length, self.serial as u8);
                (EntryKind::Normal, payload)
            }
        };
        Entry { index, term, kind, payload: Bytes::from(payload) }
    }

    /// However the process ends, the machine crashes behind it: a disk without faults is left.
    fn end(mut self) -> History {
        let closes = self.choices.once_in(2);
        let closed = match self.writer.take() {
            Some(writer) if closes => writer.close().is_ok(),
            Some(_) | None => false,
        };
        let choices = &mut *self.choices;
        let disk = self.disk.copy().crash(|n| choices.place(n));
        let Self { options, previous, acknowledged, attempted, written, .. } = self;
        History { disk, options, closed, previous, acknowledged, attempted, written }
    }
}
