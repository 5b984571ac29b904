//! The machine against an obvious twin, and against itself with other batches.

use super::*;
use crate::graph::read::{entity, history};

#[test]
fn creating_what_lives_returns_it_unchanged() {
    let mut bench = Bench::new();
    let first = bench.ok(create_node("a"));
    assert_eq!((first.cid, first.version, first.index), (node_cid("a"), node_cid("a"), Index(2)));
    let update = bench.ok(update_node(first.cid, "x", 1));
    assert_eq!(update.cid, first.cid);
    assert_ne!(update.version, first.cid);
    let again = bench.ok(create_node("a"));
    assert_eq!((again.cid, again.version), (first.cid, update.version));
    let entity = entity(&bench.store, GROUP, first.cid).unwrap().expect("it exists");
    assert_eq!(entity.properties.get("x"), Some(&Value::Int(1)));
    bench.check_digest();
}

#[test]
fn creating_what_was_deleted_begins_its_next_life() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    bench.ok(update_node(cid, "x", 1));
    let tombstone = bench.ok(GraphOperation::DeleteNode { cid });
    assert_eq!(bench.run(update_node(cid, "x", 2)), Err(GraphError::Deleted { cid }));
    assert_eq!(bench.run(GraphOperation::DeleteNode { cid }), Err(GraphError::Deleted { cid }));
    let reborn = bench.ok(create_node("a"));
    assert_eq!(reborn.cid, cid);
    let versions = history(&bench.store, GROUP, cid).unwrap().expect("it exists");
    let lives: Vec<_> = versions.iter().map(|v| (v.generation.0, v.deleted, v.index.0)).collect();
    assert_eq!(lives, [(1, false, 2), (1, false, 3), (1, true, 4), (2, false, 7)]);
    assert_eq!((versions[2].version, versions[3].version), (tombstone.version, reborn.version));
    assert_eq!(versions[3].properties.get("x"), None);
    bench.check_digest();
}

#[test]
fn what_is_not_there_is_a_typed_error() {
    let mut bench = Bench::new();
    let (a, b, missing) = (bench.ok(create_node("a")).cid, bench.ok(create_node("b")).cid, node_cid("m"));
    let edge = bench.ok(create_edge(a, "l", b, 1)).cid;
    assert_eq!(bench.run(update_node(missing, "x", 1)), Err(GraphError::NotFound { cid: missing }));
    assert_eq!(
        bench.run(GraphOperation::DeleteNode { cid: edge }),
        Err(GraphError::WrongKind { cid: edge, expected: Kind::Node })
    );
    assert_eq!(bench.run(delete_edge(a, 1)), Err(GraphError::WrongKind { cid: a, expected: Kind::Edge }));
    assert_eq!(bench.run(create_edge(missing, "l", a, 1)), Err(GraphError::EndpointMissing { cid: missing }));
    assert_eq!(bench.run(create_edge(edge, "l", a, 1)), Err(GraphError::EndpointMissing { cid: edge }));
    bench.ok(GraphOperation::DeleteNode { cid: a });
    assert_eq!(bench.run(create_edge(a, "l", b, 1)), Err(GraphError::EndpointDeleted { cid: a }));
    assert_eq!(bench.run(delete_edge(edge, 1)), Err(GraphError::Deleted { cid: edge }));
    let effects = bench.apply(&[(Index(100), Term(1), b"garbage")]);
    assert_eq!(effects, [(Index(100), Effect::Operation(Err(GraphError::Malformed)))]);
    bench.check_digest();
}

#[test]
fn an_edge_lives_only_in_the_life_of_its_target_that_it_was_created_for() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ok(create_node("a")).cid, bench.ok(create_node("b")).cid);
    let edge = bench.ok(create_edge(a, "l", b, 2)).cid;
    for generation in [0, 1, 3] {
        assert_eq!(bench.run(update_edge(edge, "x", 1, generation)), Err(GraphError::Deleted { cid: edge }));
        assert_eq!(bench.run(delete_edge(edge, generation)), Err(GraphError::Deleted { cid: edge }));
    }
    let first = bench.command_at(Index(200), &request("c", 7, update_edge(edge, "x", 1, 2)));
    assert!(first.is_ok());
    // A repeat learns the first outcome, although the target is in another life now.
    assert_eq!(bench.command_at(Index(201), &request("c", 7, update_edge(edge, "x", 1, 3))), first);
    assert!(bench.command_at(Index(202), &request("c", 8, delete_edge(edge, 2))).is_ok());
    bench.check_digest();
}

