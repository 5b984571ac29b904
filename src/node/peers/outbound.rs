//! Dialling a peer, again and again.

use std::{sync::Arc, time::Duration};

use kotoba_db_cluster_proto::v1::{self, peer_service_client::PeerServiceClient};
use tokio::time::{sleep, timeout};
use tonic::{Status, transport::Channel};

use super::{
    ERROR_CODE_METADATA, PeerRecord, Peers, count,
    inbound::{HELLO_TIMEOUT, receive},
    queue::{ConnectionId, FrameStream, PeerQueue},
};
use crate::{
    client::failure::is_about_tls,
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    node::{
        serve::endpoint,
        tls::{status_story, whole_story},
    },
    runtime::random,
};

/// The pause after a refusal: the other side has to be changed, or has to learn of this one.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Attempts in a row that reach nobody before that is told.
const ATTEMPTS_QUIET: u32 = 4;

/// The pause between two looks at the address of a peer that has not dialled.
const WATCH_PAUSE: Duration = Duration::from_secs(2);

/// How an attempt ended.
enum Attempt {
    /// The connection served, and ended.
    Served,
    /// Nobody answers there, for this reason.
    NotReached(ClusterError),
    /// One side does not accept the other, for this reason.
    Refused(ClusterError),
    /// The other side says that this node's data directory was replaced.
    Ousted,
}

impl Attempt {
    /// The other side refused, or did not answer.
    fn of_status(record: &PeerRecord, status: &Status) -> Self {
        let code = status.metadata().get(ERROR_CODE_METADATA).and_then(|code| code.to_str().ok());
        match code.map(|code| ClusterError::from_wire(code, status.message())) {
            Some(error) if error.code() == ErrorCode::Superseded => Self::Ousted,
            Some(error) => Self::of_refusal(error),
            None if is_about_tls(status) => {
                let what = format!(
                    "TLS with node {} at {} fails: {}",
                    record.node_id,
                    record.address,
                    status_story(status)
                );
                Self::Refused(ClusterError::new(ErrorCode::Tls, what))
            }
            None => Self::not_reached(record, &status_story(status)),
        }
    }

    /// A node that is only not ready yet will be soon; everything else takes somebody's doing.
    fn of_refusal(error: ClusterError) -> Self {
        if error.code() == ErrorCode::Unavailable { Self::NotReached(error) } else { Self::Refused(error) }
    }

    fn not_reached(record: &PeerRecord, why: &str) -> Self {
        let what = format!("node {} does not answer at {}: {why}", record.node_id, record.address);
        Self::NotReached(ClusterError::new(ErrorCode::PeersDown, what))
    }
}

/// Keeps a stream to a peer for as long as the task lives.
pub(super) async fn keep_connected(peers: Peers, record: PeerRecord, queue: Arc<PeerQueue>) {
    let network = &peers.0.config.network;
    let mut backoff = Backoff::new(network.reconnect_backoff_min, network.reconnect_backoff_max);
    let mut told = None;
    let mut patience = 0;
    loop {
        let mut ended = attempt(&peers, &record, &record.address, &queue).await;
        if let Attempt::NotReached(_) = ended
            && let Some(address) = locate(&peers, &record).await
        {
            ended = attempt(&peers, &record, &address, &queue).await;
        }
        let pause = match ended {
            Attempt::Served => {
                (told, patience) = (None, 0);
                backoff.reset();
                backoff.next()
            }
            // Nodes that are started together find each other not ready at first.
            Attempt::NotReached(reason) => {
                patience += 1;
                if patience > ATTEMPTS_QUIET {
                    tell_once(&mut told, &record, reason);
                }
                backoff.next()
            }
            Attempt::Refused(reason) => {
                count(&peers.0.counters.refusals, 1);
                tell_once(&mut told, &record, reason);
                jittered(REFUSED_PAUSE)
            }
            Attempt::Ousted => {
                peers.oust(&record);
                jittered(REFUSED_PAUSE)
            }
        };
        sleep(pause).await;
    }
}

/// Looks who answers at the address of a peer that should have dialled this node and has not: it
/// may dial where this node was, or a newer data directory of this node, and a node of another
/// cluster may be in its place.
pub(super) async fn watch_address(peers: Peers, record: PeerRecord, queue: Arc<PeerQueue>) {
    let mut told = None;
    loop {
        sleep(jittered(WATCH_PAUSE)).await;
        if queue.is_connected() {
            told = None;
            continue;
        }
        match look(&peers, &record).await {
            Attempt::Served | Attempt::NotReached(_) => {}
            Attempt::Refused(reason) => tell_once(&mut told, &record, reason),
            Attempt::Ousted => peers.oust(&record),
        }
    }
}

