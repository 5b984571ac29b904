//! Applying a partition's log.
//!
//! Apply is a pure function of the group's rows and the entry: no clock, no randomness, no iteration in an
//! order that differs between nodes. A call applies many entries and commits once: their effects, the new
//! applied position and the new digest reach the store together, so a restart can repeat entries but never
//! apply one twice. Entries of a batch see the effects of those before them.
//!
//! Identity rules (`docs/graph-format.md`): the CID of the first block names an entity for ever; an update
//! appends a version; deletion is a version too; creating the same content again returns the living entity
//! unchanged, or gives a deleted one its next life.

use crate::{
    graph::{
        Cid, Generation, Kind,
        block::{Block, EdgeBlock, VersionBlock},
        command::{Command, Execute, Fingerprint, VerifyId},
        operation::{Changes, GraphOperation},
        outcome::{GraphError, Outcome, Receipt},
        overlay::{Before, Overlay},
        rows::{self, Applied, BlockRow, EdgeRow, Head, IN, OUT},
        session::{Admission, Request, Sessions},
    },
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{Batch, GraphStore, ReadView, StoreError},
};

pub use crate::limits::ENTITY_BYTES_MAX;

/// What an applied entry did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was an operation.
    Operation(Outcome),
    /// It was a marker: the state is now the one to compare. Nothing behind it has been applied yet.
    Verify(VerifyId),
    /// It had no payload.
    Nothing,
}

/// The state machine of one group.
#[derive(Clone, Debug)]
pub struct GraphMachine {
    group: GroupId,
    applied: Applied,
    sessions: Sessions,
}

impl GraphMachine {
    /// Gives a group its first, empty state at `position`.
    ///
    /// # Errors
    /// Where the store fails. Whether the state was created is then unknown.
    pub fn create<S: GraphStore>(store: &S, group: GroupId, position: Position) -> Result<Self, StoreError> {
        let mut batch = Batch::new();
        batch.put(Applied::key(group), Applied { position, digest: 0 }.encode());
        store.commit(batch)?;
        Self::open(store, group)
    }

    /// Takes up a group where the store left it.
    ///
    /// # Errors
    /// [`StoreError::NoState`] where the store has no complete state of the group.
    pub fn open<S: GraphStore>(store: &S, group: GroupId) -> Result<Self, StoreError> {
        let applied = rows::applied(store, group)?.ok_or(StoreError::NoState(group.0))?;
        Ok(Self { group, applied, sessions: Sessions::load(store, group)? })
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// The last entry whose effects are in the store.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.applied.position
    }

    /// The digest of the state there (see [`crate::graph::digest`]).
    #[must_use]
    pub fn digest(&self) -> u128 {
        self.applied.digest
    }

    /// Applies entries in order and commits their effects in one batch. Entries without a payload (of kind
    /// Empty or Configuration) only move the applied position. Stops behind a verify marker: where the
    /// answer is shorter than `entries`, call again with the rest.
    ///
    /// # Errors
    /// Where the store fails. Nothing of the batch is in the store's views then; what is on disk is
    /// unknown, and the machine must be opened again.
    ///
    /// # Panics
    /// Where entries are not in order behind the applied position: the log's own invariant is broken.
    pub fn apply_batch<S: GraphStore>(
        &mut self,
        store: &S,
        entries: &[(Index, Term, &[u8])],
    ) -> Result<Vec<(Index, Effect)>, StoreError> {
        let mut position = self.applied.position;
        let mut effects = Vec::with_capacity(entries.len());
        let mut applying = Applying { group: self.group, overlay: Overlay::new(store) };
        for &(index, term, payload) in entries {
            // State Machine Safety: each index is applied once, in order.
            assert!(index > position.index, "entry {index} is not behind the applied {position}");
            position = Position::new(index, term);
            let effect = applying.entry(&mut self.sessions, index, payload)?;
            let verify = matches!(effect, Effect::Verify(_));
            effects.push((index, effect));
            if verify {
                break;
            }
        }
        if effects.is_empty() {
            return Ok(effects);
        }
        self.sessions.save(&mut applying.overlay);
        let (mut batch, delta) = applying.overlay.finish();
        let applied = Applied { position, digest: self.applied.digest.wrapping_add(delta) };
        let stored = if mutant!(M61) { &self.applied } else { &applied };
        batch.put(Applied::key(self.group), stored.encode());
        store.commit(batch)?;
        self.applied = applied;
        self.sessions.trim();
        Ok(effects)
    }
}

