//! Tests that need more than one part of the graph.

#![allow(
    clippy::disallowed_types,
    reason = "the specification gives properties as a HashMap; they are sorted at once"
)]

mod blocks;
mod commands;
mod machine;
mod reads;
mod sessions;
mod snapshots;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{GraphStore, MemoryStore},
};

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const START: Position = Position::new(Index(1), Term(1));

/// Any value that can be stored.
pub(crate) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-30_i64..30).prop_map(Value::Int),
        proptest::num::f64::NORMAL.prop_map(Value::Float),
        any::<i32>().prop_map(|number| Value::Float(f64::from(number))),
        ".{0,30}".prop_map(Value::String),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::Bytes),
        any::<[u8; 32]>().prop_map(|digest| Value::Link(Cid::from_digest(digest))),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
            proptest::collection::btree_map("[a-z]{0,4}", inner, 0..6).prop_map(Value::Map),
        ]
    })
}

pub(crate) fn properties<const N: usize>(entries: [(&str, Value); N]) -> HashMap<String, Value> {
    entries.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

pub(crate) fn create_node(name: &str) -> GraphOperation {
    let operation = Operation::CreateNode { properties: properties([("name", Value::from(name))]) };
    GraphOperation::new(operation, OperationDetails::default()).expect("a valid operation")
}

pub(crate) fn node_cid(name: &str) -> Cid {
    match routing_key(&create_node(name)) {
        RoutingKey::Identity(cid) | RoutingKey::Edge(cid) => cid,
    }
}

pub(crate) fn update_node(cid: Cid, name: &str, value: i64) -> GraphOperation {
    let operation = Operation::UpdateNode { cid, properties: properties([(name, Value::Int(value))]) };
    GraphOperation::new(operation, OperationDetails::default()).expect("a valid operation")
}

pub(crate) fn create_edge(source_cid: Cid, label: &str, target_cid: Cid, generation: u64) -> GraphOperation {
    let operation = Operation::CreateEdge {
        source_cid,
        target_cid,
        label: label.to_string(),
        properties: HashMap::new(),
    };
    let details = OperationDetails { target_generation: Some(Generation(generation)), ..Default::default() };
    GraphOperation::new(operation, details).expect("a valid operation")
}

pub(crate) fn update_edge(cid: Cid, name: &str, value: i64, generation: u64) -> GraphOperation {
    let operation = Operation::UpdateEdge { cid, properties: properties([(name, Value::Int(value))]) };
    let details = OperationDetails { target_generation: Some(Generation(generation)), ..Default::default() };
    GraphOperation::new(operation, details).expect("a valid operation")
}

pub(crate) fn delete_edge(cid: Cid, generation: u64) -> GraphOperation {
    GraphOperation::DeleteEdge { cid, target_generation: Generation(generation) }
}

/// A machine with its store, fed one entry after the other.
pub(crate) struct Bench {
    pub(crate) store: MemoryStore,
    pub(crate) machine: GraphMachine,
    request: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let store = MemoryStore::new();
        let machine = GraphMachine::create(&store, GROUP, START).expect("memory does not fail");
        Self { store, machine, request: 0 }
    }

    pub(crate) fn apply(&mut self, entries: &[(Index, Term, &[u8])]) -> Vec<(Index, Effect)> {
        self.machine.apply_batch(&self.store, entries).expect("memory does not fail")
    }

    pub(crate) fn command_at(&mut self, index: Index, command: &Command) -> Outcome {
        let effects = self.apply(&[(index, Term(1), &command.encode())]);
        match effects.as_slice() {
            [(at, Effect::Operation(outcome))] if *at == index => *outcome,
            other => panic!("one outcome expected, not {other:?}"),
        }
    }

    pub(crate) fn command(&mut self, command: &Command) -> Outcome {
        self.command_at(self.machine.applied().index.next(), command)
    }

    pub(crate) fn run(&mut self, operation: GraphOperation) -> Outcome {
        self.request += 1;
        self.command(&request("test", self.request, operation))
    }

    pub(crate) fn ok(&mut self, operation: GraphOperation) -> Receipt {
        self.run(operation).expect("the operation is allowed")
    }

    /// Whatever happened, the running digest is that of the rows.
    pub(crate) fn check_digest(&self) {
        let (digest, _) = digest::full_digest(&self.store, GROUP).expect("memory does not fail");
        assert_eq!(self.machine.digest(), digest);
    }
}

pub(crate) fn request(client: &str, id: u64, operation: GraphOperation) -> Command {
    Command::execute(client, RequestId(id), RequestId(0), operation).expect("a short client id")
}

pub(crate) fn rows_of(store: &impl GraphStore) -> BTreeMap<Vec<u8>, Bytes> {
    use crate::storage::graph_store::{KeyRange, Order};
    let mut rows = BTreeMap::new();
    store
        .scan(&KeyRange::prefix(&[]), Order::Ascending, &mut |key, value| {
            rows.insert(key.to_vec(), Bytes::copy_from_slice(value));
            std::ops::ControlFlow::Continue(())
        })
        .expect("memory does not fail");
    rows
}