#[test]
fn unset_removes_and_null_is_a_value() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let operation = Operation::UpdateNode { cid, properties: properties([("n", Value::Null)]) };
    let details = OperationDetails { unset: vec!["name".into(), "absent".into()], ..Default::default() };
    bench.ok(GraphOperation::new(operation, details).expect("valid"));
    let entity = entity(&bench.store, GROUP, cid).unwrap().expect("it exists");
    assert_eq!(entity.properties, Properties::from([("n".to_string(), Value::Null)]));
}

#[test]
fn an_entity_cannot_outgrow_its_limit() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let mut refused = 0;
    for name in ["a", "b", "c", "d", "e"] {
        let value = Value::Bytes(vec![0; 1_000_000]);
        let operation = Operation::UpdateNode { cid, properties: properties([(name, value)]) };
        let operation = GraphOperation::new(operation, OperationDetails::default()).expect("valid");
        refused += u32::from(bench.run(operation) == Err(GraphError::TooLarge { cid }));
    }
    assert_eq!(refused, 1);
    bench.check_digest();
}

#[test]
fn a_marker_ends_its_batch() {
    let mut bench = Bench::new();
    let (create, marker) =
        (request("c", 1, create_node("a")).encode(), Command::Verify(VerifyId(5)).encode());
    let entries: [(Index, Term, &[u8]); 4] = [
        (Index(2), Term(1), &[]),
        (Index(3), Term(1), &create),
        (Index(4), Term(2), &marker),
        (Index(5), Term(2), &create),
    ];
    let effects = bench.apply(&entries);
    assert_eq!(effects.len(), 3);
    assert_eq!(effects[0], (Index(2), Effect::Nothing));
    assert_eq!(effects[2], (Index(4), Effect::Verify(VerifyId(5))));
    assert_eq!(bench.machine.applied(), Position::new(Index(4), Term(2)));
    assert_eq!(bench.apply(&entries[3..]).len(), 1);
    let reopened = GraphMachine::open(&bench.store, GROUP).unwrap();
    assert_eq!((reopened.applied(), reopened.digest()), (bench.machine.applied(), bench.machine.digest()));
}

/// Replicas of different releases must agree: the digest of a given log may never change.
#[test]
fn golden_state() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ok(create_node("a")).cid, bench.ok(create_node("b")).cid);
    let edge = bench.ok(create_edge(a, "knows", b, 1)).cid;
    bench.ok(update_node(a, "x", 1));
    bench.ok(delete_edge(edge, 1));
    bench.ok(create_edge(a, "knows", b, 1));
    assert!(bench.run(GraphOperation::DeleteNode { cid: edge }).is_err());
    bench.ok(GraphOperation::DeleteNode { cid: b });
    assert_eq!(format!("{:032x}", bench.machine.digest()), "8d59aca6df50603fbaa3259c38eb6ff2");
    bench.check_digest();
}

/// One step of a random history, in terms that need no CIDs.
#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Update(usize, i64),
    Unset(usize),
    Delete(usize),
    Connect(usize, usize),
    /// With the life the target is found in: the edge's own, or another.
    UpdateEdge(prop::sample::Index, i64, bool),
    DeleteEdge(prop::sample::Index, bool),
}

const NODES: [&str; 4] = ["a", "b", "c", "d"];

fn any_step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES.len();
    prop_oneof![
        4 => node().prop_map(Step::Create),
        4 => (node(), 0_i64..3).prop_map(|(node, value)| Step::Update(node, value)),
        1 => node().prop_map(Step::Unset),
        2 => node().prop_map(Step::Delete),
        4 => (node(), node()).prop_map(|(a, b)| Step::Connect(a, b)),
        2 => (any::<prop::sample::Index>(), 0_i64..3, proptest::bool::weighted(0.8))
            .prop_map(|(edge, value, lives)| Step::UpdateEdge(edge, value, lives)),
        2 => (any::<prop::sample::Index>(), proptest::bool::weighted(0.8))
            .prop_map(|(edge, lives)| Step::DeleteEdge(edge, lives)),
    ]
}

/// A step under a session: few ids, so that repeats and reuses happen.
fn any_history() -> impl Strategy<Value = Vec<(u64, u64, Step)>> {
    proptest::collection::vec((0_u64..2, 0_u64..40, any_step()), 1..80)
}

/// The rules of the graph, as plainly as they can be said.
#[derive(Default)]
struct Twin {
    entities: HashMap<Cid, TwinEntity>,
    /// In order of creation, as the steps name them.
    edges: Vec<Cid>,
    sessions: HashMap<(u64, u64), (Vec<u8>, Outcome)>,
}

struct TwinEntity {
    ends: Option<Ends>,
    versions: Vec<(Cid, bool, u64, Properties)>,
}

