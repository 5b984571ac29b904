//! Bringing a node up: from a data directory and a few addresses to a running driver.
//!
//! 1. Listen, lock the directory, read who it belongs to: wrong settings fail here, at once. An
//!    address or a certificate that cannot be used leaves no trace on the disk.
//! 2. Answer introductions, and bring the node into its cluster (`bootstrap`).
//! 3. Recover the log, open the store, make each group's first state durable where the node is
//!    new, and start the threads and the driver.
//!
//! A new node's groups begin at *genesis*: as if a snapshot at index 1, term 1 had been installed,
//! with the first members and an empty graph. A file says when all of that is durable; from then
//! on a group that is missing from the log was lost, and is never begun a second time.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, RwLock, atomic::AtomicBool},
};

use tokio::{
    sync::{broadcast, mpsc, watch},
    task::JoinHandle,
};
use tonic::service::RoutesBuilder;

use super::{
    applier::{Applier, ApplyEvent},
    bootstrap::{self, Connector, Outcome, Plan},
    coordinator::{Coordinator, ForwardedWrites, Routing},
    driver::{Clock, Driver, DriverSettings, Event, Parts, routes_of},
    handle::{COMMANDS_WAITING_MAX, Command, NodeHandle, Shared},
    identity::{Genesis, Identity, Membership, Origin},
    machine,
    peers::{LocalHello, PeerServer, Peers, PeersConfig},
    room::{Gate, Room},
    serve::Listener,
    service::{Services, Serving, StoredReads, channels::Channels, membership::Introduction},
    snapshots::{self, SnapshotWorker},
    status::GroupFault,
    tls::Tls,
    views::KeptViews,
    worker::Worker,
};
use crate::{
    api::config::{ClusterConfig, LogTuning, RaftTuning, StoreTuning, TlsConfig, Tuning},
    error::{ClusterError, ErrorCode},
    graph::{self, GraphMachine},
    multiraft::Node,
    placement::{MetaState, NodeId},
    raft::{
        BootEpoch, GroupId, HardState, Index, Limits, Position, Replica, ReplicaId, Restored, Settings,
        SnapshotMeta, Term, Timing,
    },
    runtime::{
        fs::{self, File},
        random, tasks, watcher,
    },
    storage::{
        graph_store::{BufferedStore, FjallStore, GraphStore, StoreError, StoreOptions},
        wal::{
            DataDirLock, GroupWrite, LogId, LogIndex, LogReader, OsDisk, RecoveredGroup, Recovery, WalHandle,
            WalHooks, WalOptions, WalWriter,
        },
    },
};

/// Where every group begins.
const GENESIS: Position = Position::new(Index(1), Term(1));
/// The file that says that every group's first state is durable.
const STARTED: &str = "started";

/// What a node is told.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    pub(crate) node_id: NodeId,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// `HOST:PORT` at which others reach it; `None`: where it listens.
    pub(crate) address: Option<String>,
    pub(crate) data_dir: PathBuf,
    /// The other nodes of the cluster, `HOST:PORT`.
    pub(crate) peers: Vec<String>,
    /// Who is expected at which address, as far as that is known.
    pub(crate) expected: Vec<(String, NodeId)>,
    /// Of a cluster to begin; `None`: the default.
    pub(crate) partition_count: Option<u32>,
    /// Of a cluster to begin; `None`: the default.
    pub(crate) replication_factor: Option<u32>,
    pub(crate) tuning: Tuning,
    pub(crate) tls: Option<TlsConfig>,
}

impl NodeConfig {
    /// The partitions and the replication factor of a cluster to begin.
    fn counts(&self) -> (u32, u32) {
        let default = ClusterConfig::default();
        let or = |said: Option<u32>, default: usize| {
            said.unwrap_or_else(|| u32::try_from(default).unwrap_or(u32::MAX))
        };
        (
            or(self.partition_count, default.partition_count),
            or(self.replication_factor, default.replication_factor),
        )
    }

    /// Says of each count that differs from that of the cluster that it does not count.
    fn warn_of_ignored(&self, began: &Genesis) {
        let counts = [
            ("partitions", self.partition_count, began.partition_count),
            ("replication factor", self.replication_factor, began.replication_factor),
        ];
        for (what, said, is) in counts {
            if let Some(said) = said.filter(|said| *said != is) {
                let what = format!("{what} {said} is ignored: the cluster began with {is}");
                tracing::warn!("{}", ClusterError::new(ErrorCode::Configuration, what).report());
            }
        }
    }
}

