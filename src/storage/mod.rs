//! What a node keeps on its disk, behind small traits: the write-ahead log of all its groups, and
//! the graph store.
//!
//! The log's byte format, recovery and writer are pure and reach the disk through a trait; with the
//! feature `node` there is a disk of files, a thread that writes, and a lock on the data directory.

#[cfg(feature = "graph")]
pub mod graph_store;
pub mod wal;
