use alloc::{format, string::ToString as _, vec};

use proptest::prelude::*;

use super::*;
use crate::{
    placement::{Incarnation, genesis::tests::members, meta::tests::commands},
    raft::{PeerId, ReplicaId},
};

fn cluster() -> MetaState {
    let mut state = MetaState::genesis(&members(3), 3, 3).expect("a plain cluster");
    state.apply(MetaCommand::ReplaceNode {
        node_id: "node-3".into(),
        address: "h:1".into(),
        incarnation: Incarnation([9; 16]),
    });
    state
}

#[test]
fn golden_bytes_of_a_command_never_change() {
    let command = MetaCommand::ReplaceNode {
        node_id: "n1".into(),
        address: "h:1".into(),
        incarnation: Incarnation([7; 16]),
    };
    assert_eq!(hex::encode(command.encode()), "0100026e3103683a3107070707070707070707070707070707");
    let command = MetaCommand::UpdateAddress { peer: PeerId(300), address: "h".into() };
    assert_eq!(hex::encode(command.encode()), "0101ac020168");
    let command = MetaCommand::GroupChanged { group: GroupId(1), members: vec![ReplicaId(5)] };
    assert_eq!(hex::encode(command.encode()), "0102010105");
}

#[test]
fn a_state_survives_its_bytes() {
    let state = cluster();
    assert_eq!(MetaState::decode(&state.encode()), Ok(state.clone()));
    assert_ne!(state.digest(), MetaState::genesis(&members(3), 3, 3).expect("a plain cluster").digest());
}

#[test]
fn bytes_that_stand_for_nothing_are_refused() {
    let bytes = cluster().encode();
    assert_eq!(MetaState::decode(&[]), Err(DecodeError::Version(None)));
    assert_eq!(MetaCommand::decode(&[]), Err(DecodeError::Version(None)));
    assert_eq!(MetaState::decode(&[2]), Err(DecodeError::Version(Some(2))));
    assert_eq!(MetaState::decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Malformed));
    assert_eq!(MetaState::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Malformed));
}

#[test]
fn a_state_that_breaks_a_promise_is_not_decoded() {
    type Break = fn(&mut MetaState);
    let broken: [(&str, Break); 12] = [
        ("no room for another peer number", |s| s.next_peer = u64::MAX),
        ("no room for another replica number", |s| s.next_replica = u64::MAX),
        ("no room for another epoch", |s| s.map.epoch = u64::MAX),
        ("no members", |s| s.members.clear()),
        ("unknown peer number", |s| s.next_peer = 2),
        ("unknown replica number", |s| s.next_replica = 1),
        ("one replica twice", |s| s.map.groups[1].replicas[1] = s.map.groups[1].replicas[0]),
        ("replica nowhere", |s| s.map.groups[1].replicas[1].peer = PeerId(0)),
        ("replica in a replaced member", |s| s.map.groups[1].replicas[1].peer = PeerId(3)),
        ("groups out of order", |s| s.map.groups.swap(1, 2)),
        ("group without replicas", |s| s.map.groups[1].replicas.clear()),
        ("wrong number of groups", |s| s.map.partition_count = 9),
    ];
    for (name, breaks) in broken {
        let mut state = cluster();
        breaks(&mut state);
        let decoded = MetaState::decode(&state.encode());
        assert!(matches!(decoded, Err(DecodeError::Contradiction(_))), "{name}: {decoded:?}");
    }
}

#[test]
fn a_command_about_more_members_than_a_group_may_have_is_refused() {
    let members = (0..=MEMBERS_MAX as u64).map(ReplicaId).collect();
    let bytes = MetaCommand::GroupChanged { group: GroupId(1), members }.encode();
    let error = MetaCommand::decode(&bytes).expect_err("one too many");
    assert!(format!("{error}").contains("more members"), "{}", error.to_string());
}

proptest! {
    #[test]
    fn commands_survive_their_bytes(command in commands()) {
        prop_assert_eq!(MetaCommand::decode(&command.encode()), Ok(command));
    }

    #[test]
    fn hostile_bytes_give_an_error_or_a_state_that_keeps_its_promises(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut versioned = vec![STATE_VERSION];
        versioned.extend(&bytes);
        let mut damaged = cluster().encode();
        for (place, mask) in flips {
            let place = place.index(damaged.len());
            damaged[place] ^= mask;
        }
        for bytes in [&bytes, &versioned, &damaged] {
            if let Ok(state) = MetaState::decode(bytes) {
                prop_assert_eq!(state.check(), Ok(()));
            }
            if let Ok(command) = MetaCommand::decode(bytes) {
                let mut state = cluster();
                state.apply(command);
                prop_assert_eq!(state.check(), Ok(()));
            }
        }
    }
}
