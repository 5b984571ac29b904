//! A group's state from another node: as bytes, and as rows whose checksums are right.

use std::{io::Cursor, ops::ControlFlow};

use bytes::Bytes;
use kotoba_db_cluster::{
    graph::{
        Cid, Command, Execute, Generation, GraphMachine, GraphOperation, Operation, OperationDetails,
        RequestId, Value, applied,
        digest::full_digest,
        group_prefix,
        read::{Page, by_property, edges_by_label, entity, history, in_edges, living, out_edges},
        snapshot::import,
    },
    raft::{GroupId, Index, Position, Term},
    storage::graph_store::{GraphStore, KeyRange, MemoryStore, Order, ReadView},
};

use crate::{Situations, choices::Choices};

const GROUP: GroupId = GroupId(3);
/// Positions that leave room to go on.
const INDEX_MAX: u64 = 1 << 40;

type Row = (Vec<u8>, Vec<u8>);

/// Bytes as they are: mostly a test of the frames, as checksums are hard to guess.
pub(super) fn stream(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let store = MemoryStore::new();
    let before = rows_of(&store);
    match import(&store, GROUP, &mut Cursor::new(bytes)) {
        Ok(header) => {
            assert_eq!(full_digest(&store, GROUP).expect("in memory").0, header.digest);
            situations.reach("a snapshot imported");
            Some(())
        }
        Err(_) => {
            assert_eq!(rows_of(&store), before, "a damaged stream changes nothing");
            None
        }
    }
}

/// A real state's stream.
pub(crate) fn sample_stream() -> Vec<u8> {
    stream_of(&sample(), Position::new(Index(40), Term(2)))
}

/// A real state's rows, changed, under right checksums: the import takes them or not; what it takes can be
/// read, and commands can be applied to it, with an error at worst.
pub(super) fn rows(mut choices: Choices<'_>, situations: &mut Situations) -> Option<()> {
    let mut rows = sample();
    let changes = choices.below(5);
    for _ in 0..changes {
        change(&mut choices, &mut rows);
    }
    if !choices.once_in(6) {
        rows.sort();
    }
    let index = if choices.once_in(12) { choices.number() } else { 40 };
    let stream = stream_of(&rows, Position::new(Index(index), Term(2)));
    let store = MemoryStore::new();
    let header = import(&store, GROUP, &mut Cursor::new(&stream)).ok()?;
    let (digest, count) = full_digest(&store, GROUP).expect("in memory");
    assert_eq!((digest, count), (header.digest, rows.len() as u64), "what was imported is what was sent");
    assert_eq!(applied(&store, GROUP).expect("in memory").map(|applied| applied.digest), Some(digest));
    situations.reach(if changes == 0 {
        "a snapshot imported"
    } else {
        "a snapshot of damaged rows imported"
    });
    read_all(&store, &rows);
    if index < INDEX_MAX {
        apply_all(&mut choices, &store, Index(index), changes == 0);
    }
    Some(())
}

/// Rows of everything there is: nodes, edges, versions, lives, sessions.
fn sample() -> Vec<Row> {
    let store = MemoryStore::new();
    let start = Position::new(Index(1), Term(1));
    let mut machine = GraphMachine::create(&store, GROUP, start).expect("in memory");
    let payloads = commands().into_iter().map(|command| command.encode()).collect::<Vec<_>>();
    let entries: Vec<_> =
        (2..).map(Index).zip(&payloads).map(|(at, bytes)| (at, Term(1), &bytes[..])).collect();
    machine.apply_batch(&store, &entries).expect("in memory");
    let prefix = group_prefix(GROUP).len();
    let rows = rows_of(&store).into_iter().map(|(key, value)| (key[prefix..].to_vec(), value));
    rows.filter(|(key, _)| key[0] > 1).collect()
}

fn node(key: &str) -> GraphOperation {
    let details = OperationDetails { key: Some(key.to_owned()), ..OperationDetails::default() };
    let create = Operation::CreateNode { properties: std::iter::empty().collect() };
    GraphOperation::new(create, details).expect("valid")
}

fn cid_of(operation: &GraphOperation) -> Cid {
    match operation {
        GraphOperation::CreateNode { block } => Cid::of(block),
        _ => unreachable!("asked of nodes only"),
    }
}

fn edge(source: Cid, target: Cid) -> GraphOperation {
    let properties = [("w".to_owned(), Value::Int(1))].into_iter().collect();
    let create =
        Operation::CreateEdge { source_cid: source, target_cid: target, label: "l".to_owned(), properties };
    let details =
        OperationDetails { target_generation: Some(Generation::FIRST), ..OperationDetails::default() };
    GraphOperation::new(create, details).expect("valid")
}

/// A log that makes the sample.
pub(crate) fn commands() -> Vec<Command> {
    let (a, b) = (node("a"), node("b"));
    let (at_a, at_b) = (cid_of(&a), cid_of(&b));
    let set = [("x".to_owned(), Value::Int(1))].into_iter().collect();
    let update = Operation::UpdateNode { cid: at_a, properties: set };
    let update = GraphOperation::new(update, OperationDetails::default()).expect("valid");
    let delete = GraphOperation::DeleteNode { cid: at_b };
    let operations = [a, b.clone(), edge(at_a, at_b), update, delete, b, edge(at_a, at_a)];
    let numbered = (1..).map(RequestId).zip(operations);
    numbered
        .map(|(id, operation)| {
            let client = if id.0 % 3 == 0 { "two" } else { "one" };
            Command::execute(client, id, RequestId(0), operation).expect("a short name")
        })
        .collect()
}

