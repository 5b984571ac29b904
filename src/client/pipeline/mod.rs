//! Thousands of writes in flight over one stream per node.
//!
//! One task, the engine, owns everything: the window of unanswered writes, one lane (stream) per node,
//! and the routes. It drains what arrived, sends what is due and sleeps; there is no task, channel or
//! timer per write. Each write goes to the lane of its partition's leader. When a lane breaks, an answer
//! says *not now*, or none comes in time, the unanswered writes are sent again on other lanes, encoded
//! once and with the ids they had.
//!
//! **The span rule.** The ids in flight always lie within [`STREAM_IN_FLIGHT_MAX`] of the oldest
//! unanswered one, and never exceed the outcomes a partition remembers per client. So a partition
//! cannot have forgotten the outcome of an unanswered write, and a *session expired* answer to a
//! resumed run of ascending ids means: this write was answered in an earlier run.

mod engine;
mod lane;
mod window;

use std::{fmt, time::Duration};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinHandle};

use super::connection::{Client, Receipt};
use crate::{
    error::{ClusterError, ErrorCode},
    limits::{SESSION_OUTCOMES_MAX, STREAM_IN_FLIGHT_MAX},
    node::service::convert,
    placement::PartitionId,
};

const _: () = assert!(STREAM_IN_FLIGHT_MAX <= SESSION_OUTCOMES_MAX, "the span rule");

/// Writes handed over and not yet taken by the engine.
const QUEUE: usize = 1024;

/// What happens to the session after a refused write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// A refusal is an answer; go on.
    Continue,
    /// Take no further writes, and never tell the cluster that the refused one is done with: a run that
    /// repeats the same ids gets the same refusal.
    Stop,
}

/// How a [`Pipeline`] behaves.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    /// Writes in flight, at most [`STREAM_IN_FLIGHT_MAX`].
    pub in_flight: usize,
    /// How long one write is tried before it is given up (60 s).
    pub deadline: Duration,
    /// What a refusal means.
    pub refusals: Refusals,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            in_flight: STREAM_IN_FLIGHT_MAX,
            deadline: Duration::from_secs(60),
            refusals: Refusals::Continue,
        }
    }
}

/// One write, ready to be sent.
#[derive(Clone, Debug)]
pub struct Job {
    request_id: u64,
    partition: Option<PartitionId>,
    consistency: v1::Consistency,
    operation: v1::Operation,
}

impl Job {
    /// A write under this id. Ids of one pipeline must rise, with gaps as one likes.
    #[must_use]
    pub fn new(request_id: u64, operation: v1::Operation, partition: Option<PartitionId>) -> Self {
        Self { request_id, partition, consistency: v1::Consistency::Strong, operation }
    }

    /// The same write, answered at this consistency level.
    #[must_use]
    pub fn at(mut self, consistency: v1::Consistency) -> Self {
        self.consistency = consistency;
        self
    }
}

/// A write's outcome.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The write's id.
    pub request_id: u64,
    /// As of [`Client::execute`].
    pub outcome: Result<Receipt, ClusterError>,
    /// From the first sending to the answer.
    pub elapsed: Duration,
}

/// What the engine takes in.
#[derive(Debug)]
struct Submission {
    request_id: u64,
    partition: Option<PartitionId>,
    message: Bytes,
}

/// A stream of writes of one session. Dropped without [`Pipeline::finish`], it abandons what is in
/// flight.
pub struct Pipeline {
    jobs: mpsc::Sender<Submission>,
    engine: JoinHandle<()>,
    client_id: String,
    last_id: u64,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// Starts a pipeline of the client's session. `on_completion` is called once for each write, in the
    /// order of the answers; it must not block.
    pub fn start(
        client: &Client,
        options: PipelineOptions,
        on_completion: impl FnMut(Completion) + Send + 'static,
    ) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let client_id = client.client_id().to_owned();
        let engine = engine::Engine::new(client.clone(), options, Box::new(on_completion));
        Self { jobs, engine: tokio::spawn(engine.run(queue)), client_id, last_id: 0 }
    }

    /// Hands over one write; waits while the window is full.
    ///
    /// # Errors
    /// An id that does not rise, a value that no node would read, or a pipeline that has stopped after a
    /// refusal.
    pub async fn submit(&mut self, job: Job) -> Result<(), ClusterError> {
        convert::check_depth(&job.operation)?;
        if job.request_id <= self.last_id {
            let what = format!("request id {} follows {}", job.request_id, self.last_id);
            return Err(ClusterError::new(ErrorCode::RequestReused, what));
        }
        self.last_id = job.request_id;
        let request = v1::ClientRequest {
            client_id: self.client_id.clone(),
            request_id: job.request_id,
            operation: Some(job.operation),
            partition: job.partition.map(|partition| partition.0),
            consistency: job.consistency.into(),
            ..Default::default()
        };
        let submission = Submission {
            request_id: job.request_id,
            partition: job.partition,
            message: request.encode_to_vec().into(),
        };
        let stopped =
            |_| ClusterError::new(ErrorCode::NotRunning, "the pipeline stopped after a refused write");
        self.jobs.send(submission).await.map_err(stopped)
    }

    /// Waits until every write has been answered or given up.
    ///
    /// # Errors
    /// Where the engine or the callback failed by a mistake of the program.
    pub async fn finish(mut self) -> Result<(), ClusterError> {
        let (closed, _) = mpsc::channel(1);
        self.jobs = closed;
        (&mut self.engine).await.map_err(|error| {
            ClusterError::new(ErrorCode::Internal, format!("the pipeline's engine failed: {error}"))
        })
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.engine.abort();
    }
}
