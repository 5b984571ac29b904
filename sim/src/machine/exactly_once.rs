//! Client sessions around a user's machine (Raft thesis, section 6.3).

use std::collections::BTreeMap;

use bytes::Bytes;
use kotoba_db_cluster::raft::{GroupId, Position};
use serde::{Deserialize, Serialize};

use super::{Machine, Request, StateMachine};
use crate::choice::Chooser;

/// A machine that carries out each request once, however often it is retried: it remembers the
/// answers that the client may still ask for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "M: Machine"))]
pub struct ExactlyOnce<M: Machine> {
    machine: M,
    sessions: BTreeMap<u32, Session<M::Answer>>,
}

/// What is remembered of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Session<A> {
    /// Requests before this one are over: they are neither repeated nor carried out any more.
    over_below: u64,
    answers: BTreeMap<u64, A>,
}

impl<A> Default for Session<A> {
    fn default() -> Self {
        Self { over_below: 0, answers: BTreeMap::new() }
    }
}

#[derive(Serialize, Deserialize)]
struct Command<O> {
    client: u32,
    serial: u64,
    acked_below: u64,
    operation: O,
}

impl<M: Machine> Default for ExactlyOnce<M> {
    fn default() -> Self {
        Self { machine: M::default(), sessions: BTreeMap::new() }
    }
}

impl<M: Machine> ExactlyOnce<M> {
    /// The machine inside.
    pub fn machine(&self) -> &M {
        &self.machine
    }
}

impl<M: Machine> StateMachine for ExactlyOnce<M> {
    type Operation = M::Operation;
    type Answer = M::Answer;
    type Model = M;

    fn create(_: GroupId, _: Position) -> Self {
        Self::default()
    }

    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> M::Operation {
        M::draw(choices, client, serial)
    }

    fn is_read(operation: &M::Operation) -> bool {
        M::is_read(operation)
    }

    fn encode(request: Request, operation: &M::Operation) -> Bytes {
        let Request { client, serial, acked_below } = request;
        let command = Command { client, serial, acked_below, operation };
        postcard::to_allocvec(&command).expect("an operation serialises").into()
    }

    fn request_of(payload: &Bytes) -> Request {
        let ((client, serial, acked_below), _) =
            postcard::take_from_bytes(payload).expect("only commands are proposed");
        Request { client, serial, acked_below }
    }

    const DIGEST_EVERY: u64 = M::DIGEST_EVERY;

    fn apply(&mut self, _: Position, payload: &Bytes) -> Option<M::Answer> {
        let Command { client, serial, acked_below, operation } =
            postcard::from_bytes::<Command<M::Operation>>(payload).expect("only commands are proposed");
        let session = self.sessions.entry(client).or_default();
        session.over_below = session.over_below.max(acked_below);
        let over_below = session.over_below;
        while session.answers.first_key_value().is_some_and(|(&oldest, _)| oldest < over_below) {
            session.answers.pop_first();
        }
        if serial < over_below {
            return None;
        }
        if let Some(answer) = session.answers.get(&serial) {
            return Some(answer.clone());
        }
        let answer = self.machine.apply(&operation);
        session.answers.insert(serial, answer.clone());
        Some(answer)
    }

    fn read(&self, operation: &M::Operation) -> M::Answer {
        self.machine.read(operation)
    }

    fn snapshot(&self, _: Position) -> Bytes {
        postcard::to_allocvec(self).expect("a machine serialises").into()
    }

    fn restore(_: GroupId, _: Position, snapshot: &Bytes) -> Result<Self, String> {
        postcard::from_bytes(snapshot).map_err(|error| error.to_string())
    }

    fn digest(&self) -> u64 {
        self.machine.digest()
    }

    fn invariant(&self) -> Result<(), String> {
        self.machine.invariant()
    }

    fn key(operation: &M::Operation) -> u64 {
        M::key(operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{RegisterAnswer, RegisterOperation, Registers};

    fn put(client: u32, serial: u64, acked_below: u64, value: u64) -> Bytes {
        let operation = RegisterOperation::Put { key: 1, value };
        ExactlyOnce::<Registers>::encode(Request { client, serial, acked_below }, &operation)
    }

    #[test]
    fn a_repeated_request_is_answered_and_not_carried_out() {
        let mut machine = ExactlyOnce::<Registers>::default();
        let first = machine.apply(Position::ZERO, &put(1, 1, 0, 10));
        machine.apply(Position::ZERO, &put(2, 1, 0, 20));
        assert!(first.is_some());
        assert_eq!(machine.apply(Position::ZERO, &put(1, 1, 0, 10)), first);
        assert_eq!(
            machine.read(&RegisterOperation::Get { key: 1 }),
            RegisterAnswer::Found { value: 20, writes: 2 }
        );
    }

    #[test]
    fn a_request_that_is_over_is_not_carried_out() {
        let mut machine = ExactlyOnce::<Registers>::default();
        machine.apply(Position::ZERO, &put(1, 5, 5, 10));
        assert_eq!(machine.apply(Position::ZERO, &put(1, 4, 0, 20)), None);
        assert_eq!(
            machine.read(&RegisterOperation::Get { key: 1 }),
            RegisterAnswer::Found { value: 10, writes: 1 }
        );
    }

    #[test]
    fn a_snapshot_keeps_the_sessions() {
        let mut machine = ExactlyOnce::<Registers>::default();
        let first = machine.apply(Position::ZERO, &put(1, 1, 0, 10));
        let snapshot = machine.snapshot(Position::ZERO);
        let mut restored =
            ExactlyOnce::<Registers>::restore(GroupId(1), Position::ZERO, &snapshot).expect("a snapshot");
        assert_eq!(restored.digest(), machine.digest());
        assert_eq!(restored.apply(Position::ZERO, &put(1, 1, 0, 10)), first);
        assert_eq!(restored.digest(), machine.digest());
    }
}