/// A node that listens.
pub(crate) struct RunningNode {
    pub(crate) services: Services,
    pub(crate) address: SocketAddr,
    /// Tells the node to stop.
    stop: watch::Sender<bool>,
    /// Ends when the node has stopped.
    ended: JoinHandle<Result<(), ClusterError>>,
}

impl RunningNode {
    /// Stops gracefully: answers what is under way, makes everything durable, lets go of the
    /// directory.
    ///
    /// # Errors
    /// Where the node failed before or while it stopped.
    pub(crate) async fn stop(self) -> Result<(), ClusterError> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Waits until the node ends by itself, which it only does where it fails.
    ///
    /// # Errors
    /// Why it failed.
    pub(crate) async fn ended(self) -> Result<(), ClusterError> {
        self.ended
            .await
            .unwrap_or_else(|error| Err(ClusterError::new(ErrorCode::Internal, error.to_string())))
    }

    /// Whether the node has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_finished()
    }
}

/// Starts a node. Returns when it listens; it serves once its cluster is there.
///
/// # Errors
/// Where the directory, the address or the certificates cannot be used.
pub(crate) async fn start<S: GraphStore>(
    config: NodeConfig,
    open_store: impl FnOnce(&Path, &StoreTuning) -> Result<S, StoreError> + Send + 'static,
) -> Result<RunningNode, ClusterError> {
    let tls = config.tls.as_ref().map(Tls::load).transpose()?;
    let listener = Listener::bind(config.listen).await?;
    let address = listener.address();
    fs::create_dir_all(&config.data_dir).map_err(|error| unwritable(&config.data_dir, &error))?;
    let lock = DataDirLock::acquire(&config.data_dir)?;
    let identity = Identity::open(&config.data_dir, &config.node_id)?;
    let own_address = config.address.clone().unwrap_or_else(|| address.to_string());
    let (partitions, factor) = config.counts();
    let plan = Plan::new(own_address.clone(), config.peers.iter().cloned(), partitions, factor)
        .expecting(config.expected.iter().cloned());
    let hello = LocalHello::new(&identity, own_address.clone(), plan.addresses(), partitions, factor);

    let services = Services::new(config.node_id.clone(), own_address);
    let server = PeerServer::new(hello.clone());
    let mut routes = RoutesBuilder::default();
    let health = services.add_to(&mut routes)?;
    routes.add_service(server.clone().into_service());
    let (stop, stopping) = watch::channel(false);

    let bringing_up = BringUp {
        config: config.clone(),
        identity,
        plan,
        hello,
        tls: tls.clone(),
        server,
        services: services.clone(),
        health,
    };
    let network = config.tuning.network.clone();
    let ended = tokio::spawn(async move {
        let _lock = lock;
        let shutdown = told(stopping.clone());
        let serving =
            tokio::spawn(
                async move { listener.serve(routes.routes(), tls.as_ref(), &network, shutdown).await },
            );
        let result = bringing_up.run(open_store, stopping, serving).await;
        if let Err(error) = &result {
            tracing::error!("{error}");
        }
        result
    });
    Ok(RunningNode { services, address, stop, ended })
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // Where the sender is gone, so is the node's owner.
    let _ = stopping.wait_for(|stop| *stop).await;
}

struct BringUp {
    config: NodeConfig,
    identity: Identity,
    plan: Plan,
    hello: LocalHello,
    tls: Option<Tls>,
    server: PeerServer,
    services: Services,
    health: tonic_health::server::HealthReporter,
}

impl BringUp {
    async fn run<S: GraphStore>(
        mut self,
        open_store: impl FnOnce(&Path, &StoreTuning) -> Result<S, StoreError> + Send + 'static,
        stopping: watch::Receiver<bool>,
        serving: JoinHandle<Result<(), super::serve::ServeError>>,
    ) -> Result<(), ClusterError> {
        if let Err(error) = self.live(open_store, stopping).await {
            serving.abort();
            return Err(error);
        }
        let timeout = self.config.tuning.network.shutdown_timeout;
        match tokio::time::timeout(timeout, serving).await {
            Ok(Ok(result)) => Ok(result?),
            Ok(Err(error)) => Err(ClusterError::new(ErrorCode::Internal, error.to_string())),
            // Clients that keep their streams open do not keep the node from stopping.
            Err(_) => Ok(()),
        }
    }

