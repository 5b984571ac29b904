//! The core is a function: the inputs that a run gave it, given again to the state it began with, lead
//! to the same outputs and the same state.
//!
//! A [`Tape`] keeps what the shell of a real node gave its core. It is replayed when the run is over,
//! by the bare core, with nothing of the shell around it.

use std::hash::{Hash, Hasher};

use kotoba_db_cluster::{
    multiraft::{Node, NodeInput, NodeOutput},
    raft::Now,
};
use xxhash_rust::xxh3::Xxh3;

use super::{Check, Verdict, Violation};

/// Inputs between two looks at the whole state. Outputs are compared always.
const LOOK_EVERY: usize = 64;

/// Everything that one node's core was given.
#[derive(Clone, Debug, Default)]
pub struct Tape {
    pieces: Vec<Piece>,
}

/// A core from a state that was set on.
#[derive(Clone, Debug)]
struct Piece {
    first: Node,
    inputs: Vec<(Now, NodeInput)>,
    /// How many inputs led to which hash of the outputs so far and the state.
    looks: Vec<(usize, u64)>,
    outputs: Xxh3Hasher,
}

/// A hasher that can be shown.
#[derive(Clone, Default)]
struct Xxh3Hasher(Xxh3);

impl std::fmt::Debug for Xxh3Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Xxh3Hasher").field(&self.0.digest()).finish()
    }
}

impl Xxh3Hasher {
    fn with(&self, node: &Node) -> u64 {
        let mut hasher = self.0.clone();
        node.hash(&mut hasher);
        hasher.finish()
    }
}

impl Tape {
    /// The core is in this state now, whatever led to it.
    pub fn set(&mut self, node: &Node) {
        self.pieces.retain(|piece| !piece.inputs.is_empty());
        let (inputs, looks) = (Vec::new(), Vec::new());
        self.pieces.push(Piece { first: node.clone(), inputs, looks, outputs: Xxh3Hasher::default() });
    }

    /// The core is given an input.
    pub fn given(&mut self, now: Now, input: &NodeInput) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.inputs.push((now, input.clone()));
        }
    }

    /// The core wants something.
    pub fn wants(&mut self, output: &NodeOutput) {
        if let Some(piece) = self.pieces.last_mut() {
            output.hash(&mut piece.outputs.0);
        }
    }

    /// The core has nothing more to say to its last input.
    pub fn done(&mut self, node: &Node) {
        if let Some(piece) = self.pieces.last_mut()
            && piece.inputs.len().is_multiple_of(LOOK_EVERY)
        {
            piece.looks.push((piece.inputs.len(), piece.outputs.with(node)));
        }
    }

    /// Inputs on the tape.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.pieces.iter().map(|piece| piece.inputs.len()).sum()
    }

    /// Gives everything once more to a bare core. `host` names the node.
    ///
    /// # Errors
    /// Where it does or becomes something else.
    pub fn replay(self, host: u32) -> Verdict {
        self.pieces.into_iter().try_for_each(|piece| piece.replay(host))
    }
}

impl Piece {
    fn replay(self, host: u32) -> Verdict {
        let Self { first: mut node, inputs, looks, outputs: expected } = self;
        let mut looks = looks.into_iter().peekable();
        let mut outputs = Xxh3Hasher::default();
        let all = inputs.len();
        for (count, (now, input)) in (1..).zip(inputs) {
            node.handle(now, input);
            while let Some(output) = node.poll_output() {
                output.hash(&mut outputs.0);
            }
            if let Some((_, hash)) = looks.next_if(|(at, _)| *at == count)
                && hash != outputs.with(&node)
            {
                let message = format!("host {host}: another state after {count} of {all} inputs");
                return Err(Violation::new(Check::Replay, message));
            }
        }
        if outputs.0.digest() == expected.0.digest() {
            return Ok(());
        }
        Err(Violation::new(Check::Replay, format!("host {host}: other outputs for the same {all} inputs")))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kotoba_db_cluster::{
        multiraft::Routes,
        raft::{
            BootEpoch, Configuration, GroupId, HardState, Index, Input, Instant, Limits, Position, Replica,
            ReplicaId, Restored, Settings, SnapshotMeta, Term, Timing,
        },
    };

    use super::*;

    const GROUP: GroupId = GroupId(1);

    fn node(seed: u64) -> Node {
        let settings = Settings {
            id: ReplicaId(1),
            boot: BootEpoch(1),
            seed,
            timing: Timing { heartbeat: Duration::from_millis(50), ..Timing::default() },
            retained_bytes: 0,
            limits: Limits::default(),
        };
        let configuration = Configuration::of_voters((1..=3).map(ReplicaId)).expect("three voters");
        let position = Position::new(Index(1), Term(1));
        let restored = Restored {
            hard_state: HardState { term: Term(1), vote: None },
            start: SnapshotMeta { position, configuration },
            runs: Vec::new(),
            configurations: Vec::new(),
            applied: Index(1),
            damaged: false,
        };
        let replica = Replica::recover(settings, restored, at(0)).expect("a sound state");
        let mut node = Node::new();
        node.add_group(GROUP, replica, Routes::default());
        node
    }

    fn at(millis: u64) -> Now {
        Now { monotonic: Instant(millis * 1_000_000), wall: None }
    }

    fn record(tape: &mut Tape, node: &mut Node, millis: impl Iterator<Item = u64>) {
        for millis in millis {
            let input = if millis == 1 {
                NodeInput::Group { group: GROUP, input: Input::Campaign }
            } else {
                NodeInput::Tick
            };
            tape.given(at(millis), &input);
            node.handle(at(millis), input);
            while let Some(output) = node.poll_output() {
                tape.wants(&output);
            }
            tape.done(node);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_and_others_do_not() {
        let mut core = node(7);
        let mut tape = Tape::default();
        tape.set(&core);
        record(&mut tape, &mut core, (1..2_000).step_by(10));
        assert_eq!(tape.inputs(), 200);
        assert_eq!(tape.clone().replay(1), Ok(()));
        // Another seed waits for other times.
        let mut other = tape.clone();
        other.pieces[0].first = node(8);
        assert!(other.replay(1).is_err());
        // One input less.
        let mut less = tape.clone();
        less.pieces[0].inputs.remove(0);
        assert!(less.replay(1).is_err());
        // A state that was not reached.
        tape.pieces[0].looks[0].1 ^= 1;
        assert!(tape.replay(1).is_err());
    }
}
