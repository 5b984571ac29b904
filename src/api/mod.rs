//! The API of the specification.

pub mod config;
mod query;
pub mod types;

pub use self::{
    config::*,
    query::{Consistency, Direction, DistributedQuery, Entity, EntityKind, Neighbor, Query, QueryResult, Version},
    types::*,
};
