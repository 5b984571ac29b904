//! A run from beginning to end, as it happens inside the simulation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufWriter,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use kotoba_db_cluster::client::{Client, ClientOptions};
use madsim::{
    plugin::simulator,
    runtime::{Handle, NodeHandle},
    task::NodeId,
    time::{TimeHandle, sleep},
};

use super::{
    certificates::Certificates,
    clients::{self, Book, Clients, Register},
    cluster::Cluster,
    dice::Dice,
    disk::Disks,
    faults::Chaos,
    host::Ears,
    overseer::Overseer,
    profile::Profile,
    registers::Ask,
    verdict::{self, Judged},
    wire::Wires,
};
use crate::{
    check::{Check, Violation},
    choice::Topic,
    madsim::outcome::Failure,
};

/// The number of the client that only looks.
pub(super) const OBSERVER: u8 = 200;
/// How long clients go on when everything is healed.
const AFTERMATH: Duration = Duration::from_secs(5);
/// A core has this long to elect, write and read.
const CORE_PATIENCE: Duration = Duration::from_secs(40);
/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// What a run is made of.
pub(super) struct Run {
    pub(super) profile: Profile,
    pub(super) dice: Dice,
    pub(super) certificates: Certificates,
    /// A file for what clients asked and were told.
    pub(super) history: Option<PathBuf>,
}

/// What the run itself found.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) failure: Option<Failure>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) situations: BTreeMap<&'static str, u64>,
}

