use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::placement::{Incarnation, MetaCommand, genesis::tests::members};

/// The manager's futures never wait: one poll must do.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the manager never waits"),
    }
}

fn manager(nodes: usize) -> PartitionManager {
    let manager = PartitionManager::new(NonZeroU32::new(64).expect("64 is not 0"), 3);
    for number in 1..=nodes {
        now(manager.add_node(NodeId(format!("node-{number}")), 100)).expect("there is room");
    }
    manager
}

fn cluster(nodes: u8, factor: u32) -> (PartitionManager, MetaState) {
    let state = MetaState::genesis(&members(nodes), 64, factor).expect("a plain cluster");
    let manager = manager(0);
    manager.adopt(&state).expect("there is room");
    (manager, state)
}

#[test]
fn every_key_has_exactly_as_many_distinct_nodes_as_asked_for_or_there_are() {
    for manager in [manager(5), cluster(5, 3).0] {
        for key in 0_u32..500 {
            for count in 0..8 {
                let nodes = manager.get_nodes_for_key(&key.to_be_bytes(), count);
                let distinct: BTreeSet<_> = nodes.iter().collect();
                assert_eq!((nodes.len(), distinct.len()), (count.min(5), count.min(5)));
            }
        }
    }
}

#[test]
fn responsibility_partitions_and_nodes_tell_one_story() {
    for manager in [manager(5), cluster(5, 3).0] {
        for key in ["", "alice", "bob", "carol"] {
            let partition = manager.get_partition_for_key(key);
            let nodes = manager.get_nodes_for_key(key, 3);
            for number in 1..=5 {
                let node = NodeId(format!("node-{number}"));
                let holds = nodes.contains(&node);
                assert_eq!(now(manager.is_node_responsible(&node, key)), holds, "{key} {node}");
                assert_eq!(
                    manager.get_partitions_for_node(&node).contains(&partition),
                    holds,
                    "{key} {node}"
                );
            }
        }
        assert!(manager.get_partitions_for_node(&"stranger".into()).is_empty());
    }
}

#[test]
fn the_ring_and_a_cluster_that_began_with_it_agree() {
    let (cluster, _) = cluster(5, 3);
    let alone = manager(5);
    for key in 0_u32..200 {
        let key = key.to_be_bytes();
        assert_eq!(cluster.get_nodes_for_key(&key, 5), alone.get_nodes_for_key(&key, 5));
    }
    assert!(now(cluster.rebalance()).expect("there are nodes").is_empty());
}

#[test]
fn a_newcomer_on_the_ring_of_a_cluster_is_proposed_and_not_routed_to() {
    let (manager, _) = cluster(3, 3);
    now(manager.add_node("node-4".into(), 100)).expect("there is room");
    assert!(!manager.get_nodes_for_key("alice", 9).contains(&"node-4".into()));
    let plan = now(manager.rebalance()).expect("there are nodes");
    assert!(!plan.is_empty());
    for planned in &plan.moves {
        assert_eq!(planned.add, ["node-4".into()], "only the newcomer takes over anything");
        assert_eq!(planned.remove.len(), 1);
    }
    // A node of four takes about three quarters of the partitions, three replicas each.
    assert!((32..=60).contains(&plan.moves.len()), "{}", plan.moves.len());
    now(manager.remove_node(&"node-4".into())).expect("it is there");
    assert!(now(manager.rebalance()).expect("there are nodes").is_empty());
}

#[test]
fn a_member_taken_off_the_ring_stays_the_last_choice() {
    let (manager, _) = cluster(5, 3);
    now(manager.remove_node(&"node-5".into())).expect("it is there");
    let nodes = manager.get_nodes_for_key("alice", 5);
    assert_eq!(nodes.len(), 5);
}

#[test]
fn a_wiped_node_keeps_its_place_and_an_older_map_changes_nothing() {
    let (manager, old) = cluster(3, 3);
    let before = manager.get_nodes_for_key("alice", 3);
    let mut new = old.clone();
    new.apply(MetaCommand::ReplaceNode {
        node_id: "node-2".into(),
        address: "h:1".into(),
        incarnation: Incarnation([99; 16]),
    });
    manager.adopt(&new).expect("there is room");
    manager.adopt(&old).expect("there is room");
    assert_eq!(manager.read().decided.as_ref().map(|decided| decided.epoch), Some(2));
    assert_eq!(manager.get_nodes_for_key("alice", 3), before);
}

#[test]
fn variance_counts_every_replica() {
    let everything = now(cluster(3, 3).0.get_distribution_stats());
    assert_eq!(everything.loads.values().copied().collect::<Vec<_>>(), [64, 64, 64]);
    assert_eq!(everything.variance(), 0.0);

    let some = DistributionStats { loads: [("a".into(), 1), ("b".into(), 4), ("c".into(), 4)].into() };
    assert_eq!(some.variance(), 2.0);
    assert_eq!(some.most_loaded_node(), Some("b".into()));
    assert_eq!(some.least_loaded_node(), Some("a".into()));

    let nobody = now(manager(0).get_distribution_stats());
    assert_eq!((nobody.variance(), nobody.most_loaded_node(), nobody.least_loaded_node()), (0.0, None, None));
}

#[test]
fn errors_of_the_ring_reach_the_caller() {
    let manager = manager(0);
    assert_eq!(now(manager.rebalance()), Err(PlacementError::NoNodes));
    assert_eq!(now(manager.add_node("a".into(), 0)), Err(RingError::VirtualNodes(0).into()));
    assert_eq!(now(manager.remove_node(&"a".into())), Err(RingError::NotThere("a".into()).into()));
}

#[test]
fn clones_share_one_view() {
    let one = manager(1);
    let other = one.clone();
    now(other.add_node("node-2".into(), 100)).expect("there is room");
    assert_eq!(one.get_nodes_for_key("alice", 3).len(), 2);
}

#[test]
fn key_ranges_are_half_open() {
    let range = KeyRange::new("b", "d");
    for (key, inside) in [("a", false), ("b", true), ("c", true), ("czz", true), ("d", false), ("", false)] {
        assert_eq!(range.contains(key), inside, "{key}");
    }
    assert!(KeyRange::new("b", "b").is_empty() && KeyRange::new("c", "b").is_empty() && !range.is_empty());
    let (low, high) = range.split("c").expect("c is inside");
    assert_eq!((low, high), (KeyRange::new("b", "c"), KeyRange::new("c", "d")));
    for outside in ["a", "b", "d", "e"] {
        assert_eq!(range.split(outside), None, "{outside}");
    }
}
