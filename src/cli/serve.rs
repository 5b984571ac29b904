//! Without a command: runs a node until it is told to stop.

use std::{env, io::IsTerminal as _, process::ExitCode, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};
use tracing_subscriber::EnvFilter;

use super::{args::NodeArgs, output, settings::Settings};
use crate::{
    error::{ClusterError, ErrorCode},
    node::start::{self, NodeConfig, RunningNode},
};

/// How often the node is looked at: it only ends by itself where it fails.
const LOOK: Duration = Duration::from_millis(100);

pub(super) async fn run(args: NodeArgs) -> Result<ExitCode, ClusterError> {
    let settings = Settings::gather(args, |name| env::var(name).ok())?;
    log_to_stderr();
    let config = NodeConfig {
        node_id: settings.node_id,
        listen: settings.listen,
        address: Some(settings.address),
        data_dir: settings.data_dir,
        peers: settings.peers,
        expected: Vec::new(),
        partition_count: settings.partitions,
        replication_factor: settings.replication_factor,
        tuning: settings.tuning,
        tls: settings.tls,
    };
    // Listened for before the node starts: whoever sees the process can already stop it gracefully.
    let stop = stop_signal()?;
    let node = start::start(config, start::open_on_disk).await?;
    let (services, address) = (node.services.clone(), node.address);
    let ready = tokio::spawn(async move {
        services.ready().await;
        output::talk(&format!("ready {address}"));
    });
    let outcome = tokio::select! {
        biased;
        () = stop => node.stop().await,
        () = end_of(&node) => node.ended().await,
    };
    ready.abort();
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn end_of(node: &RunningNode) {
    while !node.has_ended() {
        sleep(LOOK).await;
    }
}

/// Ends at ctrl-c, at SIGTERM, or when the terminal is closed.
pub(super) fn stop_signal() -> Result<impl Future<Output = ()>, ClusterError> {
    let listen = |kind| {
        signal(kind).map_err(|error| {
            ClusterError::new(ErrorCode::Internal, format!("cannot listen for signals: {error}"))
        })
    };
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("KOTOBA_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    // Where a program that embeds this has its own, that one stays.
    let wanted = env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let colours = wanted && std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    let _ = log.with_writer(std::io::stderr).try_init();
}
