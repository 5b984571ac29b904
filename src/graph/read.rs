//! Reading a group's graph, from the store or from a view of it.
//!
//! Everything here answers for one group. An edge lives with its source: whether the source's life is over
//! is checked here, the target lives elsewhere and is the caller's to check: an edge is visible only while
//! [`EdgeEnds::target_generation`] is the generation of the living target ([`living_generation`]).

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::{
    graph::{
        Block, Cid, Generation, Kind, Properties, Value,
        rows::{self, BlockRow, EdgeRow, FIRST, Head, IN, KEY_PREFIX, OUT, label_part},
    },
    raft::{GroupId, Index},
    storage::graph_store::{KeyRange, Order, ReadView, StoreError},
};

/// A node or an edge as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Entity {
    /// Its identity.
    pub cid: Cid,
    /// Its current version; its identity while there is only the first.
    pub version: Cid,
    /// Whether its life is over: deleted, or an edge whose source's life is over.
    pub deleted: bool,
    /// Counts its lives.
    pub generation: Generation,
    /// What it is.
    pub detail: Detail,
    /// All its properties; none while deleted.
    pub properties: Properties,
    /// The log position of the current version.
    pub index: Index,
}

/// What an entity is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A node.
    Node {
        /// The key of its first block.
        key: Option<String>,
    },
    /// An edge.
    Edge(EdgeEnds),
}

/// What an edge connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeEnds {
    /// What the edge means.
    pub label: String,
    /// The node it leaves.
    pub source: Cid,
    /// The node it enters.
    pub target: Cid,
    /// The source's life it belongs to.
    pub source_generation: Generation,
    /// The target's life it belongs to.
    pub target_generation: Generation,
}

impl Entity {
    /// Node or edge.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.detail {
            Detail::Node { .. } => Kind::Node,
            Detail::Edge(_) => Kind::Edge,
        }
    }
}

/// An edge as seen from one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeRef {
    /// The edge's identity.
    pub edge: Cid,
    /// What it connects.
    pub ends: EdgeEnds,
}

/// One version of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionRecord {
    /// The CID of its block.
    pub version: Cid,
    /// Whether it ended a life.
    pub deleted: bool,
    /// Which life it belongs to.
    pub generation: Generation,
    /// All properties after the change.
    pub properties: Properties,
    /// The log position that brought it.
    pub index: Index,
}

/// Where a paged read begins and how much it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Opaque: what the page before said; `None` to begin.
    pub after: Option<Vec<u8>>,
    /// The most items to return.
    pub limit: usize,
    /// The most rows to look at; a selective read may return fewer items than `limit` and still not be at
    /// the end.
    pub examine: usize,
    /// About how many bytes of properties, or of edges, to return at most; a page that is not the last has one item at
    /// least, however large.
    pub bytes: usize,
}

impl Page {
    /// The first page, with at most `limit` items.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, examine: usize::MAX, bytes: usize::MAX }
    }
}

/// What an edge without its label and properties counts for in a page's bytes: about two CIDs as text.
pub const EDGE_BYTES: usize = 150;

/// A page of items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf<T> {
    /// The items, in key order.
    pub items: Vec<T>,
    /// Where the next page begins; `None`: there is none.
    pub resume: Option<Vec<u8>>,
}

/// Whether this group holds the block, and so the entity it belongs to. An edge's or a version's CID does
/// not tell its partition, so every node is asked this for its groups; the answer never changes once true.
///
/// # Errors
/// Where the store fails.
pub fn contains(view: &impl ReadView, group: GroupId, cid: Cid) -> Result<bool, StoreError> {
    Ok(block_row(view, group, cid)?.is_some())
}

/// The group among these that holds the block.
///
/// # Errors
/// Where the store fails.
pub fn locate(
    view: &impl ReadView,
    groups: impl IntoIterator<Item = GroupId>,
    cid: Cid,
) -> Result<Option<GroupId>, StoreError> {
    for group in groups {
        if contains(view, group, cid)? {
            return Ok(Some(group));
        }
    }
    Ok(None)
}

/// The bytes of a block: first blocks and versions alike.
///
/// # Errors
/// Where the store fails.
pub fn block(view: &impl ReadView, group: GroupId, cid: Cid) -> Result<Option<Bytes>, StoreError> {
    Ok(block_row(view, group, cid)?.map(|row| row.block))
}

/// An entity by its identity; `None` where the group has none of this identity.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn entity(view: &impl ReadView, group: GroupId, identity: Cid) -> Result<Option<Entity>, StoreError> {
    match view.get(&BlockRow::first_key(group, identity))? {
        None => Ok(None),
        Some(row) => entity_of(view, group, identity, &BlockRow::decode(&row)?).map(Some),
    }
}

