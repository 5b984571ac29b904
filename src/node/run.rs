//! A node as a process: until it is told to stop, or fails.

use std::{path::Path, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

use super::start::{NodeConfig, RunningNode, start};
use crate::{
    api::config::StoreTuning,
    error::{ClusterError, ErrorCode},
    storage::graph_store::{FjallStore, StoreError, StoreOptions},
};

/// How often a starting node looks whether its cluster serves.
const SERVING_POLL: Duration = Duration::from_millis(50);

/// The default store in a data directory.
///
/// # Errors
/// Where the directory cannot be used.
pub(crate) fn open_fjall(data_dir: &Path, tuning: &StoreTuning) -> Result<FjallStore, StoreError> {
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

/// Runs a node until SIGTERM or ctrl-c. Says `ready HOST:PORT` on stderr when it serves.
///
/// # Errors
/// Where the node cannot start, or fails.
pub(crate) async fn run(config: NodeConfig) -> Result<(), ClusterError> {
    let signals = |error: std::io::Error| {
        ClusterError::new(ErrorCode::Internal, format!("cannot listen for signals: {error}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    let node = start(config, open_fjall).await?;
    let services = node.services.clone();
    let address = node.address;
    let announce = tokio::spawn(async move {
        while !services.is_serving().await {
            tokio::time::sleep(SERVING_POLL).await;
        }
        announce_ready(address);
    });
    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping on ctrl-c"),
        () = ended_by_itself(&node) => {}
    }
    announce.abort();
    node.stop().await
}

#[expect(clippy::print_stderr, reason = "the program's one line for whoever started it")]
fn announce_ready(address: std::net::SocketAddr) {
    eprintln!("ready {address}");
}

async fn ended_by_itself(node: &RunningNode) {
    while !node.has_ended() {
        tokio::time::sleep(SERVING_POLL).await;
    }
}
