//! One log, one state: if a replica has applied an entry at an index, no other one ever applies
//! another there (Raft paper, section 5.4.3), and equal logs give equal states.
//!
//! The ledger holds what was committed first, by whomever, and the state a machine of its own
//! reaches by it.

use kotoba_db_cluster::{
    raft::{Configuration, ConfigurationEntry, GroupId, Index, Position, Term},
    storage::wal::{Entry, EntryKind},
};

use super::{Check, Verdict, Violation};
use crate::machine::StateMachine;

/// What is committed in one group.
#[derive(Clone, Debug)]
pub struct Ledger<M: StateMachine> {
    group: GroupId,
    start: Index,
    entries: Vec<Entry>,
    /// Digest of the state behind every entry whose index is a multiple of `DIGEST_EVERY`.
    digests: Vec<u64>,
    machine: M,
    last: Position,
    configuration: ConfigurationEntry,
}

impl<M: StateMachine> Ledger<M> {
    /// The ledger of a group that begins at `start` with an empty state and these members.
    pub fn new(group: GroupId, start: Position, members: Configuration) -> Self {
        Self {
            group,
            start: start.index,
            entries: Vec::new(),
            digests: Vec::new(),
            machine: M::create(group, start),
            last: start,
            configuration: ConfigurationEntry { index: start.index, configuration: members },
        }
    }

    /// The last entry that is committed.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The committed entry at an index.
    pub fn entry(&self, index: Index) -> Option<&Entry> {
        let at = usize::try_from(index.0.checked_sub(self.start.0 + 1)?).ok()?;
        self.entries.get(at)
    }

    /// Everything committed.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The last members that are committed.
    pub fn configuration(&self) -> &ConfigurationEntry {
        &self.configuration
    }

    /// The state behind the last entry.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// A replica learns that an entry is committed. Returns the machine's answer where this is news
    /// and the entry asks the machine something.
    ///
    /// # Errors
    /// Where another entry is committed there, or one is skipped.
    pub fn committed(&mut self, host: u32, entry: &Entry) -> Result<Option<Option<M::Answer>>, Violation> {
        if let Some(known) = self.entry(entry.index) {
            return if known == entry { Ok(None) } else { Err(self.differs(host, entry, known)) };
        }
        if entry.index != self.last.index.next() {
            let message =
                format!("{}: host {host} commits {} behind {}", self.group, entry.position(), self.last);
            return Err(Violation::new(Check::StateMachineSafety, message));
        }
        let answer = match entry.kind {
            EntryKind::Normal => Some(self.machine.apply(entry.position(), &entry.payload)),
            EntryKind::Empty => None,
            EntryKind::Configuration => {
                let configuration = Configuration::decode(&entry.payload).map_err(|error| {
                    let message = format!("{}: {} is committed: {error}", self.group, entry.position());
                    Violation::new(Check::StateMachineSafety, message)
                })?;
                self.configuration = ConfigurationEntry { index: entry.index, configuration };
                None
            }
        };
        self.last = entry.position();
        self.entries.push(entry.clone());
        if entry.index.0.is_multiple_of(M::DIGEST_EVERY) {
            self.digests.push(self.machine.digest());
        }
        if let Err(what) = self.machine.invariant() {
            let message = format!("{}: behind {}: {what}", self.group, entry.position());
            return Err(Violation::new(Check::Invariant, message));
        }
        Ok(answer)
    }

    fn differs(&self, host: u32, entry: &Entry, known: &Entry) -> Violation {
        let message = format!(
            "{}: host {host} commits {} ({} bytes) where {} ({} bytes) is committed",
            self.group,
            entry.position(),
            entry.payload.len(),
            known.position(),
            known.payload.len()
        );
        Violation::new(Check::StateMachineSafety, message)
    }

    /// A replica's state at an index.
    ///
    /// # Errors
    /// Where it differs from the ledger's there.
    pub fn state(&self, host: u32, index: Index, machine: &M) -> Verdict {
        let expected = if index == self.last.index {
            self.machine.digest()
        } else if index > self.start && index.0.is_multiple_of(M::DIGEST_EVERY) {
            let at = index.0 / M::DIGEST_EVERY - self.start.0 / M::DIGEST_EVERY - 1;
            match usize::try_from(at).ok().and_then(|at| self.digests.get(at)) {
                Some(&digest) => digest,
                None => return Err(self.ahead(host, index)),
            }
        } else if index > self.last.index {
            return Err(self.ahead(host, index));
        } else {
            return Ok(());
        };
        let found = machine.digest();
        if found == expected {
            return Ok(());
        }
        let message = format!(
            "{}: the state of host {host} at {index} has digest {found:016x}, the log gives {expected:016x}",
            self.group
        );
        Err(Violation::new(Check::StateMachineSafety, message))
    }

    fn ahead(&self, host: u32, index: Index) -> Violation {
        let message =
            format!("{}: host {host} applied {index}, committed is {}", self.group, self.last.index);
        Violation::new(Check::StateMachineSafety, message)
    }

    /// The term of the entry committed at an index.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.entry(index).map(|entry| entry.term)
    }
}
