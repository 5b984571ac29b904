//! The product's graph: `GraphMachine` with its own sessions, digest and snapshots.

mod operation;
mod plain;
mod store;
#[cfg(test)]
mod tests;

pub use operation::{Entity, Found, GraphAnswer, GraphOperation, Neighbor, Refusal};
pub use plain::PlainGraph;

use std::{fmt, io::Cursor};

use bytes::{Bytes, BytesMut};
use kotoba_db_cluster::{
    graph::{
        Command, Effect, GraphError, GraphMachine, Outcome, RequestId, applied,
        digest::full_digest,
        read::{self, Page},
        snapshot,
    },
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{GraphStore, StoreError},
};

use self::store::Store;
use super::{Request, StateMachine};
use crate::choice::Chooser;

/// After this many entries the rows are summed up, to see that the running digest is theirs.
const FULL_DIGEST_EVERY: u64 = 256;

/// One group's graph and its rows.
pub struct Graph {
    machine: GraphMachine,
    store: Store,
}

impl Clone for Graph {
    fn clone(&self) -> Self {
        Self { machine: self.machine.clone(), store: self.store.fork() }
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = self.machine.applied();
        write!(f, "graph of {} at {applied}, digest {:032x}", self.machine.group(), self.machine.digest())
    }
}

impl StateMachine for Graph {
    type Operation = GraphOperation;
    type Answer = GraphAnswer;
    type Model = PlainGraph;

    const DIGEST_EVERY: u64 = 1;

    fn create(group: GroupId, position: Position) -> Self {
        let store = Store::default();
        let machine = sound(GraphMachine::create(&store, group, position));
        Self { machine, store }
    }

    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> GraphOperation {
        GraphOperation::draw(choices, client, serial)
    }

    fn is_read(operation: &GraphOperation) -> bool {
        operation.is_read()
    }

    fn encode(request: Request, operation: &GraphOperation) -> Bytes {
        let operation = operation.canonical().expect("reads are not put in the log");
        let client = request.client.to_string();
        let (id, acked_below) = (RequestId(request.serial), RequestId(request.acked_below));
        Command::execute(client, id, acked_below, operation).expect("the client's name is short").encode()
    }

    fn request_of(payload: &Bytes) -> Request {
        match Command::decode(payload) {
            Ok(Command::Execute(execute)) => Request {
                client: execute.client_id.parse().expect("clients are numbered"),
                serial: execute.request_id.0,
                acked_below: execute.acked_below.0,
            },
            Ok(Command::Verify(_)) | Err(_) => unreachable!("only operations are proposed"),
        }
    }

    fn refuses_reuse(answer: Option<&GraphAnswer>) -> Option<bool> {
        let code = GraphError::RequestReused.code();
        // Expired: what the id stood for is forgotten, and so is the id.
        Some(answer.is_none_or(|answer| *answer == GraphAnswer::Refused(Refusal::Undeserved { code })))
    }

    fn apply(&mut self, position: Position, payload: &Bytes) -> Option<GraphAnswer> {
        let mut answers = self.apply_batch(&[(position, payload.clone())]);
        answers.pop().expect("one entry, one answer")
    }

    fn apply_batch(&mut self, entries: &[(Position, Bytes)]) -> Vec<Option<GraphAnswer>> {
        let entries: Vec<(Index, Term, &[u8])> =
            entries.iter().map(|(position, payload)| (position.index, position.term, &payload[..])).collect();
        let effects = sound(self.machine.apply_batch(&self.store, &entries));
        assert_eq!(effects.len(), entries.len(), "only a marker ends a batch early, and there are none");
        effects
            .into_iter()
            .map(|(_, effect)| match effect {
                Effect::Operation(outcome) => answer(outcome),
                Effect::Verify(_) | Effect::Nothing => unreachable!("only operations are proposed"),
            })
            .collect()
    }

