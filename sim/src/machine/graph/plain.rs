//! What a graph should do, written a second time and simply: histories are checked against it.
//!
//! It shares the product's blocks, because an answer tells a version's CID, and nothing else: no
//! rows, no overlay, no sessions.

use std::{collections::BTreeMap, iter, sync::Arc};

use kotoba_db_cluster::graph::{Cid, Generation, Properties, VersionBlock};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::operation::{Entity, Found, GraphAnswer, GraphOperation, Neighbor, Refusal, name, number};
use crate::{choice::Chooser, machine::Machine};

/// Nodes and edges, each with its lives.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PlainGraph {
    entities: BTreeMap<Entity, Lives>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lives {
    life: u64,
    deleted: bool,
    properties: BTreeMap<u64, u64>,
    versions: Versions,
}

/// All versions of an entity: a chain, so that a copy of the graph costs nothing however long it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Cid>", into = "Vec<Cid>")]
struct Versions {
    identity: Cid,
    last: Arc<Link>,
}

#[derive(Debug)]
struct Link {
    version: Cid,
    previous: Option<Arc<Link>>,
}

impl Versions {
    fn first(identity: Cid) -> Self {
        Self { identity, last: Arc::new(Link { version: identity, previous: None }) }
    }

    fn push(&mut self, version: Cid) {
        self.last = Arc::new(Link { version, previous: Some(Arc::clone(&self.last)) });
    }
}

impl From<Versions> for Vec<Cid> {
    fn from(versions: Versions) -> Self {
        let chain = iter::successors(Some(&versions.last), |link| link.previous.as_ref());
        let mut versions: Self = chain.map(|link| link.version).collect();
        versions.reverse();
        versions
    }
}

impl TryFrom<Vec<Cid>> for Versions {
    type Error = &'static str;

    fn try_from(versions: Vec<Cid>) -> Result<Self, Self::Error> {
        let (first, rest) = versions.split_first().ok_or("an entity has a first version")?;
        let mut versions = Self::first(*first);
        rest.iter().for_each(|version| versions.push(*version));
        Ok(versions)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // One after the other: a long chain would use up the stack.
        let mut previous = self.previous.take();
        while let Some(link) = previous {
            previous = Arc::into_inner(link).and_then(|mut link| link.previous.take());
        }
    }
}

impl Lives {
    fn first(identity: Cid) -> Self {
        Self { life: 1, deleted: false, properties: BTreeMap::new(), versions: Versions::first(identity) }
    }

    fn version(&self) -> Cid {
        self.versions.last.version
    }

    /// Appends a version that says what the entity now is.
    fn append(&mut self) -> GraphAnswer {
        let properties = self.properties.iter().map(|(&property, &value)| (name(property), number(value)));
        let block = VersionBlock {
            identity: self.versions.identity,
            previous: self.version(),
            generation: Generation(self.life),
            deleted: self.deleted,
            properties: properties.collect::<Properties>(),
        };
        let version = Cid::of(&block.encode().expect("numbers have a block"));
        self.versions.push(version);
        GraphAnswer::Version(version)
    }
}

impl PlainGraph {
    fn source_lives(&self, source: u64, life: u64) -> bool {
        self.entities.get(&Entity::Node(source)).is_some_and(|node| !node.deleted && node.life == life)
    }

    /// Whether nothing can be changed of it any more: an edge ends with its source's life.
    fn is_over(&self, entity: Entity, lives: &Lives) -> bool {
        lives.deleted
            || match entity {
                Entity::Node(_) => false,
                Entity::Edge { source, life, .. } => !self.source_lives(source, life),
            }
    }

    fn create(&mut self, entity: Entity) -> GraphAnswer {
        let Some(lives) = self.entities.get_mut(&entity) else {
            let identity = entity.cid();
            self.entities.insert(entity, Lives::first(identity));
            return GraphAnswer::Version(identity);
        };
        if !lives.deleted {
            return GraphAnswer::Version(lives.version());
        }
        lives.life += 1;
        lives.deleted = false;
        lives.append()
    }

