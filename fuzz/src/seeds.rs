//! Where the checked-in seeds come from.
//!
//! Candidates are valid encodings, pseudo-random bytes, and whatever a fuzzer has found; of these the
//! shortest are kept that reach something no shorter one does. `cargo run --example seeds` writes them, and
//! keeps those with a name: they failed once.

use kotoba_db_cluster::{
    fuzzing::{PeerFrame, PeerMessage, encode_frame},
    graph::{Block, Cid, EdgeBlock, Generation, NodeBlock, Value, VersionBlock},
    placement::{GenesisMember, Incarnation, MetaCommand, MetaState, NodeId},
    raft::{
        Append, Beat, Body, Configuration, ConfigurationEntry, EntryRange, GroupId, Index, Message, Position,
        ReplicaId, Round, Term, TermRuns,
    },
    storage::wal::EntryKind,
};
use kotoba_db_cluster_proto::v1;
use prost::Message as _;

use crate::{
    Situations, Target,
    wire_decode::{DECODERS, Decoder, sample_commands, sample_stream},
};

const RANDOM_INPUTS: u64 = 2000;
const RANDOM_BYTES_MAX: u64 = 900;

/// The seeds of a target, out of `found` and what can be made here.
#[must_use]
pub fn choose(target: &Target, found: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let made = if target.name == "wire_decode" { encodings() } else { Vec::new() };
    // Every valid encoding is a seed; of the others, those that reach more.
    let mut reached = Situations::default();
    made.iter().for_each(|input| reached.merge(&(target.run)(input)));
    let mut candidates: Vec<_> = found.into_iter().chain((0..RANDOM_INPUTS).map(random)).collect();
    candidates.retain(|input| input.len() <= target.bytes_max);
    candidates.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    let mut seeds = made;
    for input in candidates {
        if target.situations.iter().all(|situation| reached.contains(situation)) {
            break;
        }
        let news = (target.run)(&input);
        if news.iter().any(|situation| !reached.contains(situation)) {
            reached.merge(&news);
            seeds.push(input);
        }
    }
    seeds
}

/// Variety, not quality.
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let length = next() % RANDOM_BYTES_MAX;
    (0..length).map(|_| next() as u8).collect()
}

/// One of each format.
fn encodings() -> Vec<Vec<u8>> {
    let commands: Vec<_> =
        sample_commands().iter().map(|command| (Decoder::Command, command.encode().to_vec())).collect();
    let more = [
        (Decoder::Peer, encode_frame(&peer_frame()).encode_to_vec()),
        (Decoder::Client, client_request()),
        (Decoder::Configuration, members().encode()),
        (Decoder::Snapshot, sample_stream()),
        (Decoder::Meta, meta()),
        (Decoder::Cid, Cid::of(b"a block").to_string().into_bytes()),
    ];
    let blocks = blocks().into_iter().map(|block| (Decoder::Block, block));
    commands.into_iter().chain(more).chain(blocks).map(|(decoder, bytes)| behind(decoder, &bytes)).collect()
}

fn behind(decoder: Decoder, bytes: &[u8]) -> Vec<u8> {
    let place = DECODERS.iter().position(|&known| known == decoder).expect("every decoder is listed");
    let first = u8::try_from(place).expect("there are few decoders");
    [&[first], bytes].concat()
}

fn members() -> Configuration {
    let learners = vec![ReplicaId(4)];
    let voters = Configuration::of_voters((1..=3).map(ReplicaId)).expect("some voters");
    Configuration { learners, ..voters }
}

fn peer_frame() -> PeerFrame {
    let say = |body, entries| PeerMessage {
        group: GroupId(1),
        message: Message { from: ReplicaId(2), to: ReplicaId(1), term: Term(2), body },
        entries,
        chunk: None,
    };
    let mut runs = TermRuns::default();
    assert!(runs.push(Position::new(Index(2), Term(1))) && runs.push(Position::new(Index(3), Term(2))));
    let entry = ConfigurationEntry { index: Index(3), configuration: members() };
    let append = Append {
        prev: Position::new(Index(1), Term(1)),
        entries: EntryRange { first: Index(2), bytes: 0, runs },
        configurations: vec![entry],
        commit: Index(2),
        round: Round(1),
        clock: None,
    };
    let entries = vec![
        (EntryKind::Normal, b"payload".as_slice().into()),
        (EntryKind::Configuration, members().encode().into()),
    ];
    let beat = Beat { commit: Index(2), round: Round(2), sent: Index(3) };
    let messages = vec![say(Body::Append(append), entries), say(Body::Beat(beat), Vec::new())];
    PeerFrame { messages, members: vec![(GroupId(1), vec![ReplicaId(2)])] }
}

fn client_request() -> Vec<u8> {
    let create = v1::CreateNode { key: "k".to_owned(), ..v1::CreateNode::default() };
    let operation = v1::Operation { kind: Some(v1::operation::Kind::CreateNode(create)) };
    let request =
        v1::ClientRequest { client_id: "me".to_owned(), operation: Some(operation), ..Default::default() };
    [&[0], request.encode_to_vec().as_slice()].concat()
}

fn blocks() -> Vec<Vec<u8>> {
    let properties = [("a".to_owned(), Value::Array(vec![Value::Null, Value::Int(-1), Value::Float(0.5)]))];
    let properties = std::collections::BTreeMap::from(properties);
    let node = NodeBlock { key: Some("k".to_owned()), properties: properties.clone() }.encode();
    let node = node.expect("canonical").to_vec();
    let cid = Cid::of(&node);
    let (source_generation, target_generation) = (Generation::FIRST, Generation::FIRST);
    let label = "l".to_owned();
    let edge = EdgeBlock {
        label,
        source: cid,
        target: cid,
        source_generation,
        target_generation,
        properties: properties.clone(),
    };
    let version = VersionBlock {
        identity: cid,
        previous: cid,
        generation: Generation::FIRST,
        deleted: false,
        properties,
    };
    let blocks =
        vec![node, edge.encode().expect("canonical").to_vec(), version.encode().expect("canonical").to_vec()];
    assert!(blocks.iter().all(|block| Block::decode(block).is_ok()));
    blocks
}

fn meta() -> Vec<u8> {
    let member = |number: u8| GenesisMember {
        node_id: NodeId(format!("n{number}")),
        address: format!("h:{number}"),
        incarnation: Incarnation([number; 16]),
    };
    let members: Vec<_> = (1..=2).map(member).collect();
    let state = MetaState::genesis(&members, 2, 2).expect("two nodes make a cluster").encode();
    let node_id = NodeId("n1".to_owned());
    let command =
        MetaCommand::ReplaceNode { node_id, address: "h:9".to_owned(), incarnation: Incarnation([9; 16]) };
    let command = command.encode();
    [&[u8::try_from(command.len()).expect("short")], command.as_slice(), &state].concat()
}
