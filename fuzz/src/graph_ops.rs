//! The graph's state machine against a naive twin.
//!
//! The input chooses a log: operations of all six kinds on few entities, under few sessions, with repeats,
//! reused ids, acknowledgements, garbage, markers, and gaps long enough to end sessions. Applied entry by
//! entry, each outcome is the twin's, and at the end so is everything that can be read. The same log in
//! other batches, with restarts, and continued from a snapshot of its middle, gives the same rows.

mod draw;
mod reads;
mod twin;

use std::{io::Cursor, ops::ControlFlow};

use bytes::Bytes;
use kotoba_db_cluster::{
    graph::{
        Effect, GraphError, GraphMachine,
        digest::full_digest,
        group_prefix,
        snapshot::{export, import},
    },
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{Batch, GraphStore, KeyRange, MemoryStore, Order, ReadView},
};

use self::{draw::Author, twin::Twin};
use crate::{Situations, choices::Choices};

/// What the seeds reach together.
pub const SITUATIONS: &[&str] = &[
    "a deleted entity named",
    "a malformed entry",
    "a marker",
    "a missing end",
    "a repeated request",
    "a request id reused",
    "a session expired",
    "a snapshot continued",
    "a wrong kind",
    "an edge created",
    "an edge invisible with its source",
    "an entity not found",
    "an entity revived",
    "an update",
    "idle sessions swept",
];

const GROUP: GroupId = GroupId(3);
const START: Position = Position::new(Index(1), Term(1));
const STEPS_MAX: usize = 200;

type LogEntry = (Index, Bytes);

/// Applies a log in every way it can be.
pub fn run(bytes: &[u8]) -> Situations {
    let mut situations = Situations::default();
    let mut choices = Choices::new(bytes);
    let mut state = State::empty();
    let (mut twin, mut author) = (Twin::default(), Author::default());
    let mut log: Vec<LogEntry> = Vec::new();
    let mut snapshot = None;
    for _ in 0..STEPS_MAX {
        if choices.are_over() {
            break;
        }
        let index = Index(state.machine.applied().index.0 + author.gap(&mut choices));
        let payload = author.payload(&mut choices, &twin, &log);
        let effect = state.apply(&[(index, payload.clone())]).pop().expect("an entry has an effect").1;
        assert_eq!(effect, twin.apply(index, &payload), "{index}");
        note(&mut situations, &effect, &payload, &log);
        log.push((index, payload));
        if choices.once_in(24) {
            snapshot = Some((log.len(), state.export()));
        }
    }
    twin.note(&mut situations);
    state.check_digest();
    reads::check(&mut choices, &state.store, &twin);
    let rows = state.rows();

    let mut batched = State::empty();
    batched.apply_in_batches(&mut choices, &log);
    assert_eq!(batched.rows(), rows, "batches do not matter");
    assert_eq!(batched.machine.digest(), state.machine.digest());

    let (done, stream) = snapshot.unwrap_or_else(|| (log.len(), state.export()));
    let mut restored = State::of_snapshot(&stream, log.get(done / 2));
    restored.apply_in_batches(&mut choices, &log[done..]);
    assert_eq!(restored.rows(), rows, "a state continues from its snapshot");
    restored.check_digest();
    situations.reach_if(done < log.len(), "a snapshot continued");
    situations
}

fn note(situations: &mut Situations, effect: &Effect, payload: &Bytes, log: &[LogEntry]) {
    situations.reach(match effect {
        Effect::Verify(_) => "a marker",
        Effect::Nothing => return,
        Effect::Operation(Ok(_)) if log.iter().any(|(_, earlier)| earlier == payload) => "a repeated request",
        Effect::Operation(Ok(receipt)) if receipt.version != receipt.cid => "an update",
        Effect::Operation(Ok(_)) => return,
        Effect::Operation(Err(error)) => match error {
            GraphError::NotFound { .. } => "an entity not found",
            GraphError::Deleted { .. } | GraphError::EndpointDeleted { .. } => "a deleted entity named",
            GraphError::WrongKind { .. } => "a wrong kind",
            GraphError::EndpointMissing { .. } => "a missing end",
            GraphError::SessionExpired => "a session expired",
            GraphError::RequestReused => "a request id reused",
            GraphError::Malformed => "a malformed entry",
            other => panic!("out of reach: {other}"),
        },
    });
}

/// A store and the machine on it.
struct State {
    store: MemoryStore,
    machine: GraphMachine,
}

impl State {
    fn empty() -> Self {
        let store = MemoryStore::new();
        let machine = GraphMachine::create(&store, GROUP, START).expect("a store in memory takes it");
        Self { store, machine }
    }

    /// A state that was shipped, in place of another one.
    fn of_snapshot(stream: &[u8], entry: Option<&LogEntry>) -> Self {
        let mut state = Self::empty();
        if let Some(entry) = entry {
            state.apply(std::slice::from_ref(entry));
        }
        let neighbour = [GroupId(GROUP.0 + 1).0.to_be_bytes().as_slice(), b"\x10neighbour"].concat();
        let mut batch = Batch::new();
        batch.put(neighbour.clone(), Bytes::from_static(b"stays"));
        state.store.commit(batch).expect("a store in memory takes it");
        import(&state.store, GROUP, &mut Cursor::new(stream)).expect("an export is imported");
        let kept = state.store.get(&neighbour).expect("a store in memory is read");
        assert_eq!(kept.as_deref(), Some(&b"stays"[..]), "an import touches its own group only");
        state.reopen();
        state
    }

    fn reopen(&mut self) {
        self.machine = GraphMachine::open(&self.store, GROUP).expect("a complete state is opened");
    }

    fn apply(&mut self, entries: &[LogEntry]) -> Vec<(Index, Effect)> {
        let entries: Vec<_> =
            entries.iter().map(|(index, payload)| (*index, Term(1), &payload[..])).collect();
        self.machine.apply_batch(&self.store, &entries).expect("a store in memory does not fail")
    }

    fn apply_in_batches(&mut self, choices: &mut Choices<'_>, log: &[LogEntry]) {
        let mut rest = log;
        while !rest.is_empty() {
            let most = rest.len().min(40);
            // Choices that are over make one batch of each entry; so take many instead.
            let size = if choices.are_over() { most } else { 1 + choices.place(most) };
            let applied = self.apply(&rest[..size]).len();
            assert!(applied > 0, "a batch gets on");
            rest = &rest[applied..];
            if choices.once_in(4) {
                self.reopen();
            }
        }
    }

    fn rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let range = KeyRange::prefix(&group_prefix(GROUP));
        self.store
            .scan(&range, Order::Ascending, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .expect("a store in memory is read");
        rows
    }

    fn check_digest(&self) {
        let (digest, _) = full_digest(&self.store, GROUP).expect("a store in memory is read");
        assert_eq!(digest, self.machine.digest(), "the digest that was kept up is that of the rows");
    }

    fn export(&self) -> Vec<u8> {
        let chunks = export(self.store.view(), GROUP).expect("a complete state is exported");
        chunks.flat_map(|chunk| chunk.expect("a view in memory is read")).collect()
    }
}
