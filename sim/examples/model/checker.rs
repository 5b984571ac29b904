//! The world as a model for `stateright`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kotoba_db_cluster::raft::RoleKind;
use stateright::{Model, Property};

use super::{
    observer::Violation,
    scope::Scope,
    world::{Action, World},
};

/// What is checked.
#[derive(Clone, Debug)]
pub(crate) struct GroupModel {
    pub(crate) scope: Scope,
    /// Set when time is up: no state has a successor any more, so that the checker ends.
    pub(crate) stopped: Arc<AtomicBool>,
}

impl Model for GroupModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::start(self.scope)]
    }

    fn actions(&self, state: &World, actions: &mut Vec<Action>) {
        if !self.stopped.load(Ordering::Relaxed) {
            state.actions(actions);
        }
    }

    fn next_state(&self, state: &World, action: Action) -> Option<World> {
        state.after(&action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = safety();
        properties.extend(situations(self.scope));
        properties
    }
}

fn lacks(world: &World, violation: Violation) -> bool {
    world.observer.violation != Some(violation)
}

/// What must hold in every state.
fn safety() -> Vec<Property<GroupModel>> {
    type P = Property<GroupModel>;
    vec![
        P::always("Election Safety", |_, w| lacks(w, Violation::ElectionSafety)),
        P::always("Leader Append-Only", |_, w| lacks(w, Violation::LeaderAppendOnly)),
        P::always("Log Matching", |_, w| lacks(w, Violation::LogMatching)),
        P::always("Leader Completeness", |_, w| lacks(w, Violation::LeaderCompleteness)),
        P::always("State Machine Safety", |_, w| lacks(w, Violation::StateMachineSafety)),
        P::always("committed on a durable quorum", |_, w| lacks(w, Violation::CommittedIsDurable)),
        P::always("no message before its write", |_, w| lacks(w, Violation::DurableBeforeSent)),
        P::always("term, vote and commit never fall", |_, w| lacks(w, Violation::Monotone)),
        P::always("no assertion of the core fails", |_, w| lacks(w, Violation::CoreInvariant)),
    ]
}

/// What must be met with in some state, so that the properties do not hold of nothing.
fn situations(scope: Scope) -> Vec<Property<GroupModel>> {
    type P = Property<GroupModel>;
    let mut situations = vec![P::sometimes("a leader is elected", |_, w| {
        w.nodes().any(|node| node.replica.role().role == RoleKind::Leader)
    })];
    if scope.has_proposals() {
        situations.push(P::sometimes("a proposal is committed", |_, w| w.observer.has_committed_proposal()));
    }
    if scope.terms > 1 {
        situations.push(P::sometimes("entries are truncated", |_, w| w.observer.truncated));
    }
    if scope.terms > 1 && scope.has_proposals() {
        situations.push(P::sometimes("a committed proposal outlives its leader", |_, w| {
            w.leads_with_earlier_proposal()
        }));
    }
    if scope.changes > 0 {
        situations.push(P::sometimes("a change of members is committed", |_, w| {
            w.observer.has_committed_members()
        }));
    }
    situations
}
