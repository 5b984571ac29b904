//! Registers: what clients ask of them and are told, and whether that has an explanation.
//!
//! Every write has a value of its own, and the graph keeps all versions of an entity in order, with
//! their places in the log. So the order of the writes is known, and one pass decides what is a
//! search elsewhere: each operation must fit into that order between its call and its answer. It is
//! stricter than the search that uses only what clients saw, which is made too.

use std::collections::BTreeMap;

use kotoba_db_cluster::raft::Index;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    check::linearizability::Model,
    history::{End, Operation, TrueTime},
};

/// The value that every register begins with.
pub(super) const FIRST: &str = "first";

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Ask {
    /// To write this value.
    Write {
        /// Which register.
        register: u64,
        /// A value that nobody else writes.
        value: String,
    },
    /// To read.
    Read {
        /// Which register.
        register: u64,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Told {
    /// The value was written.
    Written,
    /// This is the value.
    Found(String),
}

impl Ask {
    /// Which register it is about.
    pub(super) fn register(&self) -> u64 {
        match self {
            Self::Write { register, .. } | Self::Read { register } => *register,
        }
    }
}

/// One register on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Register(String);

impl Default for Register {
    fn default() -> Self {
        Self(FIRST.to_owned())
    }
}

impl Model for Register {
    type Operation = Ask;
    type Answer = Told;

    fn step(&mut self, ask: &Ask) -> Told {
        match ask {
            Ask::Write { value, .. } => {
                self.0.clone_from(value);
                Told::Written
            }
            Ask::Read { .. } => Told::Found(self.0.clone()),
        }
    }

    fn is_read(ask: &Ask) -> bool {
        matches!(ask, Ask::Read { .. })
    }

    fn key(ask: &Ask) -> u64 {
        ask.register()
    }

    fn digest(&self) -> u64 {
        xxh3_64(self.0.as_bytes())
    }
}

/// A value that a register had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The value.
    pub(super) value: String,
    /// Where in the log it was written.
    pub(super) index: Index,
}

/// Checks a register. `versions` are those it had, oldest first; `refused` were refused for good.
///
/// # Errors
/// What has no explanation.
pub(super) fn check<'h>(
    versions: &[Version],
    operations: impl IntoIterator<Item = &'h Operation<Ask, Told>>,
    refused: &[String],
) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (at, version) in versions.iter().enumerate() {
        if places.insert(version.value.as_str(), at).is_some() {
            return Err(format!("{} was written twice", version.value));
        }
    }
    if let Some(value) = refused.iter().find(|value| places.contains_key(value.as_str())) {
        return Err(format!("{value} was refused for good, and took effect"));
    }
    let mut spans = Vec::new();
    for operation in operations {
        let span = |at: usize, until| Span { at, asked: operation.invoked, answered: until };
        match (&operation.operation, &operation.end) {
            (Ask::Write { value, .. }, End::Answered { at: answered, index, .. }) => {
                let Some(&at) = places.get(value.as_str()) else {
                    return Err(format!("{value} was acknowledged and is lost"));
                };
                if versions[at].index != *index {
                    let stands = versions[at].index;
                    return Err(format!("{value} was acknowledged at {index} and stands at {stands}"));
                }
                spans.push(span(at, *answered));
            }
            // It may take effect at any time after it was asked for.
            (Ask::Write { value, .. }, End::Unknown) => {
                spans.extend(places.get(value.as_str()).map(|&at| span(at, TrueTime::MAX)));
            }
            (Ask::Read { .. }, End::Answered { at: answered, answer: Told::Found(value), .. }) => {
                let Some(&at) = places.get(value.as_str()) else {
                    return Err(format!("client {} read {value}, which was never written", operation.client));
                };
                spans.push(span(at, *answered));
            }
            (Ask::Read { .. }, End::Answered { answer: Told::Written, .. }) => {
                return Err(format!("client {} read and was told that it wrote", operation.client));
            }
            (Ask::Read { .. }, End::Unknown) => {}
        }
    }
    in_order(versions, spans)
}

/// An operation that belongs to a version: the write of it, or a read that saw it.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: usize,
    asked: TrueTime,
    answered: TrueTime,
}