    /// Comes to the cluster and takes part in it until the node is told to stop, or must.
    async fn live<S: GraphStore>(
        &mut self,
        open_store: impl FnOnce(&Path, &StoreTuning) -> Result<S, StoreError> + Send + 'static,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ClusterError> {
        let outcome = tokio::select! {
            biased;
            () = told(stopping.clone()) => return Ok(()),
            entered = self.enter() => entered?,
        };
        let membership = self.identity.membership().cloned().expect("set by the bootstrap");
        self.config.warn_of_ignored(&membership.genesis);
        let introduction = Introduction::new(&self.services, &self.identity, &membership);
        let node = self.assemble(membership, outcome, open_store).await?;
        let health = tokio::spawn(self.services.clone().report_health(self.health.clone()));
        let ended = tokio::select! {
            biased;
            () = told(stopping) => Ok(()),
            error = node.peers.ousted() => Err(error),
            error = introduction.keep_known(&node.handle) => Err(error),
        };
        health.abort();
        node.stop().await;
        ended
    }

    /// Brings the node into its cluster; meanwhile its services say for whom it waits.
    async fn enter(&mut self) -> Result<Outcome, ClusterError> {
        let (waiting, mut told) = watch::channel(Vec::new());
        let services = self.services.clone();
        let telling = tokio::spawn(async move {
            while told.changed().await.is_ok() {
                services.wait_for(told.borrow_and_update().clone());
            }
        });
        let connector = self.connector();
        let entered = bootstrap::run(&mut self.identity, &self.plan, &self.hello, &connector, &waiting).await;
        telling.abort();
        entered
    }

    async fn assemble<S: GraphStore>(
        &self,
        membership: Membership,
        outcome: Outcome,
        open_store: impl FnOnce(&Path, &StoreTuning) -> Result<S, StoreError> + Send + 'static,
    ) -> Result<Assembled, ClusterError> {
        tracing::info!(cluster = %membership.cluster_id, peer = membership.peer.0, ?outcome, "in the cluster");
        let config = self.config.clone();
        let incarnation = self.identity.incarnation();
        let first = membership.first_state()?;
        let loading = {
            let membership = membership.clone();
            let open_store =
                move |dir: &Path, tuning: &StoreTuning| open_store(dir, tuning).map(BufferedStore::new);
            move || Loaded::load(&config, &membership, LogId(incarnation.0), first, open_store)
        };
        let loaded = tasks::blocking(loading)
            .await
            .map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))??;
        if let Some(member) = loaded.meta.members.get(&membership.peer) {
            // Where it was last: a copy of this directory may run there.
            let (plan, hello, known) = (&self.plan, &self.hello, [member.address.as_str()]);
            bootstrap::come_back(&self.identity, &membership, plan, hello, &self.connector(), known).await?;
        }
        loaded.launch(self, &membership)
    }

    fn connector(&self) -> Connector {
        Connector { tls: self.tls.clone(), network: self.config.tuning.network.clone() }
    }
}

/// What a node's disk holds, opened.
struct Loaded<S> {
    store: S,
    writer: WalWriter<OsDisk>,
    recovery: Recovery,
    meta: MetaState,
}

impl<S: GraphStore> Loaded<S> {
    fn load(
        config: &NodeConfig,
        membership: &Membership,
        log_id: LogId,
        first: MetaState,
        open_store: impl FnOnce(&Path, &StoreTuning) -> Result<S, StoreError>,
    ) -> Result<Self, ClusterError> {
        let store = open_store(&config.data_dir, &config.tuning.store)?;
        let options =
            WalOptions { segment_bytes: config.tuning.log.segment_bytes, ..WalOptions::new(log_id) };
        let log_dir = config.data_dir.join("wal");
        let disk = OsDisk::open(&log_dir)?.with_reserve(config.tuning.log.disk_reserve_bytes);
        let (mut writer, mut recovery) = WalWriter::open(disk, options)?;
        let started = config.data_dir.join(STARTED);
        if !fs::exists(&started).map_err(|error| unwritable(&started, &error))? {
            begin(&store, &mut writer, membership, &first)?;
            mark(&started)?;
            let disk = writer.close()?;
            (writer, recovery) = WalWriter::open(disk, options)?;
        }
        watcher::recovered(&recovery);
        finish_installs(&store, &recovery, &config.data_dir.join("snapshots"))?;
        let meta = machine::stored_meta(&store)?.unwrap_or(first);
        Ok(Self { store, writer, recovery, meta })
    }

