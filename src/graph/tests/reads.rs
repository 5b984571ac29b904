//! Reading what was applied.

use super::*;
use crate::graph::read::{
    Detail, EdgeRef, Page, PageOf, block, by_property, contains, edges_by_label, entity, history, in_edges,
    living, living_generation, locate, out_edges,
};
use crate::storage::graph_store::{Batch, ReadView, StoreError};

fn all() -> Page {
    Page::first(usize::MAX)
}

fn edges(page: PageOf<EdgeRef>) -> Vec<(String, Cid, Cid)> {
    assert_eq!(page.resume, None);
    page.items.into_iter().map(|edge| (edge.ends.label, edge.ends.source, edge.ends.target)).collect()
}

#[test]
fn edges_are_found_from_both_ends_and_by_label() {
    let mut bench = Bench::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| bench.ok(create_node(name)).cid);
    let knows = bench.ok(create_edge(a, "knows", b, 1)).cid;
    bench.ok(create_edge(a, "know", c, 1));
    bench.ok(create_edge(b, "knows", c, 1));
    let store = &bench.store;
    let out = |node, label| edges(out_edges(store, GROUP, node, label, &all()).unwrap());
    let into = |node, label| edges(in_edges(store, GROUP, node, label, &all()).unwrap());
    assert_eq!(out(a, None), [("know".to_string(), a, c), ("knows".to_string(), a, b)]);
    assert_eq!(out(a, Some("know")), [("know".to_string(), a, c)]);
    assert_eq!(into(c, None), [("know".to_string(), a, c), ("knows".to_string(), b, c)]);
    assert_eq!(into(c, Some("knows")), [("knows".to_string(), b, c)]);
    assert_eq!(edges(edges_by_label(store, GROUP, "knows", &all()).unwrap()).len(), 2);
    let found = entity(store, GROUP, knows).unwrap().expect("it exists");
    assert_eq!(found.kind(), Kind::Edge);
    assert!(matches!(found.detail, Detail::Edge(ends) if (ends.source, ends.target) == (a, b)));
    // A deleted edge is gone from both ends; created again it is back.
    bench.ok(delete_edge(knows, 1));
    assert_eq!(edges(out_edges(&bench.store, GROUP, a, Some("knows"), &all()).unwrap()), []);
    assert_eq!(edges(in_edges(&bench.store, GROUP, b, None, &all()).unwrap()), []);
    assert_eq!(bench.ok(create_edge(a, "knows", b, 1)).cid, knows);
    assert_eq!(edges(in_edges(&bench.store, GROUP, b, None, &all()).unwrap()).len(), 1);
}

#[test]
fn a_deleted_node_takes_its_edges_along_for_good() {
    let mut bench = Bench::new();
    let [a, b] = ["a", "b"].map(|name| bench.ok(create_node(name)).cid);
    let edge = bench.ok(create_edge(a, "l", b, 1)).cid;
    bench.ok(GraphOperation::DeleteNode { cid: a });
    let visible = |bench: &Bench| {
        let out = edges(out_edges(&bench.store, GROUP, a, None, &all()).unwrap()).len();
        let into = edges(in_edges(&bench.store, GROUP, b, None, &all()).unwrap()).len();
        let label = edges(edges_by_label(&bench.store, GROUP, "l", &all()).unwrap()).len();
        let living = living(&bench.store, GROUP, &all()).unwrap().items.len();
        (out, into, label, living, entity(&bench.store, GROUP, edge).unwrap().expect("it exists").deleted)
    };
    assert_eq!(visible(&bench), (0, 0, 0, 1, true));
    // The node's next life does not bring its edges back.
    bench.ok(create_node("a"));
    assert_eq!(visible(&bench), (0, 0, 0, 2, true));
    assert_eq!(living_generation(&bench.store, GROUP, a).unwrap(), Some(Generation(2)));
    // A new edge of the new life is another edge.
    let other = bench.ok(create_edge(a, "l", b, 1)).cid;
    assert_ne!(other, edge);
    assert_eq!(visible(&bench), (1, 1, 1, 3, true));
    // Of the target the reader learns which life was meant.
    bench.ok(GraphOperation::DeleteNode { cid: b });
    let found = out_edges(&bench.store, GROUP, a, None, &all()).unwrap().items;
    assert_eq!(found[0].ends.target_generation, Generation(1));
    assert_eq!(living_generation(&bench.store, GROUP, b).unwrap(), None);
    assert_eq!(living_generation(&bench.store, GROUP, other).unwrap(), None, "an edge is no node");
}

