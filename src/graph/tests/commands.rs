//! The bytes of log entries.

use super::*;
use crate::limits::{CLIENT_ID_BYTES_MAX, LABEL_BYTES_MAX, OPERATION_BYTES_MAX};

fn any_operation() -> impl Strategy<Value = GraphOperation> {
    let properties = || proptest::collection::hash_map("[a-z]{1,6}", any_value(), 0..5);
    let cid = || any::<[u8; 32]>().prop_map(Cid::from_digest);
    let unset = || proptest::collection::vec("[A-Z]{1,6}", 0..4);
    let plain = |operation| (operation, OperationDetails::default());
    prop_oneof![
        (properties(), proptest::option::of("[a-z]{0,9}")).prop_map(|(properties, key)| {
            (Operation::CreateNode { properties }, OperationDetails { key, ..Default::default() })
        }),
        (cid(), properties(), unset()).prop_map(|(cid, properties, unset)| {
            (Operation::UpdateNode { cid, properties }, OperationDetails { unset, ..Default::default() })
        }),
        cid().prop_map(move |cid| plain(Operation::DeleteNode { cid })),
        (cid(), cid(), ".{1,9}", properties(), any::<u64>()).prop_map(
            |(source_cid, target_cid, label, properties, generation)| {
                let target_generation = Some(Generation(generation));
                let operation = Operation::CreateEdge { source_cid, target_cid, label, properties };
                (operation, OperationDetails { target_generation, ..Default::default() })
            }
        ),
        (cid(), properties(), unset(), any::<u64>()).prop_map(|(cid, properties, unset, generation)| {
            let target_generation = Some(Generation(generation));
            let details = OperationDetails { unset, target_generation, ..Default::default() };
            (Operation::UpdateEdge { cid, properties }, details)
        }),
        (cid(), any::<u64>()).prop_map(|(cid, generation)| {
            let target_generation = Some(Generation(generation));
            (Operation::DeleteEdge { cid }, OperationDetails { target_generation, ..Default::default() })
        }),
    ]
    .prop_map(|(operation, details)| GraphOperation::new(operation, details).expect("a valid operation"))
}

proptest! {
    #[test]
    fn commands_survive_the_log(
        operation in any_operation(), client in ".{0,20}", id: u64, acked: u64,
        cut in any::<prop::sample::Index>(),
    ) {
        let command = Command::execute(client, RequestId(id), RequestId(acked), operation).expect("short");
        let bytes = command.encode();
        prop_assert_eq!(Command::decode(&bytes), Ok(command));
        prop_assert!(Command::decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Command::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn hostile_bytes_are_refused_or_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(&command.encode()[..], &bytes[..]);
        }
    }

    #[test]
    fn a_changed_command_is_refused_or_canonical(
        operation in any_operation(), at in any::<prop::sample::Index>(), flip in 1_u8..,
    ) {
        let mut bytes = request("c", 1, operation).encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(&command.encode()[..], &bytes[..]);
        }
    }
}

#[test]
fn markers_survive_the_log() {
    let marker = Command::Verify(VerifyId(77));
    assert_eq!(Command::decode(&marker.encode()), Ok(marker));
    assert_eq!(Command::decode(&[2, 0]), Err(CommandError::Version(2)));
    assert_eq!(Command::decode(&[1, 9]), Err(CommandError::Kind(9)));
}

