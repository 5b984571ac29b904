//! Shipping a group's state, and comparing replicas.

use std::io::Cursor;

use super::*;
use crate::{
    graph::{
        digest::{commit_rows, full_digest, state_rows},
        snapshot::{ImportError, export, import},
    },
    storage::graph_store::{Batch, KeyRange, Order, ReadView, StoreError, Visitor},
};

fn busy_bench() -> Bench {
    let mut bench = Bench::new();
    let nodes: Vec<Cid> = (0..300).map(|n| bench.ok(create_node(&n.to_string())).cid).collect();
    for pair in nodes.windows(2) {
        bench.ok(create_edge(pair[0], "next", pair[1], 1));
        bench.ok(update_node(pair[0], "x", 1));
    }
    bench.ok(GraphOperation::DeleteNode { cid: nodes[5] });
    bench
}

fn stream(bench: &Bench) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in export(bench.store.view(), GROUP).unwrap() {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    bytes
}

#[test]
fn an_imported_state_is_the_exported_one() {
    let bench = busy_bench();
    let bytes = stream(&bench);
    assert!(bytes.len() > 200_000, "several frames");
    let mut other = Bench::new();
    other.ok(create_node("something else"));
    let neighbour = crate::graph::rows::key(GroupId(GROUP.0 + 1), rows::FIRST, &[b"neighbour"]);
    let mut batch = Batch::new();
    batch.put(neighbour.clone(), Bytes::from_static(b"stays"));
    other.store.commit(batch).unwrap();

    let header = import(&other.store, GROUP, &mut Cursor::new(&bytes)).unwrap();
    assert_eq!(header.position, bench.machine.applied());
    let mut rows = rows_of(&other.store);
    assert_eq!(rows.remove(&neighbour), Some(Bytes::from_static(b"stays")));
    assert_eq!(rows, rows_of(&bench.store));
    let machine = GraphMachine::open(&other.store, GROUP).unwrap();
    assert_eq!(machine.digest(), bench.machine.digest());
    assert_eq!(full_digest(&other.store, GROUP).unwrap().0, machine.digest());
    // Sessions came along: a repeat is a repeat.
    other.machine = machine;
    let again = other.command(&request("test", 1, create_node("0"))).unwrap();
    assert_eq!(again.index, Index(2));
}

#[test]
fn a_view_exports_the_moment_it_was_taken() {
    let mut bench = busy_bench();
    let expected = stream(&bench);
    let mut chunks = export(bench.store.view(), GROUP).unwrap();
    let mut bytes = chunks.next().expect("a header").unwrap().to_vec();
    bench.ok(create_node("later"));
    for chunk in chunks {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes, expected);
}

#[test]
fn a_damaged_stream_changes_nothing() {
    let bytes = stream(&busy_bench());
    let mut other = Bench::new();
    other.ok(create_node("kept"));
    let before = rows_of(&other.store);
    for at in [0, 9, 20, 40, 47, 50, 60, 70_000, bytes.len() - 30, bytes.len() - 1] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        let error = import(&other.store, GROUP, &mut Cursor::new(&damaged)).unwrap_err();
        assert!(matches!(error, ImportError::Damaged(_)), "{at}: {error}");
    }
    for length in [0, 10, 48, 60, 100_000, bytes.len() - 1] {
        let error = import(&other.store, GROUP, &mut Cursor::new(&bytes[..length])).unwrap_err();
        assert!(matches!(error, ImportError::Damaged(_)), "{length}: {error}");
    }
    let error = import(&other.store, GroupId(1), &mut Cursor::new(&bytes)).unwrap_err();
    assert!(matches!(error, ImportError::OtherGroup(7)));
    assert_eq!(rows_of(&other.store), before);
}

/// A sender that says a row twice, with every checksum right, would have it counted twice.
#[test]
fn rows_out_of_order_are_refused() {
    let mut bench = Bench::new();
    bench.ok(create_node("a"));
    let good = stream(&bench);
    let (header, frame) = good.split_at(48);
    let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
    let twice = [&frame[8..8 + length], &frame[8..8 + length]].concat();
    let digest = bench.machine.digest().wrapping_mul(2);
    let (_, rows) = full_digest(&bench.store, GROUP).unwrap();
    let checksum = |bytes: &[u8]| crc32fast::hash(bytes).to_le_bytes();
    let header = [&header[..28], &digest.to_le_bytes()].concat();
    let trailer = [&(2 * rows).to_le_bytes()[..], &digest.to_le_bytes()].concat();
    let mut bytes = [&header[..], &checksum(&header), &(2 * length as u32).to_le_bytes()].concat();
    bytes.extend([&checksum(&twice)[..], &twice, &[0; 4], &checksum(&trailer), &trailer].concat());
    let error = import(&MemoryStore::new(), GROUP, &mut Cursor::new(&bytes)).unwrap_err();
    assert!(matches!(error, ImportError::Damaged("the rows are not in order")), "{error}");
}

