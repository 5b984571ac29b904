//! KotobaDB Cluster: a content-addressed graph database made highly available.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod cli;
#[cfg(feature = "node")]
pub mod client;
#[cfg(feature = "node")]
pub mod error;
#[cfg(feature = "graph")]
pub mod graph;
pub mod limits;
pub mod multiraft;
#[cfg(feature = "node")]
mod node;
pub mod placement;
pub mod raft;
pub mod storage;
