//! Whether a register's history has a sequential explanation.
//!
//! Every write has a value of its own, and the graph keeps all versions of an entity in order. So
//! the order of the writes is known, and one pass decides what is a search elsewhere: each
//! operation must fit into that order between its call and its answer.

use std::{collections::BTreeMap, time::Duration};

/// One operation of a client on a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Who.
    pub(super) client: u8,
    /// What.
    pub(super) kind: Kind,
    /// When it was asked.
    pub(super) asked: Duration,
    /// When it was answered.
    pub(super) answered: Duration,
}

/// What was asked and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A write of this value.
    Write(String, Fate),
    /// A read that saw this value.
    Read(String),
}

/// What became of a write, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It took effect.
    Done,
    /// It may have taken effect, or may still.
    Unknown,
    /// It did not and will not take effect.
    Refused,
}

/// Checks a register. `versions` are the values it had, oldest first.
///
/// # Errors
/// What has no explanation.
pub(super) fn check(versions: &[String], operations: &[Operation]) -> Result<(), String> {
    let mut places = BTreeMap::new();
    for (at, value) in versions.iter().enumerate() {
        if places.insert(value.as_str(), at).is_some() {
            return Err(format!("{value} was written twice"));
        }
    }
    let mut spans = Vec::new();
    for operation in operations {
        let span = |at: &usize, until| Span { at: *at, asked: operation.asked, answered: until };
        match &operation.kind {
            Kind::Write(value, Fate::Done) => match places.get(value.as_str()) {
                Some(at) => spans.push(span(at, operation.answered)),
                None => return Err(format!("{value} was acknowledged and is lost")),
            },
            Kind::Write(value, Fate::Unknown) => {
                // It may take effect at any time after it was asked for.
                spans.extend(places.get(value.as_str()).map(|at| span(at, Duration::MAX)));
            }
            Kind::Write(value, Fate::Refused) if places.contains_key(value.as_str()) => {
                return Err(format!("{value} was refused for good, and took effect"));
            }
            Kind::Write(_, Fate::Refused) => {}
            Kind::Read(value) => match places.get(value.as_str()) {
                Some(at) => spans.push(span(at, operation.answered)),
                None => {
                    return Err(format!("client {} read {value}, which was never written", operation.client));
                }
            },
        }
    }
    in_order(versions, spans)
}

/// An operation that belongs to a version: the write of it, or a read that saw it.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: usize,
    asked: Duration,
    answered: Duration,
}

/// What was answered before something else was asked must not stand behind it.
fn in_order(versions: &[String], spans: Vec<Span>) -> Result<(), String> {
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
                "{} was seen or written by an operation asked at {:?}, after {} was at {:?}",
                versions[span.at], span.asked, versions[newest.at], newest.answered
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(kind: Kind, asked: u64, answered: u64) -> Operation {
        Operation {
            client: 0,
            kind,
            asked: Duration::from_secs(asked),
            answered: Duration::from_secs(answered),
        }
    }

    fn write(value: &str, fate: Fate, asked: u64, answered: u64) -> Operation {
        operation(Kind::Write(value.into(), fate), asked, answered)
    }

    fn read(value: &str, asked: u64, answered: u64) -> Operation {
        operation(Kind::Read(value.into()), asked, answered)
    }

    fn verdict(versions: &[&str], operations: &[Operation]) -> bool {
        check(&versions.iter().map(ToString::to_string).collect::<Vec<_>>(), operations).is_ok()
    }

    #[test]
    fn what_overlaps_may_have_either_order() {
        let writes = [write("b", Fate::Done, 1, 4), write("c", Fate::Done, 2, 3)];
        assert!(verdict(&["a", "b", "c"], &writes));
        assert!(verdict(&["a", "c", "b"], &writes));
        assert!(verdict(&["a", "b"], &[write("b", Fate::Done, 1, 4), read("a", 2, 3), read("b", 3, 4)]));
    }

    #[test]
    fn real_time_is_kept() {
        let writes = [write("b", Fate::Done, 1, 2), write("c", Fate::Done, 3, 4)];
        assert!(!verdict(&["a", "c", "b"], &writes));
        assert!(!verdict(&["a", "b"], &[write("b", Fate::Done, 1, 2), read("a", 3, 4)]), "a stale read");
        assert!(!verdict(&["a", "b"], &[read("b", 1, 2), read("a", 3, 4), write("b", Fate::Done, 0, 9)]));
        assert!(
            !verdict(&["a", "b"], &[write("b", Fate::Unknown, 5, 6), read("b", 1, 2)]),
            "before it was asked for"
        );
    }

    #[test]
    fn nothing_is_lost_doubled_or_invented() {
        assert!(!verdict(&["a"], &[write("b", Fate::Done, 1, 2)]));
        assert!(!verdict(&["a", "b", "b"], &[]));
        assert!(!verdict(&["a", "b"], &[write("b", Fate::Refused, 1, 2)]));
        assert!(!verdict(&["a"], &[read("z", 1, 2)]));
        assert!(verdict(&["a", "b"], &[write("b", Fate::Unknown, 1, 2), read("b", 8, 9)]));
        assert!(verdict(&["a"], &[write("b", Fate::Unknown, 1, 2), write("c", Fate::Refused, 1, 2)]));
    }
}
