//! Blocks: golden bytes, and agreement with an IPLD library of others.

use ipld_core::ipld::Ipld;

use super::*;
use crate::graph::{
    dag_cbor::{Reader, Writer},
    value::canonical_properties,
};

fn encode(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.value(value).expect("a value that can be stored");
    writer.finish()
}

fn decode(bytes: &[u8]) -> Result<Value, DagCborFault> {
    let mut reader = Reader::new(bytes);
    let value = reader.value().map_err(|error| error.fault)?;
    reader.end().map_err(|error| error.fault)?;
    Ok(value)
}

fn ipld(value: &Value) -> Ipld {
    match value {
        Value::Null => Ipld::Null,
        Value::Bool(truth) => Ipld::Bool(*truth),
        Value::Int(number) => Ipld::Integer(i128::from(*number)),
        Value::Float(number) => Ipld::Float(*number),
        Value::String(text) => Ipld::String(text.clone()),
        Value::Bytes(bytes) => Ipld::Bytes(bytes.clone()),
        Value::Link(cid) => Ipld::Link(::cid::Cid::try_from(cid.to_bytes().as_slice()).expect("a CID")),
        Value::Array(items) => Ipld::List(items.iter().map(ipld).collect()),
        Value::Map(entries) => {
            Ipld::Map(entries.iter().map(|(name, value)| (name.clone(), ipld(value))).collect())
        }
    }
}

