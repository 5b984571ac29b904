//! Somebody's own state machine under every fault there is: a bank.
//!
//! Money moves between accounts, and no account may send more than a limit in one day. The total
//! never changes, nobody overdraws. With `--bug` the bank keeps in memory what was sent today, and
//! leaves it out of its snapshots: the usual fate of a figure that is "only a cache". Single copies
//! of such a bank never err. It shows when a replica that fell behind is sent a snapshot, forgets
//! what was sent, and grants what the others refuse.
//!
//! ```text
//! cargo run --release -p kotoba-sim --example bank
//! cargo run --release -p kotoba-sim --example bank -- --bug
//! ```
//!
//! `docs/your-own-state-machine.md` goes through it.

#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use std::{collections::BTreeMap, fmt::Debug, ops::Range, process::ExitCode};

use clap::Parser;
use kotoba_sim::{
    check::Violation,
    choice::{Chooser, Recorded, Seeded, Topic},
    machine::{ExactlyOnce, Machine},
    profile::Scale,
    runner,
    shrink::Effort,
    trace::{Kind, Line},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const ACCOUNTS: u64 = 6;
const FIRST_BALANCE: i64 = 100;
const DAILY_LIMIT: i64 = 60;

/// Last events of a failure that are shown, messages aside.
const SHOWN: usize = 15;

/// What each account sent since the day began.
trait Sent: Clone + Debug + Default + Serialize + DeserializeOwned {
    fn today(&mut self) -> &mut BTreeMap<u64, i64>;
}

/// As it should be.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Remembered {
    sent: BTreeMap<u64, i64>,
}

/// The bug is one line.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Forgotten {
    #[serde(skip)]
    sent: BTreeMap<u64, i64>,
}

impl Sent for Remembered {
    fn today(&mut self) -> &mut BTreeMap<u64, i64> {
        &mut self.sent
    }
}

impl Sent for Forgotten {
    fn today(&mut self) -> &mut BTreeMap<u64, i64> {
        &mut self.sent
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "S: Sent")]
struct Bank<S: Sent> {
    balances: BTreeMap<u64, i64>,
    sent: S,
}

impl<S: Sent> Default for Bank<S> {
    fn default() -> Self {
        let balances = (0..ACCOUNTS).map(|account| (account, FIRST_BALANCE)).collect();
        Self { balances, sent: S::default() }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Order {
    Transfer { from: u64, to: u64, amount: i64 },
    BeginDay,
    Balances,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Reply {
    Done { left: i64 },
    Overdrawn { left: i64 },
    OverTheLimit { sent: i64 },
    DayBegun,
    Balances(BTreeMap<u64, i64>),
}

impl<S: Sent> Machine for Bank<S> {
    type Operation = Order;
    type Answer = Reply;

    fn draw(choices: &mut Chooser, client: u32, _: u64) -> Order {
        let mut below = |bound| choices.below(Topic::Client, client, bound);
        match below(16) {
            0..12 => {
                let (from, to) = (below(ACCOUNTS), below(ACCOUNTS));
                Order::Transfer { from, to, amount: 1 + below(30) as i64 }
            }
            12 => Order::BeginDay,
            _ => Order::Balances,
        }
    }

    fn is_read(order: &Order) -> bool {
        matches!(order, Order::Balances)
    }

    fn apply(&mut self, order: &Order) -> Reply {
        match *order {
            Order::Transfer { from, to, amount } => self.transfer(from, to, amount),
            Order::BeginDay => {
                self.sent.today().clear();
                Reply::DayBegun
            }
            Order::Balances => self.read(order),
        }
    }

    fn read(&self, _: &Order) -> Reply {
        Reply::Balances(self.balances.clone())
    }

    fn invariant(&self) -> Result<(), String> {
        let total: i64 = self.balances.values().sum();
        if total != FIRST_BALANCE * ACCOUNTS as i64 {
            return Err(format!("the accounts hold {total} together: {:?}", self.balances));
        }
        match self.balances.iter().find(|(_, balance)| **balance < 0) {
            Some((account, balance)) => Err(format!("account {account} holds {balance}")),
            None => Ok(()),
        }
    }

    /// Transfers concern two accounts, so that the bank can only be judged as a whole.
    fn key(_: &Order) -> u64 {
        0
    }
}

impl<S: Sent> Bank<S> {
    fn transfer(&mut self, from: u64, to: u64, amount: i64) -> Reply {
        let (left, sent) = (self.balances[&from], self.sent.today().entry(from).or_default());
        if *sent + amount > DAILY_LIMIT {
            return Reply::OverTheLimit { sent: *sent };
        }
        if left < amount {
            return Reply::Overdrawn { left };
        }
        *sent += amount;
        *self.balances.entry(from).or_default() -= amount;
        *self.balances.entry(to).or_default() += amount;
        Reply::Done { left: self.balances[&from] }
    }
}

/// A bank under faults.
#[derive(Parser)]
struct Arguments {
    /// Leave what was sent today out of the bank's snapshots.
    #[arg(long)]
    bug: bool,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds to run, at most.
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// Show everything that happens in the run that fails, messages too.
    #[arg(long)]
    full: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runner::silence_panics();
    if arguments.bug { run::<Forgotten>(&arguments) } else { run::<Remembered>(&arguments) }
}

/// Runs seeds until one fails.
fn run<S: Sent>(arguments: &Arguments) -> ExitCode {
    let Some((seed, violation)) = find::<S>(arguments.from..arguments.from + arguments.seeds) else {
        println!("{} seeds passed", arguments.seeds);
        return ExitCode::SUCCESS;
    };
    println!("seed {seed} fails: {violation}");
    explain::<S>(seed, arguments.full);
    let bug = if arguments.bug { "--bug " } else { "" };
    println!("all of it, messages too:");
    println!("  cargo run --release -p kotoba-sim --example bank -- {bug}--from {seed} --seeds 1 --full");
    ExitCode::FAILURE
}

/// The first seed that fails, and what did not hold.
fn find<S: Sent>(seeds: Range<u64>) -> Option<(u64, Violation)> {
    seeds.into_iter().find_map(|seed| {
        let outcome = runner::run_seed::<ExactlyOnce<Bank<S>>>(seed, Scale::Drawn);
        outcome.violation.map(|violation| (seed, violation))
    })
}

/// Makes a failure small and shows how it ends.
fn explain<S: Sent>(seed: u64, full: bool) {
    let seeded = Seeded::new(seed);
    let Some(small) = runner::shrink::<ExactlyOnce<Bank<S>>>(seeded, Scale::Drawn, Effort::default()) else {
        println!("it does not fail again: the run depends on something beside its seed");
        return;
    };
    println!("{} of its {} choices suffice; how it ends:", small.schedule.choices.len(), small.before);
    let recorded = Recorded::new(&small.schedule);
    let (_, world) = runner::read_world::<ExactlyOnce<Bank<S>>>(recorded, Scale::Drawn);
    let shown = |line: &&Line| full || !matches!(line.kind, Kind::Message | Kind::Lost);
    let lines: Vec<_> = world.trace().lines().iter().filter(shown).collect();
    let skipped = if full { 0 } else { lines.len().saturating_sub(SHOWN) };
    for line in &lines[skipped..] {
        let host = line.host.map_or_else(String::new, |host| format!("host {host}: "));
        println!("  {:>10.6} s  {host}{}", runner::seconds(line.at), line.text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bank_passes() {
        assert_eq!(find::<Remembered>(0..12), None);
    }

    #[test]
    fn the_planted_bug_is_found() {
        assert!(find::<Forgotten>(0..60).is_some(), "it shows in the first sixty runs");
    }
}
