//! Writes: one per call, or a stream of them.

use kotoba_db_cluster_proto::v1::{ClientRequest, ClientResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, Services, convert, errors};
use crate::{error::ClusterError, limits::STREAM_IN_FLIGHT_MAX, node::coordinator::Pipeline};

/// Answers that wait for the network, of one stream. When it does not take them the stream stops
/// reading requests.
const ANSWERS_WAITING_MAX: usize = 1024;

impl Services {
    pub(super) async fn do_execute(&self, request: ClientRequest) -> Result<ClientResponse, ClusterError> {
        let coordinator = &self.serving()?.coordinator;
        if !request.client_id.is_empty() {
            return Ok(coordinator.execute(request).await);
        }
        // A client that does not repeat requests needs no session: it goes under the node's own.
        let operation = request.operation.ok_or_else(|| errors::malformed("the request has no operation"))?;
        let operation = convert::operation_from_wire(operation)?;
        let hint = request.partition.map(|partition| coordinator.checked_partition(partition)).transpose()?;
        coordinator.execute_own(operation, hint).await
    }

    pub(super) fn do_execute_stream(
        &self,
        requests: Streaming<ClientRequest>,
    ) -> Result<Answers<ClientResponse>, ClusterError> {
        let pipeline = Pipeline::new(std::sync::Arc::clone(&self.serving()?.coordinator));
        let (answers, stream) = mpsc::channel(ANSWERS_WAITING_MAX);
        tokio::spawn(run_stream(pipeline, requests, answers));
        Ok(Box::pin(ReceiverStream::new(stream)))
    }
}

/// Takes requests and gives answers until the client has closed its side and has all answers, or
/// is gone. What it left under way is carried out all the same: its session tells, if it asks again.
async fn run_stream(
    mut pipeline: Pipeline,
    mut requests: Streaming<ClientRequest>,
    answers: mpsc::Sender<Result<ClientResponse, Status>>,
) {
    let mut open = true;
    while open || pipeline.in_flight() > 0 {
        tokio::select! {
            answer = pipeline.next(), if pipeline.in_flight() > 0 => {
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            request = requests.message(), if open && pipeline.in_flight() < STREAM_IN_FLIGHT_MAX => {
                match request {
                    Ok(Some(request)) => pipeline.submit(request),
                    Ok(None) => open = false,
                    Err(status) => {
                        // Malformed or broken: nothing more can be read from it.
                        let status = errors::of_transport(&status).unwrap_or(status);
                        let _ = answers.send(Err(status)).await;
                        return;
                    }
                }
            }
            () = answers.closed() => return,
        }
    }
}
