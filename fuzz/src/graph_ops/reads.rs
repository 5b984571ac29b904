//! Everything that can be read, against the twin.

use kotoba_db_cluster::{
    graph::{
        Cid, Value,
        read::{
            Detail, EdgeEnds, EdgeRef, Entity, Page, PageOf, block, by_property, contains, edges_by_label,
            entity, history, in_edges, living, living_generation, out_edges,
        },
    },
    storage::graph_store::{MemoryStore, StoreError},
};

use super::{
    GROUP, draw,
    twin::{Twin, TwinEntity},
};
use crate::choices::Choices;

pub(super) fn check(choices: &mut Choices<'_>, store: &MemoryStore, twin: &Twin) {
    let ok = "a store in memory is read";
    for (&cid, expected) in &twin.entities {
        assert_eq!(entity(store, GROUP, cid).expect(ok), Some(entity_of(twin, cid, expected)));
        assert_eq!(history(store, GROUP, cid).expect(ok).as_ref(), Some(&expected.versions));
        assert_eq!(living_generation(store, GROUP, cid).expect(ok), twin.living_generation(cid));
        for version in &expected.versions {
            assert!(contains(store, GROUP, version.version).expect(ok));
            let bytes = block(store, GROUP, version.version).expect(ok).expect("a version has a block");
            assert_eq!(Cid::of(&bytes), version.version, "a block is named by its content");
        }
    }
    let missing = Cid::of(b"nowhere");
    assert_eq!(entity(store, GROUP, missing).expect(ok), None);
    assert_eq!(history(store, GROUP, missing).expect(ok), None);

    let label = draw::label(choices);
    for &node in twin.entities.keys() {
        for label in [None, Some(label)] {
            let wanted = |edge: &EdgeRef| label.is_none_or(|label| edge.ends.label == label);
            let out = edges(twin, |edge| edge.ends.source == node && wanted(edge));
            assert_eq!(all(choices, |page| out_edges(store, GROUP, node, label, page)), out);
            let into = edges(twin, |edge| edge.ends.target == node && wanted(edge));
            assert_eq!(all(choices, |page| in_edges(store, GROUP, node, label, page)), into);
        }
    }
    let mut labelled = edges(twin, |edge| edge.ends.label == label);
    labelled.sort_by_key(|edge| (edge.ends.source, edge.edge));
    assert_eq!(all(choices, |page| edges_by_label(store, GROUP, label, page)), labelled);

    let whole: Vec<_> = twin
        .entities
        .iter()
        .filter(|(_, entity)| !twin.is_deleted(entity))
        .map(|(&cid, entity)| entity_of(twin, cid, entity))
        .collect();
    assert_eq!(all(choices, |page| living(store, GROUP, page)), whole);
    let (name, value) = (draw::name(choices), pick_value(choices, twin));
    let with: Vec<_> =
        whole.into_iter().filter(|entity| entity.properties.get(name) == Some(&value)).collect();
    assert_eq!(all(choices, |page| by_property(store, GROUP, name, &value, page)), with);
}

fn pick_value(choices: &mut Choices<'_>, twin: &Twin) -> Value {
    let mut known = twin.entities.values().flat_map(|entity| entity.current().properties.values());
    let at = choices.place(4);
    known.nth(at).cloned().unwrap_or_else(|| draw::value(choices, twin, 1))
}

fn entity_of(twin: &Twin, cid: Cid, entity: &TwinEntity) -> Entity {
    let current = entity.current();
    let detail = match &entity.ends {
        None => Detail::Node { key: entity.key.clone() },
        Some(ends) => Detail::Edge(ends.clone()),
    };
    Entity {
        cid,
        version: current.version,
        deleted: twin.is_deleted(entity),
        generation: current.generation,
        detail,
        properties: current.properties.clone(),
        index: current.index,
    }
}

/// The visible edges that are wanted, in the order of an edge table's keys behind the near end.
fn edges(twin: &Twin, wanted: impl Fn(&EdgeRef) -> bool) -> Vec<EdgeRef> {
    let edge = |(&edge, entity): (&Cid, &TwinEntity)| {
        let ends: &EdgeEnds = entity.ends.as_ref()?;
        (!twin.is_deleted(entity)).then(|| EdgeRef { edge, ends: ends.clone() })
    };
    let mut edges: Vec<_> = twin.entities.iter().filter_map(edge).filter(wanted).collect();
    edges.sort_by_key(|edge| (edge.ends.label.len(), edge.ends.label.clone(), edge.edge));
    edges
}

/// All pages of a read, with pages as small as the choices say.
fn all<T>(choices: &mut Choices<'_>, mut read: impl FnMut(&Page) -> Result<PageOf<T>, StoreError>) -> Vec<T> {
    let mut page = Page::first(1 + choices.place(9));
    if choices.once_in(2) {
        page.examine = 1 + choices.place(9);
    }
    let mut items = Vec::new();
    loop {
        let PageOf { items: found, resume } = read(&page).expect("a store in memory is read");
        assert!(found.len() <= page.limit, "a page holds no more than it may");
        items.extend(found);
        let Some(resume) = resume else { return items };
        assert!(page.after.as_ref().is_none_or(|after| *after < resume), "a read gets on");
        page.after = Some(resume);
    }
}