#[test]
fn operations_beyond_a_limit_are_refused() {
    let node = |properties, details| GraphOperation::new(Operation::CreateNode { properties }, details);
    let large = properties([("a", Value::Bytes(vec![0; OPERATION_BYTES_MAX]))]);
    assert!(matches!(node(large, OperationDetails::default()), Err(OperationError::TooLarge(_))));
    let nan = properties([("a", Value::Float(f64::NAN))]);
    assert_eq!(node(nan, OperationDetails::default()), Err(OperationError::Value(ValueError::NotFinite)));
    let key = OperationDetails { key: Some("k".repeat(LABEL_BYTES_MAX + 1)), ..Default::default() };
    assert_eq!(node(HashMap::new(), key), Err(OperationError::KeyTooLong(LABEL_BYTES_MAX + 1)));
    let unset = OperationDetails { unset: vec!["a".to_string()], ..Default::default() };
    assert!(matches!(node(HashMap::new(), unset.clone()), Err(OperationError::Detail(_))));

    let cid = node_cid("a");
    let both = Operation::UpdateNode { cid, properties: properties([("a", Value::Null)]) };
    assert_eq!(GraphOperation::new(both, unset), Err(OperationError::SetAndUnset("a".to_string())));
    let edge = |label: String, generation| {
        let operation =
            Operation::CreateEdge { source_cid: cid, target_cid: cid, label, properties: HashMap::new() };
        let details = OperationDetails { target_generation: generation, ..Default::default() };
        GraphOperation::new(operation, details)
    };
    let first = Some(Generation::FIRST);
    assert_eq!(edge(String::new(), first), Err(OperationError::LabelEmpty));
    assert_eq!(edge("l".repeat(1025), first), Err(OperationError::LabelTooLong(1025)));
    assert_eq!(edge("l".to_string(), None), Err(OperationError::TargetUnknown));
    assert!(edge("l".repeat(LABEL_BYTES_MAX), first).is_ok());
    for operation in
        [Operation::DeleteEdge { cid }, Operation::UpdateEdge { cid, properties: HashMap::new() }]
    {
        let made = GraphOperation::new(operation, OperationDetails::default());
        assert_eq!(made, Err(OperationError::TargetUnknown));
    }

    let client = "c".repeat(CLIENT_ID_BYTES_MAX + 1);
    let command = Command::execute(client, RequestId(1), RequestId(0), create_node("a"));
    assert_eq!(command, Err(OperationError::ClientIdTooLong(CLIENT_ID_BYTES_MAX + 1)));
}

#[test]
fn operations_are_routed_by_what_they_change() {
    let (a, b) = (node_cid("a"), node_cid("b"));
    assert_eq!(routing_key(&update_node(a, "x", 1)), RoutingKey::Identity(a));
    assert_eq!(routing_key(&create_edge(a, "l", b, 1)), RoutingKey::Identity(a));
    assert_eq!(routing_key(&delete_edge(b, 1)), RoutingKey::Edge(b));
}

/// Logs outlive releases: these bytes may never change.
#[test]
fn golden_commands() {
    let (a, b) = (Cid::from_digest([0xaa; 32]), Cid::from_digest([0xbb; 32]));
    let command = |operation| hex::encode(request("me", 258, operation).encode());
    let head = "0100020000006d6502010000000000000000000000000000";
    let (a_hex, b_hex) = ("aa".repeat(32), "bb".repeat(32));
    let node = GraphOperation::CreateNode { block: NodeBlock::default().encode().expect("canonical") };
    let block = "a26474797065646e6f64656a70726f70657274696573a0";
    assert_eq!(command(node), format!("{head}0117000000{block}"));
    let update = Operation::UpdateNode { cid: a, properties: properties([("x", Value::Int(1))]) };
    let details = OperationDetails { unset: vec!["z".into(), "y".into()], ..Default::default() };
    let update = GraphOperation::new(update, details).expect("valid");
    let expected = format!("{head}02{a_hex}04000000a161780102000000010000007901000000 7a").replace(' ', "");
    assert_eq!(command(update), expected);
    assert_eq!(command(GraphOperation::DeleteNode { cid: a }), format!("{head}03{a_hex}"));
    let edge = create_edge(a, "l", b, 3);
    let expected = format!("{head}04{a_hex}{b_hex}010000006c01000000a00300000000000000");
    assert_eq!(command(edge), expected);
    let update = update_edge(b, "x", 1, 3);
    let expected = format!("{head}05{b_hex}04000000a1617801000000000300000000000000");
    assert_eq!(command(update), expected);
    assert_eq!(command(delete_edge(b, 3)), format!("{head}06{b_hex}0300000000000000"));
    assert_eq!(hex::encode(Command::Verify(VerifyId(7)).encode()), "01010700000000000000");
}
