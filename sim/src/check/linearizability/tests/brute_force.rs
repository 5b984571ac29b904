//! The definition, word by word: every subset, every permutation. For a handful of operations.

use super::*;

/// Whether some of these calls, all that were answered among them, have an order that keeps to
/// real time and explains the answers.
pub(super) fn is_linearizable(history: &Registered) -> bool {
    let mut rest: Vec<_> = history.operations.iter().collect();
    permute(&mut rest, 0)
}

fn permute(calls: &mut [&Operation<RegisterOperation, RegisterAnswer>], fixed: usize) -> bool {
    let left = &calls[fixed..];
    if left.iter().all(|call| call.end == End::Unknown) && explains(&calls[..fixed]) {
        return true;
    }
    (fixed..calls.len()).any(|next| {
        calls.swap(fixed, next);
        let found = permute(calls, fixed + 1);
        calls.swap(fixed, next);
        found
    })
}

fn explains(order: &[&Operation<RegisterOperation, RegisterAnswer>]) -> bool {
    let mut state = Registers::default();
    for (at, call) in order.iter().enumerate() {
        let answer = Model::step(&mut state, &call.operation);
        let End::Answered { at: answered_at, answer: told, .. } = &call.end else {
            continue;
        };
        if *told != answer || order[..at].iter().any(|earlier| earlier.invoked > *answered_at) {
            return false;
        }
    }
    true
}
