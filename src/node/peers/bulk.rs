//! Snapshots on their way to a peer, on a connection of their own.
//!
//! The connection is made when there is something to send and ends when there was nothing for a
//! while. What waits when it breaks is lost: the core notices by the missing answers and sends
//! again from what has arrived.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kotoba_db_cluster_proto::v1;
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, metadata::MetadataValue};

use super::{
    PeerId, Peers,
    outbound::connect,
    queue::{Pushed, message_bytes},
};
use crate::node::tls::{status_story, whole_story};

/// Metadata by which a snapshot stream introduces its node: an encoded `Hello`.
pub(super) const HELLO_METADATA: &str = "kotoba-hello-bin";
/// Parts that wait for one peer, at most.
const BULK_ITEMS_MAX: usize = 1024;
/// Bytes that wait for one peer, at most.
const BULK_BYTES_MAX: usize = 64 << 20;
/// How long a connection stays without anything to send.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// The way of snapshots to one peer.
#[derive(Default)]
pub(super) struct BulkSender(Mutex<Option<Link>>);

/// A connection, and what waits for it.
#[derive(Clone)]
struct Link {
    parts: mpsc::Sender<v1::RaftMessage>,
    bytes: Arc<AtomicUsize>,
}

impl fmt::Debug for BulkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkSender")
    }
}

impl BulkSender {
    /// Queues a part; makes a connection where there is none.
    pub(super) fn send(&self, peers: &Peers, peer: PeerId, message: v1::RaftMessage) -> Pushed {
        let mut link = self.0.lock().expect("no holder of this lock panics");
        let live = link.take().filter(|link| !link.parts.is_closed());
        let live = live.unwrap_or_else(|| open(peers.clone(), peer));
        let pushed = live.push(message);
        *link = Some(live);
        pushed
    }

    /// Ends the connection once what waits is sent.
    pub(super) fn close(&self) {
        *self.0.lock().expect("no holder of this lock panics") = None;
    }
}

impl Link {
    fn push(&self, message: v1::RaftMessage) -> Pushed {
        let size = message_bytes(&message);
        if self.bytes.load(Ordering::Relaxed) + size > BULK_BYTES_MAX {
            return Pushed::Full;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        match self.parts.try_send(message) {
            Ok(()) => Pushed::Queued,
            Err(refused) => {
                self.bytes.fetch_sub(size, Ordering::Relaxed);
                match refused {
                    mpsc::error::TrySendError::Full(_) => Pushed::Full,
                    mpsc::error::TrySendError::Closed(_) => Pushed::NotConnected,
                }
            }
        }
    }
}

fn open(peers: Peers, peer: PeerId) -> Link {
    let (parts, waiting) = mpsc::channel(BULK_ITEMS_MAX);
    let bytes = Arc::new(AtomicUsize::new(0));
    let link = Link { parts, bytes: Arc::clone(&bytes) };
    // Parts of snapshots come from a thread that knows no runtime.
    let runtime = peers.0.runtime.clone();
    runtime.spawn(async move {
        if let Err(reason) = carry(&peers, peer, waiting, &bytes).await {
            tracing::warn!(peer = peer.0, "snapshot stream broke: {reason}");
        }
    });
    link
}

/// Connects, then sends until there is nothing more to send. Dropping `waiting` drops what waits.
async fn carry(
    peers: &Peers,
    peer: PeerId,
    mut waiting: mpsc::Receiver<v1::RaftMessage>,
    bytes: &AtomicUsize,
) -> Result<(), String> {
    let address = peers.member_of(peer).map(|member| member.record.address.clone());
    let address = address.ok_or("the peer is no member any more")?;
    let mut client = connect(peers, &address).await.map_err(|error| whole_story(&error))?;
    let (outgoing, stream) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(stream));
    let hello = peers.0.config.hello.brief().encode_to_vec();
    request.metadata_mut().insert_bin(HELLO_METADATA, MetadataValue::from_bytes(&hello));
    let mut answers =
        client.snapshot_stream(request).await.map_err(|status| status_story(&status))?.into_inner();
    loop {
        tokio::select! {
            biased;
            answer = answers.message() => return match answer {
                Ok(_) => Err("the peer ended it".into()),
                Err(status) => Err(status_story(&status)),
            },
            part = timeout(IDLE_MAX, waiting.recv()) => {
                let Ok(Some(part)) = part else { return Ok(()) };
                bytes.fetch_sub(message_bytes(&part), Ordering::Relaxed);
                // The transport gone shows in `answers`, with its reason.
                let _ = outgoing.send(part).await;
            }
        }
    }
}
