//! Model checking of the consensus core: every behaviour of a few replicas within a small scope.
//!
//! `cargo run --release -p kotoba-sim --example model -- --help`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod checker;
mod network;
mod node;
mod observer;
mod report;
mod scope;
mod world;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use stateright::CheckerBuilder;

use report::{Limits, Total, explore, silence_checkers};
use scope::{Scope, Suite};

/// Explore every behaviour of a small group within a scope, and check the safety properties of Raft.
#[derive(Debug, Parser)]
struct Options {
    /// Explore the scopes of a suite, one after the other, instead of one given by the other options
    #[arg(long, value_enum)]
    suite: Option<Suite>,
    #[command(flatten)]
    scope: Scope,
    /// In which order states are visited
    #[arg(long, value_enum, default_value_t = Order::Depth)]
    order: Order,
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Give up on a scope after so many seconds
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Explore runs of so many steps at most; needs `--order breadth`
    #[arg(long, value_name = "STEPS")]
    depth: Option<usize>,
    /// Put a known bug into the core: `B01`
    #[cfg(kotoba_mutants)]
    #[arg(long)]
    mutant: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    /// Depth first: needs little memory
    Depth,
    /// Breadth first: finds the shortest counterexample (with one thread)
    Breadth,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.depth.is_some() && options.order == Order::Depth {
        eprintln!("error: --depth needs --order breadth");
        return ExitCode::from(2);
    }
    #[cfg(kotoba_mutants)]
    if let Some(id) = &options.mutant {
        let Some(mutant) = kotoba_db_cluster::mutants::Mutant::by_id(id) else {
            eprintln!("error: there is no mutant {id}");
            return ExitCode::from(2);
        };
        kotoba_db_cluster::mutants::activate(Some(mutant));
    }
    silence_checkers();
    let limits = Limits {
        threads: options.threads,
        time: options.time_limit.map(Duration::from_secs),
        depth: options.depth,
    };
    let scopes = options.suite.map_or_else(|| vec![("scope", options.scope)], Suite::scopes);
    let mut total = Total::new();
    for (name, scope) in scopes {
        total.add(&match options.order {
            Order::Depth => explore(name, scope, limits, CheckerBuilder::spawn_dfs),
            Order::Breadth => explore(name, scope, limits, CheckerBuilder::spawn_bfs),
        });
        if !total.passed() {
            break;
        }
    }
    println!("{total}");
    if total.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
