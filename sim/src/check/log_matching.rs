//! If two logs hold an entry with the same index and term, they are equal up to it (Raft paper,
//! section 5.3). By induction it is enough that equal positions mean equal payloads and equal
//! predecessors.

use std::collections::BTreeMap;

use kotoba_db_cluster::{
    raft::{GroupId, Index, Position, Term, TermRuns},
    storage::wal::Entry,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Check, Verdict, Violation};

/// What stands at each position that was ever appended anywhere.
#[derive(Clone, Debug, Default)]
pub struct LogMatching {
    entries: BTreeMap<(GroupId, Index, Term), (Term, u64)>,
}

impl LogMatching {
    /// Entries are appended behind one of term `before`.
    ///
    /// # Errors
    /// Where one of them, or its predecessor, is not what another log has there.
    pub fn appended(&mut self, group: GroupId, mut before: Term, entries: &[Entry]) -> Verdict {
        for entry in entries {
            let seen = (before, xxh3_64(&entry.payload).wrapping_add(entry.kind as u64));
            let known = *self.entries.entry((group, entry.index, entry.term)).or_insert(seen);
            if known != seen {
                let what = if known.0 == seen.0 { "other bytes" } else { "another predecessor" };
                let message = format!("{group}: two logs hold {} with {what}", entry.position());
                return Err(Violation::new(Check::LogMatching, message));
            }
            before = entry.term;
        }
        Ok(())
    }
}

/// Entries were fetched for a message that names their terms.
///
/// # Errors
/// Where others stand there by now: their bytes would pass for those that are named.
pub fn gathered<'a>(
    group: GroupId,
    named: &TermRuns,
    entries: impl IntoIterator<Item = &'a Position>,
) -> Verdict {
    let other = entries.into_iter().find(|position| named.term_at(position.index) != Some(position.term));
    let Some(position) = other else { return Ok(()) };
    let message =
        format!("{group}: {position} is sent where a message names {:?}", named.term_at(position.index));
    Err(Violation::new(Check::LogMatching, message))
}
