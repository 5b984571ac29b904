//! A cluster of real processes on loopback ports, with what can be done to it.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

use kotoba_db_cluster::client::{Client, ClientOptions, v1};
use kotoba_db_cluster_proto::v1::{
    cluster_service_client::ClusterServiceClient, peer_service_client::PeerServiceClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use crate::{
    command::{Finished, Killed, run, without_settings},
    program,
};

/// The pause between two looks at what is waited for.
pub(crate) const POLL: Duration = Duration::from_millis(25);
/// How long a cluster may take to come up, elect and catch up; far more than it needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);
/// How long one question to one node may take.
const ASK: Duration = Duration::from_secs(3);
/// Lines of each process' log that a failed test shows.
const LOG_LINES_SHOWN: usize = 60;

/// A Raft group, as the tests speak of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Meta,
    Partition(u32),
}

/// One node's process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) address: String,
    pub(crate) data_dir: PathBuf,
    log: PathBuf,
    process: Option<Killed>,
    paused: bool,
}

/// Processes that form a cluster. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    partitions: u32,
    dir: TempDir,
    /// One cluster at a time.
    _turn: MutexGuard<'static, ()>,
}

/// Polls until `check` succeeds; panics with its last reason when the time is up.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut check: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + within;
    loop {
        match check().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() >= until => panic!("no {what} within {within:?}: {reason}"),
            Err(_) => sleep(POLL).await,
        }
    }
}

/// A port nobody listens at. Below the range the system takes the ports of outgoing connections from:
/// a node that restarts must find its port free again.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id().wrapping_mul(37) % 18_000).expect("below 18,000");
    (0..2_000)
        .map(|_| 12_000 + (spread + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port")
}

/// `127.0.0.1:PORT` with a free port.
pub(crate) fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// The generated client of one node, for questions that must not go to another.
pub(crate) fn service(address: &str) -> ClusterServiceClient<Channel> {
    let client = ClusterServiceClient::new(channel(address));
    client.max_decoding_message_size(64 << 20).max_encoding_message_size(64 << 20)
}

/// The service that nodes speak to each other, of one node.
pub(crate) fn peer_service(address: &str) -> PeerServiceClient<Channel> {
    PeerServiceClient::new(channel(address))
}

pub(crate) fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address of ours");
    endpoint.connect_timeout(Duration::from_secs(1)).connect_lazy()
}

impl Cluster {
    /// Three nodes, started and serving.
    pub(crate) async fn start(partitions: u32) -> Self {
        let mut cluster = Self::prepare(3, partitions);
        for node in 0..cluster.nodes.len() {
            cluster.launch(node);
        }
        cluster.until_serving().await;
        cluster
    }

