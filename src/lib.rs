//! KotobaDB Cluster: a content-addressed graph database made highly available.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

#[cfg(feature = "node")]
pub mod api;
#[cfg(feature = "node")]
pub mod client;
#[cfg(feature = "node")]
pub mod error;
pub mod limits;
pub mod placement;
pub mod raft;