/// What was answered before something else was asked must not stand behind it.
fn in_order(versions: &[Version], spans: Vec<Span>) -> Result<(), String> {
    let mut by_answer = spans.clone();
    by_answer.sort_by_key(|span| span.answered);
    let mut by_question = spans;
    by_question.sort_by_key(|span| span.asked);
    let mut answered = by_answer.into_iter().peekable();
    let mut newest: Option<Span> = None;
    for span in by_question {
        while let Some(before) = answered.next_if(|before| before.answered < span.asked) {
            newest = newest.filter(|newest| newest.at >= before.at).or(Some(before));
        }
        if let Some(newest) = newest.filter(|newest| newest.at > span.at) {
            return Err(format!(
                "{} was seen or written by an operation asked at {} ns, after {} was at {} ns",
                versions[span.at].value, span.asked, versions[newest.at].value, newest.answered
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kotoba_db_cluster::raft::GroupId;

    use super::*;

    fn operation(ask: Ask, invoked: TrueTime, end: End<Told>) -> Operation<Ask, Told> {
        Operation { client: 0, serial: 1, group: GroupId(1), operation: ask, invoked, end }
    }

    /// A write that was answered, at the place where `a`, `b`, `c` stand in their alphabet.
    fn write(value: &str, asked: TrueTime, at: TrueTime) -> Operation<Ask, Told> {
        let end = End::Answered { at, answer: Told::Written, index: place(value) };
        operation(Ask::Write { register: 0, value: value.into() }, asked, end)
    }

    fn unknown(value: &str, asked: TrueTime) -> Operation<Ask, Told> {
        operation(Ask::Write { register: 0, value: value.into() }, asked, End::Unknown)
    }

    fn read(value: &str, asked: TrueTime, at: TrueTime) -> Operation<Ask, Told> {
        let end = End::Answered { at, answer: Told::Found(value.into()), index: place(value) };
        operation(Ask::Read { register: 0 }, asked, end)
    }

    fn place(value: &str) -> Index {
        Index(value.bytes().next().map_or(0, u64::from))
    }

    fn verdict(versions: &[&str], operations: &[Operation<Ask, Told>]) -> bool {
        let version = |value: &&str| Version { value: (*value).into(), index: place(value) };
        let versions: Vec<_> = versions.iter().map(version).collect();
        check(&versions, operations, &["never".into()]).is_ok()
    }

    #[test]
    fn what_overlaps_may_have_either_order() {
        let writes = [write("b", 1, 4), write("c", 2, 3)];
        assert!(verdict(&["a", "b", "c"], &writes));
        assert!(verdict(&["a", "c", "b"], &writes));
        assert!(verdict(&["a", "b"], &[write("b", 1, 4), read("a", 2, 3), read("b", 3, 4)]));
    }

    #[test]
    fn real_time_is_kept() {
        let writes = [write("b", 1, 2), write("c", 3, 4)];
        assert!(!verdict(&["a", "c", "b"], &writes));
        assert!(!verdict(&["a", "b"], &[write("b", 1, 2), read("a", 3, 4)]), "a stale read");
        assert!(!verdict(&["a", "b"], &[read("b", 1, 2), read("a", 3, 4), write("b", 0, 9)]));
        assert!(!verdict(&["a", "b"], &[unknown("b", 5), read("b", 1, 2)]), "before it was asked for");
    }

    #[test]
    fn nothing_is_lost_doubled_or_invented() {
        assert!(!verdict(&["a"], &[write("b", 1, 2)]));
        assert!(!verdict(&["a", "b", "b"], &[]));
        assert!(!verdict(&["a", "never"], &[]));
        assert!(!verdict(&["a"], &[read("z", 1, 2)]));
        assert!(verdict(&["a", "b"], &[unknown("b", 1), read("b", 8, 9)]));
        assert!(verdict(&["a"], &[unknown("b", 1)]));
    }

    #[test]
    fn an_acknowledgement_names_the_place_of_its_write() {
        let mut elsewhere = write("b", 1, 2);
        elsewhere.end = End::Answered { at: 2, answer: Told::Written, index: Index(7) };
        assert!(!verdict(&["a", "b"], &[elsewhere]));
    }
}