struct Applying<'s, S> {
    group: GroupId,
    overlay: Overlay<'s, S>,
}

/// An entity as the batch sees it.
struct Loaded {
    identity: Cid,
    head: Head,
    /// The first block's row, where it was read on the way.
    first: Option<BlockRow>,
}

/// What an operation takes an entity for.
#[derive(Clone, Copy)]
enum Expected {
    Node,
    /// An edge whose target was in this life when it was read.
    Edge {
        target_generation: Generation,
    },
}

impl Expected {
    fn kind(self) -> Kind {
        match self {
            Self::Node => Kind::Node,
            Self::Edge { .. } => Kind::Edge,
        }
    }
}

type Refusable<T> = Result<Result<T, GraphError>, StoreError>;

/// Like `?` for the inner result of a [`Refusable`].
macro_rules! permit {
    ($refusable:expr) => {
        match $refusable? {
            Ok(value) => value,
            Err(refusal) => return Ok(Err(refusal)),
        }
    };
}

impl<S: ReadView> Applying<'_, S> {
    fn entry(&mut self, sessions: &mut Sessions, index: Index, payload: &[u8]) -> Result<Effect, StoreError> {
        if payload.is_empty() {
            return Ok(Effect::Nothing);
        }
        let effect = match Command::decode_with_fingerprint(payload) {
            Ok((Command::Verify(id), _)) => Effect::Verify(id),
            Ok((Command::Execute(execute), print)) => {
                Effect::Operation(self.in_session(sessions, index, execute, print)?)
            }
            Err(_) => Effect::Operation(Err(GraphError::Malformed)),
        };
        sessions.sweep(&mut self.overlay, index)?;
        Ok(effect)
    }

    fn in_session(
        &mut self,
        sessions: &mut Sessions,
        index: Index,
        execute: Execute,
        print: Fingerprint,
    ) -> Result<Outcome, StoreError> {
        let Execute { client_id, request_id, acked_below, operation } = execute;
        let request = Request::new(client_id, request_id, acked_below, print);
        match sessions.admit(&mut self.overlay, &request, index)? {
            Admission::Answer(outcome) => Ok(outcome),
            Admission::New => {
                let outcome = self.operation(operation, index)?;
                sessions.remember(&mut self.overlay, &request, index, &outcome);
                Ok(outcome)
            }
        }
    }

    fn operation(&mut self, operation: GraphOperation, index: Index) -> Result<Outcome, StoreError> {
        match operation {
            GraphOperation::CreateNode { block } => self.create_node(&block, index),
            GraphOperation::UpdateNode { cid, changes } => self.update(cid, Expected::Node, changes, index),
            GraphOperation::UpdateEdge { cid, changes, target_generation } => {
                self.update(cid, Expected::Edge { target_generation }, changes, index)
            }
            GraphOperation::DeleteNode { cid } => self.delete_node(cid, index),
            GraphOperation::DeleteEdge { cid, target_generation } => {
                self.delete_edge(cid, target_generation, index)
            }
            GraphOperation::CreateEdge { source, target, label, properties, target_generation } => {
                let edge = EdgeBlock {
                    label,
                    source,
                    target,
                    source_generation: Generation::FIRST,
                    target_generation,
                    properties,
                };
                self.create_edge(edge, index)
            }
        }
    }

    fn create_node(&mut self, block: &[u8], index: Index) -> Result<Outcome, StoreError> {
        let cid = Cid::of(block);
        let Some(loaded) = self.load(cid)? else {
            self.put_first(cid, Kind::Node, block, index);
            return Ok(Ok(Receipt { cid, version: cid, index }));
        };
        if !loaded.head.deleted {
            return Ok(Ok(Receipt { cid, version: loaded.head.version, index }));
        }
        let properties = decode(block)?.into_properties();
        self.append(&loaded, Change::Revive(properties), index)
    }

    fn create_edge(&mut self, mut edge: EdgeBlock, index: Index) -> Result<Outcome, StoreError> {
        let source = match self.load(edge.source)? {
            Some(source) if source.head.kind == Kind::Node => source.head,
            Some(_) | None => return Ok(Err(GraphError::EndpointMissing { cid: edge.source })),
        };
        if source.deleted {
            return Ok(Err(GraphError::EndpointDeleted { cid: edge.source }));
        }
        if edge.target_generation == Generation::NONE {
            return Ok(Err(GraphError::EndpointMissing { cid: edge.target }));
        }
        edge.source_generation = source.generation;
        let block = edge.encode().map_err(|_| StoreError::Damaged("an operation"))?;
        let cid = Cid::of(&block);
        let outcome = match self.load(cid)? {
            None => {
                self.put_first(cid, Kind::Edge, &block, index);
                Ok(Receipt { cid, version: cid, index })
            }
            Some(loaded) if !loaded.head.deleted => {
                return Ok(Ok(Receipt { cid, version: loaded.head.version, index }));
            }
            Some(loaded) => {
                let properties = std::mem::take(&mut edge.properties);
                self.append(&loaded, Change::Revive(properties), index)?
            }
        };
        if outcome.is_ok() {
            self.put_ends(cid, &edge);
        }
        Ok(outcome)
    }

    fn update(
        &mut self,
        cid: Cid,
        expected: Expected,
        changes: Changes,
        index: Index,
    ) -> Result<Outcome, StoreError> {
        let (loaded, _) = permit!(self.load_living(cid, expected));
        let mut properties = decode(&self.current_block(&loaded)?)?.into_properties();
        changes.apply_to(&mut properties);
        self.append(&loaded, Change::Update(properties), index)
    }

    fn delete_node(&mut self, cid: Cid, index: Index) -> Result<Outcome, StoreError> {
        let (loaded, _) = permit!(self.load_living(cid, Expected::Node));
        // Its edges need no change: they name a life of this node that is over now.
        self.append(&loaded, Change::Delete, index)
    }

    fn delete_edge(
        &mut self,
        cid: Cid,
        target_generation: Generation,
        index: Index,
    ) -> Result<Outcome, StoreError> {
        let (loaded, edge) = permit!(self.load_living(cid, Expected::Edge { target_generation }));
        let edge = edge.ok_or(StoreError::Damaged("an edge's first block"))?;
        let out = EdgeRow::key(self.group, OUT, edge.source, &edge.label, cid);
        let into = EdgeRow::key(self.group, IN, edge.target, &edge.label, cid);
        for key in [out, into] {
            let before = self.overlay.get(key.clone())?.map_or(Before::Absent, Before::Value);
            self.overlay.remove(key, before);
        }
        self.append(&loaded, Change::Delete, index)
    }

    fn load(&mut self, identity: Cid) -> Result<Option<Loaded>, StoreError> {
        // The first block is looked for first: most entities that are created do not exist yet, and
        // then this is all there is to read.
        let Some(row) = self.overlay.get(BlockRow::first_key(self.group, identity))? else {
            return Ok(None);
        };
        let first = BlockRow::decode(&row)?;
        let head = match self.overlay.get(Head::key(self.group, identity))? {
            Some(head) => Head::decode(&head)?,
            // An entity with its first version only has no head row: most entities never need one.
            None => {
                Head { kind: first.kind, deleted: false, generation: Generation::FIRST, version: identity }
            }
        };
        Ok(Some(Loaded { identity, head, first: Some(first) }))
    }

    /// An entity that may be changed; an edge comes with its first block, because it lives only while the
    /// lives of its ends do.
    fn load_living(&mut self, cid: Cid, expected: Expected) -> Refusable<(Loaded, Option<EdgeBlock>)> {
        let Some(loaded) = self.load(cid)? else {
            return Ok(Err(GraphError::NotFound { cid }));
        };
        if loaded.head.kind != expected.kind() {
            return Ok(Err(GraphError::WrongKind { cid, expected: expected.kind() }));
        }
        if loaded.head.deleted {
            return Ok(Err(GraphError::Deleted { cid }));
        }
        let Expected::Edge { target_generation } = expected else {
            return Ok(Ok((loaded, None)));
        };
        let first = self.first_block(&loaded)?;
        let Block::Edge(edge) = decode(&first)? else {
            return Err(StoreError::Damaged("an edge's first block"));
        };
        let source = self.load(edge.source)?.ok_or(StoreError::Damaged("an edge's source"))?.head;
        let source_lives = !source.deleted && source.generation == edge.source_generation;
        if !source_lives || target_generation != edge.target_generation {
            return Ok(Err(GraphError::Deleted { cid }));
        }
        Ok(Ok((loaded, Some(edge))))
    }

    fn first_block(&mut self, loaded: &Loaded) -> Result<bytes::Bytes, StoreError> {
        if let Some(first) = &loaded.first {
            return Ok(first.block.clone());
        }
        self.block(BlockRow::first_key(self.group, loaded.identity))
    }

    fn current_block(&mut self, loaded: &Loaded) -> Result<bytes::Bytes, StoreError> {
        if loaded.head.version == loaded.identity {
            return self.first_block(loaded);
        }
        self.block(BlockRow::version_key(self.group, loaded.head.version))
    }

    fn block(&mut self, key: Vec<u8>) -> Result<bytes::Bytes, StoreError> {
        let row = self.overlay.get(key)?.ok_or(StoreError::Damaged("a block that is missing"))?;
        Ok(BlockRow::decode(&row)?.block)
    }

    fn put_first(&mut self, cid: Cid, kind: Kind, block: &[u8], index: Index) {
        let row = BlockRow::encode(kind, index, block);
        self.overlay.put(BlockRow::first_key(self.group, cid), row, Before::Absent);
    }

    /// Makes an edge findable from both ends. The rows cannot exist: the edge is new or was deleted.
    fn put_ends(&mut self, cid: Cid, edge: &EdgeBlock) {
        let ends = [(OUT, edge.source, edge.target), (IN, edge.target, edge.source)];
        for (table, near, other) in ends {
            let row = EdgeRow {
                other,
                source_generation: edge.source_generation,
                target_generation: edge.target_generation,
            };
            let key = EdgeRow::key(self.group, table, near, &edge.label, cid);
            self.overlay.put(key, row.encode(), Before::Absent);
        }
    }

    /// Appends a version to an entity.
    fn append(&mut self, loaded: &Loaded, change: Change, index: Index) -> Result<Outcome, StoreError> {
        let (identity, previous) = (loaded.identity, loaded.head.version);
        let generation = match &change {
            Change::Revive(_) => loaded.head.generation.next(),
            Change::Update(_) | Change::Delete => loaded.head.generation,
        };
        let (deleted, properties) = match change {
            Change::Delete => (true, Default::default()),
            Change::Revive(properties) | Change::Update(properties) => (false, properties),
        };
        let block = VersionBlock { identity, previous, generation, deleted, properties };
        let block = block.encode().map_err(|_| StoreError::Damaged("an entity's properties"))?;
        if block.len() > ENTITY_BYTES_MAX {
            return Ok(Err(GraphError::TooLarge { cid: identity }));
        }
        let version = Cid::of(&block);
        let head = Head { kind: loaded.head.kind, deleted, generation, version };
        let row = BlockRow::encode(head.kind, index, &block);
        // Absent: a version links all before it, so its CID cannot have occurred.
        self.overlay.put(BlockRow::version_key(self.group, version), row, Before::Absent);
        // Loading the entity has read this row into the overlay.
        self.overlay.replace(Head::key(self.group, identity), head.encode())?;
        Ok(Ok(Receipt { cid: identity, version, index }))
    }
}

/// What a new version does.
enum Change {
    Update(crate::graph::Properties),
    Delete,
    Revive(crate::graph::Properties),
}

fn decode(block: &[u8]) -> Result<Block, StoreError> {
    Block::decode(block).map_err(|_| StoreError::Damaged("a block"))
}