async fn look(peers: &Peers, record: &PeerRecord) -> Attempt {
    match introduce(peers, &record.address).await {
        Ok(hello) => match peers.recognise(&hello) {
            Ok(_) => Attempt::Served,
            Err(refusal) => Attempt::of_refusal(refusal.into()),
        },
        Err(status) => Attempt::of_status(record, &status),
    }
}

/// Asks who is at an address.
pub(super) async fn introduce(peers: &Peers, address: &str) -> Result<v1::Hello, Status> {
    let asked = async {
        let connected = connect(peers, address).await;
        let mut client = connected.map_err(|error| Status::unavailable(whole_story(&error)))?;
        Ok(client.handshake(peers.0.config.hello.brief()).await?.into_inner())
    };
    let late = |_| Status::deadline_exceeded("it does not introduce itself");
    timeout(HELLO_TIMEOUT, asked).await.map_err(late)?
}

/// Where a peer is that does not answer at the address it is known by: where it said it is, or at
/// an address that this node was told of and that is no member's. So nodes that moved find each
/// other before a meta group has a leader that could tell their new addresses.
async fn locate(peers: &Peers, record: &PeerRecord) -> Option<String> {
    for address in peers.other_addresses(record.peer) {
        if let Ok(hello) = introduce(peers, &address).await
            && peers.recognise(&hello).is_ok_and(|member| member.record == *record)
        {
            return Some(address);
        }
    }
    None
}

/// One line for a reason, not one for every attempt.
fn tell_once(told: &mut Option<ClusterError>, record: &PeerRecord, reason: ClusterError) {
    if told.as_ref() != Some(&reason) {
        tracing::warn!(node = %record.node_id, address = %record.address, "no stream: {}", reason.report());
        *told = Some(reason);
    }
}

async fn attempt(peers: &Peers, record: &PeerRecord, address: &str, queue: &Arc<PeerQueue>) -> Attempt {
    let mut client = match connect(peers, address).await {
        Ok(client) => client,
        Err(error) => return Attempt::not_reached(record, &whole_story(&error)),
    };
    let guard = Closing { queue, connection: queue.begin() };
    let frames = FrameStream::new(Arc::clone(queue), guard.connection, peers.0.config.hello.brief());
    let greeting = async {
        let mut inbound = client.peer_stream(frames).await?.into_inner();
        let first = inbound.message().await?;
        Ok::<_, Status>((inbound, first))
    };
    let (inbound, first) = match timeout(HELLO_TIMEOUT, greeting).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(status)) => return Attempt::of_status(record, &status),
        Err(_) => return Attempt::not_reached(record, "it does not introduce itself"),
    };
    let Some(hello) = first.and_then(|frame| frame.hello) else {
        let what = format!("node {} at {address} does not introduce itself", record.node_id);
        return Attempt::Refused(ClusterError::new(ErrorCode::ProtocolVersion, what));
    };
    match peers.recognise(&hello) {
        Ok(member) if member.record == *record => {}
        Ok(other) => {
            let what =
                format!("node {} answers at {address} in place of {}", other.record.node_id, record.node_id);
            return Attempt::Refused(ClusterError::new(ErrorCode::NodeIdMismatch, what));
        }
        Err(refusal) => return Attempt::of_refusal(refusal.into()),
    }
    if !queue.establish(guard.connection) {
        return Attempt::not_reached(record, "it was removed or replaced meanwhile");
    }
    receive(peers, record.peer, queue, guard.connection, inbound).await;
    Attempt::Served
}

/// A client of the peer service at `address`, connected.
pub(super) async fn connect(
    peers: &Peers,
    address: &str,
) -> Result<PeerServiceClient<Channel>, tonic::transport::Error> {
    let config = &peers.0.config;
    let channel = endpoint(address, config.tls.as_ref(), &config.network)?.connect().await?;
    Ok(PeerServiceClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
}

/// Ends a connection however its attempt ends, being aborted included.
struct Closing<'a> {
    queue: &'a PeerQueue,
    connection: ConnectionId,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.queue.close(self.connection);
    }
}

/// Pauses that double, each shortened at random so that nodes do not dial in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next pause.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        jittered(pause)
    }

    /// Begins with the shortest pause again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

/// Between half and all of a pause.
fn jittered(pause: Duration) -> Duration {
    // Without random bytes the pause is merely not jittered.
    let share = random::u32().unwrap_or(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        let mut full = min;
        for _ in 0..10 {
            let pause = backoff.next();
            assert!(pause >= full / 2 && pause <= full, "{pause:?} of {full:?}");
            full = (full * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }
}