/// An edge's source, its life, and the target's.
#[derive(Clone, Copy)]
struct Ends {
    source: Cid,
    source_generation: u64,
    target_generation: u64,
}

impl TwinEntity {
    fn current(&self) -> &(Cid, bool, u64, Properties) {
        self.versions.last().expect("an entity has a version")
    }
}

impl Twin {
    fn operation(&self, step: &Step) -> Option<GraphOperation> {
        let details = OperationDetails::default();
        let properties = |value: &i64| properties([("x", Value::Int(*value))]);
        let edge = |at: &prop::sample::Index| {
            if self.edges.is_empty() { None } else { Some(self.edges[at.index(self.edges.len())]) }
        };
        let (operation, details) = match step {
            Step::Create(node) => return Some(create_node(NODES[*node])),
            Step::Update(node, value) => (
                Operation::UpdateNode { cid: node_cid(NODES[*node]), properties: properties(value) },
                details,
            ),
            Step::Unset(node) => {
                let operation =
                    Operation::UpdateNode { cid: node_cid(NODES[*node]), properties: HashMap::new() };
                (operation, OperationDetails { unset: vec!["x".to_string()], ..details })
            }
            Step::Delete(node) => (Operation::DeleteNode { cid: node_cid(NODES[*node]) }, details),
            Step::Connect(a, b) => {
                let target = node_cid(NODES[*b]);
                let generation = self.entities.get(&target).map_or(1, |target| target.current().2);
                return Some(create_edge(node_cid(NODES[*a]), "l", target, generation));
            }
            Step::UpdateEdge(at, value, lives) => {
                let cid = edge(at)?;
                (Operation::UpdateEdge { cid, properties: properties(value) }, self.target(cid, *lives))
            }
            Step::DeleteEdge(at, lives) => {
                let cid = edge(at)?;
                (Operation::DeleteEdge { cid }, self.target(cid, *lives))
            }
        };
        Some(GraphOperation::new(operation, details).expect("valid"))
    }

    /// The life an edge's target is found in: the one the edge was created for, or the one before.
    fn target(&self, edge: Cid, lives: bool) -> OperationDetails {
        let ends = self.entities[&edge].ends.expect("an edge has ends");
        let generation = Generation(ends.target_generation - u64::from(!lives));
        OperationDetails { target_generation: Some(generation), ..Default::default() }
    }

    fn run(&mut self, client: u64, id: u64, operation: &GraphOperation, index: Index) -> Outcome {
        // What tells operations apart: everything but the target's generation.
        let mut print = request("", 0, operation.clone()).encode().to_vec();
        if matches!(
            operation,
            GraphOperation::CreateEdge { .. }
                | GraphOperation::UpdateEdge { .. }
                | GraphOperation::DeleteEdge { .. }
        ) {
            print.truncate(print.len() - 8);
        }
        if let Some((first, outcome)) = self.sessions.get(&(client, id)) {
            return if *first == print { *outcome } else { Err(GraphError::RequestReused) };
        }
        let outcome = self.execute(operation).map(|(cid, version)| Receipt { cid, version, index });
        self.sessions.insert((client, id), (print, outcome));
        outcome
    }

    fn execute(&mut self, operation: &GraphOperation) -> Result<(Cid, Cid), GraphError> {
        match operation.clone() {
            GraphOperation::CreateNode { block } => {
                let Ok(Block::Node(node)) = Block::decode(&block) else { panic!("a node") };
                self.create(Cid::of(&block), None, node.properties)
            }
            GraphOperation::CreateEdge { source, target, label, properties, target_generation } => {
                let Some(node) = self.entities.get(&source) else {
                    return Err(GraphError::EndpointMissing { cid: source });
                };
                let (_, deleted, generation, _) = *node.current();
                if deleted {
                    return Err(GraphError::EndpointDeleted { cid: source });
                }
                let source_generation = Generation(generation);
                let block = EdgeBlock {
                    label,
                    source,
                    target,
                    source_generation,
                    target_generation,
                    properties: properties.clone(),
                };
                let cid = Cid::of(&block.encode().expect("canonical"));
                if !self.entities.contains_key(&cid) {
                    self.edges.push(cid);
                }
                let ends =
                    Ends { source, source_generation: generation, target_generation: target_generation.0 };
                self.create(cid, Some(ends), properties)
            }
            GraphOperation::UpdateNode { cid, changes } => self.update(cid, None, changes),
            GraphOperation::UpdateEdge { cid, changes, target_generation } => {
                self.update(cid, Some(target_generation.0), changes)
            }
            GraphOperation::DeleteNode { cid } => self.delete(cid, None),
            GraphOperation::DeleteEdge { cid, target_generation } => {
                self.delete(cid, Some(target_generation.0))
            }
        }
    }