    fn launch(self, node: &BringUp, membership: &Membership) -> Result<Assembled, ClusterError> {
        let Self { store, writer, recovery, meta } = self;
        if let Some(torn) = &recovery.torn {
            tracing::info!(
                "cut what the last crash left unfinished: {} of the log ends at byte {}",
                torn.segment,
                torn.offset
            );
        }
        let tuning = &node.config.tuning;
        let peer = membership.peer;
        let clock = Clock::start();
        let replica = ReplicaSettings::new(&tuning.raft, recovery.boot)?;
        let (pure, groups) = recover_groups(&store, &recovery, &meta, membership, &replica, clock)?;

        let meta = Arc::new(meta);
        let (commands, arriving) = mpsc::channel(COMMANDS_WAITING_MAX);
        let (event_sender, events) = mpsc::unbounded_channel();
        let log_dir = node.config.data_dir.join("wal");
        let log = LogIndex::of_recovery(&recovery, tuning.log.cache_bytes);
        let reader = LogReader::new(OsDisk::open(&log_dir)?, recovery.log_id);
        let spare_disk = OsDisk::open(&log_dir)?.with_reserve(tuning.log.disk_reserve_bytes);
        let wal =
            WalHandle::start(writer, spare_disk, wal_hooks(&event_sender, &tuning.log)).map_err(no_thread)?;
        let wal_metrics = Arc::clone(wal.metrics());
        let shared = Arc::new(Shared {
            meta: RwLock::new(Arc::clone(&meta)),
            hints: RwLock::default(),
            log: wal_metrics,
            events: broadcast::channel(1024).0,
            changes: watch::channel(0).0,
            disk_full: AtomicBool::new(false),
            peer,
        });
        let peers = Peers::new(PeersConfig {
            own: peer,
            cluster_id: membership.cluster_id,
            hello: node.hello.clone(),
            tls: node.tls.clone(),
            network: tuning.network.clone(),
            commands: commands.clone(),
            listed: node.plan.peers().to_vec(),
        });

        let views = Arc::new(KeptViews::default());
        let room = Arc::new(Room::new(
            node.config.data_dir.clone(),
            tuning.log.disk_reserve_bytes,
            tuning.log.disk_full_poll_interval,
        ));
        let applier = start_applier(&store, reader.clone(), &views, &shared, &room, &event_sender)?;
        let snapshots_dir = node.config.data_dir.join("snapshots");
        let mut worker =
            SnapshotWorker::open(snapshots_dir.clone(), reader, peers.clone(), event_sender.clone())
                .map_err(|error| unwritable(&snapshots_dir, &error))?;
        let snapshots = Worker::start(
            "snapshots",
            move |job| {
                worker.run(job);
                true
            },
            obituary(&event_sender),
        )
        .map_err(no_thread)?;

        let (driver, arriving, events) = Driver::new(Parts {
            node: pure,
            clock,
            shared: Arc::clone(&shared),
            log,
            wal,
            applier,
            snapshots,
            peers: peers.clone(),
            room,
            commands: arriving,
            events,
            event_sender,
            settings: DriverSettings {
                persist_interval: tuning.store.persist_interval,
                segments_max: tuning.log.disk_budget_bytes / tuning.log.segment_bytes,
                replica,
                snapshots_dir,
            },
            groups,
        });
        let handle = NodeHandle { commands, shared };
        let routing = Arc::new(Routing::new(handle.clone()));
        let channels = Arc::new(Channels::new(node.tls.clone(), tuning.network.clone()));
        let reads = Arc::new(StoredReads::new(store));
        let deadline = tuning.network.request_timeout;
        let coordinator =
            Coordinator::new(handle.clone(), Arc::clone(&routing), peers.clone(), channels, reads, deadline);
        peers.set_forward_handler(Arc::new(ForwardedWrites::new(handle.clone(), Arc::clone(&routing))));
        peers.set_members_of(&meta);
        node.server.attach(peers.clone());
        let driving = tokio::spawn(driver.run(arriving, events));
        node.services.open(Serving::new(coordinator, views));
        Ok(Assembled { handle, peers, driving })
    }
}

/// A node's running parts.
struct Assembled {
    handle: NodeHandle,
    peers: Peers,
    driving: JoinHandle<()>,
}

