//! Running the checker and telling what it found.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use stateright::{
    Checker, CheckerBuilder, Expectation, HasDiscoveries, Model,
    report::{ReportData, ReportDiscovery, Reporter},
};

use super::{checker::GroupModel, scope::Scope};

/// How a scope is explored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) threads: usize,
    pub(crate) time: Option<Duration>,
    /// Steps of a run.
    pub(crate) depth: Option<usize>,
}

/// What exploring a scope came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Explored {
    /// Every property holds, every situation was reached, and nothing was left out.
    pub(crate) passed: bool,
    pub(crate) states: usize,
    pub(crate) unique: usize,
    pub(crate) elapsed: Duration,
    pub(crate) cpu_seconds: f64,
}

/// Explores a scope and prints what was found.
pub(crate) fn explore<C: Checker<GroupModel> + Send + Sync>(
    name: &str,
    scope: Scope,
    limits: Limits,
    spawn: impl FnOnce(CheckerBuilder<GroupModel>) -> C,
) -> Explored {
    let stopped = Arc::new(AtomicBool::new(false));
    let model = GroupModel { scope, stopped: Arc::clone(&stopped) };
    let mut builder = model.checker().threads(limits.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(depth) = limits.depth {
        // A state is at depth 1 before the first step.
        builder = builder.target_max_depth(depth + 1);
    }
    let before = cpu_seconds();
    let mut progress = Progress { limit: limits.time, stopped, ran_out: false, elapsed: Duration::ZERO };
    println!("{name}: {scope}");
    let checker = spawn(builder).join_and_report(&mut progress);
    let passed = print_properties(&checker) && !progress.ran_out;
    if progress.ran_out {
        println!("  {:<12} time was up before all was explored", "INCOMPLETE");
    }
    let explored = Explored {
        passed,
        states: checker.state_count(),
        unique: checker.unique_state_count(),
        elapsed: progress.elapsed,
        cpu_seconds: cpu_seconds() - before,
    };
    println!("  {explored}, longest run {} steps", checker.max_depth().saturating_sub(1));
    explored
}

fn print_properties<C: Checker<GroupModel>>(checker: &C) -> bool {
    let mut passed = true;
    for property in checker.model().properties() {
        let path = checker.discovery(property.name);
        let (word, holds) = match (&property.expectation, &path) {
            (Expectation::Always, None) => ("always", true),
            (Expectation::Always, Some(_)) => ("VIOLATED", false),
            (Expectation::Sometimes, Some(_)) => ("reached", true),
            (Expectation::Sometimes | Expectation::Eventually, _) => ("NOT REACHED", false),
        };
        passed &= holds;
        println!("  {word:<12} {}", property.name);
        if let (Expectation::Always, Some(path)) = (&property.expectation, path) {
            for (number, action) in path.into_actions().iter().enumerate() {
                println!("    {:>3} {action}", number + 1);
            }
        }
    }
    passed
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, unique, elapsed, cpu_seconds, .. } = self;
        let seconds = elapsed.as_secs_f64();
        write!(f, "{states} states, {unique} unique, {seconds:.1} s, {cpu_seconds:.1} s of processor")
    }
}

/// What a suite came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Total(Explored);

impl Total {
    pub(crate) fn new() -> Self {
        let elapsed = Duration::ZERO;
        Self(Explored { passed: true, states: 0, unique: 0, elapsed, cpu_seconds: 0.0 })
    }

    pub(crate) fn add(&mut self, explored: &Explored) {
        self.0.passed &= explored.passed;
        self.0.states += explored.states;
        self.0.unique += explored.unique;
        self.0.elapsed += explored.elapsed;
        self.0.cpu_seconds += explored.cpu_seconds;
    }

    pub(crate) fn passed(&self) -> bool {
        self.0.passed
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", if self.0.passed { "passed" } else { "FAILED" }, self.0)
    }
}

#[derive(Debug)]
struct Progress {
    limit: Option<Duration>,
    stopped: Arc<AtomicBool>,
    ran_out: bool,
    elapsed: Duration,
}

impl Reporter<GroupModel> for Progress {
    fn report_checking(&mut self, data: ReportData) {
        self.elapsed = data.duration;
        if data.done {
            // The paths to what was found are walked again.
            self.stopped.store(false, Ordering::Relaxed);
        } else if self.limit.is_some_and(|limit| data.duration >= limit) {
            self.ran_out = true;
            self.stopped.store(true, Ordering::Relaxed);
        }
        let seconds = data.duration.as_secs_f64();
        let ReportData { total_states, unique_states, max_depth, .. } = data;
        eprintln!("{seconds:>8.1} s {total_states:>12} states {unique_states:>12} unique, depth {max_depth}");
    }

    fn report_discoveries(
        &mut self,
        _model: &GroupModel,
        _discoveries: BTreeMap<&'static str, ReportDiscovery<GroupModel>>,
    ) {
        // Printed by `print_properties`, in their order and with those that hold.
    }

    fn delay(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// A failed assertion of the core is a violation like any other; its text is shown when the path to it is
/// walked again, on the main thread.
pub(crate) fn silence_checkers() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let name = std::thread::current().name().map(str::to_owned);
        if !name.is_some_and(|name| name.starts_with("checker-")) {
            default(info);
        }
    }));
}

/// Seconds of processor time this process has used; zero where the system does not tell.
fn cpu_seconds() -> f64 {
    let ticks = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
    });
    ticks.unwrap_or(0.0) / 100.0
}
