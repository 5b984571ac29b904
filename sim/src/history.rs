//! What clients asked and were told, and when: the evidence of a run, whatever happened inside.

mod json_lines;

pub use json_lines::ReadError;

use kotoba_db_cluster::raft::{GroupId, Index};
use serde::Serialize;

/// Simulated time that really passed, in nanoseconds since the run began: no host's clock.
pub type TrueTime = u64;

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation<O, A> {
    /// The client. A client begins an operation only when its last one ended, but for bursts.
    pub client: u32,
    /// The client's count.
    pub serial: u64,
    /// The group it was asked of.
    pub group: GroupId,
    /// What was asked.
    pub operation: O,
    /// When.
    pub invoked: TrueTime,
    /// How it ended, as far as the client knows.
    pub end: End<A>,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum End<A> {
    /// The client was answered.
    Answered {
        /// When.
        at: TrueTime,
        /// The answer.
        answer: A,
        /// Of a write, its entry's index as the answering host told; of a read, the state's index.
        index: Index,
    },
    /// The client gave up: the operation may have taken effect, may still do so, or never.
    Unknown,
}

/// All operations of a run, in the order they were invoked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History<O, A> {
    /// In the order they were invoked.
    pub operations: Vec<Operation<O, A>>,
}

impl<O, A> Default for History<O, A> {
    fn default() -> Self {
        Self { operations: Vec::new() }
    }
}
