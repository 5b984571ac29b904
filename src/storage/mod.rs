//! What a node keeps on its disk: the write-ahead log of all its groups.
//!
//! The byte format, recovery and the writer are pure and reach the disk through a trait; with the
//! feature `node` there is a disk of files, a thread that writes, and a lock on the data directory.

pub mod wal;
