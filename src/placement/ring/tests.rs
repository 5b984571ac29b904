use alloc::{format, string::ToString, vec};

use proptest::prelude::*;

use super::*;

fn ring_of(count: usize) -> HashRing {
    HashRing::of((1..=count).map(|n| NodeId(format!("node-{n}")))).expect("a small ring")
}

fn names(nodes: &[&NodeId]) -> Vec<alloc::string::String> {
    nodes.iter().map(ToString::to_string).collect()
}

#[test]
fn golden_partitions_of_keys_never_change() {
    let cases: [(&[u8], u32, u32); 6] = [
        (b"", 64, 31),
        (b"a", 64, 18),
        (b"alice", 64, 54),
        (&[0; 36], 64, 62),
        (&[0xff; 36], 64, 2),
        (b"alice", 4096, 2358),
    ];
    let found: Vec<u32> = cases.iter().map(|(key, count, _)| partition_of(key, *count).0).collect();
    let pinned: Vec<u32> = cases.iter().map(|case| case.2).collect();
    assert_eq!(found, pinned);
}

#[test]
fn golden_points_of_the_ring_never_change() {
    let found: Vec<_> = points_of(&"node-1".into(), 3).map(|point| format!("{:016x}", point.place)).collect();
    assert_eq!(found, ["fcc4f84da3de76a4", "d6b0f26fac7b272c", "6030c9d9e7885112"]);
}

#[test]
fn golden_nodes_of_keys_never_change() {
    let ring = ring_of(5);
    let found: Vec<_> =
        ["", "a", "alice", "bob"].map(|key| names(&ring.nodes_for_key(key.as_bytes(), 3)).join(" ")).into();
    assert_eq!(
        found,
        ["node-1 node-4 node-5", "node-1 node-5 node-4", "node-5 node-3 node-4", "node-3 node-5 node-1"]
    );
    let found: Vec<_> = [0, 1, 63]
        .map(|partition| names(&ring.nodes_for_partition(PartitionId(partition), 3)).join(" "))
        .into();
    assert_eq!(found, ["node-1 node-4 node-2", "node-2 node-5 node-1", "node-3 node-5 node-4"]);
}

#[test]
fn a_hundred_virtual_nodes_spread_keys_evenly() {
    let ring = ring_of(5);
    let mut loads: BTreeMap<&NodeId, usize> = BTreeMap::new();
    for number in 0_u32..20_000 {
        *loads.entry(ring.nodes_for_key(&number.to_be_bytes(), 1)[0]).or_default() += 1;
    }
    assert_eq!(loads.len(), 5);
    // 4,000 each on average; 100 points a node give a standard deviation of about a tenth.
    for (node, load) in loads {
        assert!((2_800..=5_200).contains(&load), "{node} holds {load} of 20,000 keys");
    }
}

#[test]
fn partitions_receive_keys_evenly() {
    let mut loads = vec![0_usize; 64];
    for number in 0_u64..64_000 {
        loads[partition_of(&number.to_be_bytes(), 64).0 as usize] += 1;
    }
    // A binomial with mean 1,000 has a standard deviation of 31; five of them either way.
    assert!(loads.iter().all(|load| (840..=1_160).contains(load)), "{loads:?}");
}

#[test]
fn weight_attracts_keys() {
    let mut ring = HashRing::default();
    ring.add("light".into(), 100).expect("there is room");
    ring.add("heavy".into(), 300).expect("there is room");
    let heavy = |number: &u32| ring.nodes_for_key(&number.to_be_bytes(), 1)[0].0 == "heavy";
    let share = (0_u32..10_000).filter(heavy).count();
    assert!((6_500..=8_500).contains(&share), "{share} of 10,000");
}

#[test]
fn what_cannot_stand_on_the_ring_is_refused_and_changes_nothing() {
    let mut ring = ring_of(2);
    let before = ring.clone();
    let cases = [
        ("node-1", 7, RingError::AlreadyThere("node-1".into())),
        ("", 100, RingError::InvalidName("".into())),
        ("node-3", 0, RingError::VirtualNodes(0)),
        ("node-3", VIRTUAL_NODES_MAX + 1, RingError::VirtualNodes(VIRTUAL_NODES_MAX + 1)),
    ];
    for (name, weight, error) in cases {
        assert_eq!(ring.add(name.into(), weight), Err(error));
    }
    assert_eq!(ring.remove(&"node-3".into()), Err(RingError::NotThere("node-3".into())));
    assert_eq!(ring.add("node-1".into(), VIRTUAL_NODES), Ok(()), "adding again is no error");
    assert_eq!(ring, before);
}

#[test]
fn a_ring_has_a_bounded_number_of_nodes() {
    let mut ring = HashRing::default();
    for number in 0..NODES_MAX {
        ring.add(NodeId(format!("n{number}")), 1).expect("there is room");
    }
    assert_eq!(ring.add("one-more".into(), 1), Err(RingError::Full));
}

/// The ring as one would explain it: sort all virtual nodes by their distance from the key.
fn naive_nodes_for_key(ring: &HashRing, key: &[u8], count: usize) -> Vec<NodeId> {
    let start = xxh3_64_with_seed(key, KEY_SEED);
    let mut points: Vec<_> = ring.nodes().flat_map(|(node, weight)| points_of(node, weight)).collect();
    points.sort_by_key(|point| (point.place.wrapping_sub(start), point.node.clone()));
    let mut nodes = Vec::new();
    for point in points {
        if !nodes.contains(&point.node) {
            nodes.push(point.node);
        }
    }
    nodes.truncate(count);
    nodes
}

proptest! {
    #[test]
    fn every_key_gets_exactly_as_many_distinct_nodes_as_there_are(
        weights in prop::collection::vec(1_usize..20, 0..8),
        key in prop::collection::vec(any::<u8>(), 0..40),
        count in 0_usize..10,
    ) {
        let mut ring = HashRing::default();
        for (number, weight) in weights.iter().enumerate() {
            ring.add(NodeId(format!("n{number}")), *weight).expect("there is room");
        }
        let nodes: Vec<NodeId> = ring.nodes_for_key(&key, count).into_iter().cloned().collect();
        prop_assert_eq!(nodes.len(), count.min(weights.len()));
        prop_assert_eq!(nodes, naive_nodes_for_key(&ring, &key, count));
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_keys(key in any::<u64>(), leaver in 1_usize..=5) {
        let before = ring_of(5);
        let leaver = NodeId(format!("node-{leaver}"));
        let mut after = before.clone();
        after.remove(&leaver).expect("it is there");
        let owner = before.nodes_for_key(&key.to_be_bytes(), 1)[0].clone();
        if owner != leaver {
            prop_assert_eq!(after.nodes_for_key(&key.to_be_bytes(), 1)[0], &owner);
        }
        after.add(leaver, VIRTUAL_NODES).expect("there is room");
        prop_assert_eq!(after, before);
    }
}
