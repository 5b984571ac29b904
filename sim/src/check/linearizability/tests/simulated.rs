//! Histories of registers that are linearizable because each operation takes effect at one moment
//! between its call and its answer, and of registers with a fault.

use std::collections::BTreeMap;

use super::*;
use crate::choice::{Chooser, Seeded, Topic};

/// What goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A write is answered and forgotten.
    LostUpdate,
    /// A read is answered with a state from before the last write that ended before it began.
    StaleRead,
    /// A write takes effect twice.
    DuplicateApplication,
    /// A write takes effect behind the next one of its key, and is answered before it.
    Reordered,
}

pub(super) struct Simulation {
    pub(super) clients: u32,
    pub(super) operations: usize,
    pub(super) keys: u64,
    /// Permille of the operations whose outcome their client never learns.
    pub(super) unknown: u32,
    pub(super) fault: Option<Fault>,
}

struct Pending {
    at: usize,
    effect: TrueTime,
    end: TrueTime,
    known: bool,
}

impl Simulation {
    /// The history of a seed. At its end every key is read.
    pub(super) fn run(&self, seed: u64) -> Registered {
        self.run_with_effects(seed).0
    }

    /// The same, and where each operation took effect.
    pub(super) fn run_with_effects(&self, seed: u64) -> (Registered, BTreeMap<usize, Index>) {
        let mut run = Run {
            choices: Chooser::new(Seeded::new(seed)),
            registers: Registers::default(),
            effects: BTreeMap::new(),
            history: History::default(),
            planted: self.fault.is_none(),
            postponed: None,
            before: BTreeMap::new(),
        };
        let mut free: Vec<TrueTime> = vec![0; self.clients as usize];
        let mut pending: Vec<Pending> = Vec::new();
        while run.history.operations.len() < self.operations {
            let client = (0..free.len()).min_by_key(|&client| free[client]).expect("there are clients");
            let now = free[client];
            pending.sort_by_key(|pending| pending.effect);
            let due = pending.partition_point(|pending| pending.effect <= now);
            for pending in pending.drain(..due) {
                run.take_effect(&pending, self);
            }
            let begun = run.call(client as u32, now, self);
            free[client] = begun.end + 1 + run.below(20);
            // Of the unknown ones, some never take effect.
            if begun.known || run.below(3) > 0 {
                pending.push(begun);
            }
        }
        pending.sort_by_key(|pending| pending.effect);
        for pending in &pending {
            run.take_effect(pending, self);
        }
        let end = 1 + pending.iter().map(|pending| pending.end.max(pending.effect)).max().unwrap_or(0);
        let end = end.max(free.into_iter().max().unwrap_or(0));
        for key in 0..self.keys {
            let read = RegisterOperation::Get { key };
            let answer = run.registers.clone().step(&read);
            let index = Index(run.effects.len() as u64 + 1);
            run.effects.insert(run.history.operations.len(), index);
            run.history.operations.push(operation(99, read, end, Some((end + 1, answer))));
        }
        assert!(run.planted, "the fault found its place");
        (run.history, run.effects)
    }
}

struct Run {
    choices: Chooser,
    registers: Registers,
    effects: BTreeMap<usize, Index>,
    history: Registered,
    planted: bool,
    postponed: Option<RegisterOperation>,
    /// By key: when a write of it last ended, and the registers before that write.
    before: BTreeMap<u64, (TrueTime, Registers)>,
}

impl Run {
    fn below(&mut self, bound: u64) -> u64 {
        self.choices.below(Topic::Client, 0, bound)
    }

    fn call(&mut self, client: u32, now: TrueTime, simulation: &Simulation) -> Pending {
        let at = self.history.operations.len();
        let (key, value) = (self.below(simulation.keys), at as u64 + 1);
        let asked = match self.below(8) {
            0..4 => RegisterOperation::Put { key, value },
            4 => RegisterOperation::PutIf { key, writes: self.below(4), value },
            _ => RegisterOperation::Get { key },
        };
        let known = !self.choices.chance(Topic::Client, 1, simulation.unknown);
        let effect = now + 1 + self.below(10) + if known { 0 } else { self.below(100) };
        let end = if known { effect + 1 + self.below(10) } else { now + 30 };
        self.history.operations.push(operation(client, asked, now, None));
        Pending { at, effect, end, known }
    }

    fn take_effect(&mut self, pending: &Pending, simulation: &Simulation) {
        let asked = self.history.operations[pending.at].operation.clone();
        let invoked = self.history.operations[pending.at].invoked;
        let late = pending.at > simulation.operations / 2;
        let fault = simulation.fault.filter(|_| late && pending.known && !self.planted);
        let before = self.registers.clone();
        let mut answer = self.registers.step(&asked);
        let wrote = matches!(answer, RegisterAnswer::Written { .. });
        let key = <Registers as Model>::key(&asked);
        match fault {
            Some(Fault::LostUpdate) if wrote => (self.registers, self.planted) = (before.clone(), true),
            Some(Fault::DuplicateApplication) if wrote => {
                self.registers.step(&asked);
                self.planted = true;
            }
            Some(Fault::Reordered) if wrote => {
                self.registers = before.clone();
                (self.postponed, self.planted) = (Some(asked.clone()), true);
            }
            Some(Fault::StaleRead) if matches!(asked, RegisterOperation::Get { .. }) => {
                if let Some((_, old)) = self.before.get(&key).filter(|(ended, _)| *ended < invoked) {
                    answer = old.clone().step(&asked);
                    self.planted = true;
                }
            }
            Some(_) | None => {}
        }
        if let Some(postponed) = self.postponed.take() {
            let same_key = <Registers as Model>::key(&postponed) == key;
            if postponed != asked && wrote && same_key {
                self.registers.step(&postponed);
            } else {
                self.postponed = Some(postponed);
            }
        }
        if wrote && pending.known {
            self.before.insert(key, (pending.end, before));
        }
        let index = Index(self.effects.len() as u64 + 1);
        self.effects.insert(pending.at, index);
        if pending.known {
            self.history.operations[pending.at].end = End::Answered { at: pending.end, answer, index };
        }
    }
}
