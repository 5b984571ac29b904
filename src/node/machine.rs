//! The state machine of one group: the graph, or the meta group's own.

use super::{applier::Batch, handle::AppliedOutcome};
use crate::{
    graph::{self, Applied, Effect, GraphMachine},
    placement::{MetaCommand, MetaState},
    raft::{GroupId, Index, Position, Term},
    storage::{
        graph_store::{Batch as StoreBatch, GraphStore, ReadView, StoreError},
        wal::{Entry, EntryKind},
    },
};

/// The table byte of the meta group's one row.
const META_TABLE: u8 = 0x40;

fn meta_key() -> Vec<u8> {
    let mut key = graph::group_prefix(GroupId::META).to_vec();
    key.push(META_TABLE);
    key
}

/// The meta group's state as the store holds it; none before genesis.
///
/// # Errors
/// Where the store fails or the row does not decode.
pub(crate) fn stored_meta(view: &impl ReadView) -> Result<Option<MetaState>, StoreError> {
    let Some(row) = view.get(&meta_key())? else { return Ok(None) };
    MetaState::decode(&row).map(Some).map_err(|_| StoreError::Damaged("the meta group's state"))
}

/// Gives the meta group its first state.
///
/// # Errors
/// Where the store fails.
pub(crate) fn create_meta<S: GraphStore>(
    store: &S,
    state: &MetaState,
    position: Position,
) -> Result<(), StoreError> {
    commit_meta(store, state, position).map(|_| ())
}

fn commit_meta<S: GraphStore>(store: &S, state: &MetaState, position: Position) -> Result<u128, StoreError> {
    let (key, value) = (meta_key(), state.encode());
    let digest = graph::digest::row_sum(&key, &value);
    let mut batch = StoreBatch::new();
    batch.put(key, value);
    batch.put(Applied::key(GroupId::META), Applied { position, digest }.encode());
    store.commit(batch)?;
    Ok(digest)
}

/// The state machine of one group.
pub(crate) struct Machine<S> {
    store: S,
    kind: Kind,
}

enum Kind {
    Graph(GraphMachine),
    Meta { state: Box<MetaState>, applied: Position, digest: u128 },
}

impl<S: GraphStore> Machine<S> {
    /// Takes up a group where the store left it.
    ///
    /// # Errors
    /// Where the store fails or has no complete state of the group.
    pub(crate) fn open(group: GroupId, store: S) -> Result<Self, StoreError> {
        let kind = if group == GroupId::META {
            let applied = graph::applied(&store, group)?.ok_or(StoreError::NoState(group.0))?;
            let state = stored_meta(&store)?.ok_or(StoreError::NoState(group.0))?;
            Kind::Meta { state: Box::new(state), applied: applied.position, digest: applied.digest }
        } else {
            Kind::Graph(GraphMachine::open(&store, group)?)
        };
        Ok(Self { store, kind })
    }

    /// State digest behind the last entry applied.
    pub(crate) fn digest(&self) -> u128 {
        match &self.kind {
            Kind::Graph(machine) => machine.digest(),
            Kind::Meta { digest, .. } => *digest,
        }
    }

    /// The meta group's state, where this is it.
    pub(crate) fn meta(&self) -> Option<&MetaState> {
        match &self.kind {
            Kind::Graph(_) => None,
            Kind::Meta { state, .. } => Some(state),
        }
    }

    /// Applies entries until the first verification marker or the end. Returns how many, and what
    /// came of them.
    ///
    /// # Errors
    /// Where the store fails.
    pub(crate) fn apply(&mut self, entries: &[Entry]) -> Result<(usize, Batch), StoreError> {
        match &mut self.kind {
            Kind::Graph(machine) => apply_graph(machine, &self.store, entries),
            Kind::Meta { state, applied, digest } => {
                let mut batch = Batch::default();
                let skipped = entries.partition_point(|entry| entry.index <= applied.index);
                for entry in &entries[skipped..] {
                    *applied = entry.position();
                    if entry.kind == EntryKind::Normal
                        && let Ok(command) = MetaCommand::decode(&entry.payload)
                    {
                        let outcome = state.apply(command);
                        batch.outcomes.push((entry.index, AppliedOutcome::Meta(outcome)));
                    }
                }
                *digest = commit_meta(&self.store, state, *applied)?;
                batch.digest = *digest;
                if !batch.outcomes.is_empty() {
                    // Which replicas this node has must not be forgotten once they have voted.
                    self.store.persist()?;
                    batch.meta = Some((**state).clone());
                }
                Ok((entries.len(), batch))
            }
        }
    }
}

fn apply_graph<S: GraphStore>(
    machine: &mut GraphMachine,
    store: &S,
    entries: &[Entry],
) -> Result<(usize, Batch), StoreError> {
    let from = machine.applied().index;
    let skipped = entries.partition_point(|entry| entry.index <= from);
    let commands: Vec<(Index, Term, &[u8])> =
        entries[skipped..].iter().map(|entry| (entry.index, entry.term, command_of(entry))).collect();
    let effects = machine.apply_batch(store, &commands)?;
    let mut batch = Batch { digest: machine.digest(), ..Batch::default() };
    let done = skipped + effects.len();
    for (index, effect) in effects {
        match effect {
            Effect::Operation(outcome) => batch.outcomes.push((index, AppliedOutcome::Graph(outcome))),
            Effect::Verify(id) => {
                batch.outcomes.push((index, AppliedOutcome::Verify));
                batch.verify = Some((index, id));
            }
            Effect::Nothing => {}
        }
    }
    Ok((done, batch))
}

/// Only normal entries carry commands; the others just move the applied position.
fn command_of(entry: &Entry) -> &[u8] {
    match entry.kind {
        EntryKind::Normal => &entry.payload,
        EntryKind::Empty | EntryKind::Configuration => &[],
    }
}
