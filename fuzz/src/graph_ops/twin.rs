//! The rules of the graph and of its sessions, as plainly as they can be said.

use std::collections::BTreeMap;

use kotoba_db_cluster::{
    graph::{
        Block, Cid, Command, EdgeBlock, Effect, Execute, Generation, GraphError, GraphOperation,
        IDLE_ENTRIES, Kind, Outcome, Properties, Receipt, RequestId, VersionBlock,
        read::{EdgeEnds, VersionRecord},
    },
    raft::Index,
};

use crate::Situations;

/// An entity with all its versions.
#[derive(Clone, Debug)]
pub(super) struct TwinEntity {
    pub(super) key: Option<String>,
    pub(super) ends: Option<EdgeEnds>,
    pub(super) versions: Vec<VersionRecord>,
}

impl TwinEntity {
    pub(super) fn current(&self) -> &VersionRecord {
        self.versions.last().expect("an entity has a version")
    }

    pub(super) fn kind(&self) -> Kind {
        if self.ends.is_some() { Kind::Edge } else { Kind::Node }
    }
}

#[derive(Clone, Debug, Default)]
struct TwinClient {
    open_from: u64,
    last_used: u64,
    /// What tells the operation from others, and its outcome.
    outcomes: BTreeMap<u64, (Vec<u8>, Outcome)>,
}

/// The whole state.
#[derive(Clone, Debug, Default)]
pub(super) struct Twin {
    pub(super) entities: BTreeMap<Cid, TwinEntity>,
    clients: BTreeMap<String, TwinClient>,
    swept_at: u64,
    swept: bool,
}

/// A sweep comes every so many entries. With few clients one sweep reaches all.
const SWEEP_ENTRIES: u64 = 32;

impl Twin {
    /// Applies one entry.
    pub(super) fn apply(&mut self, index: Index, payload: &[u8]) -> Effect {
        if payload.is_empty() {
            return Effect::Nothing;
        }
        let effect = match Command::decode(payload) {
            Ok(Command::Verify(id)) => Effect::Verify(id),
            Ok(Command::Execute(execute)) => Effect::Operation(self.request(execute, index)),
            Err(_) => Effect::Operation(Err(GraphError::Malformed)),
        };
        self.sweep(index);
        effect
    }

    fn request(&mut self, execute: Execute, index: Index) -> Outcome {
        let Execute { client_id, request_id, acked_below, operation } = execute;
        let (id, acked) = (request_id.0, acked_below.0);
        let client = self.clients.entry(client_id.clone()).or_default();
        client.outcomes = client.outcomes.split_off(&acked);
        client.open_from = client.open_from.max(acked);
        client.last_used = index.0;
        let print = print_of(&operation);
        if let Some((first, outcome)) = client.outcomes.get(&id) {
            return if *first == print { *outcome } else { Err(GraphError::RequestReused) };
        }
        if id < client.open_from {
            return Err(GraphError::SessionExpired);
        }
        let outcome = self.execute(operation, index).map(|(cid, version)| Receipt { cid, version, index });
        let client = self.clients.get_mut(&client_id).expect("it was there before");
        client.outcomes.insert(id, (print, outcome));
        outcome
    }

    fn sweep(&mut self, index: Index) {
        if index.0 < self.swept_at + SWEEP_ENTRIES {
            return;
        }
        self.swept_at = index.0;
        for client in self.clients.values_mut() {
            if let Some((&last, _)) = client.outcomes.last_key_value()
                && client.last_used + IDLE_ENTRIES <= index.0
            {
                client.open_from = client.open_from.max(last.saturating_add(1));
                client.outcomes.clear();
                self.swept = true;
            }
        }
    }

    fn execute(&mut self, operation: GraphOperation, index: Index) -> Result<(Cid, Cid), GraphError> {
        match operation {
            GraphOperation::CreateNode { block } => {
                let Ok(Block::Node(node)) = Block::decode(&block) else { panic!("a node's first block") };
                let entity = TwinEntity { key: node.key, ends: None, versions: Vec::new() };
                Ok(self.create(Cid::of(&block), entity, node.properties, index))
            }
            GraphOperation::CreateEdge { source, target, label, properties, target_generation, .. } => {
                let node = self.entities.get(&source).filter(|entity| entity.kind() == Kind::Node);
                let node = node.ok_or(GraphError::EndpointMissing { cid: source })?.current();
                if node.deleted {
                    return Err(GraphError::EndpointDeleted { cid: source });
                }
                if target_generation == Generation::NONE {
                    return Err(GraphError::EndpointMissing { cid: target });
                }
                let source_generation = node.generation;
                let block = EdgeBlock {
                    label: label.clone(),
                    source,
                    target,
                    source_generation,
                    target_generation,
                    properties: properties.clone(),
                };
                let cid = Cid::of(&block.encode().expect("an operation's properties are canonical"));
                let ends = EdgeEnds { label, source, target, source_generation, target_generation };
                let entity = TwinEntity { key: None, ends: Some(ends), versions: Vec::new() };
                Ok(self.create(cid, entity, properties, index))
            }
            GraphOperation::UpdateNode { cid, changes, .. } => {
                self.living(cid, Kind::Node, None)?;
                Ok(self.update(cid, changes, index))
            }
            GraphOperation::UpdateEdge { cid, changes, target_generation, .. } => {
                self.living(cid, Kind::Edge, Some(target_generation))?;
                Ok(self.update(cid, changes, index))
            }
            GraphOperation::DeleteNode { cid } => {
                self.living(cid, Kind::Node, None)?;
                Ok(self.append(cid, true, 0, Properties::new(), index))
            }
            GraphOperation::DeleteEdge { cid, target_generation, .. } => {
                self.living(cid, Kind::Edge, Some(target_generation))?;
                Ok(self.append(cid, true, 0, Properties::new(), index))
            }
        }
    }

