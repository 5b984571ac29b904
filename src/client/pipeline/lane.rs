//! One stream of writes to one node.

use kotoba_db_cluster_proto::v1;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, codegen::http::uri::PathAndQuery, transport::Channel};

use crate::{
    client::{backoff::Backoff, codec::EncodedRequest, codec::StreamCodec, failure},
    error::ClusterError,
    limits::{GRPC_MESSAGE_BYTES_MAX, STREAM_IN_FLIGHT_MAX},
};

const EXECUTE_STREAM: &str = "/kotoba.cluster.v1.ClusterService/ExecuteStream";

/// What the lanes tell the engine.
#[derive(Debug)]
pub(super) enum Event {
    /// An answer came on this lane.
    Answer { lane: usize, response: v1::ClientResponse },
    /// The lane's stream of this generation has ended.
    Broken { lane: usize, generation: u64, error: ClusterError },
    /// The client has asked a node for the cluster's leaders, or tried to.
    Refreshed,
}

/// The engine's view of one node.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) address: String,
    stream: Option<mpsc::Sender<EncodedRequest>>,
    pub(super) generation: u64,
    /// Not used before this time: it broke, or did not answer.
    pub(super) rests_until: Option<Instant>,
    pub(super) backoff: Backoff,
}

impl Lane {
    pub(super) fn new(address: String) -> Self {
        Self { address, stream: None, generation: 0, rests_until: None, backoff: Backoff::default() }
    }

    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.rests_until.is_none_or(|until| until <= now)
    }

    /// Sends on the open stream. Gives back whether it could.
    pub(super) fn send(&mut self, request: EncodedRequest) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.try_send(request).is_ok())
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    pub(super) fn open(&mut self, index: usize, channel: Channel, events: mpsc::Sender<Event>) {
        // Room for a whole window, and for resent writes behind it.
        let (stream, requests) = mpsc::channel(2 * STREAM_IN_FLIGHT_MAX);
        self.stream = Some(stream);
        self.generation += 1;
        let (generation, address) = (self.generation, self.address.clone());
        tokio::spawn(async move {
            let ended = carry(index, channel, requests, &events).await;
            let error = failure::from_status(&ended, &address);
            // The engine is gone where this fails, and with it whoever would care.
            let _ = events.send(Event::Broken { lane: index, generation, error }).await;
        });
    }

    pub(super) fn close(&mut self, rest: Instant) {
        self.stream = None;
        self.rests_until = Some(rest);
    }
}

/// Runs the stream to its end and says why it ended.
async fn carry(
    lane: usize,
    channel: Channel,
    requests: mpsc::Receiver<EncodedRequest>,
    events: &mpsc::Sender<Event>,
) -> Status {
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    if let Err(error) = grpc.ready().await {
        return Status::from_error(error.into());
    }
    let path = PathAndQuery::from_static(EXECUTE_STREAM);
    let request = Request::new(ReceiverStream::new(requests));
    let mut answers = match grpc.streaming(request, path, StreamCodec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match answers.message().await {
            Ok(Some(response)) => {
                if events.send(Event::Answer { lane, response }).await.is_err() {
                    return Status::cancelled("the pipeline has ended");
                }
            }
            Ok(None) => return Status::unavailable("the node ended the stream"),
            Err(status) => return status,
        }
    }
}