impl Assembled {
    async fn stop(self) {
        let (done, stopped) = tokio::sync::oneshot::channel();
        if self.handle.send(Command::Stop(done)).await.is_ok() {
            // The driver drops the sender only after it stopped.
            let _ = stopped.await;
        }
        self.peers.close();
        // It was told to end; a panic of its was reported when it happened.
        let _ = self.driving.await;
    }
}

/// Makes the first state of every group of a new node durable: in the store, then in the log.
fn begin<S: GraphStore>(
    store: &S,
    writer: &mut WalWriter<OsDisk>,
    membership: &Membership,
    first: &MetaState,
) -> Result<(), ClusterError> {
    let mut writes = Vec::new();
    for (group, _) in first.map.replicas_of(membership.peer) {
        let founder = membership.origin == Origin::Founder;
        let start = if founder {
            if group == GroupId::META {
                machine::create_meta(store, first, GENESIS)?;
            } else {
                GraphMachine::create(store, group, GENESIS)?;
            }
            let configuration = first.desired(group).expect("the map has every group it names");
            SnapshotMeta { position: GENESIS, configuration }
        } else {
            // A new replica in the place of a lost one knows nothing: it is sent everything.
            SnapshotMeta::default()
        };
        let hard_state = HardState { term: start.position.term, vote: None };
        writes.push(GroupWrite {
            remove: true,
            hard_state: Some(hard_state),
            install: founder.then_some(start),
            ..GroupWrite::of(group)
        });
    }
    store.persist()?;
    writer.write(&writes)?;
    Ok(())
}