/// The current generation of a node that lives; `None` where it does not exist, is deleted or is an edge.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn living_generation(
    view: &impl ReadView,
    group: GroupId,
    node: Cid,
) -> Result<Option<Generation>, StoreError> {
    let living = |head: Head| (head.kind == Kind::Node && !head.deleted).then_some(head.generation);
    if let Some(row) = view.get(&Head::key(group, node))? {
        return Ok(living(Head::decode(&row)?));
    }
    let Some(row) = view.get(&BlockRow::first_key(group, node))? else {
        return Ok(None);
    };
    Ok((BlockRow::decode(&row)?.kind == Kind::Node).then_some(Generation::FIRST))
}

/// All versions of an entity, oldest first; `None` where the group has none of this identity.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn history(
    view: &impl ReadView,
    group: GroupId,
    identity: Cid,
) -> Result<Option<Vec<VersionRecord>>, StoreError> {
    let Some(first) = view.get(&BlockRow::first_key(group, identity))? else {
        return Ok(None);
    };
    let first = BlockRow::decode(&first)?;
    let mut versions = Vec::new();
    let mut at = head_of(view, group, identity, first.kind)?.version;
    let mut later: Option<Index> = None;
    while at != identity {
        let row = view.get(&BlockRow::version_key(group, at))?;
        let row = BlockRow::decode(&row.ok_or(StoreError::Damaged("a block that is missing"))?)?;
        // Each version came before the next one: a chain of damaged rows ends, too.
        if later.replace(row.index).is_some_and(|later| row.index >= later) {
            return Err(StoreError::Damaged("the order of versions"));
        }
        let Block::Version(block) = decode(&row.block)? else {
            return Err(StoreError::Damaged("a version"));
        };
        versions.push(VersionRecord {
            version: at,
            deleted: block.deleted,
            generation: block.generation,
            properties: block.properties,
            index: row.index,
        });
        at = block.previous;
    }
    versions.push(VersionRecord {
        version: identity,
        deleted: false,
        generation: Generation::FIRST,
        properties: decode(&first.block)?.into_properties(),
        index: first.index,
    });
    versions.reverse();
    Ok(Some(versions))
}

/// The edges that leave a node, of one label or of any. Empty where the node does not live here.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn out_edges(
    view: &impl ReadView,
    group: GroupId,
    node: Cid,
    label: Option<&str>,
    page: &Page,
) -> Result<PageOf<EdgeRef>, StoreError> {
    let Some(generation) = living_generation(view, group, node)? else {
        return Ok(PageOf { items: Vec::new(), resume: None });
    };
    scan(view, &edge_range(group, OUT, node, label), page, size_of_edge, |key, row| {
        let (source, label, edge) = EdgeRow::parse_key(key)?;
        let row = EdgeRow::decode(row)?;
        let edge = EdgeRef { edge, ends: ends(&row, label, source, row.other) };
        Ok((edge.ends.source_generation == generation).then_some(edge))
    })
}

/// The edges that enter a node and live in this group (with their sources, which are checked here).
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn in_edges(
    view: &impl ReadView,
    group: GroupId,
    node: Cid,
    label: Option<&str>,
    page: &Page,
) -> Result<PageOf<EdgeRef>, StoreError> {
    scan(view, &edge_range(group, IN, node, label), page, size_of_edge, |key, row| {
        let (target, label, edge) = EdgeRow::parse_key(key)?;
        let row = EdgeRow::decode(row)?;
        let edge = EdgeRef { edge, ends: ends(&row, label, row.other, target) };
        let source = living_generation(view, group, edge.ends.source)?;
        Ok((source == Some(edge.ends.source_generation)).then_some(edge))
    })
}

/// All edges of one label in this group whose sources live.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn edges_by_label(
    view: &impl ReadView,
    group: GroupId,
    label: &str,
    page: &Page,
) -> Result<PageOf<EdgeRef>, StoreError> {
    scan(view, &KeyRange::prefix(&rows::key(group, OUT, &[])), page, size_of_edge, |key, row| {
        let (source, found, edge) = EdgeRow::parse_key(key)?;
        if found != label {
            return Ok(None);
        }
        let row = EdgeRow::decode(row)?;
        let living = living_generation(view, group, source)? == Some(row.source_generation);
        Ok(living.then(|| EdgeRef { edge, ends: ends(&row, label, source, row.other) }))
    })
}

/// All living entities of this group, in the order of their identities' digests.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn living(view: &impl ReadView, group: GroupId, page: &Page) -> Result<PageOf<Entity>, StoreError> {
    living_where(view, group, page, |_| true)
}

/// The living entities whose property `name` equals `value`.
///
/// # Errors
/// Where the store fails or holds a damaged row.
pub fn by_property(
    view: &impl ReadView,
    group: GroupId,
    name: &str,
    value: &Value,
    page: &Page,
) -> Result<PageOf<Entity>, StoreError> {
    living_where(view, group, page, |entity| entity.properties.get(name) == Some(value))
}

