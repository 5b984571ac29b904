//! KotobaDB Cluster: a content-addressed graph database made highly available.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;

pub mod limits;
pub mod raft;
pub mod storage;
