//! What every graph store must do, run on each.

use std::{collections::BTreeMap, ops::ControlFlow};

use proptest::prelude::*;

use super::*;

fn rows(view: &impl ReadView, range: &KeyRange, order: Order, limit: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    view.scan(range, order, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .expect("the store works");
    rows
}

fn all(view: &impl ReadView) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows(view, &KeyRange::prefix(&[]), Order::Ascending, usize::MAX)
}

fn put(store: &impl GraphStore, key: &[u8], value: &'static [u8]) {
    let mut batch = Batch::new();
    batch.put(key.to_vec(), value);
    store.commit(batch).expect("the store works");
}

fn reads_see_commits<S: GraphStore>(store: &S) {
    assert_eq!(store.get(b"a").unwrap(), None);
    put(store, b"a", b"1");
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    let mut batch = Batch::new();
    batch.put(b"b".to_vec(), &b""[..]);
    batch.put(b"c".to_vec(), &b"3"[..]);
    batch.remove(b"c".to_vec());
    batch.put(b"a".to_vec(), &b"2"[..]);
    batch.remove(b"never there".to_vec());
    store.commit(batch).unwrap();
    store.commit(Batch::new()).unwrap();
    let expected = [(b"a".to_vec(), b"2".to_vec()), (b"b".to_vec(), Vec::new())];
    assert_eq!(all(store), expected);
    assert_eq!(all(&store.clone().view()), expected, "clones share the map");
}

fn scans_keep_to_their_range<S: GraphStore>(store: &S) {
    for key in
        [&b"\x00\x01"[..], b"\x00\x01a", b"\x00\x01b", b"\x00\x02", b"\x00\xff", b"\x00\xff\xff", b"\x01"]
    {
        put(store, key, b"v");
    }
    let keys = |range: &KeyRange, order, limit| -> Vec<Vec<u8>> {
        rows(store, range, order, limit).into_iter().map(|(key, _)| key).collect()
    };
    let prefix = KeyRange::prefix(b"\x00\x01");
    assert_eq!(keys(&prefix, Order::Ascending, 9), [&b"\x00\x01"[..], b"\x00\x01a", b"\x00\x01b"]);
    assert_eq!(keys(&prefix, Order::Descending, 2), [b"\x00\x01b", b"\x00\x01a"]);
    assert_eq!(keys(&prefix.clone().after(b"\x00\x01"), Order::Ascending, 1), [b"\x00\x01a"]);
    assert_eq!(keys(&prefix.after(b"\x00\x01b"), Order::Ascending, 9), [[0; 0]; 0]);
    assert_eq!(
        keys(&KeyRange::prefix(b"\x00\xff"), Order::Ascending, 9),
        [&b"\x00\xff"[..], b"\x00\xff\xff"]
    );
    assert_eq!(keys(&KeyRange::prefix(&[0xff]), Order::Ascending, 9), [[0; 0]; 0]);
    assert_eq!(keys(&KeyRange::prefix(&[]), Order::Descending, 1), [b"\x01"]);
    clear_prefix(store, b"\x00").unwrap();
    assert_eq!(keys(&KeyRange::prefix(&[]), Order::Ascending, 9), [b"\x01"]);
}

fn views_do_not_change<S: GraphStore>(store: &S) {
    put(store, b"a", b"1");
    let view = store.view();
    put(store, b"a", b"2");
    put(store, b"b", b"2");
    assert_eq!(all(&view), [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(view.clone().get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(view.get(b"b").unwrap(), None);
    assert_eq!(store.view().get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    store.persist().unwrap();
}

fn a_groups_view_shows_the_group_as_it_was<S: GraphStore>(store: &S) {
    let (key, other) = ([0, 0, 0, 7, 1], [0, 0, 0, 8, 1]);
    put(store, &key, b"1");
    let view = store.group_view(crate::raft::GroupId(7));
    put(store, &key, b"2");
    put(store, &other, b"2");
    let range = KeyRange::prefix(&key[..4]);
    assert_eq!(rows(&view, &range, Order::Ascending, 9), [(key.to_vec(), b"1".to_vec())]);
    assert_eq!(view.get(&key).unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(store.get(&key).unwrap().as_deref(), Some(&b"2"[..]));
}

fn many_rows_are_cleared<S: GraphStore>(store: &S) {
    for chunk in 0..5_u32 {
        let mut batch = Batch::new();
        for n in 0..600_u32 {
            batch.put([b"x", &(chunk * 600 + n).to_be_bytes()[..]].concat(), &b"v"[..]);
        }
        store.commit(batch).unwrap();
    }
    put(store, b"y", b"stays");
    assert_eq!(all(store).len(), 3001);
    clear_prefix(store, b"x").unwrap();
    assert_eq!(all(store), [(b"y".to_vec(), b"stays".to_vec())]);
}

/// Any sequence of batches leaves what an ordered map would hold.
fn behaves_like_a_map<S: GraphStore>(
    mut store: S,
    batches: &[Vec<(u8, Option<u8>)>],
    reopen: impl Fn(S) -> S,
) {
    let mut twin = BTreeMap::new();
    for changes in batches {
        let mut batch = Batch::new();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    batch.put(vec![*key], vec![*value]);
                    twin.insert(vec![*key], vec![*value]);
                }
                None => {
                    batch.remove(vec![*key]);
                    twin.remove(&vec![*key]);
                }
            }
        }
        store.commit(batch).unwrap();
        let expected: Vec<_> = twin.clone().into_iter().collect();
        assert_eq!(all(&store), expected);
        if changes.len() % 4 == 3 {
            store = reopen(store);
            assert_eq!(all(&store), expected);
        }
    }
}

fn any_batches() -> impl Strategy<Value = Vec<Vec<(u8, Option<u8>)>>> {
    let change = (0_u8..20, proptest::option::of(any::<u8>()));
    proptest::collection::vec(proptest::collection::vec(change, 0..8), 1..12)
}

macro_rules! contract {
    ($($check:ident),+ $(,)?) => {
        mod memory_store {
            $(#[test] fn $check() { super::$check(&super::MemoryStore::new()); })+
        }

        mod buffered_store {
            $(#[test] fn $check() {
                super::$check(&super::BufferedStore::new(super::MemoryStore::new()));
            })+
        }

        #[cfg(feature = "node")]
        mod fjall_store {
            $(#[test] fn $check() {
                let directory = tempfile::tempdir().expect("a temporary directory");
                super::$check(&super::open(directory.path()));
            })+
        }

        #[cfg(feature = "redb")]
        mod redb_store {
            $(#[test] fn $check() {
                let directory = tempfile::tempdir().expect("a temporary directory");
                super::$check(&super::open_redb(directory.path()));
            })+
        }
    };
}

