//! One run: a cluster, its clients, what goes wrong, and what must hold in the end.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use kotoba_db_cluster::client::Client;
use madsim::{
    Config,
    plugin::simulator,
    runtime::{Handle, Runtime},
    time::{TimeHandle, sleep},
};

use super::{
    certificates::Certificates,
    clients::{self, Clients},
    clock::Clocks,
    cluster::{self, Cluster},
    dice::Dice,
    disk::Disks,
    faults::Chaos,
    host::{Ears, World},
    profile::Profile,
    verdict,
    wire::Wires,
};
use crate::{
    choice::{Chooser, Seeded},
    madsim::outcome::{Failure, Outcome},
};

/// A run that takes longer than this, in simulated time, hangs.
const TIME_LIMIT: Duration = Duration::from_secs(1_800);
/// The number of the client that only looks.
const OBSERVER: u8 = 200;
/// How long clients go on when everything is healed.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
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
    let running = thread.spawn(move || simulate(seed, certificates));
    let run = running.expect("the system has a thread").join();
    let (mut outcome, report) = run.unwrap_or_else(|_| (blank(seed), Report::default()));
    let panics = std::mem::take(&mut *PANICS.lock().unwrap_or_else(PoisonError::into_inner));
    outcome.failure = match panics.into_iter().next() {
        Some(message) => Some(Failure { check: "assertion".into(), message }),
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

/// What the run itself found.
#[derive(Debug, Default)]
struct Report {
    failure: Option<Failure>,
    faults: BTreeMap<&'static str, u64>,
    situations: BTreeMap<&'static str, u64>,
}

fn simulate(seed: u64, certificates: Certificates) -> (Outcome, Report) {
    let dice = Dice::new(Chooser::new(Seeded::new(seed)));
    let profile = dice.with(Profile::draw);
    let ears = Ears::default();
    let world = World { ears: ears.clone(), slowest_job: profile.slowest_job };
    kotoba_db_cluster::runtime::install(Arc::new(world));
    let mut runtime = Runtime::with_seed_and_config(seed, Config::default());
    runtime.set_time_limit(TIME_LIMIT);
    runtime.add_simulator::<Clocks>();
    runtime.add_simulator::<Disks>();
    runtime.add_simulator::<Wires>();
    let handle = runtime.handle().clone();
    let elapsed = Arc::new(Mutex::new(Duration::ZERO));
    let scenario = {
        let (ears, elapsed) = (ears.clone(), Arc::clone(&elapsed));
        async move {
            let report = scenario(handle, profile, dice, ears, certificates).await;
            *elapsed.lock().unwrap_or_else(PoisonError::into_inner) = TimeHandle::current().elapsed();
            report
        }
    };
    // A panic is in the list of panics already.
    let report = catch_unwind(AssertUnwindSafe(|| runtime.block_on(scenario))).unwrap_or_default();
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

async fn scenario(
    handle: Handle,
    profile: Profile,
    dice: Dice,
    ears: Ears,
    certificates: Certificates,
) -> Report {
    tracing::info!(target: "kotoba_sim", "{profile:?}");
    simulator::<Wires>().ask_whether_halted(Arc::new(|node| simulator::<Disks>().has_halted(node)));
    let cluster = Cluster::start(&profile, handle, ears, &certificates);
    madsim::task::spawn(Arc::clone(&cluster).look_after());
    let judged = judge(&cluster, &profile, &dice, &certificates).await;
    let mut report = Report { faults: cluster.counts(), ..Report::default() };
    report.situations.insert("segments-sent", simulator::<Wires>().segments());
    let figures = cluster.nodes().iter().map(|node| simulator::<Disks>().figures(node.id));
    let (mut operations, mut failed, mut refused) = (0, 0, 0);
    for disk in figures {
        operations += disk.operations;
        failed += disk.failed_syncs;
        refused += disk.refused;
    }
    report.situations.insert("disk-operations", operations);
    report.situations.insert("flushes-failed", failed);
    report.situations.insert("writes-refused-full", refused);
    report.situations.insert("starts-failed", cluster.troubles().len() as u64);
    match judged {
        Ok(book) => {
            report.situations.insert("operations-answered", book.answered);
            report.situations.insert("operations-unanswered", book.unanswered);
        }
        Err(mut failure) => {
            for trouble in cluster.troubles() {
                failure.message.push_str("; ");
                failure.message.push_str(&trouble);
            }
            report.failure = Some(failure);
        }
    }
    report
}

async fn judge(
    cluster: &Arc<Cluster>,
    profile: &Profile,
    dice: &Dice,
    certificates: &Certificates,
) -> Result<clients::Book, Failure> {
    let observer = cluster.client_machine(OBSERVER, certificates);
    let observing = |name: &str| {
        let options = kotoba_db_cluster::client::ClientOptions {
            client_id: Some(name.to_owned()),
            ..clients::options(profile)
        };
        let addresses = cluster.nodes().iter().map(|node| node.address.to_string()).collect();
        async move { Client::connect(addresses, options).await.expect("addresses and certificates are good") }
    };
    let beginning = observing("beginning");
    let registers = observer.spawn(async move {
        let client = beginning.await;
        verdict::serves(&client).await?;
        let unmade = |error: kotoba_db_cluster::error::ClusterError| Failure {
            check: "liveness".into(),
            message: format!("before there were faults: {error}"),
        };
        Ok((clients::create_registers(&client).await.map_err(unmade)?, client))
    });
    let (registers, client) = registers.await.expect("nobody kills the observer")?;
    let clients = Clients::start(cluster, profile, &registers, certificates, dice);
    Chaos::new(Arc::clone(cluster), dice.clone(), profile.clone(), clients.machines.clone()).run().await;
    cluster.note("healed", "everything");
    cluster.heal();
    // What was about to be mended by itself is mended twice; what was about to break is not healed yet.
    sleep(AFTERMATH).await;
    cluster.heal();
    let answered = clients.answered();
    let ending = observer.spawn(async move {
        verdict::serves(&client).await?;
        Ok(client)
    });
    let client = ending.await.expect("nobody kills the observer")?;
    sleep(AFTERMATH).await;
    if clients.answered() <= answered {
        let what = format!("no client was answered within {AFTERMATH:?} of a healthy cluster");
        return Err(Failure { check: "liveness".into(), message: what });
    }
    let (registers, book) = clients.stop().await;
    let book = Arc::new(book);
    let judging = {
        let book = Arc::clone(&book);
        observer.spawn(async move {
            verdict::converges(&client).await?;
            verdict::explains(&client, &registers, &book).await
        })
    };
    judging.await.expect("nobody kills the observer")?;
    Ok(Arc::try_unwrap(book).unwrap_or_default())
}
