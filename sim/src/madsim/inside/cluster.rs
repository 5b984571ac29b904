//! The nodes: real ones, each in a machine of the simulator that can be killed and started again.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kotoba_db_cluster::{
    ClusterConfig, KotobaCluster, NodeId, RaftTuning, Tuning, error::ClusterError,
    storage::graph_store::RedbStore,
};
use madsim::{plugin::simulator, runtime::Handle, task::NodeId as MachineId, time::TimeHandle};

use super::{
    certificates::{Certificates, tls_files},
    clock::Clocks,
    disk::{Disks, End},
    host::Ears,
    overseer::Overseer,
    profile::Profile,
    wire::Wires,
};

const PORT: u16 = 7000;
/// A node's data directory.
const DATA: &str = "/data";
const STORE_CACHE_BYTES: usize = 4 << 20;

/// All nodes of a run.
pub(super) struct Cluster {
    handle: Handle,
    nodes: Vec<Machine>,
    states: Mutex<Vec<State>>,
    /// Nodes that stay down.
    excluded: Mutex<BTreeSet<MachineId>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    troubles: Troubles,
    ears: Ears,
    overseer: Overseer,
}

/// Starts that failed: where and why.
type Troubles = Arc<Mutex<Vec<String>>>;

/// A node's machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// The node's number, from 1.
    pub(super) number: u8,
    /// The simulator's number for the machine.
    pub(super) id: MachineId,
    /// Where the node listens.
    pub(super) address: SocketAddr,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Paused,
    Down,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Starts all nodes.
    pub(super) fn start(
        profile: &Profile,
        handle: Handle,
        (ears, overseer): (Ears, Overseer),
        certificates: &Certificates,
    ) -> Arc<Self> {
        let troubles = Troubles::default();
        let addresses: Vec<SocketAddr> = (1..=profile.nodes).map(address).collect();
        let mut nodes = Vec::new();
        for (number, &address) in (1..).zip(&addresses) {
            let plan = Plan {
                number,
                address,
                peers: addresses.iter().filter(|other| **other != address).map(ToString::to_string).collect(),
                profile: profile.clone(),
                troubles: Arc::clone(&troubles),
            };
            let machine =
                handle.create_node().name(format!("n{number}")).init(move || live(plan.clone())).build();
            simulator::<Wires>().attach(machine.id(), address.ip());
            certificates.put_on(machine.id());
            nodes.push(Machine { number, id: machine.id(), address });
        }
        let states = Mutex::new(vec![State::Up; nodes.len()]);
        Arc::new(Self {
            handle,
            nodes,
            states,
            excluded: Mutex::default(),
            counts: Mutex::default(),
            troubles,
            ears,
            overseer,
        })
    }

    /// The machines.
    pub(super) fn nodes(&self) -> &[Machine] {
        &self.nodes
    }

    /// A client's machine.
    pub(super) fn client_machine(
        &self,
        number: u8,
        certificates: &Certificates,
    ) -> madsim::runtime::NodeHandle {
        let machine = self.handle.create_node().name(format!("c{number}")).build();
        simulator::<Wires>().attach(machine.id(), client_ip(number));
        certificates.put_on(machine.id());
        machine
    }

    /// Something happened: it is counted, and part of the trace.
    pub(super) fn note(&self, class: &'static str, what: &str) {
        *lock(&self.counts).entry(class).or_default() += 1;
        self.ears.hear(TimeHandle::current().elapsed(), "run", class, what.as_bytes());
        tracing::info!(target: "kotoba_sim", "{:?} {class}: {what}", TimeHandle::current().elapsed());
    }

    /// What was counted.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Starts that failed so far.
    pub(super) fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).clone()
    }

    /// The data directory of a node that was killed is lost.
    pub(super) fn wipe(&self, machine: &Machine) {
        simulator::<Disks>().wipe(machine.id, Path::new(DATA));
        self.overseer.wiped(machine.id);
    }

    /// Only these nodes live on; the others stay down.
    pub(super) fn leave_only(&self, core: &BTreeSet<MachineId>) {
        for machine in self.nodes.iter().filter(|machine| !core.contains(&machine.id)) {
            lock(&self.excluded).insert(machine.id);
            if self.state(machine) != State::Down {
                self.resume(machine);
                self.kill(machine, End::PowerLost);
            }
        }
    }

    /// Whether a node's disk was damaged and has not been replaced.
    pub(super) fn is_damaged(&self, machine: &Machine) -> bool {
        self.overseer.is_damaged(machine.id)
    }

    /// Damages a node's log; `pick` chooses where. Returns whether there was something to damage.
    pub(super) fn damage(&self, machine: &Machine, pick: impl FnMut(u64) -> u64) -> bool {
        let Some(what) = simulator::<Disks>().damage(machine.id, pick) else { return false };
        self.overseer.damaged(machine.id);
        self.note("disk-damaged", &format!("n{}: {what}", machine.number));
        true
    }

    fn set(&self, machine: &Machine, state: State) {
        lock(&self.states)[usize::from(machine.number) - 1] = state;
    }

    fn state(&self, machine: &Machine) -> State {
        lock(&self.states)[usize::from(machine.number) - 1]
    }

    /// Whether a node runs.
    pub(super) fn is_up(&self, machine: &Machine) -> bool {
        self.state(machine) == State::Up
    }

    /// Kills a node.
    pub(super) fn kill(&self, machine: &Machine, end: End) {
        self.set(machine, State::Down);
        self.handle.kill(machine.id);
        simulator::<Disks>().end(machine.id, end);
        simulator::<Wires>().end(machine.id, end == End::PowerLost);
    }

    /// Starts a node that was killed.
    pub(super) fn restart(&self, machine: &Machine) {
        if self.state(machine) != State::Down || lock(&self.excluded).contains(&machine.id) {
            return;
        }
        self.set(machine, State::Up);
        simulator::<Wires>().begin(machine.id);
        self.handle.restart(machine.id);
    }

    /// Lets a node stand still.
    pub(super) fn pause(&self, machine: &Machine) {
        self.set(machine, State::Paused);
        self.handle.pause(machine.id);
    }

    /// Lets it go on.
    pub(super) fn resume(&self, machine: &Machine) {
        if self.state(machine) == State::Paused {
            self.set(machine, State::Up);
            self.handle.resume(machine.id);
        }
    }

    /// Looks after the machines for ever: those that crashed inside a disk operation are killed for
    /// good, those whose process ended by itself are started again.
    pub(super) async fn look_after(self: Arc<Self>) {
        loop {
            for machine in &self.nodes {
                if self.state(machine) == State::Down {
                    continue;
                }
                if self.overseer.is_harmed(machine.id) {
                    self.replace(machine, "some of its log is lost");
                } else if simulator::<Disks>().has_halted(machine.id) {
                    self.note("crashed-in-disk-operation", &format!("n{}", machine.number));
                    self.resume(machine);
                    self.kill(machine, End::PowerLost);
                    self.later(machine, Duration::from_millis(700));
                } else if self.is_up(machine) && self.handle.is_exit(machine.id) {
                    self.note("process-ended", &format!("n{}", machine.number));
                    if self.is_damaged(machine) {
                        self.replace(machine, "it does not start");
                    } else {
                        self.kill(machine, End::Killed);
                        self.later(machine, Duration::from_secs(1));
                    }
                }
            }
            madsim::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// An operator replaces the damaged disk of a node by an empty one.
    fn replace(self: &Arc<Self>, machine: &Machine, why: &str) {
        self.note("damaged-disk-replaced", &format!("n{}: {why}", machine.number));
        self.resume(machine);
        self.kill(machine, End::PowerLost);
        self.wipe(machine);
        self.later(machine, Duration::from_millis(500));
    }

    fn later(self: &Arc<Self>, machine: &Machine, pause: Duration) {
        let (cluster, machine) = (Arc::clone(self), machine.clone());
        madsim::task::spawn(async move {
            madsim::time::sleep(pause).await;
            cluster.restart(&machine);
        });
    }

    /// Everything that is broken is mended, and everybody runs.
    pub(super) fn heal(&self) {
        lock(&self.excluded).clear();
        self.mend();
    }

    /// The same for those that are not left out.
    pub(super) fn mend(&self) {
        simulator::<Wires>().heal();
        for machine in &self.nodes {
            simulator::<Disks>().heal(machine.id);
            simulator::<Clocks>().drift(machine.id, 0);
            self.resume(machine);
            self.restart(machine);
        }
    }
}

/// Where a client is.
pub(super) fn client_ip(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 1, number))
}