    /// Nodes that have addresses and directories, and do not run yet.
    pub(crate) fn prepare(nodes: usize, partitions: u32) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let node = |number: usize| {
            let id = format!("n{number}");
            Node {
                address: free_address(),
                data_dir: dir.path().join(&id),
                log: dir.path().join(format!("{id}.log")),
                process: None,
                paused: false,
                id,
            }
        };
        Self { nodes: (1..=nodes).map(node).collect(), partitions, dir, _turn: turn }
    }

    /// The command line of a node: the same at every start.
    pub(crate) fn command_line(&self, node: usize) -> Vec<String> {
        let own = &self.nodes[node];
        let others: Vec<&str> = self
            .nodes
            .iter()
            .filter(|other| other.id != own.id)
            .map(|other| other.address.as_str())
            .collect();
        let mut line = vec![
            format!("--node-id={}", own.id),
            format!("--address={}", own.address),
            format!("--data-dir={}", own.data_dir.display()),
            format!("--partitions={}", self.partitions),
        ];
        if !others.is_empty() {
            line.push(format!("--peers={}", others.join(",")));
        }
        line
    }

    /// Another node under the id of this one, with an address and a directory of its own.
    pub(crate) fn add_second(&mut self, node: usize) -> usize {
        let id = self.nodes[node].id.clone();
        let name = format!("{id}-second");
        self.nodes.push(Node {
            address: free_address(),
            data_dir: self.dir.path().join(&name),
            log: self.dir.path().join(format!("{name}.log")),
            process: None,
            paused: false,
            id,
        });
        self.nodes.len() - 1
    }

    /// Starts a node's process and does not wait for anything.
    pub(crate) fn launch(&mut self, node: usize) {
        let line = self.command_line(node);
        self.launch_with(node, &line);
    }

    /// Starts a node's process without telling it of the others.
    pub(crate) fn launch_alone(&mut self, node: usize) {
        let mut line = self.command_line(node);
        line.retain(|arg| !arg.starts_with("--peers"));
        self.launch_with(node, &line);
    }

    /// Starts a node's process with this command line.
    pub(crate) fn launch_with(&mut self, node: usize, line: &[impl AsRef<OsStr>]) {
        let node = &mut self.nodes[node];
        assert!(node.process.is_none(), "{} runs already", node.id);
        let log = OpenOptions::new().create(true).append(true).open(&node.log).expect("a log of ours");
        let copy = || log.try_clone().expect("another handle of the log");
        let mut command = Command::new(program());
        command.args(line).stdin(Stdio::null()).stdout(copy()).stderr(copy());
        without_settings(&mut command);
        node.process = Some(Killed(command.spawn().expect("the program starts")));
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        assert!(node.process.take().is_some(), "{} does not run", node.id);
        node.paused = false;
    }

    /// Deletes everything a node that does not run has on its disk.
    pub(crate) fn wipe(&mut self, node: usize) {
        let node = &self.nodes[node];
        assert!(node.process.is_none(), "{} still runs", node.id);
        fs::remove_dir_all(&node.data_dir).expect("a directory of ours");
    }

    /// Stops a process in the middle of whatever it does.
    pub(crate) fn pause(&mut self, node: usize) {
        self.signal(node, Signal::STOP);
        self.nodes[node].paused = true;
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&mut self, node: usize) {
        self.signal(node, Signal::CONT);
        self.nodes[node].paused = false;
    }

    /// Asks a process to end gracefully, and waits for its end.
    pub(crate) async fn terminate(&mut self, node: usize) -> i32 {
        self.signal(node, Signal::TERM);
        self.ended(node).await
    }

    /// Waits until a process has ended by itself: its exit code.
    pub(crate) async fn ended(&mut self, node: usize) -> i32 {
        let node = &mut self.nodes[node];
        let process = &mut node.process.as_mut().expect("it was started").0;
        let status = eventually("end of the process", PATIENCE, async || {
            process.try_wait().expect("a child of ours").ok_or_else(|| "it still runs".to_owned())
        })
        .await;
        node.process = None;
        status.code().unwrap_or(-1)
    }

    fn signal(&self, node: usize, signal: Signal) {
        let process = &self.nodes[node].process.as_ref().expect("it runs").0;
        let pid = Pid::from_child(process);
        kill_process(pid, signal).expect("a child of ours");
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.address.clone()).collect()
    }

    /// A client of its own session that goes on trying for this long.
    pub(crate) async fn client(&self, deadline: Duration) -> Client {
        let options = ClientOptions { deadline, ..ClientOptions::default() };
        Client::connect(self.addresses(), options).await.expect("addresses of ours")
    }

    /// Runs a client command of the program against this cluster.
    pub(crate) async fn command(&self, args: &[&str]) -> Finished {
        let endpoints = self.addresses().join(",");
        let mut line = args.to_vec();
        line.extend(["--endpoints", &endpoints]);
        run(&line).await
    }

    /// What one node says of the whole cluster.
    pub(crate) async fn status_of(&self, node: usize) -> Result<v1::StatusResponse, String> {
        let mut service = service(&self.nodes[node].address);
        match timeout(ASK, service.status(v1::StatusRequest { local: false })).await {
            Err(_) => Err(format!("{} does not answer", self.nodes[node].id)),
            Ok(Err(status)) => Err(status.to_string()),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
        }
    }

    /// What the first node that answers says of the whole cluster.
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, String> {
        let mut last = "no node runs".to_owned();
        for node in 0..self.nodes.len() {
            if self.nodes[node].process.is_none() || self.nodes[node].paused {
                continue;
            }
            match self.status_of(node).await {
                Ok(status) => return Ok(status),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }

    /// Waits until every group has a leader that answers, as each running node sees it.
    pub(crate) async fn until_serving(&self) {
        for node in self.running() {
            let who = format!("serving cluster, seen from {}", self.nodes[node].id);
            eventually(&who, PATIENCE, async || {
                let status = self.status_of(node).await?;
                if status.serving { Ok(()) } else { Err(format!("waiting for {:?}", status.waiting_for)) }
            })
            .await;
        }
    }

    /// The nodes that run and are not paused.
    pub(crate) fn running(&self) -> Vec<usize> {
        let runs = |node: &usize| self.nodes[*node].process.is_some() && !self.nodes[*node].paused;
        (0..self.nodes.len()).filter(runs).collect()
    }

    /// The node that leads a group, as soon as there is one.
    pub(crate) async fn leader_of(&self, group: Group) -> usize {
        eventually(&format!("leader of {group:?}"), PATIENCE, async || {
            let status = self.status().await?;
            let id = leader_in(&status, group).ok_or_else(|| format!("{:?}", status.waiting_for))?;
            self.number_of(&id).filter(|node| self.running().contains(node)).ok_or(format!("{id} is gone"))
        })
        .await
    }

    fn number_of(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == id)
    }

    /// Waits until a node has applied, in every group and as a member with a vote, what the cluster had
    /// committed when the wait began.
    pub(crate) async fn until_caught_up(&self, node: usize) {
        let id = self.nodes[node].id.clone();
        let goal = eventually("status with all leaders", PATIENCE, async || {
            let status = self.status().await?;
            if status.serving { Ok(commits(&status)) } else { Err(format!("{:?}", status.waiting_for)) }
        })
        .await;
        eventually(&format!("{id} that has caught up"), PATIENCE, async || {
            let status = self.status().await?;
            let own = status.nodes.iter().find(|node| node.id == id).ok_or("it is no member")?;
            if own.state != "up" {
                return Err(format!("it is {}", own.state));
            }
            for (group, commit) in &goal {
                let row = rows(own).find(|(its, _)| its == group).ok_or(format!("no group {group:?}"))?.1;
                if row.applied < *commit || !["leader", "follower"].contains(&row.role.as_str()) {
                    return Err(format!("group {group:?} needs {commit}: {row:?}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// A new directory or file beside those of the nodes, which goes with the cluster.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Everything a node's processes have said so far.
    pub(crate) fn log_of(&self, node: usize) -> String {
        read(&self.nodes[node].log)
    }

    /// Asserts that no process of the cluster ever panicked, and ends them all.
    pub(crate) fn finish(self) {
        for (number, node) in self.nodes.iter().enumerate() {
            assert!(!self.log_of(number).contains("panicked"), "{} panicked", node.id);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for node in &self.nodes {
            let log = read(&node.log);
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- {} at {} said:", node.id, node.address);
            for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A node's groups, with the meta group as `None`.
pub(crate) fn rows(node: &v1::NodeStatus) -> impl Iterator<Item = (Option<u32>, &v1::PartitionStatus)> {
    let meta = node.meta.iter().map(|row| (None, row));
    meta.chain(node.partitions.iter().map(|row| (Some(row.partition), row)))
}

/// Who leads a group: of those that say they do, the one of the highest term.
pub(crate) fn leader_in(status: &v1::StatusResponse, group: Group) -> Option<String> {
    let wanted = match group {
        Group::Meta => None,
        Group::Partition(partition) => Some(partition),
    };
    let leads = |node: &v1::NodeStatus| {
        rows(node).find(|(its, row)| *its == wanted && row.role == "leader").map(|(_, row)| row.term)
    };
    let claims = status.nodes.iter().filter_map(|node| leads(node).map(|term| (term, node.id.clone())));
    claims.max().map(|(_, id)| id)
}

/// The highest commit index of each group that any node tells.
fn commits(status: &v1::StatusResponse) -> BTreeMap<Option<u32>, u64> {
    let mut highest = BTreeMap::new();
    for (group, row) in status.nodes.iter().flat_map(rows) {
        let known = highest.entry(group).or_insert(0);
        *known = row.commit.max(*known);
    }
    highest
}

/// Numbers drawn from a seed (SplitMix64), which is printed so that a run can be repeated.
#[derive(Debug)]
pub(crate) struct Draws(u64);

impl Draws {
    /// The seed of the environment variable `TEST_SEED`, else one of the clock.
    pub(crate) fn new() -> Self {
        let given = std::env::var("TEST_SEED").ok().and_then(|text| text.parse().ok());
        let clock =
            || std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let seed = given.unwrap_or_else(clock);
        eprintln!("TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// An empty file, for commands that need one.
pub(crate) fn touch(path: &Path) {
    File::create(path).expect("a path of ours");
}
