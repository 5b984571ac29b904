//! What a node keeps on disk, behind small traits.
#[cfg(feature = "graph")]
pub mod graph_store;
pub mod wal;
