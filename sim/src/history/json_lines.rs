//! A history as JSON lines, an event a line, in the form of Jepsen's histories, so that other
//! checkers can read it. `docs/histories.md` describes it.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
};

use kotoba_db_cluster::raft::{GroupId, Index};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{End, History, Operation, TrueTime};

/// Why lines are no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// They cannot be read.
    #[error("the history cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A line is no event of this kind of history.
    #[error("line {line} is no event: {cause}")]
    NoEvent {
        /// Counted from 1.
        line: usize,
        /// What the reader says.
        cause: serde_json::Error,
    },
    /// A process begins an operation before its last one ended, or ends one that it did not begin.
    #[error("line {line}: process {process} {fault}")]
    OutOfTurn {
        /// Counted from 1.
        line: usize,
        /// The process.
        process: u64,
        /// What it does.
        fault: &'static str,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Type {
    Invoke,
    Ok,
    Info,
}

/// A line. The first six fields are Jepsen's.
#[derive(Serialize, Deserialize)]
struct Event {
    index: usize,
    time: TrueTime,
    r#type: Type,
    process: u64,
    f: String,
    value: Value,
    client: u32,
    serial: u64,
    group: GroupId,
    key: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Index>,
}

/// `f` of an operation that is no variant of an enumeration.
const NO_VARIANT: &str = "value";