    fn living(&self, cid: Cid, expected: Kind, target: Option<Generation>) -> Result<(), GraphError> {
        let entity = self.entities.get(&cid).ok_or(GraphError::NotFound { cid })?;
        if entity.kind() != expected {
            return Err(GraphError::WrongKind { cid, expected });
        }
        let target_lives = entity.ends.as_ref().is_none_or(|ends| target == Some(ends.target_generation));
        if self.is_deleted(entity) || !target_lives { Err(GraphError::Deleted { cid }) } else { Ok(()) }
    }

    /// The life that an edge's target is found in.
    pub(super) fn life_of_target(&self, edge: Cid) -> Generation {
        let ends = self.entities.get(&edge).and_then(|entity| entity.ends.as_ref());
        Generation(ends.map_or(0, |ends| self.generation(ends.target)))
    }

    /// Deleted, or an edge whose source's life is over.
    pub(super) fn is_deleted(&self, entity: &TwinEntity) -> bool {
        entity.current().deleted || entity.ends.as_ref().is_some_and(|ends| !self.source_lives(ends))
    }

    pub(super) fn source_lives(&self, ends: &EdgeEnds) -> bool {
        self.living_generation(ends.source) == Some(ends.source_generation)
    }

    pub(super) fn living_generation(&self, node: Cid) -> Option<Generation> {
        let node = self.entities.get(&node).filter(|entity| entity.kind() == Kind::Node)?.current();
        (!node.deleted).then_some(node.generation)
    }

    /// The life an honest coordinator would name.
    pub(super) fn generation(&self, node: Cid) -> u64 {
        self.living_generation(node).map_or(0, |generation| generation.0)
    }

    /// The identities of all entities of a kind, or of all.
    pub(super) fn named(&self, kind: Option<Kind>) -> Vec<Cid> {
        let wanted = |entity: &TwinEntity| kind.is_none_or(|kind| entity.kind() == kind);
        self.entities.iter().filter(|(_, entity)| wanted(entity)).map(|(&cid, _)| cid).collect()
    }

    fn create(&mut self, cid: Cid, entity: TwinEntity, properties: Properties, index: Index) -> (Cid, Cid) {
        match self.entities.get(&cid).map(|entity| entity.current().clone()) {
            Some(current) if !current.deleted => (cid, current.version),
            Some(_) => self.append(cid, false, 1, properties, index),
            None => {
                let generation = Generation::FIRST;
                let first = VersionRecord { version: cid, deleted: false, generation, properties, index };
                self.entities.insert(cid, TwinEntity { versions: vec![first], ..entity });
                (cid, cid)
            }
        }
    }

    fn update(&mut self, cid: Cid, changes: kotoba_db_cluster::graph::Changes, index: Index) -> (Cid, Cid) {
        let mut properties = self.entities[&cid].current().properties.clone();
        properties.retain(|name, _| !changes.unset.contains(name));
        properties.extend(changes.set);
        self.append(cid, false, 0, properties, index)
    }

    fn append(
        &mut self,
        cid: Cid,
        deleted: bool,
        lives: u64,
        properties: Properties,
        index: Index,
    ) -> (Cid, Cid) {
        let entity = self.entities.get_mut(&cid).expect("it exists");
        let before = entity.current();
        let generation = Generation(before.generation.0 + lives);
        let block = VersionBlock {
            identity: cid,
            previous: before.version,
            generation,
            deleted,
            properties: properties.clone(),
        };
        let version = Cid::of(&block.encode().expect("an entity's properties are canonical"));
        entity.versions.push(VersionRecord { version, deleted, generation, properties, index });
        (cid, version)
    }

    /// What the state shows to have been reached.
    pub(super) fn note(&self, situations: &mut Situations) {
        situations.reach_if(self.swept, "idle sessions swept");
        for entity in self.entities.values() {
            let current = entity.current();
            situations
                .reach_if(!current.deleted && current.generation > Generation::FIRST, "an entity revived");
            situations.reach_if(entity.ends.is_some(), "an edge created");
            let orphaned = self.is_deleted(entity) && !current.deleted;
            situations.reach_if(orphaned, "an edge invisible with its source");
        }
    }
}

/// What tells operations apart: their bytes, but for the target's life.
fn print_of(operation: &GraphOperation) -> Vec<u8> {
    let command = Command::execute("", RequestId(0), RequestId(0), operation.clone()).expect("a short name");
    let mut print = command.encode().to_vec();
    if matches!(operation, GraphOperation::CreateEdge { .. }) {
        print.truncate(print.len() - 8);
    }
    print
}
