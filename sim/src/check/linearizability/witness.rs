//! What a person is shown of a history that has no explanation.

use std::{fmt, fmt::Write as _};

use kotoba_db_cluster::raft::GroupId;

use super::{
    Model,
    part::{Call, Part, beginning, by_answer},
    search::{Searched, Stuck, search},
};
use crate::history::{History, TrueTime};

/// Operations of the order that are shown: the last ones.
const SHOWN: usize = 12;

/// The shortest beginning of a history that has no explanation, and how far one comes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The group.
    pub group: GroupId,
    /// The key.
    pub key: u64,
    /// The operation whose answer ends the beginning: without it, what came before has an
    /// explanation, unless the search for that took too long. A place in the history, like all
    /// numbers here.
    pub last: usize,
    /// The order that accounts for the most answers.
    pub order: Vec<usize>,
    /// The operations of which one would have to come next, and cannot.
    pub unplaced: Vec<Unplaced>,
    text: String,
}

/// An operation that does not fit behind an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// The operation.
    pub operation: usize,
    /// What it would have been answered there.
    pub expected: String,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Witness {
    pub(super) fn find<M: Model>(
        history: &History<M::Operation, M::Answer>,
        part: &Part<'_, M>,
        stuck: Stuck<M>,
        steps: u64,
    ) -> Self {
        let (calls, last, stuck) = shortest(part, stuck, steps);
        let order: Vec<usize> = stuck.order.iter().map(|&at| calls[at].at).collect();
        let answered = stuck.candidates.iter().map(|&at| &calls[at]).filter(|call| call.answered.is_some());
        let unplaced = answered.map(|call| {
            let expected = stuck.state.clone().step(call.operation);
            Unplaced { operation: call.at, expected: format!("{expected:?}") }
        });
        let unplaced = unplaced.collect();
        let mut witness =
            Self { group: part.group, key: part.key, last, order, unplaced, text: String::new() };
        witness.text = witness.render(history);
        witness
    }

    fn render<O: fmt::Debug, A: fmt::Debug>(&self, history: &History<O, A>) -> String {
        let line = |at: usize| {
            let operation = &history.operations[at];
            format!(
                "client {} #{}: {:?}, {}",
                operation.client,
                operation.serial,
                operation.operation,
                When(operation)
            )
        };
        let mut text = format!(
            "not linearizable: key {} of group {} has no explanation once this was answered:\n  {}\n",
            self.key,
            self.group,
            line(self.last)
        );
        let hidden = self.order.len().saturating_sub(SHOWN);
        let more = if hidden > 0 { format!(", behind {hidden} that are not shown") } else { String::new() };
        writeln!(text, "this order accounts for the most answers{more}:").expect("text is writable");
        for &at in &self.order[hidden..] {
            writeln!(text, "  {}", line(at)).expect("text is writable");
        }
        text.push_str("one of these would have to be next:\n");
        for Unplaced { operation, expected } in &self.unplaced {
            writeln!(text, "  {}; expected {expected}", line(*operation)).expect("text is writable");
        }
        text
    }
}

/// The calls of the shortest beginning without an explanation, the place in the history of the
/// operation answered last in it, and how far a search comes.
fn shortest<'h, M: Model>(
    part: &Part<'h, M>,
    mut stuck: Stuck<M>,
    steps: u64,
) -> (Vec<Call<'h, M>>, usize, Stuck<M>) {
    let answers = by_answer(&part.calls);
    let mut calls = part.calls.clone();
    // A beginning of a linearizable history is linearizable, so the shortest one can be bisected.
    let (mut explained, mut unexplained) = (0, answers.len());
    while explained + 1 < unexplained {
        let middle = explained.midpoint(unexplained);
        let known = beginning(&part.calls, &answers[..middle]);
        match search(&known, steps) {
            Searched::Stuck(found) => (unexplained, calls, stuck) = (middle, known, found),
            // Not known to have none: what is shown is then longer than it need be.
            Searched::Explained(_) | Searched::OutOfSteps => explained = middle,
        }
    }
    let last = part.calls[answers[unexplained - 1]].at;
    (calls, last, stuck)
}

struct When<'h, O, A>(&'h crate::history::Operation<O, A>);

impl<O, A: fmt::Debug> fmt::Display for When<'_, O, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::history::End;
        let seconds = |time: TrueTime| time as f64 / 1e9;
        write!(f, "asked at {:.6} s, ", seconds(self.0.invoked))?;
        match &self.0.end {
            End::Answered { at, answer, .. } => write!(f, "told {answer:?} at {:.6} s", seconds(*at)),
            End::Unknown => f.write_str("outcome unknown"),
        }
    }
}
