//! A second algorithm, in the other direction: Lowe's just-in-time linearization ("Testing for
//! linearizability", 2017, section 4), breadth first. It walks through the events once and keeps
//! every configuration that is possible so far: which of the pending operations took effect, and the
//! state. An operation takes effect, with others before it, at the latest when its answer comes.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Which pending operations took effect, and the state: serialised, so that it is compared exactly.
type Configuration = (BTreeSet<usize>, Vec<u8>);

pub(super) fn is_linearizable(history: &Registered) -> bool {
    let mut keys = BTreeMap::<u64, Vec<_>>::new();
    for operation in &history.operations {
        keys.entry(<Registers as Model>::key(&operation.operation)).or_default().push(operation);
    }
    keys.values().all(|operations| has_explanation(operations))
}

fn has_explanation(operations: &[&Operation<RegisterOperation, RegisterAnswer>]) -> bool {
    let mut events = Vec::new();
    for (at, operation) in operations.iter().enumerate() {
        events.push((operation.invoked, 0, at));
        if let End::Answered { at: time, .. } = operation.end {
            events.push((time, 1, at));
        }
    }
    events.sort_unstable();
    let mut pending = BTreeSet::new();
    let mut possible = BTreeSet::from([(BTreeSet::new(), encode(&Registers::default()))]);
    for (_, kind, at) in events {
        if kind == 0 {
            pending.insert(at);
            continue;
        }
        possible = closure(operations, &pending, possible);
        possible.retain(|(effective, _)| effective.contains(&at));
        possible = possible.into_iter().map(|(effective, state)| (without(effective, at), state)).collect();
        pending.remove(&at);
    }
    !possible.is_empty()
}

/// All configurations that pending operations can lead to.
fn closure(
    operations: &[&Operation<RegisterOperation, RegisterAnswer>],
    pending: &BTreeSet<usize>,
    possible: BTreeSet<Configuration>,
) -> BTreeSet<Configuration> {
    let mut all = possible.clone();
    let mut new: Vec<Configuration> = possible.into_iter().collect();
    while let Some((effective, state)) = new.pop() {
        for &at in pending.difference(&effective) {
            let mut next: Registers = postcard::from_bytes(&state).expect("it was encoded here");
            let answer = Model::step(&mut next, &operations[at].operation);
            if matches!(&operations[at].end, End::Answered { answer: told, .. } if *told != answer) {
                continue;
            }
            let mut effective = effective.clone();
            effective.insert(at);
            let configuration = (effective, encode(&next));
            if all.insert(configuration.clone()) {
                new.push(configuration);
            }
        }
    }
    all
}

fn without(mut set: BTreeSet<usize>, at: usize) -> BTreeSet<usize> {
    set.remove(&at);
    set
}

fn encode(state: &Registers) -> Vec<u8> {
    postcard::to_allocvec(state).expect("registers serialise")
}