#[test]
fn every_block_is_found_by_its_cid_and_hashes_to_it() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let version = bench.ok(update_node(cid, "x", 1)).version;
    for found in [cid, version] {
        let bytes = block(&bench.store, GROUP, found).unwrap().expect("it exists");
        assert_eq!(Cid::of(&bytes), found);
        assert!(contains(&bench.store, GROUP, found).unwrap());
        let groups = [GroupId(1), GROUP, GroupId(9)];
        assert_eq!(locate(&bench.store, groups, found).unwrap(), Some(GROUP));
    }
    assert_eq!(block(&bench.store, GroupId(1), cid).unwrap(), None);
    assert_eq!(entity(&bench.store, GROUP, version).unwrap(), None, "a version is no entity");
}

#[test]
fn pages_cover_everything_once() {
    let mut bench = Bench::new();
    let mut created: Vec<Cid> = (0..57).map(|n| bench.ok(create_node(&n.to_string())).cid).collect();
    let gone = created.swap_remove(20);
    bench.ok(GraphOperation::DeleteNode { cid: gone });
    created.sort_unstable();
    const ALL: usize = usize::MAX;
    for (limit, examine, bytes) in
        [(1, ALL, ALL), (10, ALL, ALL), (10, 3, ALL), (100, ALL, ALL), (100, ALL, 1)]
    {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = living(&bench.store, GROUP, &Page { after, limit, examine, bytes }).unwrap();
            assert!(page.items.len() <= limit.min(examine).min(bytes));
            found.extend(page.items.into_iter().map(|entity| entity.cid));
            after = page.resume;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, created);
    }
    let wanted = Value::from("31");
    let found = by_property(&bench.store, GROUP, "name", &wanted, &all()).unwrap().items;
    assert_eq!(found.iter().map(|entity| entity.cid).collect::<Vec<_>>(), [node_cid("31")]);
}

/// Rows that another node made up: a version that names itself as the one before.
#[test]
fn a_history_that_goes_in_a_circle_is_damaged() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let version = bench.ok(update_node(cid, "x", 1)).version;
    let circle = VersionBlock {
        identity: cid,
        previous: version,
        generation: Generation::FIRST,
        deleted: false,
        properties: Properties::new(),
    };
    let row = rows::BlockRow::encode(Kind::Node, Index(3), &circle.encode().unwrap());
    let mut batch = Batch::new();
    batch.put(rows::BlockRow::version_key(GROUP, version), row);
    bench.store.commit(batch).unwrap();
    assert_eq!(history(&bench.store, GROUP, cid), Err(StoreError::Damaged("the order of versions")));
}

/// And a node with a life after which there is no other.
#[test]
fn a_life_that_no_log_reaches_is_damaged() {
    let mut bench = Bench::new();
    let receipt = bench.ok(create_node("a"));
    bench.ok(GraphOperation::DeleteNode { cid: receipt.cid });
    let key = rows::Head::key(GROUP, receipt.cid);
    let row = bench.store.get(&key).unwrap().expect("it was deleted");
    let head = rows::Head { generation: Generation(u64::MAX), ..rows::Head::decode(&row).unwrap() };
    let mut batch = Batch::new();
    batch.put(key, head.encode());
    bench.store.commit(batch).unwrap();
    let again = request("test", 9, create_node("a")).encode();
    let applied = bench.machine.apply_batch(&bench.store, &[(Index(9), Term(1), &again)]);
    assert_eq!(applied.err(), Some(StoreError::Damaged("an entity's current version")));
}