contract!(
    reads_see_commits,
    scans_keep_to_their_range,
    views_do_not_change,
    a_groups_view_shows_the_group_as_it_was,
    many_rows_are_cleared
);

#[cfg(feature = "node")]
fn open(directory: &std::path::Path) -> FjallStore {
    FjallStore::open(directory, &StoreOptions::default()).expect("the directory is usable")
}

#[cfg(feature = "redb")]
fn open_redb(directory: &std::path::Path) -> RedbStore {
    RedbStore::open(directory, 1 << 20).expect("the directory is usable")
}

#[cfg(feature = "redb")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn redb_store_behaves_like_a_map_over_restarts(batches in any_batches()) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        behaves_like_a_map(open_redb(directory.path()), &batches, |store| {
            store.persist().unwrap();
            drop(store);
            open_redb(directory.path())
        });
    }
}

#[cfg(feature = "redb")]
#[test]
fn redb_store_is_locked_while_open_and_forgets_what_was_not_made_durable() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open_redb(directory.path());
    assert!(matches!(RedbStore::open(directory.path(), 1 << 20), Err(StoreError::Io { action: "open", .. })));
    put(&store, b"a", b"1");
    store.persist().unwrap();
    put(&store, b"b", b"2");
    // A crash: what the file holds now, and no more.
    let crashed = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(directory.path().join("graph.redb"), crashed.path().join("graph.redb")).unwrap();
    assert_eq!(all(&open_redb(crashed.path())), [(b"a".to_vec(), b"1".to_vec())]);
}

proptest! {
    #[test]
    fn memory_store_behaves_like_a_map(batches in any_batches()) {
        behaves_like_a_map(MemoryStore::new(), &batches, |store| store);
    }
}

/// A group, its changes of rows, and what happens next.
type BufferedBatch = (u8, Vec<(u8, Option<u8>)>, u8);

/// Rows of four groups, so that groups leave the buffer apart from each other.
fn any_buffered_batches() -> impl Strategy<Value = Vec<BufferedBatch>> {
    let change = (0_u8..6, proptest::option::of(any::<u8>()));
    proptest::collection::vec((0_u8..4, proptest::collection::vec(change, 0..6), 0_u8..8), 1..40)
}

