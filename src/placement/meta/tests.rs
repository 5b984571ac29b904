use alloc::{collections::BTreeSet, format, vec};

use proptest::prelude::*;

use super::*;
use crate::placement::genesis::tests::members;

fn cluster(nodes: u8) -> MetaState {
    MetaState::genesis(&members(nodes), 8, 3).expect("a plain cluster")
}

fn replace(node: u8, incarnation: u8) -> MetaCommand {
    MetaCommand::ReplaceNode {
        node_id: NodeId(format!("node-{node}")),
        address: format!("127.0.0.1:90{node:02}"),
        incarnation: Incarnation([incarnation; 16]),
    }
}

#[test]
fn a_wiped_node_becomes_a_new_peer_with_new_replicas_in_the_old_places() {
    let before = cluster(3);
    let mut after = before.clone();
    assert_eq!(after.apply(replace(2, 20)), MetaOutcome::Member(PeerId(4)));
    assert_eq!(after.map.epoch, before.map.epoch + 1);
    assert_eq!(after.members[&PeerId(2)].status, MemberStatus::Replaced);
    assert_eq!(after.active_peer(&"node-2".into()), Some(PeerId(4)));
    assert_eq!(after.members[&PeerId(4)].address, "127.0.0.1:9002");
    for (old, new) in before.map.groups.iter().zip(&after.map.groups) {
        let gone =
            old.replicas.iter().find(|place| place.peer == PeerId(2)).expect("three nodes hold everything");
        assert_eq!(new.retired, [*gone]);
        assert_eq!(new.peer_of(gone.replica), Some(PeerId(2)), "a retired replica can still be found");
        for (was, is) in old.replicas.iter().zip(&new.replicas) {
            if was.peer == PeerId(2) {
                assert_eq!(is.peer, PeerId(4));
                assert!(is.replica.0 >= before.next_replica, "numbers are never given out twice");
            } else {
                assert_eq!(was, is);
            }
        }
        let desired = after.desired(old.group).expect("the group exists");
        assert_eq!(desired.check(), Ok(()));
        assert!(!desired.is_voter(gone.replica));
    }
    assert_eq!(after.check(), Ok(()));
}

#[test]
fn replacing_again_with_the_same_directory_gives_the_first_answer() {
    let mut state = cluster(3);
    let first = state.apply(replace(2, 20));
    let after_first = state.clone();
    assert_eq!(state.apply(replace(2, 20)), first);
    assert_eq!(state.apply(replace(1, 1)), MetaOutcome::Member(PeerId(1)), "nothing was wiped");
    assert_eq!(state, after_first);
}

#[test]
fn a_node_wiped_twice_leaves_both_predecessors_behind() {
    let mut state = cluster(3);
    state.apply(replace(2, 20));
    assert_eq!(state.apply(replace(2, 21)), MetaOutcome::Member(PeerId(5)));
    assert!(state.map.groups.iter().all(|group| group.retired.len() == 2 && group.replicas.len() == 3));
    assert_eq!(state.check(), Ok(()));
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut state = cluster(3);
    state.apply(replace(2, 20));
    let before = state.clone();
    let long = "x".repeat(ADDRESS_BYTES_MAX + 1);
    let address =
        |peer, address: &str| MetaCommand::UpdateAddress { peer: PeerId(peer), address: address.into() };
    let with_address = |address: &str| MetaCommand::ReplaceNode {
        node_id: "node-1".into(),
        address: address.into(),
        incarnation: Incarnation([77; 16]),
    };
    let cases = vec![
        (replace(9, 9), MetaRefusal::UnknownNode),
        (replace(2, 2), MetaRefusal::Superseded),
        (replace(1, 20), MetaRefusal::OtherNodesDirectory),
        (replace(1, 2), MetaRefusal::OtherNodesDirectory),
        (with_address(""), MetaRefusal::InvalidAddress),
        (with_address(&long), MetaRefusal::InvalidAddress),
        (address(2, "a:1"), MetaRefusal::UnknownPeer),
        (address(99, "a:1"), MetaRefusal::UnknownPeer),
        (address(1, ""), MetaRefusal::InvalidAddress),
        (MetaCommand::GroupChanged { group: GroupId(9), members: vec![] }, MetaRefusal::UnknownGroup),
        (MetaCommand::GroupChanged { group: GroupId(u32::MAX), members: vec![] }, MetaRefusal::UnknownGroup),
    ];
    for (command, refusal) in cases {
        assert_eq!(state.apply(command.clone()), MetaOutcome::Refused(refusal), "{command:?}");
        assert_eq!(state, before, "{command:?}");
    }
}