/// Plays a run: faults, a core that must get by alone, everything healed, and the verdict.
pub(super) async fn scenario(handle: Handle, run: Run, (ears, overseer): (Ears, Overseer)) -> Report {
    tracing::info!(target: "kotoba_sim", "{:?}", run.profile);
    simulator::<Wires>().ask_whether_halted(Arc::new(|node| simulator::<Disks>().has_halted(node)));
    let cluster = Cluster::start(&run.profile, handle, (ears, overseer.clone()), &run.certificates);
    madsim::task::spawn(Arc::clone(&cluster).look_after());
    let judged = Stage { cluster: Arc::clone(&cluster), overseer, run }.play().await;
    let mut report = Report { faults: cluster.counts(), situations: met(&cluster), failure: None };
    match judged {
        Ok((book, judged)) => {
            let name = match judged {
                Judged::Explained => "histories-explained",
                Judged::Undecided => "histories-not-decided",
            };
            report.situations.insert(name, 1);
            report.situations.insert("session-reads", book.session_reads);
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

fn met(cluster: &Cluster) -> BTreeMap<&'static str, u64> {
    let (mut operations, mut failed, mut refused) = (0, 0, 0);
    for disk in cluster.nodes().iter().map(|node| simulator::<Disks>().figures(node.id)) {
        operations += disk.operations;
        failed += disk.failed_syncs;
        refused += disk.refused;
    }
    BTreeMap::from([
        ("segments-sent", simulator::<Wires>().segments()),
        ("disk-operations", operations),
        ("flushes-failed", failed),
        ("writes-refused-full", refused),
        ("starts-failed", cluster.troubles().len() as u64),
    ])
}

/// Where a run is played.
struct Stage {
    cluster: Arc<Cluster>,
    overseer: Overseer,
    run: Run,
}

impl Stage {
    async fn play(self) -> Result<(Book, Judged), Failure> {
        let Run { profile, dice, certificates, .. } = &self.run;
        let observer = self.cluster.client_machine(OBSERVER, certificates);
        let (registers, client) = self.open(&observer).await?;
        let clients = Clients::start(&self.cluster, profile, &registers, certificates, dice);
        let machines = clients.machines.clone();
        Chaos::new(Arc::clone(&self.cluster), dice.clone(), profile.clone(), machines).run().await;
        self.run_core(&clients).await?;
        let client = self.heal(&observer, client, &clients).await?;
        let (registers, book) = clients.stop().await;
        self.export(&book);
        let judging = observer.spawn(async move {
            verdict::converges(&client).await?;
            let judged = verdict::explains(&client, &registers, &book).await?;
            Ok((book, judged))
        });
        judging.await.expect("nobody kills the observer")
    }

    /// Waits until the cluster serves, and makes registers.
    async fn open(&self, observer: &NodeHandle) -> Result<(Vec<Register>, Client), Failure> {
        let name = Some("beginning".to_owned());
        let options = ClientOptions { client_id: name, ..clients::options(&self.run.profile) };
        let addresses = self.cluster.nodes().iter().map(|node| node.address.to_string()).collect();
        let opening = observer.spawn(async move {
            let client = Client::connect(addresses, options).await;
            let client = client.expect("addresses and certificates are good");
            verdict::serves(&client).await?;
            let registers = clients::create_registers(&client).await.map_err(|error| {
                Failure::from(Violation::new(Check::Liveness, format!("before there were faults: {error}")))
            })?;
            Ok((registers, client))
        });
        opening.await.expect("nobody kills the observer")
    }

    /// Only machines that hold a quorum of every group live on, undisturbed; they must serve.
    async fn run_core(&self, clients: &Clients) -> Result<(), Failure> {
        let cluster = &self.cluster;
        let Some(core) = self.draw_core() else {
            cluster.note("no-core", "a disk was lost or damaged, and not made good yet");
            return Ok(());
        };
        let inside = cluster.nodes().iter().filter(|node| core.contains(&node.id));
        let numbers: Vec<_> = inside.map(|node| node.number).collect();
        cluster.note("core", &format!("{numbers:?}"));
        cluster.leave_only(&core);
        cluster.mend();
        // What was about to be mended by itself is mended twice; what was about to break is not yet.
        sleep(AFTERMATH).await;
        cluster.mend();
        clients.forget_who_serves();
        let end = TimeHandle::current().elapsed() + CORE_PATIENCE;
        while let Some(idle) = clients.first_idle() {
            if TimeHandle::current().elapsed() >= end {
                let what = format!("nodes {numbers:?} alone do not serve {idle} within {CORE_PATIENCE:?}");
                return Err(Violation::new(Check::Liveness, what).into());
            }
            sleep(GLANCE).await;
        }
        Ok(())
    }

    /// Machines that hold a quorum of every configuration that may be in force; as few as possible.
    fn draw_core(&self) -> Option<BTreeSet<NodeId>> {
        let sound = self.cluster.nodes().iter().filter(|node| !self.cluster.is_damaged(node));
        let mut order: Vec<NodeId> = sound.map(|node| node.id).collect();
        for last in (1..order.len()).rev() {
            let drawn = self.run.dice.below(Topic::Core, 0, last as u64 + 1);
            order.swap(last, last - usize::try_from(drawn).expect("few nodes"));
        }
        let demands = self.overseer.demands();
        let enough = |core: &BTreeSet<NodeId>| {
            demands.iter().all(|voters| {
                let alive = voters.iter().flatten().filter(|machine| core.contains(machine)).count();
                2 * alive > voters.len()
            })
        };
        let mut core: BTreeSet<NodeId> = order.iter().copied().collect();
        if !enough(&core) {
            return None;
        }
        for machine in order {
            core.remove(&machine);
            if !enough(&core) {
                core.insert(machine);
            }
        }
        Some(core)
    }

    /// Mends everything, and waits until the cluster says that all is well and answers its clients.
    async fn heal(
        &self,
        observer: &NodeHandle,
        client: Client,
        clients: &Clients,
    ) -> Result<Client, Failure> {
        self.cluster.note("healed", "everything");
        self.cluster.heal();
        sleep(AFTERMATH).await;
        self.cluster.heal();
        let answered = clients.answered();
        let healing = observer.spawn(async move { verdict::serves(&client).await.map(|()| client) });
        let client = healing.await.expect("nobody kills the observer")?;
        sleep(AFTERMATH).await;
        if clients.answered() > answered {
            return Ok(client);
        }
        let what = format!("no client was answered within {AFTERMATH:?} of a healthy cluster");
        Err(Violation::new(Check::Liveness, what).into())
    }

    /// Writes down what clients asked and were told, where somebody wants that.
    fn export(&self, book: &Book) {
        let Some(path) = &self.run.history else { return };
        let written = File::create(path)
            .and_then(|file| book.history.write_json_lines(Ask::register, &mut BufWriter::new(file)));
        if let Err(error) = written {
            tracing::error!(target: "kotoba_sim", "{} cannot be written: {error}", path.display());
        }
    }
}
