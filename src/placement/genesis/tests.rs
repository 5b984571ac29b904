use alloc::{format, string::ToString as _, vec};

use proptest::prelude::*;

use super::*;

pub(in crate::placement) fn member(number: u8) -> GenesisMember {
    GenesisMember {
        node_id: NodeId(format!("node-{number}")),
        address: format!("127.0.0.1:80{number:02}"),
        incarnation: Incarnation([number; 16]),
    }
}

pub(in crate::placement) fn members(count: u8) -> Vec<GenesisMember> {
    (1..=count).map(member).collect()
}

#[test]
fn golden_genesis_of_three_nodes_never_changes() {
    let state = MetaState::genesis(&members(3), 4, 3).expect("a plain cluster");
    assert_eq!(state.cluster_id.to_string(), "4add0b49d62f470c95cb22c9596bf4be");
    let places: Vec<_> = state
        .map
        .groups
        .iter()
        .map(|group| {
            let places: Vec<_> = group.replicas.iter().map(|p| format!("{}@{}", p.replica, p.peer)).collect();
            format!("{}: {}", group.group, places.join(" "))
        })
        .collect();
    assert_eq!(
        places,
        [
            "g0: r1@n1 r2@n3 r3@n2",
            "g1: r4@n1 r5@n2 r6@n3",
            "g2: r7@n2 r8@n1 r9@n3",
            "g3: r10@n2 r11@n1 r12@n3",
            "g4: r13@n1 r14@n3 r15@n2",
        ]
    );
    assert_eq!(format!("{:032x}", state.digest()), "e092b1f90120a85a45815a3d8009b82e");
}

#[test]
fn every_group_has_the_replicas_it_should() {
    for (nodes, factor, expected) in [(1, 3, 1), (2, 3, 2), (3, 3, 3), (5, 3, 3), (9, 5, 5)] {
        let state = MetaState::genesis(&members(nodes), 64, factor).expect("a plain cluster");
        assert_eq!(state.check(), Ok(()));
        assert_eq!(state.map.epoch, 1);
        assert_eq!(state.map.groups.len(), 65);
        assert_eq!(state.map.groups[0].replicas.len(), usize::from(nodes).min(META_VOTERS_MAX));
        assert!(state.map.groups[1..].iter().all(|group| group.replicas.len() == expected));
        let minted: Vec<u64> =
            state.map.groups.iter().flat_map(|group| &group.replicas).map(|place| place.replica.0).collect();
        assert_eq!(minted, (1..state.next_replica).collect::<Vec<_>>(), "minted one by one");
        assert_eq!(state.next_peer, u64::from(nodes) + 1);
    }
}

#[test]
fn peers_are_numbered_in_order_of_the_names() {
    let state = MetaState::genesis(&[member(2), member(3), member(1)], 1, 3).expect("a plain cluster");
    let names: Vec<_> = state.active().map(|(peer, member)| (peer.0, member.node.to_string())).collect();
    assert_eq!(names, [(1, "node-1".into()), (2, "node-2".into()), (3, "node-3".into())]);
}

#[test]
fn another_directory_or_name_makes_another_cluster() {
    let id =
        |members: &[GenesisMember]| MetaState::genesis(members, 4, 3).expect("a plain cluster").cluster_id;
    let (mut other_directory, mut other_name, mut other_address) = (members(3), members(3), members(3));
    other_directory[0].incarnation.0[15] ^= 1;
    other_name[0].node_id = "node-0".into();
    other_address[0].address = "10.0.0.1:1".into();
    assert_ne!(id(&members(3)), id(&other_directory));
    assert_ne!(id(&members(3)), id(&other_name));
    assert_eq!(id(&members(3)), id(&other_address), "an address is no identity");
}

#[test]
fn what_cannot_be_a_cluster_is_refused_with_the_reason() {
    let changed = |change: fn(&mut GenesisMember)| {
        let mut list = members(3);
        change(&mut list[1]);
        list
    };
    let many = (0..=NODES_MAX)
        .map(|n| GenesisMember {
            node_id: NodeId(format!("n{n}")),
            address: "a:1".into(),
            incarnation: Incarnation((n as u128).to_be_bytes()),
        })
        .collect();
    let cases: Vec<(Vec<GenesisMember>, u32, u32, GenesisError)> = vec![
        (vec![], 4, 3, GenesisError::NodeCount(0)),
        (many, 4, 3, GenesisError::NodeCount(NODES_MAX + 1)),
        (members(3), 0, 3, GenesisError::PartitionCount(0)),
        (members(3), PARTITIONS_MAX + 1, 3, GenesisError::PartitionCount(PARTITIONS_MAX + 1)),
        (members(3), 4, 0, GenesisError::ReplicationFactor(0)),
        (members(3), 4, 99, GenesisError::ReplicationFactor(99)),
        (changed(|m| m.node_id = "".into()), 4, 3, GenesisError::InvalidName("".into())),
        (changed(|m| m.node_id = "node-1".into()), 4, 3, GenesisError::SameName("node-1".into())),
        (
            changed(|m| m.incarnation = Incarnation([1; 16])),
            4,
            3,
            GenesisError::SameIncarnation(Incarnation([1; 16])),
        ),
        (changed(|m| m.address.clear()), 4, 3, GenesisError::InvalidAddress("node-2".into())),
    ];
    for (list, partitions, factor, error) in cases {
        assert!(!error.to_string().is_empty());
        assert_eq!(MetaState::genesis(&list, partitions, factor), Err(error));
    }
}

proptest! {
    #[test]
    fn genesis_depends_on_the_set_alone(list in Just(members(6)).prop_shuffle(), factor in 1_u32..=7) {
        let sorted = MetaState::genesis(&members(6), 16, factor).expect("a plain cluster");
        prop_assert_eq!(MetaState::genesis(&list, 16, factor).expect("a plain cluster"), sorted);
    }
}
