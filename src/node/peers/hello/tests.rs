use super::*;

fn identity(dir: &tempfile::TempDir, name: &str) -> Identity {
    Identity::open(&dir.path().join(name), &NodeId::from(name)).expect("begins")
}

fn hello_of(identity: &Identity) -> LocalHello {
    let addresses = vec!["127.0.0.1:1".into(), "127.0.0.1:2".into()];
    LocalHello::new(identity, "127.0.0.1:1".into(), addresses, 8, 3)
}

fn found(identity: &mut Identity) {
    let member = GenesisMember {
        node_id: identity.node_id().clone(),
        address: "127.0.0.1:1".into(),
        incarnation: identity.incarnation(),
    };
    identity
        .found(Genesis { members: vec![member], partition_count: 4, replication_factor: 1 })
        .expect("founds");
}

#[test]
fn an_introduction_is_understood_before_and_after_bootstrap() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut identity = identity(&dir, "n1");
    let local = hello_of(&identity);
    let before = PeerHello::parse(local.current()).expect("is understood");
    assert_eq!(before.node_id, NodeId::from("n1"));
    assert_eq!((before.partition_count, before.replication_factor), (8, 3));
    assert_eq!(before.addresses.len(), 2);
    assert_eq!(before.cluster, None);

    found(&mut identity);
    local.update(&identity);
    let membership = identity.membership().expect("a cluster");
    let cluster = PeerHello::parse(local.current()).expect("is understood").cluster.expect("a cluster");
    assert_eq!((cluster.cluster_id, cluster.peer), (membership.cluster_id, membership.peer));
    assert_eq!(cluster.genesis, membership.genesis);
}

#[test]
fn a_malformed_introduction_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut identity = identity(&dir, "n1");
    found(&mut identity);
    let good = hello_of(&identity).current();
    type Change = fn(&mut v1::Hello);
    let cases: [(Change, HelloError); 7] = [
        (|h| h.protocol_version = 2, HelloError::Version { theirs: 2 }),
        (|h| h.node_id = String::new(), HelloError::Malformed("node id")),
        (|h| h.incarnation = Bytes::from_static(b"short"), HelloError::Malformed("incarnation")),
        (|h| h.cluster_id = "x".into(), HelloError::Malformed("cluster id")),
        (|h| h.peer = 0, HelloError::Malformed("peer number")),
        (|h| h.genesis.clear(), HelloError::Malformed("first members")),
        (|h| h.genesis[0].node_id = "n2".into(), HelloError::Malformed("first members of another cluster")),
    ];
    for (change, error) in cases {
        let mut hello = good.clone();
        change(&mut hello);
        assert_eq!(PeerHello::parse(hello), Err(error));
    }
}

#[test]
fn only_who_is_registered_is_recognised() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut identity = identity(&dir, "n1");
    let local = hello_of(&identity);
    let unfounded = local.brief();
    found(&mut identity);
    local.update(&identity);
    let good = local.brief();
    let cluster_id = identity.membership().expect("a cluster").cluster_id;
    let record = PeerRecord {
        peer: PeerId(1),
        node_id: NodeId::from("n1"),
        address: "127.0.0.1:1".into(),
        incarnation: identity.incarnation(),
    };
    let known = |peer| match peer {
        PeerId(1) => Known::Member(&record),
        PeerId(2) => Known::Replaced(record.incarnation),
        PeerId(3) => Known::Replaced(Incarnation([7; 16])),
        _ => Known::Nothing,
    };
    let refused = |hello: &v1::Hello| recognise(hello, cluster_id, known).map_err(|r| r.code);
    assert_eq!(refused(&good), Ok(&record));
    assert_eq!(refused(&unfounded), Err(ErrorCode::Unavailable));
    type Change = fn(&mut v1::Hello);
    let cases: [(Change, ErrorCode); 7] = [
        (|h| h.protocol_version = 9, ErrorCode::ProtocolVersion),
        (|h| h.cluster_id = ClusterId([1; 16]).to_string(), ErrorCode::PeerOfOtherCluster),
        (|h| h.peer = 2, ErrorCode::Superseded),
        (|h| h.peer = 3, ErrorCode::NodeIdMismatch),
        (|h| h.peer = 4, ErrorCode::Unavailable),
        (|h| h.node_id = "n2".into(), ErrorCode::NodeIdMismatch),
        (|h| h.incarnation = Bytes::from_static(&[0; 16]), ErrorCode::NodeIdMismatch),
    ];
    for (change, code) in cases {
        let mut hello = good.clone();
        change(&mut hello);
        assert_eq!(refused(&hello), Err(code));
    }
}

#[test]
fn a_refusal_says_what_where_and_what_next() {
    let status = HelloRefusal::new(ErrorCode::ProtocolVersion, "node n1 at a:1 is refused: too old").status();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.metadata().get(ERROR_CODE_METADATA).map(|code| code.as_bytes()),
        Some(&b"KDB-0030"[..])
    );
    assert!(status.message().starts_with("node n1 at a:1 is refused: too old; next: "), "{status}");
}
