use std::fs;

use super::*;

fn node(name: &str) -> NodeId {
    NodeId::from(name)
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn genesis_with(identity: &Identity) -> Genesis {
    let other = GenesisMember {
        node_id: node("other"),
        address: "127.0.0.1:2".into(),
        incarnation: Incarnation([7; 16]),
    };
    let own = GenesisMember {
        node_id: identity.node_id().clone(),
        address: "127.0.0.1:1".into(),
        incarnation: identity.incarnation(),
    };
    let mut members = vec![other, own];
    members.sort_unstable();
    Genesis { members, partition_count: 8, replication_factor: 3 }
}

#[test]
fn an_identity_is_drawn_once() {
    let dir = temporary();
    let path = dir.path().join("new/node-1");
    let first = Identity::open(&path, &node("n1")).expect("begins");
    let again = Identity::open(&path, &node("n1")).expect("opens");
    assert_eq!(first.incarnation(), again.incarnation());
    assert_eq!(again.membership(), None);
    let elsewhere = Identity::open(&dir.path().join("n2"), &node("n1")).expect("begins");
    assert_ne!(first.incarnation(), elsewhere.incarnation());
}

#[test]
fn a_founder_remembers_its_cluster() {
    let dir = temporary();
    let mut identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let genesis = genesis_with(&identity);
    let membership = identity.found(genesis.clone()).expect("founds").clone();
    assert_eq!(membership.genesis, genesis);
    let again = Identity::open(dir.path(), &node("n1")).expect("opens");
    assert_eq!(again.membership(), Some(&membership));
    let state = membership.first_state().expect("a state");
    assert_eq!(state.cluster_id, membership.cluster_id);
    let (peer, member) = state.member_by_incarnation(identity.incarnation()).expect("a member");
    assert_eq!((peer, &member.node), (membership.peer, &node("n1")));
}

#[test]
fn a_successor_remembers_the_state_it_was_let_in_with() {
    let dir = temporary();
    let mut identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let genesis = genesis_with(&identity);
    let state = genesis.state().expect("a state");
    identity.rejoin(genesis, PeerId(9), state.encode()).expect("rejoins");
    let again = Identity::open(dir.path(), &node("n1")).expect("opens");
    let membership = again.membership().expect("a cluster");
    assert_eq!(membership.peer, PeerId(9));
    assert_eq!(membership.first_state().expect("a state"), state);
}

#[test]
fn a_directory_enters_one_cluster_for_ever() {
    let dir = temporary();
    let mut identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let genesis = genesis_with(&identity);
    let first = identity.found(genesis.clone()).expect("founds").clone();
    assert_eq!(identity.found(genesis.clone()).expect("changes nothing"), &first);
    let mut other = genesis;
    let stranger = other.members.iter_mut().find(|member| member.node_id == node("other")).expect("is there");
    stranger.incarnation = Incarnation([8; 16]);
    let error = identity.found(other).expect_err("another cluster");
    assert!(matches!(error, IdentityError::OtherCluster { .. }), "{error}");
    assert_eq!(identity.membership(), Some(&first));
}

#[test]
fn a_cluster_without_this_directory_is_not_entered() {
    let dir = temporary();
    let mut identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let mut genesis = genesis_with(&identity);
    genesis.members.retain(|member| member.node_id != node("n1"));
    assert!(identity.found(genesis).is_err());
    assert_eq!(Identity::open(dir.path(), &node("n1")).expect("opens").membership(), None);
}

fn code(error: IdentityError) -> ErrorCode {
    ClusterError::from(error).code()
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let dir = temporary();
    Identity::open(dir.path(), &node("n1")).expect("begins");
    let error = Identity::open(dir.path(), &node("n2")).expect_err("another node's");
    assert!(error.to_string().contains("belongs to node n1, not to n2"), "{error}");
    assert_eq!(code(error), ErrorCode::DataDirOfOtherNode);
}

#[test]
fn another_format_is_named_before_anything_else_is_read() {
    let dir = temporary();
    fs::write(dir.path().join(FILE), br#"{"format": 2, "anything": []}"#).expect("writes");
    let error = Identity::open(dir.path(), &node("n1")).expect_err("another format");
    assert!(matches!(error, IdentityError::Version { found: 2, .. }), "{error}");
    assert_eq!(code(error), ErrorCode::DataDirVersion);
}

#[test]
fn a_changed_byte_is_noticed_or_means_nothing() {
    let dir = temporary();
    let mut identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let genesis = genesis_with(&identity);
    identity.found(genesis).expect("founds");
    let path = dir.path().join(FILE);
    let bytes = fs::read(&path).expect("reads");
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        fs::write(&path, &changed).expect("writes");
        if let Ok(read) = Identity::open(dir.path(), &node("n1")) {
            assert_eq!(read.incarnation(), identity.incarnation(), "byte {place}");
            assert_eq!(read.membership(), identity.membership(), "byte {place}");
        }
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
    let error = Identity::open(dir.path(), &node("n1")).expect_err("half a file");
    assert_eq!(code(error), ErrorCode::DataDirDamaged);
}

#[test]
fn what_a_crash_left_of_a_write_is_ignored() {
    let dir = temporary();
    fs::write(dir.path().join(TEMPORARY), b"{\"form").expect("writes");
    let identity = Identity::open(dir.path(), &node("n1")).expect("begins");
    let again = Identity::open(dir.path(), &node("n1")).expect("opens");
    assert_eq!(identity.incarnation(), again.incarnation());
}

#[test]
fn a_log_without_an_identity_is_nobodys() {
    let dir = temporary();
    fs::create_dir(dir.path().join(LOG)).expect("creates");
    let error = Identity::open(dir.path(), &node("n1")).expect_err("nobody's");
    assert_eq!(code(error), ErrorCode::DataDirDamaged);
    assert!(!dir.path().join(FILE).exists());
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    let dir = temporary();
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("writes");
    let error = Identity::open(&file.join("below"), &node("n1")).expect_err("below a file");
    assert_eq!(code(error), ErrorCode::DataDirUnwritable);
}