#[test]
fn the_number_of_remembered_directories_is_bounded() {
    let mut state = MetaState::genesis(&members(1), 1, 1).expect("a plain cluster");
    for number in 2..=MEMBERS_REMEMBERED_MAX as u64 {
        let member = Member {
            node: "node-1".into(),
            address: "a:1".into(),
            incarnation: Incarnation((u128::from(number) << 64).to_be_bytes()),
            status: MemberStatus::Replaced,
        };
        state.members.insert(PeerId(number), member);
    }
    state.next_peer = MEMBERS_REMEMBERED_MAX as u64 + 1;
    assert_eq!(state.apply(replace(1, 99)), MetaOutcome::Refused(MetaRefusal::TooManyMembers));
}

#[test]
fn a_new_address_is_a_new_epoch_and_the_same_one_is_not() {
    let mut state = cluster(3);
    let command = MetaCommand::UpdateAddress { peer: PeerId(1), address: "10.0.0.1:8080".into() };
    assert_eq!(state.apply(command.clone()), MetaOutcome::Done);
    assert_eq!(state.apply(command), MetaOutcome::Done);
    assert_eq!(state.map.epoch, 2);
    assert_eq!(state.members[&PeerId(1)].address, "10.0.0.1:8080");
}

#[test]
fn a_group_that_let_go_of_a_replica_is_not_reminded_of_it() {
    let mut state = cluster(3);
    state.apply(replace(2, 20));
    let group = GroupId(1);
    let retired = state.map.group(group).expect("it exists").retired[0].replica;
    let mut members = state.desired(group).expect("it exists").voters;
    members.push(retired);
    let to_say = |state: &MetaState, members: &[ReplicaId]| {
        state.map.group(group).expect("it exists").remembers_more_than(members)
    };
    assert!(!to_say(&state, &members), "it is still a member");
    state.apply(MetaCommand::GroupChanged { group, members: members.clone() });
    assert_eq!(state.map.group(group).expect("it exists").retired.len(), 1, "it is still a member");
    members.pop();
    assert!(to_say(&state, &members));
    state.apply(MetaCommand::GroupChanged { group, members: members.clone() });
    assert!(!to_say(&state, &members));
    assert!(state.map.group(group).expect("it exists").retired.is_empty());
    assert_eq!(state.map.group(GroupId(2)).expect("it exists").retired.len(), 1, "other groups keep theirs");
    assert_eq!(state.map.epoch, 2, "routers need not know");
}

pub(in crate::placement) fn commands() -> impl Strategy<Value = MetaCommand> {
    prop_oneof![
        (1_u8..7, any::<u8>()).prop_map(|(node, incarnation)| replace(node, incarnation)),
        (0_u64..12, "[a-z]{0,3}")
            .prop_map(|(peer, address)| MetaCommand::UpdateAddress { peer: PeerId(peer), address }),
        (0_u32..10, prop::collection::vec(0_u64..60, 0..5)).prop_map(|(group, members)| {
            MetaCommand::GroupChanged {
                group: GroupId(group),
                members: members.into_iter().map(ReplicaId).collect(),
            }
        }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_applied_the_state_keeps_its_promises(list in prop::collection::vec(commands(), 0..40)) {
        let mut state = cluster(5);
        let mut ever: BTreeSet<(GroupId, ReplicaId, PeerId)> = BTreeSet::new();
        for command in list {
            let before = state.clone();
            let outcome = state.apply(command.clone());
            prop_assert_eq!(state.check(), Ok(()));
            prop_assert!(state.map.epoch >= before.map.epoch);
            if matches!(outcome, MetaOutcome::Refused(_)) {
                prop_assert_eq!(&state, &before);
            }
            let again = state.clone();
            prop_assert_eq!(state.apply(command), outcome, "a command repeated at once gives the same answer");
            prop_assert_eq!(&state, &again);
            for group in &state.map.groups {
                ever.extend(group.replicas.iter().map(|place| (group.group, place.replica, place.peer)));
            }
        }
        let numbers: BTreeSet<ReplicaId> = ever.iter().map(|entry| entry.1).collect();
        prop_assert_eq!(numbers.len(), ever.len(), "a replica id means one replica for ever");
    }
}
