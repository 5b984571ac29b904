//! The API of the specification.

pub mod config;
pub mod types;