proptest! {
    /// Whatever was said to be absent, came, went and was flushed on the way: reads and views show an
    /// ordered map, scans in both orders, and what is below after a flush is that map.
    #[test]
    fn buffered_store_behaves_like_a_map(batches in any_buffered_batches()) {
        let below = MemoryStore::new();
        let store = BufferedStore::new(below.clone());
        let (mut twin, mut views) = (BTreeMap::new(), Vec::new());
        for (group, changes, step) in batches {
            let mut batch = Batch::new();
            for (key, value) in changes {
                let key = vec![0, 0, 0, group, key];
                match value {
                    Some(value) if twin.insert(key.clone(), vec![value]).is_none() => {
                        batch.insert(key, vec![value]);
                    }
                    Some(value) => batch.put(key, vec![value]),
                    None => {
                        twin.remove(&key);
                        batch.remove(key);
                    }
                }
            }
            store.commit(batch).unwrap();
            let expected: Vec<_> = twin.clone().into_iter().collect();
            prop_assert_eq!(&all(&store), &expected);
            match step {
                0 => {
                    store.persist().unwrap();
                    prop_assert_eq!(&all(&below), &expected);
                }
                1 => {
                    let group = [0, 0, 0, group];
                    store.flush(&mut store.write(), &[group]).unwrap();
                    let range = KeyRange::prefix(&group);
                    let of_group = |view: &_| rows(view, &range, Order::Ascending, usize::MAX);
                    prop_assert_eq!(of_group(&below.view()), expected.into_iter().filter(|(key, _)| key.starts_with(&group)).collect::<Vec<_>>());
                }
                2 => views.push((store.view(), expected)),
                3 => {
                    let range = KeyRange { start: vec![0, 0, 0, 0, 3], end: Some(vec![0, 0, 0, group, 4]) };
                    let mut within: Vec<_> = expected
                        .into_iter()
                        .filter(|(key, _)| *key >= range.start && Some(key) < range.end.as_ref())
                        .collect();
                    prop_assert_eq!(&rows(&store, &range, Order::Ascending, usize::MAX), &within);
                    within.reverse();
                    within.truncate(3);
                    prop_assert_eq!(&rows(&store, &range, Order::Descending, 3), &within);
                }
                _ => {}
            }
        }
        for (view, expected) in views {
            prop_assert_eq!(&all(&view), &expected);
        }
    }
}

#[test]
fn a_row_that_came_and_went_never_reaches_the_store_below() {
    let below = Counting::default();
    let store = BufferedStore::new(below.clone());
    for id in 0..100_u8 {
        let mut batch = Batch::new();
        batch.put(b"grp:applied".to_vec(), vec![id]);
        batch.insert([b"grp:", &[id][..]].concat(), &b"outcome"[..]);
        if id > 0 {
            batch.remove([b"grp:", &[id - 1][..]].concat());
        }
        store.commit(batch).unwrap();
    }
    store.persist().unwrap();
    assert_eq!(*below.changes.lock().unwrap(), 2);
    assert_eq!(all(&below.store).len(), 2);
}

#[test]
fn a_full_buffer_hands_over_one_group_and_a_batch_of_several_goes_as_a_whole() {
    let below = Counting::default();
    let store = BufferedStore::new(below.clone());
    put(&store, b"grpA1", b"stays");
    let mut batch = Batch::new();
    batch.put(b"grpB1".to_vec(), vec![0; crate::limits::STORE_BUFFER_GROUP_BYTES_MAX]);
    store.commit(batch).unwrap();
    assert_eq!(all(&below.store).len(), 1, "the group that is full, and no other");
    let mut batch = Batch::new();
    batch.put(b"grpB2".to_vec(), &b""[..]);
    batch.put(b"grpC1".to_vec(), &b""[..]);
    store.commit(batch).unwrap();
    assert_eq!(all(&below.store).len(), 4);
}

#[test]
fn a_buffer_whose_store_failed_takes_nothing_more() {
    let below = Counting::default();
    let store = BufferedStore::new(below.clone());
    put(&store, b"grpA1", b"v");
    *below.fails.lock().unwrap() = true;
    assert!(store.persist().is_err());
    *below.fails.lock().unwrap() = false;
    let mut batch = Batch::new();
    batch.put(b"grpA2".to_vec(), &b"v"[..]);
    assert!(store.commit(batch).is_err(), "what is below is unknown: it must not be tried again");
    assert!(store.persist().is_err());
    assert_eq!(*below.changes.lock().unwrap(), 0);
}

/// Counts the changes that reach it, and fails when told to.
#[derive(Clone, Debug, Default)]
struct Counting {
    store: MemoryStore,
    changes: std::sync::Arc<std::sync::Mutex<usize>>,
    fails: std::sync::Arc<std::sync::Mutex<bool>>,
}

impl ReadView for Counting {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: Visitor<'_>) -> Result<(), StoreError> {
        self.store.scan(range, order, visit)
    }
}

impl GraphStore for Counting {
    type View = MemoryView;

    fn view(&self) -> MemoryView {
        self.store.view()
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        if *self.fails.lock().unwrap() {
            return Err(StoreError::Io { action: "write", cause: "told to".to_owned() });
        }
        *self.changes.lock().unwrap() += batch.len();
        self.store.commit(batch)
    }

    fn persist(&self) -> Result<(), StoreError> {
        self.store.persist()
    }
}

#[cfg(feature = "node")]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn fjall_store_behaves_like_a_map_over_restarts(batches in any_batches()) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        behaves_like_a_map(open(directory.path()), &batches, |store| {
            store.persist().unwrap();
            drop(store);
            open(directory.path())
        });
    }
}

#[cfg(feature = "node")]
#[test]
fn fjall_store_is_locked_while_open_and_refuses_what_is_no_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(directory.path());
    let second = FjallStore::open(directory.path(), &StoreOptions::default());
    assert!(matches!(second, Err(StoreError::Io { action: "open", .. })));
    assert!(store.disk_bytes().unwrap() > 0);
    let file = directory.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    assert!(FjallStore::open(&file, &StoreOptions::default()).is_err());
}