fn change(choices: &mut Choices<'_>, rows: &mut Vec<Row>) {
    if rows.is_empty() {
        return;
    }
    let at = choices.place(rows.len());
    match choices.below(8) {
        0 => drop(rows.remove(at)),
        1 => {
            let row = rows[at].clone();
            rows.push(row);
        }
        2 => {
            // What one row says stands in another's place.
            let other = choices.place(rows.len());
            let value = rows[other].1.clone();
            rows[at].1 = value;
        }
        3 => {
            let length = choices.place(rows[at].1.len() + 1);
            rows[at].1.truncate(length);
        }
        4 => {
            let key = choices.bytes(60).to_vec();
            rows.push((key, choices.bytes(60).to_vec()));
        }
        5 => flip(choices, &mut rows[at].0),
        6 => {
            // A number somewhere becomes as large as can be.
            let value = &mut rows[at].1;
            if value.len() >= 8 {
                let from = choices.place(value.len() - 7);
                value[from..from + 8].fill(0xff);
            }
        }
        _ => flip(choices, &mut rows[at].1),
    }
}

fn flip(choices: &mut Choices<'_>, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let at = choices.place(bytes.len());
        bytes[at] ^= 1 << choices.below(8);
    }
}

/// The stream of these rows as `docs/graph-format.md` draws it.
fn stream_of(rows: &[Row], position: Position) -> Vec<u8> {
    let mut body = Vec::new();
    let mut digest = 0_u128;
    for (key, value) in rows {
        body.extend_from_slice(&(key.len() as u32).to_le_bytes());
        body.extend_from_slice(&(value.len() as u32).to_le_bytes());
        body.extend_from_slice(key);
        body.extend_from_slice(value);
        digest = digest.wrapping_add(sum_of(key, value));
    }
    let mut header = b"KDBSNAP\x01".to_vec();
    header.extend_from_slice(&GROUP.0.to_le_bytes());
    header.extend_from_slice(&position.index.0.to_le_bytes());
    header.extend_from_slice(&position.term.0.to_le_bytes());
    header.extend_from_slice(&digest.to_le_bytes());
    let mut trailer = (rows.len() as u64).to_le_bytes().to_vec();
    trailer.extend_from_slice(&digest.to_le_bytes());
    let checksum = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let mut stream = header.clone();
    stream.extend_from_slice(&checksum(&header));
    if !body.is_empty() {
        stream.extend_from_slice(&(body.len() as u32).to_le_bytes());
        stream.extend_from_slice(&checksum(&body));
        stream.extend_from_slice(&body);
    }
    stream.extend_from_slice(&0_u32.to_le_bytes());
    stream.extend_from_slice(&checksum(&trailer));
    stream.extend_from_slice(&trailer);
    stream
}

/// What a row adds to the digest, as a state of this one row tells it.
fn sum_of(key: &[u8], value: &[u8]) -> u128 {
    let store = MemoryStore::new();
    let mut batch = kotoba_db_cluster::storage::graph_store::Batch::new();
    batch.put([&group_prefix(GROUP)[..], key].concat(), Bytes::copy_from_slice(value));
    store.commit(batch).expect("in memory");
    full_digest(&store, GROUP).expect("in memory").0
}

/// Reads may say that a row is damaged; they end, and do not panic.
fn read_all(store: &MemoryStore, rows: &[Row]) {
    let page = Page::first(100);
    for (key, _) in rows {
        let Some(Ok(digest)) = key.get(1..33).map(<[u8; 32]>::try_from) else { continue };
        let cid = Cid::from_digest(digest);
        let _ = entity(store, GROUP, cid);
        let _ = history(store, GROUP, cid);
        let _ = out_edges(store, GROUP, cid, None, &page);
        let _ = in_edges(store, GROUP, cid, Some("l"), &page);
    }
    let _ = edges_by_label(store, GROUP, "l", &page);
    let _ = living(store, GROUP, &page);
    let _ = by_property(store, GROUP, "x", &Value::Int(1), &page);
}

/// Where the rows are whole, the digest stays that of all rows; where they are not, an error is the worst.
fn apply_all(choices: &mut Choices<'_>, store: &MemoryStore, from: Index, whole: bool) {
    let Ok(mut machine) = GraphMachine::open(store, GROUP) else { return };
    let offset = choices.below(20);
    let again = commands().into_iter().map(|command| match command {
        // Some as repeats, some as new requests.
        Command::Execute(execute) => {
            let request_id = RequestId(execute.request_id.0 + offset);
            Command::Execute(Execute { request_id, ..execute })
        }
        Command::Verify(id) => Command::Verify(id),
    });
    for (index, command) in (from.0 + 1..).map(Index).zip(again) {
        let applied = machine.apply_batch(store, &[(index, Term(2), &command.encode())]);
        if whole {
            applied.expect("whole rows bear every command");
            let digest = full_digest(store, GROUP).expect("in memory").0;
            assert_eq!(digest, machine.digest(), "the digest that is kept up is that of the rows");
        } else if applied.is_err() {
            return;
        }
    }
}

fn rows_of(store: &MemoryStore) -> Vec<Row> {
    let mut rows = Vec::new();
    store
        .scan(&KeyRange::prefix(&group_prefix(GROUP)), Order::Ascending, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("in memory");
    rows
}