/// A store that fails after a number of commits, like a process that dies there.
#[derive(Clone)]
struct Failing {
    store: MemoryStore,
    commits_left: std::sync::Arc<std::sync::atomic::AtomicU32>,
}

impl ReadView for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.store.scan(range, order, visit)
    }
}

impl GraphStore for Failing {
    type View = <MemoryStore as GraphStore>::View;

    fn view(&self) -> Self::View {
        self.store.view()
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        use std::sync::atomic::Ordering::SeqCst;
        let left = self.commits_left.load(SeqCst);
        if left == 0 {
            return Err(StoreError::Io { action: "write", cause: "the test says so".to_string() });
        }
        self.commits_left.store(left - 1, SeqCst);
        self.store.commit(batch)
    }

    fn persist(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_interrupted_import_is_seen_and_done_again() {
    let bench = busy_bench();
    let bytes = stream(&bench);
    let mut commits = 0;
    loop {
        let mut other = Bench::new();
        other.ok(create_node("replaced"));
        let left = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(commits));
        let failing = Failing { store: other.store.clone(), commits_left: left };
        match import(&failing, GROUP, &mut Cursor::new(&bytes)) {
            Ok(_) => break,
            Err(ImportError::Store(_)) => {}
            Err(other) => panic!("{other}"),
        }
        if commits > 0 {
            assert_eq!(applied(&other.store, GROUP).unwrap(), None);
            assert_eq!(GraphMachine::open(&other.store, GROUP).err(), Some(StoreError::NoState(GROUP.0)));
            assert!(export(other.store.view(), GROUP).is_err());
        }
        import(&other.store, GROUP, &mut Cursor::new(&bytes)).unwrap();
        assert_eq!(rows_of(&other.store), rows_of(&bench.store));
        commits += 1;
    }
    assert!(commits > 4, "the import takes several commits: {commits}");
}

#[test]
fn a_failed_commit_leaves_the_batch_out() {
    let mut bench = Bench::new();
    bench.ok(create_node("a"));
    let before = rows_of(&bench.store);
    let failing = Failing { store: bench.store.clone(), commits_left: std::sync::Arc::default() };
    let command = request("test", 2, create_node("b")).encode();
    let entries: [(Index, Term, &[u8]); 1] = [(Index(3), Term(1), &command)];
    assert!(bench.machine.apply_batch(&failing, &entries).is_err());
    assert_eq!(rows_of(&bench.store), before);
    // Opened again, it does what it was asked.
    bench.machine = GraphMachine::open(&bench.store, GROUP).unwrap();
    assert!(matches!(bench.apply(&entries)[..], [(Index(3), Effect::Operation(Ok(_)))]));
}

#[test]
fn rows_of_another_state_machine_travel_too() {
    let (store, other, meta) = (MemoryStore::new(), MemoryStore::new(), GroupId::META);
    let key = |name: &[u8]| crate::graph::rows::key(meta, 0x40, &[name]);
    for (index, changes) in [(1, [("a", Some("1")), ("b", Some("2"))]), (2, [("a", Some("3")), ("b", None)])]
    {
        let mut batch = Batch::new();
        for (name, value) in changes {
            match value {
                Some(value) => batch.put(key(name.as_bytes()), value),
                None => batch.remove(key(name.as_bytes())),
            }
        }
        let applied = commit_rows(&store, meta, Position::new(Index(index), Term(1)), batch).unwrap();
        assert_eq!(applied.digest, full_digest(&store, meta).unwrap().0);
    }
    let mut bytes = Vec::new();
    export(store.view(), meta).unwrap().for_each(|chunk| bytes.extend_from_slice(&chunk.unwrap()));
    import(&other, meta, &mut Cursor::new(&bytes)).unwrap();
    assert_eq!(rows_of(&other), rows_of(&store));
    assert_eq!(other.get(&key(b"a")).unwrap().as_deref(), Some(&b"3"[..]));
}

#[test]
fn rows_can_be_compared_page_by_page() {
    let bench = busy_bench();
    let all = state_rows(&bench.store, GROUP, None, usize::MAX).unwrap();
    let (_, count) = full_digest(&bench.store, GROUP).unwrap();
    assert_eq!(all.len() as u64, count);
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|row: &crate::graph::digest::StateRow| row.key.clone());
        let page = state_rows(&bench.store, GROUP, after.as_deref(), 100).unwrap();
        let done = page.len() < 100;
        paged.extend(page);
        if done {
            break;
        }
    }
    assert_eq!(paged, all);
}