impl<O: Serialize, A: Serialize> History<O, A> {
    /// Writes the history; `key` is that of the machine.
    ///
    /// # Errors
    /// Where writing fails, or an operation or answer has no JSON form.
    pub fn write_json_lines(&self, key: impl Fn(&O) -> u64, out: &mut impl Write) -> io::Result<()> {
        let mut processes = Processes::default();
        let mut process_of = BTreeMap::new();
        for (index, (time, r#type, at)) in self.events().into_iter().enumerate() {
            let Operation { client, serial, group, operation, .. } = &self.operations[at];
            let process = *process_of.entry(at).or_insert_with(|| processes.take(*client));
            let (mut answer, mut log) = (None, None);
            if let (Type::Ok, End::Answered { answer: told, index, .. }) = (r#type, &self.operations[at].end)
            {
                (answer, log) = (Some(serde_json::to_value(told)?), Some(*index));
                processes.give_back(*client, process);
            }
            let (f, value) = name_and_value(serde_json::to_value(operation)?);
            let (client, serial, group, key) = (*client, *serial, *group, key(operation));
            let event =
                Event { index, time, r#type, process, f, value, client, serial, group, key, answer, log };
            serde_json::to_writer(&mut *out, &event)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// When each operation was called and how it ended, in the order of time. At one moment, calls
    /// come first. Operations of unknown outcome end when everything else has.
    fn events(&self) -> Vec<(TrueTime, Type, usize)> {
        let (mut events, mut unknown) = (Vec::new(), Vec::new());
        for (at, operation) in self.operations.iter().enumerate() {
            events.push((operation.invoked, Type::Invoke, at));
            match operation.end {
                End::Answered { at: time, .. } => events.push((time, Type::Ok, at)),
                End::Unknown => unknown.push(at),
            }
        }
        events.sort_by_key(|&(time, r#type, at)| (time, r#type == Type::Ok, at));
        let end = events.last().map_or(0, |&(time, ..)| time);
        events.extend(unknown.into_iter().map(|at| (end, Type::Info, at)));
        events
    }
}

impl<O: DeserializeOwned, A: DeserializeOwned> History<O, A> {
    /// Reads what [`History::write_json_lines`] wrote.
    ///
    /// # Errors
    /// Names the first line that has no place in a history.
    pub fn read_json_lines(input: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        let mut pending = BTreeMap::new();
        for (line, text) in (1..).zip(input.lines()) {
            let no_event = |cause| ReadError::NoEvent { line, cause };
            let event: Event = serde_json::from_str(&text?).map_err(no_event)?;
            let process = event.process;
            let out_of_turn = |fault| ReadError::OutOfTurn { line, process, fault };
            match event.r#type {
                Type::Invoke => {
                    let Event { client, serial, group, time: invoked, .. } = event;
                    let operation = variant(event.f, event.value);
                    let operation = serde_json::from_value(operation).map_err(no_event)?;
                    if pending.insert(process, history.operations.len()).is_some() {
                        return Err(out_of_turn("begins an operation before its last one ended"));
                    }
                    let end = End::Unknown;
                    history.operations.push(Operation { client, serial, group, operation, invoked, end });
                }
                Type::Ok | Type::Info => {
                    let at =
                        pending.remove(&process).ok_or_else(|| out_of_turn("ends what it did not begin"))?;
                    if event.r#type == Type::Ok {
                        let answer = event.answer.unwrap_or(Value::Null);
                        let answer = serde_json::from_value(answer).map_err(no_event)?;
                        let index = event.log.ok_or_else(|| out_of_turn("was told no place in the log"))?;
                        history.operations[at].end = End::Answered { at: event.time, answer, index };
                    }
                }
            }
        }
        Ok(history)
    }
}

/// An enumeration's variant becomes the event's function, what it holds its value.
fn name_and_value(operation: Value) -> (String, Value) {
    match operation {
        Value::String(name) if name != NO_VARIANT => (name, Value::Null),
        Value::Object(fields) if fields.len() == 1 => {
            let holds = fields.into_iter().next().expect("there is one field");
            match holds {
                (name, value) if name != NO_VARIANT && value != Value::Null => (name, value),
                (name, value) => {
                    (NO_VARIANT.to_owned(), Value::Object([(name, value)].into_iter().collect()))
                }
            }
        }
        other => (NO_VARIANT.to_owned(), other),
    }
}

/// The opposite of [`name_and_value`].
fn variant(f: String, value: Value) -> Value {
    match (f.as_str(), value) {
        (NO_VARIANT, value) => value,
        (_, Value::Null) => Value::String(f),
        (_, value) => Value::Object([(f, value)].into_iter().collect()),
    }
}

/// Numbers for processes. A process has one operation at a time, as Jepsen demands, so that a
/// client has several if it has several operations; one whose outcome is unknown keeps its process.
#[derive(Default)]
struct Processes {
    count: u64,
    free: BTreeMap<u32, Vec<u64>>,
}

impl Processes {
    fn take(&mut self, client: u32) -> u64 {
        if let Some(process) = self.free.get_mut(&client).and_then(Vec::pop) {
            return process;
        }
        self.count += 1;
        self.count - 1
    }

    fn give_back(&mut self, client: u32, process: u64) {
        self.free.entry(client).or_default().push(process);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::machine::{
        Entity, Found, GraphAnswer, GraphOperation, Machine, PlainGraph, RegisterAnswer, RegisterOperation,
        Registers,
    };

    type Registered = History<RegisterOperation, RegisterAnswer>;

    fn lines<O: Serialize, A: Serialize>(history: &History<O, A>, key: impl Fn(&O) -> u64) -> String {
        let mut out = Vec::new();
        history.write_json_lines(key, &mut out).expect("memory can be written");
        String::from_utf8(out).expect("JSON is text")
    }

    fn example() -> Registered {
        let operation = |client, serial, operation, invoked, end| Operation {
            client,
            serial,
            group: GroupId(1),
            operation,
            invoked,
            end,
        };
        let answered = |at, answer, index| End::Answered { at, answer, index: Index(index) };
        let (put, get) =
            (|value| RegisterOperation::Put { key: 3, value }, RegisterOperation::Get { key: 3 });
        let written = |writes| RegisterAnswer::Written { writes };
        let found = RegisterAnswer::Found { value: 7, writes: 1 };
        History {
            operations: vec![
                operation(1, 1, put(7), 1_000, answered(4_000, written(1), 2)),
                operation(2, 1, put(8), 2_000, End::Unknown),
                operation(1, 2, get, 5_000, answered(6_000, found, 2)),
            ],
        }
    }

    #[test]
    fn the_format_is_the_one_of_the_page() {
        let page = include_str!("../../../docs/histories.md");
        let lines = lines(&example(), Registers::key);
        assert_eq!(lines.lines().count(), 6);
        assert!(page.contains(&lines), "the page must show:\n{lines}");
    }

    #[test]
    fn other_lines_are_refused_with_their_number() {
        let good = lines(&example(), Registers::key);
        let read = |text: &str| Registered::read_json_lines(text.as_bytes());
        assert_eq!(read(&good).expect("a history"), example());
        let second_line = |text: &str| format!("{}\n{text}\n", good.lines().next().expect("a line"));
        let again = good.lines().next().expect("a line");
        let errors = [
            (second_line("nonsense"), "line 2 is no event"),
            (second_line(&again.replace("\"Put\"", "\"Push\"")), "line 2 is no event"),
            (second_line(again), "line 2: process 0 begins"),
            (
                second_line(&again.replace("\"process\":0", "\"process\":9").replace("invoke", "info")),
                "line 2: process 9 ends",
            ),
            (second_line(&again.replace("invoke", "ok")), "line 2 is no event"),
        ];
        for (text, expected) in errors {
            let error = read(&text).expect_err("the second line is wrong").to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn operations_and_answers_of_any_shape_come_back() {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        enum Shape {
            Unit,
            Empty(Option<u64>),
            #[serde(rename = "value")]
            Awkward(u64),
            Pair(u64, String),
        }
        let shapes = [
            Shape::Unit,
            Shape::Empty(None),
            Shape::Empty(Some(1)),
            Shape::Awkward(2),
            Shape::Pair(3, "x".to_owned()),
        ];
        let operation = |(serial, operation)| Operation {
            client: 1,
            serial,
            group: GroupId(2),
            operation,
            invoked: 10 * serial,
            end: End::Answered { at: 10 * serial + 5, answer: (), index: Index(serial) },
        };
        let history = History { operations: (0..).zip(shapes).map(operation).collect() };
        let text = lines(&history, |_| 0);
        assert_eq!(History::read_json_lines(text.as_bytes()).expect("a history"), history);

        let numbers = History { operations: (0..).zip([4_u64, 5]).map(operation_of_number).collect() };
        let text = lines(&numbers, |_| 0);
        assert_eq!(History::read_json_lines(text.as_bytes()).expect("a history"), numbers);
    }

    fn operation_of_number((serial, operation): (u64, u64)) -> Operation<u64, Vec<u64>> {
        let (client, group, invoked) = (1, GroupId(1), serial);
        let end = End::Answered { at: serial + 9, answer: vec![serial], index: Index(serial) };
        Operation { client, serial, group, operation, invoked, end }
    }

    #[test]
    fn answers_of_the_graph_come_back() {
        let mut graph = PlainGraph::default();
        let entity = Entity::Node(1);
        let asked = [
            GraphOperation::Read { entity },
            GraphOperation::CreateNode { node: 1 },
            GraphOperation::Update { entity, property: 0, value: 9 },
            GraphOperation::CreateEdge { source: 1, target: 2 },
            GraphOperation::Neighbors { node: 1 },
            GraphOperation::History { entity },
            GraphOperation::Delete { entity: Entity::Edge { source: 1, life: 2, target: 2 } },
            GraphOperation::Read { entity },
        ];
        let operation = |(serial, operation): (u64, GraphOperation)| {
            let answer = if PlainGraph::is_read(&operation) {
                graph.read(&operation)
            } else {
                graph.apply(&operation)
            };
            let end = End::Answered { at: 10 * serial + 5, answer, index: Index(serial) };
            Operation { client: 1, serial, group: GroupId(1), operation, invoked: 10 * serial, end }
        };
        let history = History { operations: (0..).zip(asked).map(operation).collect() };
        let End::Answered { answer: GraphAnswer::Found(Some(Found { properties, .. })), .. } =
            &history.operations[7].end
        else {
            panic!("the node was created");
        };
        assert_eq!(properties.len(), 1);
        let text = lines(&history, PlainGraph::key);
        assert_eq!(History::read_json_lines(text.as_bytes()).expect("a history"), history);
    }

    fn any_history() -> impl Strategy<Value = Registered> {
        let operation = prop_oneof![
            (0_u64..3).prop_map(|key| RegisterOperation::Get { key }),
            (0_u64..3, any::<u64>()).prop_map(|(key, value)| RegisterOperation::Put { key, value }),
        ];
        let end = proptest::option::of((0_u64..20, any::<u64>(), any::<u64>()));
        let operation = (0_u32..3, 0_u64..50, 0_u64..60, operation, end).prop_map(
            |(client, serial, invoked, operation, end)| {
                let end = end.map_or(End::Unknown, |(after, value, writes)| End::Answered {
                    at: invoked + after,
                    answer: RegisterAnswer::Found { value, writes },
                    index: Index(writes),
                });
                Operation { client, serial, group: GroupId(client), operation, invoked, end }
            },
        );
        proptest::collection::vec(operation, 0..30).prop_map(|mut operations| {
            operations.sort_by_key(|operation| operation.invoked);
            History { operations }
        })
    }

    proptest! {
        #[test]
        fn a_history_comes_back(history in any_history()) {
            let text = lines(&history, Registers::key);
            prop_assert_eq!(Registered::read_json_lines(text.as_bytes()).expect("a history"), history);
        }

        #[test]
        fn a_process_does_one_thing_at_a_time_and_nothing_after_an_unknown_outcome(history in any_history()) {
            let text = lines(&history, Registers::key);
            let (mut busy, mut gone) = (BTreeSet::new(), BTreeSet::new());
            let mut client_of = BTreeMap::new();
            for (at, line) in text.lines().enumerate() {
                let event: Event = serde_json::from_str(line).expect("an event");
                prop_assert_eq!(event.index, at);
                prop_assert_eq!(*client_of.entry(event.process).or_insert(event.client), event.client);
                prop_assert!(!gone.contains(&event.process));
                match event.r#type {
                    Type::Invoke => prop_assert!(busy.insert(event.process)),
                    Type::Ok => prop_assert!(busy.remove(&event.process)),
                    Type::Info => prop_assert!(busy.remove(&event.process) && gone.insert(event.process)),
                }
            }
            prop_assert!(busy.is_empty());
        }
    }
}
