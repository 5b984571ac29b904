//! The blocks a graph is made of.
//!
//! An entity's *first block* names what it is; its CID is the entity's identity for ever. Each update,
//! deletion or re-creation appends a *version block* that links the identity and the version before, and
//! holds the full properties after the change. Blocks are canonical DAG-CBOR, so that any IPLD tool can
//! check a CID. `docs/graph-format.md` draws them.

use bytes::Bytes;

use crate::graph::{
    Cid, Properties,
    dag_cbor::{DagCborError, DagCborFault, Reader, Writer},
    value::ValueError,
};

/// Whether an entity is a node or an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A node.
    Node,
    /// An edge: it lives with its source node.
    Edge,
}

impl Kind {
    /// `node` or `edge`, as blocks and answers say it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Edge => "edge",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Counts an entity's lives: 1 when first created, one more with each creation after a deletion. An edge
/// records those of its two ends and is visible only while they match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// No life: said of a node that does not exist or is deleted.
    pub const NONE: Self = Self(0);
    /// The first life.
    pub const FIRST: Self = Self(1);

    /// The life after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A block, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// The first block of a node.
    Node(NodeBlock),
    /// The first block of an edge.
    Edge(EdgeBlock),
    /// Any later version of either.
    Version(VersionBlock),
}

/// The first block of a node.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct NodeBlock {
    /// Tells nodes with equal properties apart (an import's KEY).
    pub key: Option<String>,
    /// The properties at creation.
    pub properties: Properties,
}

/// The first block of an edge.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeBlock {
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
    /// The properties at creation.
    pub properties: Properties,
}

/// A later version of an entity.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionBlock {
    /// The CID of the entity's first block.
    pub identity: Cid,
    /// The version before this one: the first block or another version block.
    pub previous: Cid,
    /// Which life of the entity this version belongs to.
    pub generation: Generation,
    /// Whether this version ends that life. Its properties are then empty.
    pub deleted: bool,
    /// All properties after the change.
    pub properties: Properties,
}

const NODE: &str = "node";
const EDGE: &str = "edge";
const VERSION: &str = "version";

impl NodeBlock {
    /// The canonical bytes.
    ///
    /// # Errors
    /// Where a property has none.
    pub fn encode(&self) -> Result<Bytes, ValueError> {
        let mut writer = Writer::with_capacity(256);
        writer.map(2 + usize::from(self.key.is_some()));
        if let Some(key) = &self.key {
            writer.text("key");
            writer.text(key);
        }
        writer.text("type");
        writer.text(NODE);
        writer.text("properties");
        writer.properties(&self.properties)?;
        Ok(writer.finish().into())
    }

    /// Checks that bytes are the canonical first block of a node, without building it. Returns its key.
    ///
    /// # Errors
    /// Names the first byte that is not as it must be.
    pub fn check(bytes: &[u8]) -> Result<Option<&str>, DagCborError> {
        let mut reader = Reader::new(bytes);
        let key = Self::read_before_properties(&mut reader)?;
        reader.check_properties()?;
        reader.end()?;
        Ok(key)
    }

    fn read_before_properties<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a str>, DagCborError> {
        let key = match reader.map()? {
            2 => None,
            3 => {
                reader.key("key")?;
                Some(reader.text()?)
            }
            _ => return Err(DagCborError { at: 0, fault: DagCborFault::Unexpected }),
        };
        reader.key("type")?;
        reader.key(NODE)?;
        reader.key("properties")?;
        Ok(key)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DagCborError> {
        let mut reader = Reader::new(bytes);
        let key = Self::read_before_properties(&mut reader)?.map(str::to_owned);
        let properties = reader.properties()?;
        reader.end()?;
        Ok(Self { key, properties })
    }
}

impl EdgeBlock {
    const ENTRIES: u64 = 7;

    /// The canonical bytes.
    ///
    /// # Errors
    /// Where a property has none.
    pub fn encode(&self) -> Result<Bytes, ValueError> {
        let mut writer = Writer::with_capacity(320);
        writer.map(Self::ENTRIES as usize);
        writer.text("type");
        writer.text(EDGE);
        writer.text("label");
        writer.text(&self.label);
        writer.text("source");
        writer.link(self.source);
        writer.text("target");
        writer.link(self.target);
        writer.text("properties");
        writer.properties(&self.properties)?;
        writer.text("source_generation");
        writer.unsigned(self.source_generation.0);
        writer.text("target_generation");
        writer.unsigned(self.target_generation.0);
        Ok(writer.finish().into())
    }

    fn decode_rest(mut reader: Reader<'_>) -> Result<Self, DagCborError> {
        reader.key("label")?;
        let label = reader.text()?.to_owned();
        reader.key("source")?;
        let source = reader.link()?;
        reader.key("target")?;
        let target = reader.link()?;
        reader.key("properties")?;
        let properties = reader.properties()?;
        reader.key("source_generation")?;
        let source_generation = Generation(reader.unsigned()?);
        reader.key("target_generation")?;
        let target_generation = Generation(reader.unsigned()?);
        reader.end()?;
        Ok(Self { label, source, target, source_generation, target_generation, properties })
    }
}

impl VersionBlock {
    const ENTRIES: u64 = 6;

    /// The canonical bytes.
    ///
    /// # Errors
    /// Where a property has none.
    pub fn encode(&self) -> Result<Bytes, ValueError> {
        let mut writer = Writer::with_capacity(512);
        writer.map(Self::ENTRIES as usize);
        writer.text("type");
        writer.text(VERSION);
        writer.text("deleted");
        writer.boolean(self.deleted);
        writer.text("identity");
        writer.link(self.identity);
        writer.text("previous");
        writer.link(self.previous);
        writer.text("generation");
        writer.unsigned(self.generation.0);
        writer.text("properties");
        writer.properties(&self.properties)?;
        Ok(writer.finish().into())
    }

    fn decode_rest(mut reader: Reader<'_>) -> Result<Self, DagCborError> {
        reader.key("deleted")?;
        let deleted = reader.boolean()?;
        reader.key("identity")?;
        let identity = reader.link()?;
        reader.key("previous")?;
        let previous = reader.link()?;
        reader.key("generation")?;
        let generation = Generation(reader.unsigned()?);
        reader.key("properties")?;
        let properties = reader.properties()?;
        reader.end()?;
        Ok(Self { identity, previous, generation, deleted, properties })
    }
}

impl Block {
    /// Reads a block of any of the three types.
    ///
    /// # Errors
    /// Where the bytes are not the canonical form of one.
    pub fn decode(bytes: &[u8]) -> Result<Self, DagCborError> {
        let mut reader = Reader::new(bytes);
        match reader.map()? {
            2 | 3 => NodeBlock::decode(bytes).map(Self::Node),
            EdgeBlock::ENTRIES => {
                reader.key("type")?;
                reader.key(EDGE)?;
                EdgeBlock::decode_rest(reader).map(Self::Edge)
            }
            VersionBlock::ENTRIES => {
                reader.key("type")?;
                reader.key(VERSION)?;
                VersionBlock::decode_rest(reader).map(Self::Version)
            }
            _ => Err(DagCborError { at: 0, fault: DagCborFault::Unexpected }),
        }
    }

    /// The properties of this version.
    #[must_use]
    pub fn into_properties(self) -> Properties {
        match self {
            Self::Node(block) => block.properties,
            Self::Edge(block) => block.properties,
            Self::Version(block) => block.properties,
        }
    }
}