    fn read(&self, operation: &GraphOperation) -> GraphAnswer {
        let (view, group) = (self.store.view(), self.machine.group());
        match *operation {
            GraphOperation::Read { entity } => {
                GraphAnswer::Found(sound(read::entity(&view, group, entity.cid())).map(found))
            }
            GraphOperation::History { entity } => {
                let versions = sound(read::history(&view, group, entity.cid())).unwrap_or_default();
                GraphAnswer::Versions(versions.into_iter().map(|record| record.version).collect())
            }
            GraphOperation::Neighbors { node } => {
                let node = Entity::Node(node).cid();
                let edges = sound(read::out_edges(&view, group, node, None, &Page::first(usize::MAX)));
                let edges = edges
                    .items
                    .into_iter()
                    .map(|edge| Neighbor { target: operation::node_of(edge.ends.target), edge: edge.edge });
                let mut edges: Vec<Neighbor> = edges.collect();
                edges.sort_by_key(|edge| edge.target);
                GraphAnswer::Neighbors(edges)
            }
            GraphOperation::CreateNode { .. }
            | GraphOperation::CreateEdge { .. }
            | GraphOperation::Update { .. }
            | GraphOperation::Delete { .. } => unreachable!("a change is no read"),
        }
    }

    fn snapshot(&self, position: Position) -> Bytes {
        assert!(self.machine.applied().index <= position.index, "a snapshot holds nothing from behind it");
        let mut bytes = BytesMut::new();
        for part in sound(snapshot::export(self.store.view(), self.machine.group())) {
            bytes.extend_from_slice(&sound(part));
        }
        bytes.freeze()
    }

    fn restore(group: GroupId, position: Position, snapshot: &Bytes) -> Result<Self, String> {
        import(Store::default(), group, position, snapshot)
    }

    fn replaced(&self, group: GroupId, position: Position, snapshot: &Bytes) -> Result<Self, String> {
        import(self.store.fork(), group, position, snapshot)
    }

    fn restarted(&self) -> Self {
        let store = self.store.fork();
        let machine = sound(GraphMachine::open(&store, self.machine.group()));
        Self { machine, store }
    }

    fn digest(&self) -> u64 {
        let digest = self.machine.digest();
        (digest ^ (digest >> 64)) as u64
    }

    fn invariant(&self) -> Result<(), String> {
        let (view, group) = (self.store.view(), self.machine.group());
        let row = applied(&view, group).map_err(|error| error.to_string())?;
        let (position, digest) = (self.machine.applied(), self.machine.digest());
        if row.is_none_or(|row| (row.position, row.digest) != (position, digest)) {
            return Err(format!("the machine is at {position}, its store says {row:?}"));
        }
        if position.index.0.is_multiple_of(FULL_DIGEST_EVERY) { self.audit() } else { Ok(()) }
    }

    fn audit(&self) -> Result<(), String> {
        let (view, digest) = (self.store.view(), self.machine.digest());
        let (sum, _) = full_digest(&view, self.machine.group()).map_err(|error| error.to_string())?;
        if sum == digest {
            return Ok(());
        }
        Err(format!("the digest is {digest:032x}, that of the rows {sum:032x}"))
    }

    fn key(operation: &GraphOperation) -> u64 {
        operation.key()
    }
}

fn import(store: Store, group: GroupId, position: Position, snapshot: &Bytes) -> Result<Graph, String> {
    let header =
        snapshot::import(&store, group, &mut Cursor::new(snapshot)).map_err(|error| error.to_string())?;
    if header.position.index > position.index {
        return Err(format!("the snapshot at {position} has the state at {}", header.position));
    }
    let machine = GraphMachine::open(&store, group).map_err(|error| error.to_string())?;
    Ok(Graph { machine, store })
}

/// This store cannot fail, so an error means that a row is not what was written.
fn sound<T>(result: Result<T, StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("a store in memory: {error}"))
}

fn answer(outcome: Outcome) -> Option<GraphAnswer> {
    let refusal = match outcome {
        Ok(receipt) => return Some(GraphAnswer::Version(receipt.version)),
        Err(GraphError::SessionExpired) => return None,
        Err(GraphError::NotFound { .. }) => Refusal::NotFound,
        Err(GraphError::Deleted { .. }) => Refusal::Deleted,
        Err(GraphError::EndpointMissing { .. }) => Refusal::SourceMissing,
        Err(GraphError::EndpointDeleted { .. }) => Refusal::SourceDeleted,
        Err(other) => Refusal::Undeserved { code: other.code() },
    };
    Some(GraphAnswer::Refused(refusal))
}

fn found(entity: read::Entity) -> Found {
    let properties = entity.properties.into_iter().map(|(name, value)| (name, format!("{value:?}")));
    Found {
        version: entity.version,
        life: entity.generation.0,
        deleted: entity.deleted,
        properties: properties.collect(),
    }
}