    fn create_edge(&mut self, source: u64, target: u64) -> GraphAnswer {
        match self.entities.get(&Entity::Node(source)) {
            None => GraphAnswer::Refused(Refusal::SourceMissing),
            Some(node) if node.deleted => GraphAnswer::Refused(Refusal::SourceDeleted),
            Some(node) => self.create(Entity::Edge { source, life: node.life, target }),
        }
    }

    fn change(&mut self, entity: Entity, change: impl FnOnce(&mut Lives)) -> GraphAnswer {
        let Some(lives) = self.entities.get(&entity) else {
            return GraphAnswer::Refused(Refusal::NotFound);
        };
        if self.is_over(entity, lives) {
            return GraphAnswer::Refused(Refusal::Deleted);
        }
        let lives = self.entities.get_mut(&entity).expect("it was just found");
        change(lives);
        lives.append()
    }

    fn found(&self, entity: Entity, lives: &Lives) -> Found {
        let properties =
            lives.properties.iter().map(|(&property, value)| (name(property), value.to_string()));
        Found {
            version: lives.version(),
            life: lives.life,
            deleted: self.is_over(entity, lives),
            properties: properties.collect(),
        }
    }

    fn neighbors(&self, node: u64) -> Vec<Neighbor> {
        let edges = self.entities.iter().filter_map(|(entity, lives)| match *entity {
            Entity::Edge { source, target, .. } if source == node && !self.is_over(*entity, lives) => {
                Some(Neighbor { target: Some(target), edge: lives.versions.identity })
            }
            Entity::Edge { .. } | Entity::Node(_) => None,
        });
        edges.collect()
    }
}

impl Machine for PlainGraph {
    type Operation = GraphOperation;
    type Answer = GraphAnswer;

    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> GraphOperation {
        GraphOperation::draw(choices, client, serial)
    }

    fn is_read(operation: &GraphOperation) -> bool {
        operation.is_read()
    }

    fn apply(&mut self, operation: &GraphOperation) -> GraphAnswer {
        match *operation {
            GraphOperation::CreateNode { node } => self.create(Entity::Node(node)),
            GraphOperation::CreateEdge { source, target } => self.create_edge(source, target),
            GraphOperation::Update { entity, property, value } => self.change(entity, |lives| {
                lives.properties.insert(property, value);
            }),
            GraphOperation::Delete { entity } => self.change(entity, |lives| {
                lives.deleted = true;
                lives.properties.clear();
            }),
            GraphOperation::Read { .. }
            | GraphOperation::History { .. }
            | GraphOperation::Neighbors { .. } => self.read(operation),
        }
    }

    fn read(&self, operation: &GraphOperation) -> GraphAnswer {
        match *operation {
            GraphOperation::Read { entity } => {
                GraphAnswer::Found(self.entities.get(&entity).map(|lives| self.found(entity, lives)))
            }
            GraphOperation::History { entity } => GraphAnswer::Versions(
                self.entities.get(&entity).map_or_else(Vec::new, |lives| lives.versions.clone().into()),
            ),
            GraphOperation::Neighbors { node } => GraphAnswer::Neighbors(self.neighbors(node)),
            GraphOperation::CreateNode { .. }
            | GraphOperation::CreateEdge { .. }
            | GraphOperation::Update { .. }
            | GraphOperation::Delete { .. } => unreachable!("a change is no read"),
        }
    }

    fn key(operation: &GraphOperation) -> u64 {
        operation.key()
    }

    fn digest(&self) -> u64 {
        // A version's CID stands for everything its entity has been.
        self.entities.values().fold(0, |sum, lives| {
            let identity = lives.versions.identity.digest();
            let seed = u64::from_le_bytes(*identity.first_chunk().expect("a digest has 32 bytes"));
            sum.wrapping_add(xxh3_64_with_seed(lives.version().digest(), seed))
        })
    }
}
