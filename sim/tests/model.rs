//! Model checking of the consensus core within scopes of seconds: the rest of `cargo run --release -p
//! kotoba-sim --example model -- --suite ci`, which explores larger ones.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what was explored stands in the test's output"
)]

#[path = "../examples/model/checker.rs"]
mod checker;
#[path = "../examples/model/network.rs"]
mod network;
#[path = "../examples/model/node.rs"]
mod node;
#[path = "../examples/model/observer.rs"]
mod observer;
#[allow(dead_code, reason = "the program that shares it sums up several scopes")]
#[path = "../examples/model/report.rs"]
mod report;
#[path = "../examples/model/scope.rs"]
mod scope;
#[path = "../examples/model/world.rs"]
mod world;

use stateright::CheckerBuilder;

use report::{Limits, explore};
use scope::Suite;

#[test]
fn every_behaviour_of_a_small_scope_is_safe() {
    for (name, scope) in Suite::Smoke.scopes() {
        let limits = Limits { threads: 2, time: None, depth: None };
        let explored = explore(name, scope, limits, CheckerBuilder::spawn_dfs);
        assert!(explored.passed, "{name}: see above");
        assert!(explored.unique > 1000, "{name} is explored, not skipped");
    }
}
