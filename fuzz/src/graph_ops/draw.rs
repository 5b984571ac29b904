//! Draws a log.

use std::collections::BTreeMap;

use bytes::Bytes;
use kotoba_db_cluster::graph::{
    Cid, Command, Generation, GraphOperation, IDLE_ENTRIES, Kind, Operation, OperationDetails, Properties,
    RequestId, Value, VerifyId,
};

use super::{LogEntry, twin::Twin};
use crate::choices::Choices;

const CLIENTS: [&str; 3] = ["", "one", "two"];
const NAMES: [&str; 6] = ["", "a", "b", "aa", "ab", "name"];
const LABELS: [&str; 4] = ["l", "knows", "l\u{0}", "k"];

/// What the log's author remembers.
#[derive(Debug, Default)]
pub(super) struct Author {
    requests: u64,
}

impl Author {
    /// How far behind the last entry the next one stands.
    pub(super) fn gap(&self, choices: &mut Choices<'_>) -> u64 {
        match choices.below(32) {
            31 => IDLE_ENTRIES - 40 + choices.below(80),
            30 => 1 + choices.below(40),
            _ => 1,
        }
    }

    pub(super) fn payload(&mut self, choices: &mut Choices<'_>, twin: &Twin, log: &[LogEntry]) -> Bytes {
        match choices.below(24) {
            0 => Bytes::new(),
            1 => Command::Verify(VerifyId(choices.below(4))).encode(),
            2 => Bytes::copy_from_slice(choices.bytes(40)),
            3 | 4 if !log.is_empty() => log[choices.place(log.len())].1.clone(),
            5 if !log.is_empty() => {
                let mut bytes = log[choices.place(log.len())].1.to_vec();
                if !bytes.is_empty() {
                    let at = choices.place(bytes.len());
                    bytes[at] ^= 1 << choices.below(8);
                }
                bytes.into()
            }
            _ => self.request(choices, twin).unwrap_or_default(),
        }
    }

    fn request(&mut self, choices: &mut Choices<'_>, twin: &Twin) -> Option<Bytes> {
        let operation = operation(choices, twin)?;
        let client = choices.pick(&CLIENTS).unwrap_or("");
        let id = match choices.below(12) {
            0 => choices.below(self.requests + 2),
            1 => u64::MAX - choices.below(2),
            _ => {
                self.requests += 1;
                self.requests
            }
        };
        let acked = if choices.once_in(10) { choices.below(self.requests + 2) } else { 0 };
        let command = Command::execute(client, RequestId(id), RequestId(acked), operation);
        Some(command.expect("a short name").encode())
    }
}

fn operation(choices: &mut Choices<'_>, twin: &Twin) -> Option<GraphOperation> {
    let mut details = OperationDetails::default();
    let operation = match choices.below(16) {
        0..=3 => {
            details.key = choices.pick(&[None, Some("x"), Some("y"), Some("")]).flatten().map(str::to_owned);
            let properties = if choices.once_in(3) { properties(choices, twin) } else { Properties::new() };
            Operation::CreateNode { properties: properties.into_iter().collect() }
        }
        4..=6 => {
            let cid = named(choices, twin, Kind::Node);
            let set = properties(choices, twin);
            details.unset = unset(choices, &set);
            Operation::UpdateNode { cid, properties: set.into_iter().collect() }
        }
        7 | 8 => Operation::DeleteNode { cid: named(choices, twin, Kind::Node) },
        9..=12 => {
            let (source, target) = (named(choices, twin, Kind::Node), named(choices, twin, Kind::Node));
            let lives = twin.generation(target);
            let generation = if choices.once_in(6) { choices.below(4) } else { lives };
            details.target_generation = Some(Generation(generation));
            let properties = if choices.once_in(4) { properties(choices, twin) } else { Properties::new() };
            Operation::CreateEdge {
                source_cid: source,
                target_cid: target,
                label: choices.pick(&LABELS).unwrap_or("l").to_owned(),
                properties: properties.into_iter().collect(),
            }
        }
        13 => {
            let cid = named(choices, twin, Kind::Edge);
            let set = properties(choices, twin);
            details.unset = unset(choices, &set);
            details.target_generation = Some(twin.life_of_target(cid));
            Operation::UpdateEdge { cid, properties: set.into_iter().collect() }
        }
        _ => {
            let cid = named(choices, twin, Kind::Edge);
            details.target_generation = Some(twin.life_of_target(cid));
            Operation::DeleteEdge { cid }
        }
    };
    GraphOperation::new(operation, details).ok()
}

/// Mostly an entity of this kind that exists.
fn named(choices: &mut Choices<'_>, twin: &Twin, kind: Kind) -> Cid {
    let all = twin.named(if choices.once_in(12) { None } else { Some(kind) });
    match choices.pick(&all) {
        Some(cid) if !choices.once_in(20) => cid,
        Some(_) | None => Cid::of(&[u8::try_from(choices.below(3)).expect("small")]),
    }
}

fn unset(choices: &mut Choices<'_>, set: &Properties) -> Vec<String> {
    let count = choices.below(3);
    let names = (0..count).filter_map(|_| choices.pick(&NAMES)).map(str::to_owned);
    names.filter(|name| !set.contains_key(name)).collect()
}

fn properties(choices: &mut Choices<'_>, twin: &Twin) -> Properties {
    let count = choices.below(4);
    (0..count).map(|_| (choices.pick(&NAMES).unwrap_or("").to_owned(), value(choices, twin, 3))).collect()
}

pub(super) fn name(choices: &mut Choices<'_>) -> &'static str {
    choices.pick(&NAMES).unwrap_or("")
}

pub(super) fn label(choices: &mut Choices<'_>) -> &'static str {
    choices.pick(&LABELS).unwrap_or("l")
}

pub(super) fn value(choices: &mut Choices<'_>, twin: &Twin, depth: u64) -> Value {
    match choices.below(if depth > 0 { 12 } else { 9 }) {
        0 => Value::Null,
        1 => Value::Bool(choices.once_in(2)),
        2 | 3 => Value::Int(i64::try_from(choices.below(4)).expect("small") - 1),
        4 => Value::Int(choices.number().cast_signed()),
        5 => {
            let number = f64::from_bits(choices.number());
            Value::Float(if number.is_finite() { number } else { -0.0 })
        }
        6 => Value::String(String::from_utf8_lossy(choices.bytes(12)).into_owned()),
        7 => Value::Bytes(choices.bytes(30).to_vec()),
        8 => Value::Link(named(choices, twin, Kind::Node)),
        9 | 10 => {
            let count = choices.below(4);
            Value::Array((0..count).map(|_| value(choices, twin, depth - 1)).collect())
        }
        _ => {
            let count = choices.below(4);
            let entry = |_| (name(choices).to_owned(), value(choices, twin, depth - 1));
            Value::Map((0..count).map(entry).collect::<BTreeMap<_, _>>())
        }
    }
}
