//! The state machine under test: ours, or yours.
//!
//! Implement [`Machine`] for a value that can be serialised, and every fault, check and command of
//! this crate works on it: [`ExactlyOnce`] puts client sessions around it, so that a request that
//! is retried takes effect once. A machine that has sessions, a format and a store of its own, as
//! the graph has, implements [`StateMachine`] instead.

mod exactly_once;
mod graph;
mod registers;

pub use exactly_once::ExactlyOnce;
pub use graph::{Entity, Found, Graph, GraphAnswer, GraphOperation, Neighbor, PlainGraph, Refusal};
pub use registers::{RegisterAnswer, RegisterOperation, Registers};

use std::fmt::Debug;

use bytes::Bytes;
use kotoba_db_cluster::raft::{GroupId, Position};
use serde::{Serialize, de::DeserializeOwned};

use crate::choice::Chooser;

/// A client's name for one of its requests; the same again when it is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// The client.
    pub client: u32,
    /// The client's own count.
    pub serial: u64,
    /// The client has the answers of all requests before this one, and will not repeat them.
    pub acked_below: u64,
}

/// A deterministic state machine, as a user writes one.
///
/// Every replica has a copy of its own, begins with `default()`, and applies the operations of the
/// log one after the other. So all copies are equal only if applying is a function of state and
/// operation: no clock, no randomness, no map without a fixed order, no address, no thread, no
/// floating point that differs between machines.
///
/// Its serialised form ([`postcard`]) is its snapshot, and what its replica starts from again: a
/// field that serde skips is forgotten there. A panic in any method is a violation like any other.
/// A run may have several groups; each then has a machine of its own.
///
/// `docs/your-own-state-machine.md` goes through an implementation.
pub trait Machine: Clone + Debug + Default + Serialize + DeserializeOwned {
    /// What clients ask for: it is what the log holds, serialised.
    type Operation: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// What they are told. The more of the state an answer tells, the sooner a wrong one is noticed.
    type Answer: Clone + Debug + PartialEq + Serialize + DeserializeOwned;

    /// The next operation of a client.
    ///
    /// Everything that is drawn comes from `choices`, under [`Topic::Client`](crate::choice::Topic)
    /// and this client's number; zero should mean the plainest operation, because shrinking makes
    /// numbers smaller. `serial` differs between all operations of a run and is never zero: written
    /// as a value, it tells every write from every other. Draw from few keys, so that clients meet,
    /// and draw both reads and writes: in the end every group must have answered some of each.
    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> Self::Operation;

    /// Whether the operation changes nothing: it is then answered by [`Machine::read`], without an
    /// entry in the log. A function of the operation alone.
    fn is_read(operation: &Self::Operation) -> bool;

    /// Carries out an operation that is no read. A refusal is an answer too.
    fn apply(&mut self, operation: &Self::Operation) -> Self::Answer;

    /// Answers a read; never called with anything else.
    fn read(&self, operation: &Self::Operation) -> Self::Answer;

    /// What must be true of every state; the error says what is not. Looked at behind every entry of
    /// the log.
    ///
    /// # Errors
    /// Where the state is impossible.
    fn invariant(&self) -> Result<(), String> {
        Ok(())
    }

    /// The part of the state the operation reads and writes: histories are judged part by part,
    /// which is what makes that fast, and runs of several groups put a part into one of them. Where
    /// operations touch more than one part, return the same number for all.
    fn key(operation: &Self::Operation) -> u64;

    /// How many entries lie between two comparisons of digests: 1 where they are cheap.
    const DIGEST_EVERY: u64 = 16;

    /// A number that differs where two states differ. The default serialises the state; a machine
    /// that is large and fast keeps it up to date instead.
    fn digest(&self) -> u64 {
        let bytes = postcard::to_allocvec(self).expect("a machine serialises");
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

/// What the simulator replicates: a machine that knows of requests, log positions and snapshots.
///
/// [`ExactlyOnce`] makes one of any [`Machine`]. Implement this instead for a machine that has these
/// parts itself, and wants them tested: see [`Graph`].
pub trait StateMachine: Clone + Debug {
    /// What clients ask for.
    type Operation: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// What they are told.
    type Answer: Clone + Debug + PartialEq + Serialize + DeserializeOwned;
    /// What clients must see: the machine without sessions, replicas or a format. Histories are
    /// checked against it.
    type Model: Machine<Operation = Self::Operation, Answer = Self::Answer>;

    /// The first state of a group.
    fn create(group: GroupId, position: Position) -> Self;

    /// See [`Machine::draw`].
    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> Self::Operation;

    /// See [`Machine::is_read`].
    fn is_read(operation: &Self::Operation) -> bool;

    /// The payload of the entry that asks for an operation.
    fn encode(request: Request, operation: &Self::Operation) -> Bytes;

    /// Which request a payload asks for.
    fn request_of(payload: &Bytes) -> Request;

    /// Whether `answer` refuses a request whose id stood for another operation before; `None` where
    /// the machine does not compare operations.
    fn refuses_reuse(answer: Option<&Self::Answer>) -> Option<bool> {
        let _ = answer;
        None
    }

    /// Applies an entry with a payload. `None`: the client had promised not to repeat this request,
    /// so it is not carried out.
    fn apply(&mut self, position: Position, payload: &Bytes) -> Option<Self::Answer>;

    /// Applies several, as one batch where the machine can.
    fn apply_batch(&mut self, entries: &[(Position, Bytes)]) -> Vec<Option<Self::Answer>> {
        entries.iter().map(|(position, payload)| self.apply(*position, payload)).collect()
    }

    /// Answers a read.
    fn read(&self, operation: &Self::Operation) -> Self::Answer;

    /// The whole state.
    fn snapshot(&self, position: Position) -> Bytes;

    /// The state of a snapshot.
    ///
    /// # Errors
    /// Where the bytes are not a snapshot.
    fn restore(group: GroupId, position: Position, snapshot: &Bytes) -> Result<Self, String>;

    /// The state of a snapshot, put in the place of this one: by default nothing of this one is used.
    ///
    /// # Errors
    /// Where the bytes are not a snapshot.
    fn replaced(&self, group: GroupId, position: Position, snapshot: &Bytes) -> Result<Self, String> {
        Self::restore(group, position, snapshot)
    }

    /// This state after a restart of its process: what is only in memory is gone.
    #[must_use]
    fn restarted(&self) -> Self {
        self.clone()
    }

    /// A number that differs where two states differ.
    fn digest(&self) -> u64;

    /// How many entries lie between two comparisons of digests: 1 where they are cheap.
    const DIGEST_EVERY: u64 = 16;

    /// See [`Machine::invariant`].
    ///
    /// # Errors
    /// Where the state is impossible.
    fn invariant(&self) -> Result<(), String>;

    /// Looks at the whole state, however long it takes; done seldom.
    ///
    /// # Errors
    /// Where the state is impossible.
    fn audit(&self) -> Result<(), String> {
        self.invariant()
    }

    /// See [`Machine::key`].
    fn key(operation: &Self::Operation) -> u64;
}
