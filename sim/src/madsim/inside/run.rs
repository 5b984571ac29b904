//! A run of one seed in this process: the simulation is set up, played, and what came of it told.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use madsim::{Config, runtime::Runtime, time::TimeHandle};

use super::{
    certificates::Certificates,
    clock::Clocks,
    cluster,
    dice::Dice,
    disk::Disks,
    host::{Ears, World},
    overseer::Overseer,
    profile::Profile,
    scenario::{OBSERVER, Report, Run, scenario},
    wire::Wires,
};
use crate::{
    choice::{Chooser, Seeded},
    madsim::outcome::{Failure, Outcome},
    profile::Scale,
};

/// A run that takes longer than this, in simulated time, hangs.
const TIME_LIMIT: Duration = Duration::from_secs(1_800);

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// How much it holds.
    pub scale: Scale,
    /// A file for what clients asked and were told.
    pub history: Option<PathBuf>,
}

/// Messages of panics, wherever they were caught.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Runs a seed. Once only in a process: what a run leaves behind would change the next one.
#[must_use]
pub fn run(settings: &Settings) -> Outcome {
    let seed = settings.seed;
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
        previous(panic);
    }));
    let nodes = (1..=9).map(|number| cluster::address(number).ip());
    let clients = (1..=OBSERVER).map(cluster::client_ip);
    let certificates = Certificates::make(nodes.chain(clients)).expect("certificates can be made");
    // A thread of its own: the first hash map of a thread decides how all of them iterate.
    let thread = thread::Builder::new().name("run".into()).stack_size(64 << 20);
    let own = settings.clone();
    let running = thread.spawn(move || simulate(own, certificates));
    let run = running.expect("the system has a thread").join();
    let (mut outcome, report) = run.unwrap_or_else(|_| (blank(seed), Report::default()));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    outcome.failure = match panics.into_iter().next() {
        Some(message) => Some(Failure::assertion(message)),
        None => report.failure,
    };
    outcome.cpu_seconds = cpu_seconds();
    outcome
}

fn blank(seed: u64) -> Outcome {
    Outcome {
        seed,
        failure: None,
        simulated_seconds: 0.0,
        cpu_seconds: 0.0,
        events: 0,
        trace: String::new(),
        faults: BTreeMap::new(),
        situations: BTreeMap::new(),
    }
}

fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    seconds
}

fn simulate(Settings { seed, scale, history }: Settings, certificates: Certificates) -> (Outcome, Report) {
    let dice = Dice::new(Chooser::new(Seeded::new(seed)));
    let profile = dice.with(|choices| Profile::draw(choices, scale));
    let ears = Ears::default();
    let overseer = Overseer::default();
    let (watching, slowest_job) = (overseer.clone(), profile.slowest_job);
    let world = World { ears: ears.clone(), overseer: watching, slowest_job };
    kotoba_db_cluster::runtime::install(Arc::new(world));
    let mut runtime = Runtime::with_seed_and_config(seed, Config::default());
    runtime.set_time_limit(TIME_LIMIT);
    runtime.add_simulator::<Clocks>();
    runtime.add_simulator::<Disks>();
    runtime.add_simulator::<Wires>();
    let handle = runtime.handle().clone();
    let elapsed = Arc::new(Mutex::new(Duration::ZERO));
    let scenario = {
        let (watchers, elapsed) = ((ears.clone(), overseer.clone()), Arc::clone(&elapsed));
        async move {
            let run = Run { profile, dice, certificates, history };
            let report = scenario(handle, run, watchers).await;
            *elapsed.lock().unwrap_or_else(PoisonError::into_inner) = TimeHandle::current().elapsed();
            report
        }
    };
    // A panic is in the list of panics already.
    let mut report = catch_unwind(AssertUnwindSafe(|| runtime.block_on(scenario))).unwrap_or_default();
    // What broke first says most.
    report.failure = overseer.failure().or(report.failure);
    match overseer.replay() {
        Ok(inputs) => drop(report.situations.insert("inputs-replayed", inputs)),
        Err(failure) => drop(report.failure.get_or_insert(failure)),
    }
    report.situations.extend(overseer.counts());
    let (hash, events) = ears.digest();
    let named = |counts: &BTreeMap<&'static str, u64>| {
        counts.iter().map(|(&name, &count)| (name.to_owned(), count)).collect()
    };
    let outcome = Outcome {
        simulated_seconds: elapsed.lock().unwrap_or_else(PoisonError::into_inner).as_secs_f64(),
        events,
        trace: format!("{hash:016x}"),
        faults: named(&report.faults),
        situations: named(&report.situations),
        ..blank(seed)
    };
    // Tasks that are left would be dropped outside their runtime.
    std::mem::forget(runtime);
    (outcome, report)
}