fn mark(path: &Path) -> Result<(), ClusterError> {
    let written = File::create(path).and_then(|file| file.sync_all());
    let synced = written.and_then(|()| match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    });
    synced.map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> ClusterError {
    ClusterError::new(ErrorCode::DataDirUnwritable, format!("cannot write {}: {error}", path.display()))
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn no_thread(error: std::io::Error) -> ClusterError {
    ClusterError::new(ErrorCode::Internal, format!("cannot start a thread: {error}"))
}

/// Installs snapshots whose installation a crash interrupted: the log has them, the store not yet.
fn finish_installs<S: GraphStore>(store: &S, recovery: &Recovery, dir: &Path) -> Result<(), ClusterError> {
    for (&group, recovered) in &recovery.groups {
        let applied = graph::applied(store, group)?.map_or(Index::ZERO, |applied| applied.position.index);
        let start = &recovered.start;
        let file = dir.join(snapshots::received_name(group, start));
        if applied < start.position.index && fs::exists(&file).map_err(|error| unwritable(&file, &error))? {
            snapshots::import(store, group, start, &file)
                .map_err(|error| ClusterError::new(ErrorCode::DataDirDamaged, format!("{group}: {error}")))?;
        }
    }
    Ok(())
}

type Recovered = (Node, Vec<(GroupId, Index, u128, Option<GroupFault>)>);

/// Restarts every replica of this node from what its disk holds.
fn recover_groups<S: GraphStore>(
    store: &S,
    recovery: &Recovery,
    meta: &MetaState,
    membership: &Membership,
    settings: &ReplicaSettings,
    clock: Clock,
) -> Result<Recovered, ClusterError> {
    let mut node = Node::new();
    let mut groups = Vec::new();
    let known: BTreeMap<_, _> = meta.map.replicas_of(membership.peer).collect();
    if recovery.groups.is_empty() {
        let what = format!("the log is empty, but this node took part in {} groups", known.len());
        return Err(ClusterError::new(ErrorCode::DataDirDamaged, what));
    }
    for (group, id) in known {
        let applied = graph::applied(store, group)?;
        let (index, digest) =
            applied.map_or((Index::ZERO, 0), |applied| (applied.position.index, applied.digest));
        let recovered = match sound(recovery, group) {
            Ok(recovered) => recovered,
            Err(fault) => {
                // The log takes no write of a damaged group, and a submission that holds one is refused
                // whole: the replica must not run beside the sound ones.
                tracing::error!("{}", fault.error(group).report());
                groups.push((group, index, digest, Some(fault)));
                continue;
            }
        };
        let restored = Restored {
            hard_state: recovered.hard_state,
            start: recovered.start.clone(),
            runs: recovered.runs.iter().map(|run| (run.last, run.bytes)).collect(),
            configurations: recovered.configurations.clone(),
            applied: index,
            damaged: false,
        };
        match Replica::recover(settings.settings(group, id), restored, clock.now()) {
            Ok(replica) => {
                node.add_group(group, replica, routes_of(meta, group));
                groups.push((group, index, digest, None));
            }
            Err(error) => {
                let fault = GroupFault::new(ErrorCode::DataDirDamaged, error.to_string());
                tracing::error!("{}", fault.error(group).report());
                groups.push((group, index, digest, Some(fault)));
            }
        }
    }
    Ok((node, groups))
}

/// What the log holds of a group, where nothing of it is lost.
fn sound(recovery: &Recovery, group: GroupId) -> Result<&RecoveredGroup, GroupFault> {
    let damaged = |what: String| GroupFault::new(ErrorCode::DataDirDamaged, what);
    let recovered = recovery.groups.get(&group);
    let recovered = recovered.ok_or_else(|| damaged("the log holds nothing of it any more".to_owned()))?;
    match &recovered.damage {
        Some(damage) => Err(damaged(format!("{damage}, in the log in wal/"))),
        None => Ok(recovered),
    }
}

fn start_applier<S: GraphStore>(
    store: &S,
    reader: super::NodeLogReader,
    views: &Arc<KeptViews<S::View>>,
    shared: &Arc<Shared>,
    room: &Arc<Room>,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Worker<super::applier::Job<S::View>>, ClusterError> {
    let died = events;
    let full_events = events.clone();
    let gate = Gate::new(Arc::clone(room), move |full| {
        let _ = full_events.send(Event::Apply(ApplyEvent::Full(full)));
    });
    let events = events.clone();
    let report = move |event: ApplyEvent| {
        // A driver that is gone needs no reports.
        let _ = events.send(Event::Apply(event));
    };
    let mut applier =
        Applier::new(store.clone(), reader, Arc::clone(views), Arc::clone(shared), Box::new(report));
    Worker::start_behind(gate, "applier", move |job| applier.run(job), obituary(died)).map_err(no_thread)
}

/// Tells the driver that a thread panicked.
fn obituary(events: &mpsc::UnboundedSender<Event>) -> impl FnOnce(&'static str) + Send + 'static {
    let events = events.clone();
    move |thread| {
        // A driver that is gone needs no reports.
        let _ = events.send(Event::ThreadDied(thread));
    }
}

fn wal_hooks(events: &mpsc::UnboundedSender<Event>, tuning: &LogTuning) -> WalHooks<u64> {
    let events = events.clone();
    let hooks = WalHooks::new(move |event| {
        // A driver that is gone needs no reports.
        let _ = events.send(Event::Wal(event));
    });
    WalHooks { full_poll_interval: tuning.disk_full_poll_interval, ..hooks }
}

/// Opens the default graph store in its place in the data directory.
///
/// # Errors
/// Where the directory cannot be used.
pub(crate) fn open_on_disk(data_dir: &Path, tuning: &StoreTuning) -> Result<FjallStore, StoreError> {
    let options = StoreOptions {
        cache_bytes: tuning.cache_bytes,
        write_buffer_bytes: tuning.write_buffer_bytes,
        #[expect(clippy::cast_precision_loss, reason = "a handful of bits")]
        bloom_bits_per_row: tuning.bloom_bits_per_key as f32,
        worker_threads: tuning.compaction_threads,
        ..StoreOptions::default()
    };
    FjallStore::open(&data_dir.join("graph"), &options)
}

/// What every replica of a node is told.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaSettings {
    boot: BootEpoch,
    seed: u64,
    timing: Timing,
    retained_bytes: u64,
}

impl ReplicaSettings {
    fn new(tuning: &RaftTuning, boot: BootEpoch) -> Result<Self, ClusterError> {
        let mut seed = [0; 8];
        random::fill(&mut seed).map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))?;
        let timing = Timing {
            heartbeat: tuning.heartbeat_interval,
            election: tuning.election_timeout,
            ..Timing::default()
        };
        Ok(Self { boot, seed: u64::from_le_bytes(seed), timing, retained_bytes: tuning.keep_bytes })
    }

    /// The settings of one replica. Each group draws its own random numbers.
    pub(crate) fn settings(&self, group: GroupId, id: ReplicaId) -> Settings {
        Settings {
            id,
            boot: self.boot,
            seed: self.seed ^ (u64::from(group.0) << 32),
            timing: self.timing,
            retained_bytes: self.retained_bytes,
            limits: Limits::default(),
        }
    }
}