fn living_where(
    view: &impl ReadView,
    group: GroupId,
    page: &Page,
    wanted: impl Fn(&Entity) -> bool,
) -> Result<PageOf<Entity>, StoreError> {
    scan(view, &KeyRange::prefix(&rows::key(group, FIRST, &[])), page, size_of_entity, |key, row| {
        let digest = key[KEY_PREFIX..].try_into().map_err(|_| StoreError::Damaged("a block's key"))?;
        let first = BlockRow::decode(&Bytes::copy_from_slice(row))?;
        let entity = entity_of(view, group, Cid::from_digest(digest), &first)?;
        Ok((!entity.deleted && wanted(&entity)).then_some(entity))
    })
}

/// Edges are returned without their properties.
fn size_of_edge(edge: &EdgeRef) -> usize {
    edge.ends.label.len() + EDGE_BYTES
}

fn size_of_entity(entity: &Entity) -> usize {
    entity.properties.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// Scans a range page by page; `item` turns a row into an item or skips it.
fn scan<T>(
    view: &impl ReadView,
    range: &KeyRange,
    page: &Page,
    size: impl Fn(&T) -> usize,
    mut item: impl FnMut(&[u8], &[u8]) -> Result<Option<T>, StoreError>,
) -> Result<PageOf<T>, StoreError> {
    let range = match &page.after {
        Some(key) => range.clone().after(key),
        None => range.clone(),
    };
    let (mut items, mut last, mut bytes) = (Vec::new(), Vec::new(), 0);
    let (mut examined, mut more, mut failure) = (0, false, None);
    view.scan(&range, Order::Ascending, &mut |key, value| {
        if items.len() >= page.limit || examined >= page.examine || bytes >= page.bytes {
            more = true;
            return ControlFlow::Break(());
        }
        examined += 1;
        last.clear();
        last.extend_from_slice(key);
        match item(key, value) {
            Ok(found) => {
                bytes += found.as_ref().map_or(0, &size);
                items.extend(found);
            }
            Err(error) => {
                failure = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    match failure {
        Some(error) => Err(error),
        None => Ok(PageOf { items, resume: more.then_some(last) }),
    }
}

fn block_row(view: &impl ReadView, group: GroupId, cid: Cid) -> Result<Option<BlockRow>, StoreError> {
    let row = match view.get(&BlockRow::first_key(group, cid))? {
        Some(row) => Some(row),
        None => view.get(&BlockRow::version_key(group, cid))?,
    };
    row.map(|row| BlockRow::decode(&row)).transpose()
}

fn head_of(view: &impl ReadView, group: GroupId, identity: Cid, kind: Kind) -> Result<Head, StoreError> {
    match view.get(&Head::key(group, identity))? {
        Some(row) => Head::decode(&row),
        None => Ok(Head { kind, deleted: false, generation: Generation::FIRST, version: identity }),
    }
}

fn entity_of(
    view: &impl ReadView,
    group: GroupId,
    identity: Cid,
    first: &BlockRow,
) -> Result<Entity, StoreError> {
    let head = head_of(view, group, identity, first.kind)?;
    let (detail, mut properties) = match decode(&first.block)? {
        Block::Node(node) => (Detail::Node { key: node.key }, node.properties),
        Block::Edge(edge) => {
            let ends = EdgeEnds {
                label: edge.label,
                source: edge.source,
                target: edge.target,
                source_generation: edge.source_generation,
                target_generation: edge.target_generation,
            };
            (Detail::Edge(ends), edge.properties)
        }
        Block::Version(_) => return Err(StoreError::Damaged("a first block")),
    };
    let mut index = first.index;
    if head.version != identity {
        let row = view.get(&BlockRow::version_key(group, head.version))?;
        let row = BlockRow::decode(&row.ok_or(StoreError::Damaged("a block that is missing"))?)?;
        properties = decode(&row.block)?.into_properties();
        index = row.index;
    }
    let orphaned = match &detail {
        Detail::Node { .. } => false,
        Detail::Edge(ends) => living_generation(view, group, ends.source)? != Some(ends.source_generation),
    };
    let (version, generation, deleted) = (head.version, head.generation, head.deleted || orphaned);
    Ok(Entity { cid: identity, version, deleted, generation, detail, properties, index })
}

fn edge_range(group: GroupId, table: u8, node: Cid, label: Option<&str>) -> KeyRange {
    match label {
        None => KeyRange::prefix(&rows::key(group, table, &[node.digest()])),
        Some(label) => KeyRange::prefix(&rows::key(group, table, &[node.digest(), &label_part(label)])),
    }
}

fn ends(row: &EdgeRow, label: &str, source: Cid, target: Cid) -> EdgeEnds {
    EdgeEnds {
        label: label.to_owned(),
        source,
        target,
        source_generation: row.source_generation,
        target_generation: row.target_generation,
    }
}

fn decode(block: &[u8]) -> Result<Block, StoreError> {
    Block::decode(block).map_err(|_| StoreError::Damaged("a block"))
}