proptest! {
    #[test]
    fn our_bytes_are_those_of_other_ipld_tools(value in any_value()) {
        let ours = encode(&value);
        prop_assert_eq!(&ours, &serde_ipld_dagcbor::to_vec(&ipld(&value)).expect("canonical"));
        prop_assert_eq!(serde_ipld_dagcbor::from_slice::<Ipld>(&ours).expect("readable"), ipld(&value));
        prop_assert_eq!(decode(&ours), Ok(value));
    }

    #[test]
    fn whatever_is_read_is_canonical(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(value) = decode(&bytes) {
            prop_assert_eq!(encode(&value), bytes);
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_another_block(
        value in any_value(), at in any::<prop::sample::Index>(), flip in 1_u8..,
    ) {
        let mut bytes = encode(&value);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = decode(&bytes) {
            prop_assert_eq!(encode(&other), bytes);
        }
    }
}

#[test]
fn what_is_not_canonical_is_refused() {
    let cases: [(&[u8], DagCborFault); 16] = [
        (&[], DagCborFault::Truncated),
        (&[0x01, 0x02], DagCborFault::Trailing),
        (&[0x18, 0x17], DagCborFault::NotShortest),
        (&[0x19, 0x00, 0xff], DagCborFault::NotShortest),
        (&[0x9f, 0xff], DagCborFault::NotShortest),
        (&[0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0], DagCborFault::IntegerRange),
        (&[0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0], DagCborFault::IntegerRange),
        (&[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], DagCborFault::Float),
        (&[0xfa, 0, 0, 0, 0], DagCborFault::Float),
        (&[0xf7], DagCborFault::Unsupported),
        (&[0x61, 0xff], DagCborFault::Text),
        // {"b":0,"a":0}: out of order. {"a":0,"a":0}: repeated. {"aa":0,"b":0}: longer first.
        (&[0xa2, 0x61, b'b', 0, 0x61, b'a', 0], DagCborFault::KeyOrder),
        (&[0xa2, 0x61, b'a', 0, 0x61, b'a', 0], DagCborFault::KeyOrder),
        (&[0xa2, 0x62, b'a', b'a', 0, 0x61, b'b', 0], DagCborFault::KeyOrder),
        (&[0xa1, 0x61, b'/', 0], DagCborFault::ReservedName),
        (&[0xd8, 0x2a, 0x42, 0x00, 0x01], DagCborFault::Link),
    ];
    for (bytes, fault) in cases {
        assert_eq!(decode(bytes), Err(fault), "{bytes:02x?}");
    }
    // Lengths that a remote chose allocate nothing.
    assert_eq!(decode(&[0x9b, 0, 0, 0xff, 0, 0, 0, 0, 0]), Err(DagCborFault::Truncated));
    assert_eq!(decode(&[0x81; 100_000]), Err(DagCborFault::TooDeep));
}

fn alice() -> NodeBlock {
    let properties = properties([
        ("name", Value::from("Alice")),
        ("age", Value::Int(30)),
        ("score", Value::Float(1.5)),
        ("tags", Value::Array(vec![Value::Null, Value::Bool(true), Value::Bytes(vec![0, 255])])),
    ]);
    NodeBlock { key: None, properties: canonical_properties(properties).expect("values that can be stored") }
}

/// Identities are for ever: these may never change.
#[test]
fn golden_identities() {
    let node = alice().encode().expect("canonical");
    let keyed = NodeBlock { key: Some("alice@1".to_string()), ..alice() }.encode().expect("canonical");
    let empty = NodeBlock::default().encode().expect("canonical");
    let edge = EdgeBlock {
        label: "knows".to_string(),
        source: Cid::of(&node),
        target: Cid::of(&keyed),
        source_generation: Generation(1),
        target_generation: Generation(2),
        properties: canonical_properties(properties([("since", Value::Int(-2020))])).expect("valid"),
    };
    let version = VersionBlock {
        identity: Cid::of(&node),
        previous: Cid::of(&node),
        generation: Generation::FIRST,
        deleted: true,
        properties: Properties::new(),
    };
    let (edge, version) = (edge.encode().expect("canonical"), version.encode().expect("canonical"));
    assert_eq!(hex::encode(&empty), "a26474797065646e6f64656a70726f70657274696573a0");
    let cids = [node, keyed, empty, edge, version].map(|block| Cid::of(&block).to_string());
    assert_eq!(
        cids,
        [
            "bafyr4ibkyl2iycnzayuxcgn5fhktp3qxbjoacnjohdbhdbjnfquu6xorgm",
            "bafyr4idxvfomr6hues7ap6rhhrgewvnou3zqtz5aiiqiq7yvt6uawxp2oi",
            "bafyr4id7k7temxgnbqmsqe3gaqxwkxj76zbch66cixnfvjtou7tigysleu",
            "bafyr4iaqxkfrhvbwlyzui5uqablo65d7mnwv53ktfssrs2ceelvaeb7x7u",
            "bafyr4iap5u66zbkpnjd4d3czgdgmgcf5liyj5c4n54yscdpkigrywv7e5a",
        ]
    );
}

#[test]
fn blocks_survive_their_bytes() {
    let node = alice();
    let bytes = node.encode().expect("canonical");
    assert_eq!(NodeBlock::check(&bytes), Ok(None));
    assert_eq!(Block::decode(&bytes), Ok(Block::Node(node)));
    let keyed = NodeBlock { key: Some("k".to_string()), ..alice() };
    let bytes = keyed.encode().expect("canonical");
    assert_eq!(NodeBlock::check(&bytes), Ok(Some("k")));
    assert_eq!(Block::decode(&bytes), Ok(Block::Node(keyed)));
    let cid = Cid::of(&bytes);
    let edge = EdgeBlock {
        label: "l".to_string(),
        source: cid,
        target: cid,
        source_generation: Generation(3),
        target_generation: Generation(4),
        properties: alice().properties,
    };
    assert_eq!(Block::decode(&edge.encode().expect("canonical")), Ok(Block::Edge(edge)));
    let version = VersionBlock {
        identity: cid,
        previous: Cid::of(b"p"),
        generation: Generation(9),
        deleted: false,
        properties: alice().properties,
    };
    let bytes = version.encode().expect("canonical");
    assert_eq!(Block::decode(&bytes), Ok(Block::Version(version)));
    assert!(NodeBlock::check(&bytes).is_err());
    assert!(Block::decode(&bytes[..bytes.len() - 1]).is_err());
    // An IPLD tool reads the block as what it is.
    let Ok(Ipld::Map(entries)) = serde_ipld_dagcbor::from_slice::<Ipld>(&bytes) else {
        panic!("a version block is a map");
    };
    assert_eq!(entries.get("type"), Some(&Ipld::String("version".to_string())));
    assert!(matches!(entries.get("identity"), Some(Ipld::Link(link)) if link.to_string() == cid.to_string()));
}
