//! Three nodes as processes of this very program. They end with the demo, however it ends.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::error::{ClusterError, ErrorCode};

pub(super) const NODES: usize = 3;
/// How long a node may take to stop gracefully.
const GRACE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(20);
/// Lines of a failed node's log that are shown.
const LOG_LINES: usize = 12;

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeIndex(usize);

#[derive(Debug)]
pub(super) struct Processes {
    addresses: Vec<String>,
    children: Vec<Option<Child>>,
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Processes {
    /// Finds free ports and a place for the data.
    pub(super) fn prepare() -> Result<Self, ClusterError> {
        let directory = tempfile::Builder::new().prefix("kotoba-demo-").tempdir().map_err(|error| {
            ClusterError::new(ErrorCode::File, format!("cannot create a temporary directory: {error}"))
        })?;
        let addresses = free_addresses().map_err(|error| {
            ClusterError::new(
                ErrorCode::AddressInUse,
                format!("no free ports on the loopback interface: {error}"),
            )
        })?;
        let children = (0..NODES).map(|_| None).collect();
        let path = directory.path().to_owned();
        Ok(Self { addresses, children, directory: Some(directory), path })
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    pub(super) fn directory(&self) -> &Path {
        &self.path
    }

    /// Leaves the data and the logs in place for whoever looks for a mistake.
    pub(super) fn keep(&mut self) -> &Path {
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
        &self.path
    }

    pub(super) fn name(&self, node: NodeIndex) -> String {
        format!("n{}", node.0 + 1)
    }

    pub(super) fn named(&self, name: &str) -> Option<NodeIndex> {
        (0..NODES).map(NodeIndex).find(|node| self.name(*node) == name)
    }

    pub(super) fn start_all(&mut self) -> Result<(), ClusterError> {
        (0..NODES).try_for_each(|node| self.start(NodeIndex(node)))
    }

    pub(super) fn start(&mut self, node: NodeIndex) -> Result<(), ClusterError> {
        let failed = |error| ClusterError::new(ErrorCode::Internal, format!("cannot start a node: {error}"));
        let log = fs::File::options().create(true).append(true).open(self.log_path(node)).map_err(failed)?;
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        // Settings for other nodes must not reach these.
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("KOTOBA_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg(format!("--node-id={}", self.name(node)))
            .arg(format!("--address={}", self.addresses[node.0]))
            .arg(format!("--peers={}", self.addresses.join(",")))
            .arg("--data-dir")
            .arg(self.path.join(self.name(node)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        self.children[node.0] = Some(child);
        Ok(())
    }

    fn log_path(&self, node: NodeIndex) -> PathBuf {
        self.path.join(format!("{}.log", self.name(node)))
    }

    pub(super) fn pid(&self, node: NodeIndex) -> Result<u32, ClusterError> {
        let child = self.children[node.0].as_ref().ok_or_else(|| gone(&self.name(node)))?;
        Ok(child.id())
    }

    /// SIGKILL: the process gets no chance to do anything more.
    pub(super) fn kill(&mut self, node: NodeIndex) -> Result<(), ClusterError> {
        let name = self.name(node);
        let mut child = self.children[node.0].take().ok_or_else(|| gone(&name))?;
        let ended = child.kill().and_then(|()| child.wait());
        ended
            .map(drop)
            .map_err(|error| ClusterError::new(ErrorCode::Internal, format!("cannot kill {name}: {error}")))
    }

    /// An error where a process has ended that should run.
    pub(super) fn check_alive(&mut self) -> Result<(), ClusterError> {
        for node in (0..NODES).map(NodeIndex) {
            let ended = self.children[node.0].as_mut().and_then(|child| child.try_wait().ok().flatten());
            if let Some(status) = ended {
                let log = fs::read_to_string(self.log_path(node)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                let what =
                    format!("node {} ended by itself ({status}); its last words:\n{tail}\n", self.name(node));
                return Err(ClusterError::new(ErrorCode::Internal, what));
            }
        }
        Ok(())
    }

    pub(super) fn how_to_talk_to_them(&self) -> String {
        let endpoints = self.addresses.join(",");
        format!(
            "\nThe three nodes stay up until ctrl-c. In another terminal:\n\n  \
             export KOTOBA_ENDPOINTS={endpoints}\n  \
             kotoba-cluster status\n  \
             kotoba-cluster node create name=Alice age:=30\n  \
             kotoba-cluster export | head\n  \
             kotoba-cluster verify\n"
        )
    }

    /// Stops all, gracefully where they let themselves.
    pub(super) async fn stop(&mut self) {
        for child in self.children.iter().flatten() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            // One that has ended meanwhile needs no signal.
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        }
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.children.iter_mut().flatten().any(is_running) {
            sleep(POLL).await;
        }
        self.kill_all();
    }

    fn kill_all(&mut self) {
        for child in self.children.iter_mut().filter_map(Option::take) {
            let mut child = child;
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn is_running(child: &mut Child) -> bool {
    matches!(child.try_wait(), Ok(None))
}

fn gone(name: &str) -> ClusterError {
    ClusterError::new(ErrorCode::NotRunning, format!("node {name} does not run"))
}

/// All are held until all are found, so that they differ.
fn free_addresses() -> std::io::Result<Vec<String>> {
    let listeners = (0..NODES)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_differ_and_names_are_found_again() {
        let processes = Processes::prepare().unwrap();
        let addresses = processes.addresses();
        assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2] && addresses[0] != addresses[2]);
        for node in (0..NODES).map(NodeIndex) {
            assert_eq!(processes.named(&processes.name(node)), Some(node));
        }
        assert_eq!(processes.named("n4"), None);
    }
}