/// Where a node listens.
pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)), PORT)
}

/// What a node is started with.
#[derive(Clone)]
struct Plan {
    number: u8,
    address: SocketAddr,
    peers: Vec<String>,
    profile: Profile,
    troubles: Troubles,
}

/// A life of a node.
async fn live(plan: Plan) {
    let ended = match start(&plan).await {
        Ok(mut node) => {
            node.until_ended().await;
            node.stop().await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::info!(target: "kotoba_sim", "n{} ended: {error}", plan.number);
        let at = TimeHandle::current().elapsed();
        lock(&plan.troubles).push(format!("at {at:?}, n{}: {error}", plan.number));
    }
}

async fn start(plan: &Plan) -> Result<KotobaCluster, ClusterError> {
    let mut builder = KotobaCluster::builder(NodeId(format!("n{}", plan.number)))
        .config(ClusterConfig { partition_count: plan.profile.partitions, ..ClusterConfig::default() })
        .tuning(tuning(&plan.profile))
        .data_dir(DATA)
        .peers(plan.peers.clone());
    if plan.profile.tls {
        builder = builder.tls(tls_files());
    }
    let mut node = builder.build().await?;
    let store = RedbStore::open(&Path::new(DATA).join("graph"), STORE_CACHE_BYTES);
    node.add_database(store.map_err(|error| ClusterError::Unavailable(error.to_string()))?).await?;
    node.start(plan.address).await?;
    Ok(node)
}

fn tuning(profile: &Profile) -> Tuning {
    let mut tuning = Tuning {
        raft: RaftTuning {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(300),
            keep_bytes: profile.keep_bytes,
        },
        ..Tuning::default()
    };
    tuning.log.segment_bytes = 4 << 20;
    tuning.store.persist_interval = profile.persist_interval;
    tuning
}