    fn update(&mut self, cid: Cid, target: Option<u64>, changes: Changes) -> Result<(Cid, Cid), GraphError> {
        self.living(cid, target)?;
        let mut properties = self.entities[&cid].current().3.clone();
        changes.unset.iter().for_each(|name| drop(properties.remove(name)));
        properties.extend(changes.set);
        Ok(self.append(cid, false, 0, properties))
    }

    fn delete(&mut self, cid: Cid, target: Option<u64>) -> Result<(Cid, Cid), GraphError> {
        self.living(cid, target)?;
        Ok(self.append(cid, true, 0, Properties::new()))
    }

    fn living(&self, cid: Cid, target: Option<u64>) -> Result<(), GraphError> {
        let entity = self.entities.get(&cid).ok_or(GraphError::NotFound { cid })?;
        let orphaned = entity.ends.is_some_and(|ends| {
            let (_, deleted, current, _) = self.entities[&ends.source].current();
            *deleted || *current != ends.source_generation || target != Some(ends.target_generation)
        });
        if entity.current().1 || orphaned { Err(GraphError::Deleted { cid }) } else { Ok(()) }
    }

    fn create(
        &mut self,
        cid: Cid,
        ends: Option<Ends>,
        properties: Properties,
    ) -> Result<(Cid, Cid), GraphError> {
        match self.entities.get(&cid).map(|entity| entity.current().clone()) {
            Some((version, false, ..)) => Ok((cid, version)),
            Some(_) => Ok(self.append(cid, false, 1, properties)),
            None => {
                self.entities.insert(cid, TwinEntity { ends, versions: vec![(cid, false, 1, properties)] });
                Ok((cid, cid))
            }
        }
    }

    fn append(&mut self, cid: Cid, deleted: bool, lives: u64, properties: Properties) -> (Cid, Cid) {
        let entity = self.entities.get_mut(&cid).expect("it exists");
        let (previous, _, generation, _) = *entity.current();
        let generation = generation + lives;
        let block = VersionBlock {
            identity: cid,
            previous,
            generation: Generation(generation),
            deleted,
            properties: properties.clone(),
        };
        let version = Cid::of(&block.encode().expect("canonical"));
        entity.versions.push((version, deleted, generation, properties));
        (cid, version)
    }
}

fn check_entities(bench: &Bench, twin: &Twin) {
    for (cid, expected) in &twin.entities {
        let found = history(&bench.store, GROUP, *cid).unwrap().expect("it exists");
        let found: Vec<_> =
            found.into_iter().map(|v| (v.version, v.deleted, v.generation.0, v.properties)).collect();
        assert_eq!(found, expected.versions);
        let entity = entity(&bench.store, GROUP, *cid).unwrap().expect("it exists");
        let (version, _, generation, properties) = expected.current();
        assert_eq!((entity.version, entity.generation.0), (*version, *generation));
        // What a partition's store says of an edge is about its source alone.
        let target = expected.ends.map(|ends| ends.target_generation);
        assert_eq!(entity.deleted, twin.living(*cid, target).is_err());
        assert_eq!(entity.properties, *properties);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_machine_does_what_its_twin_does(
        history in any_history(), cuts in proptest::collection::vec(1_usize..9, 1..20),
    ) {
        let (mut bench, mut twin) = (Bench::new(), Twin::default());
        let mut entries = Vec::new();
        for (client, id, step) in history {
            let Some(operation) = twin.operation(&step) else { continue };
            let index = bench.machine.applied().index.next();
            let command = request(&format!("client-{client}"), id, operation.clone());
            prop_assert_eq!(bench.command(&command), twin.run(client, id, &operation, index));
            entries.push((index, Term(1), command.encode()));
        }
        check_entities(&bench, &twin);
        bench.check_digest();

        // The same log in other batches, with restarts between them: the same rows.
        let mut other = Bench::new();
        let mut rest = entries.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            let batch: Vec<(Index, Term, &[u8])> = now.iter().map(|(i, t, b)| (*i, *t, &b[..])).collect();
            prop_assert_eq!(other.apply(&batch).len(), batch.len());
            if cut % 3 == 0 {
                other.machine = GraphMachine::open(&other.store, GROUP).unwrap();
            }
            rest = later;
        }
        prop_assert_eq!(rows_of(&other.store), rows_of(&bench.store));
        prop_assert_eq!(other.machine.digest(), bench.machine.digest());
    }
}
