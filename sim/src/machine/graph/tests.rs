use std::collections::BTreeMap;

use kotoba_db_cluster::raft::{GroupId, Index, Position, Term};

use super::*;
use crate::{choice::Seeded, machine::Machine};

const GROUP: GroupId = GroupId(1);

fn at(index: u64) -> Position {
    Position::new(Index(index), Term(1))
}

fn request(client: u32, serial: u64, acked_below: u64) -> Request {
    Request { client, serial, acked_below }
}

/// The operations of a seed.
fn drawn(seed: u64, count: u64) -> Vec<GraphOperation> {
    let mut choices = Chooser::new(Seeded::new(seed));
    (1..=count).map(|serial| GraphOperation::draw(&mut choices, 0, serial)).collect()
}

#[test]
fn the_plain_graph_answers_as_the_product_does() {
    for seed in 0..20 {
        let (mut graph, mut plain) = (Graph::create(GROUP, at(0)), PlainGraph::default());
        let (mut kinds, mut refused) = (BTreeMap::<_, u32>::new(), 0);
        for (serial, operation) in (1..).zip(drawn(seed, 600)) {
            let expected = if operation.is_read() { plain.read(&operation) } else { plain.apply(&operation) };
            let got = if operation.is_read() {
                graph.read(&operation)
            } else {
                let payload =
                    Graph::encode(request(serial as u32 % 3, serial, serial.saturating_sub(3)), &operation);
                graph.apply(at(serial), &payload).expect("the request is new")
            };
            assert_eq!(got, expected, "seed {seed}, operation {serial}: {operation:?}");
            refused += u32::from(matches!(got, GraphAnswer::Refused(_)));
            *kinds.entry(format!("{operation:?}").split(' ').next().map(str::to_owned)).or_default() += 1;
            graph.invariant().expect("the state is sound");
        }
        assert_eq!(kinds.len(), 7, "every operation was drawn: {kinds:?}");
        assert!((30..500).contains(&refused), "{refused} of 600 were refused");
    }
}

#[test]
fn batches_and_single_entries_lead_to_one_state() {
    let entries: Vec<(Position, Bytes)> = (1..)
        .zip(drawn(3, 500).iter().filter(|operation| !operation.is_read()))
        .map(|(serial, operation)| (at(serial + 1), Graph::encode(request(1, serial, 0), operation)))
        .collect();
    let mut one_by_one = Graph::create(GROUP, at(1));
    let single: Vec<_> =
        entries.iter().map(|(position, payload)| one_by_one.apply(*position, payload)).collect();
    let mut batched = Graph::create(GROUP, at(1));
    let batches: Vec<_> = entries.chunks(7).flat_map(|chunk| batched.apply_batch(chunk)).collect();
    assert_eq!(batches, single);
    assert_eq!(batched.digest(), one_by_one.digest());
}

#[test]
fn a_repeat_is_answered_and_what_is_over_is_not_carried_out() {
    let mut graph = Graph::create(GROUP, at(0));
    let (one, two) =
        (GraphOperation::CreateNode { node: 1 }, GraphOperation::Delete { entity: Entity::Node(1) });
    let payload = Graph::encode(request(1, 1, 0), &one);
    assert_eq!(Graph::request_of(&payload), request(1, 1, 0));
    let first = graph.apply(at(1), &payload);
    assert!(graph.apply(at(2), &Graph::encode(request(2, 1, 0), &two)).is_some());
    assert_eq!(graph.apply(at(3), &Graph::encode(request(1, 1, 0), &one)), first);
    let read = GraphOperation::Read { entity: Entity::Node(1) };
    assert!(matches!(graph.read(&read), GraphAnswer::Found(Some(Found { deleted: true, .. }))));
    assert!(graph.apply(at(4), &Graph::encode(request(1, 5, 5), &one)).is_some());
    assert_eq!(graph.apply(at(5), &Graph::encode(request(1, 4, 0), &two)), None);
    assert!(matches!(graph.read(&read), GraphAnswer::Found(Some(Found { deleted: false, .. }))));
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut graph = Graph::create(GROUP, at(0));
    let operations: Vec<_> = drawn(5, 200).into_iter().filter(|operation| !operation.is_read()).collect();
    for (serial, operation) in (1..).zip(&operations) {
        graph.apply(at(serial), &Graph::encode(request(1, serial, 0), operation));
    }
    let persisted = graph.clone();
    let next = operations.len() as u64 + 1;
    let update = GraphOperation::CreateNode { node: 0 };
    graph.apply(at(next), &Graph::encode(request(1, next, 0), &update));
    assert_ne!(graph.digest(), persisted.digest());
    persisted.invariant().expect("the clone is sound");
    let mut again = persisted.clone();
    again.apply(at(next), &Graph::encode(request(1, next, 0), &update));
    assert_eq!(again.digest(), graph.digest());
}

#[test]
fn a_snapshot_carries_the_state_and_its_sessions() {
    let mut graph = Graph::create(GROUP, at(0));
    let operations: Vec<_> = drawn(5, 300).into_iter().filter(|operation| !operation.is_read()).collect();
    for (serial, operation) in (1..).zip(&operations) {
        graph.apply(at(serial), &Graph::encode(request(1, serial, 0), operation));
    }
    let last = operations.len() as u64;
    let snapshot = graph.snapshot(at(last + 2));
    let mut restored = Graph::restore(GROUP, at(last + 2), &snapshot).expect("a snapshot");
    assert_eq!(restored.digest(), graph.digest());
    restored.invariant().expect("the restored state is sound");
    let repeat = Graph::encode(request(1, last, 0), &operations[operations.len() - 1]);
    assert_eq!(restored.apply(at(last + 3), &repeat), graph.apply(at(last + 3), &repeat));
    assert_eq!(restored.digest(), graph.digest());

    assert!(Graph::restore(GroupId(2), at(last), &snapshot).is_err());
    assert!(Graph::restore(GROUP, at(last - 1), &snapshot).is_err());
    for cut in [0, 10, 60, snapshot.len() / 2, snapshot.len() - 1] {
        assert!(Graph::restore(GROUP, at(last), &snapshot.slice(..cut)).is_err(), "cut at {cut}");
    }
}

#[test]
fn the_plain_graph_can_be_stored_and_dropped_however_long_its_history_is() {
    let mut plain = PlainGraph::default();
    plain.apply(&GraphOperation::CreateNode { node: 0 });
    let update = |value| GraphOperation::Update { entity: Entity::Node(0), property: 0, value };
    (0..100_000).for_each(|value| drop(plain.apply(&update(value))));
    let bytes = postcard::to_allocvec(&plain).expect("the plain graph serialises");
    let again: PlainGraph = postcard::from_bytes(&bytes).expect("what was serialised");
    assert_eq!(Machine::digest(&again), Machine::digest(&plain));
    let history = GraphOperation::History { entity: Entity::Node(0) };
    assert_eq!(Machine::read(&again, &history), Machine::read(&plain, &history));
}
