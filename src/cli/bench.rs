//! `bench`: a closed loop; each client sends its next operation when the last one is answered.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    args::{BenchArgs, BenchMode, BenchOp},
    connect::connect,
    import::identity_of_node,
    output::{self, columns, row},
    properties::to_wire,
};
use crate::{
    client::{Client, Completion, Job, Pipeline, PipelineOptions, ReadFrom, v1},
    error::{ClusterError, ErrorCode},
    graph::{Properties, Value},
    placement::{PartitionId, partition_of},
};

/// Nodes that `--op get` reads.
const READ_NODES: usize = 1000;

pub(super) async fn run(args: BenchArgs) -> Result<ExitCode, ClusterError> {
    let client = connect(args.connect.clone()).await?;
    let partitions = client.partitions().await?;
    let maker = Arc::new(Maker { value: "x".repeat(args.value_bytes), partitions });
    // What cannot be stored is refused here, not counted as so many errors.
    maker.create(client.client_id(), 0, 0)?;
    let figures = match (args.op, args.mode) {
        (BenchOp::Put, BenchMode::Unary) => put_unary(&client, &args, &maker).await?,
        (BenchOp::Put, BenchMode::Stream) => put_stream(&client, &args, &maker).await?,
        (BenchOp::Get, BenchMode::Unary) => get_unary(&client, &args, &maker).await?,
        (BenchOp::Get, BenchMode::Stream) => {
            return Err(ClusterError::new(
                ErrorCode::Usage,
                "--mode stream carries writes: use --op put with it",
            ));
        }
    };
    print(&args, &figures)?;
    if figures.latencies.is_empty() {
        let what = format!("no operation was answered within {} s", args.seconds);
        return Err(ClusterError::new(ErrorCode::Unavailable, what));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(args: &BenchArgs, figures: &Figures) -> Result<(), ClusterError> {
    let op = if args.op == BenchOp::Put { "put" } else { "get" };
    let mode = if args.mode == BenchMode::Unary { "unary" } else { "stream" };
    let (p50, p99) = (figures.percentile_ms(50.0), figures.percentile_ms(99.0));
    let json = json!({
        "op": op, "mode": mode, "clients": args.clients, "ops_per_s": figures.per_second(),
        "p50_ms": p50, "p99_ms": p99, "errors": figures.errors,
    });
    output::print(args.output.output, &json, || {
        columns(&[
            row!["op", "mode", "clients", "ops/s", "p50 ms", "p99 ms", "errors"],
            row![
                op,
                mode,
                args.clients,
                format!("{:.0}", figures.per_second()),
                format!("{p50:.3}"),
                format!("{p99:.3}"),
                figures.errors
            ],
        ])
    })
}

/// What was measured so far.
#[derive(Debug)]
struct Figures {
    latencies: Histogram<u64>,
    errors: u64,
    elapsed: Duration,
}

impl Figures {
    fn new() -> Result<Self, ClusterError> {
        // A fixed range: a longer wait counts as its upper end.
        let latencies = Histogram::new_with_max(LATENCY_MICROS_MAX, 3)
            .map_err(|error| ClusterError::new(ErrorCode::Internal, format!("no histogram: {error}")))?;
        Ok(Self { latencies, errors: 0, elapsed: Duration::ZERO })
    }

    fn note<T>(&mut self, outcome: &Result<T, ClusterError>, elapsed: Duration) {
        match outcome {
            Ok(_) => self.latencies.saturating_record(elapsed.as_micros().try_into().unwrap_or(u64::MAX)),
            Err(_) => self.errors += 1,
        }
    }

    /// An operation that had no answer when time was up: an error, if it had waited longer than any answer
    /// should take.
    fn note_unanswered(&mut self, waited: Duration) {
        if waited >= TOO_LONG {
            self.errors += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        // The same precision and range everywhere: this cannot fail.
        let added = self.latencies.add(&other.latencies);
        debug_assert!(added.is_ok());
        self.errors += other.errors;
    }

    fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }

    fn percentile_ms(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1000.0
    }
}

/// How long one write of a stream is tried.
const STREAM_DEADLINE: Duration = Duration::from_secs(10);
/// The longest latency told apart, in microseconds: ten minutes.
const LATENCY_MICROS_MAX: u64 = 600_000_000;

/// An operation that is under way this long when time is up counts as failed.
const TOO_LONG: Duration = Duration::from_secs(1);

/// Makes nodes that no other run and no other client makes.
#[derive(Clone, Debug)]
struct Maker {
    value: String,
    partitions: u32,
}

impl Maker {
    /// The creation of a node, and where it will live.
    fn create(
        &self,
        run: &str,
        client: u32,
        number: u64,
    ) -> Result<(v1::Operation, PartitionId), ClusterError> {
        let key = format!("bench-{run}-{client}-{number}");
        let properties = Properties::from([("value".to_owned(), Value::String(self.value.clone()))]);
        let cid = identity_of_node(&key, properties.clone())?;
        let create = v1::CreateNode { properties: to_wire(properties), key };
        let operation = v1::Operation { kind: Some(v1::operation::Kind::CreateNode(create)) };
        Ok((operation, partition_of(&cid.to_bytes(), self.partitions)))
    }
}

async fn put_unary(client: &Client, args: &BenchArgs, maker: &Arc<Maker>) -> Result<Figures, ClusterError> {
    let maker = Arc::clone(maker);
    closed_loop(client, args, move |session, number, at| {
        let made = maker.create(session.client_id(), number, at);
        async move {
            let (operation, partition) = made?;
            session.execute(operation, Some(partition)).await.map(|_| ())
        }
    })
    .await
}

async fn get_unary(client: &Client, args: &BenchArgs, maker: &Maker) -> Result<Figures, ClusterError> {
    let nodes = Arc::new(nodes_to_read(client, maker).await?);
    let consistency = args.consistency.consistency.into();
    closed_loop(client, args, move |session, number, at| {
        let nodes = Arc::clone(&nodes);
        // Clients begin far apart and take large steps, so that they read different nodes.
        let pick = (number as usize * 101 + at as usize * 37) % nodes.len();
        async move {
            let (cid, partition) = &nodes[pick];
            let from = ReadFrom { partition: Some(*partition), ..ReadFrom::with(consistency) };
            session.entity(cid, from).await.map(|_| ())
        }
    })
    .await
}

/// Every client in a task and a session of its own. `operation` gets the client's number and how many it
/// has sent.
async fn closed_loop<F>(
    client: &Client,
    args: &BenchArgs,
    operation: impl Fn(Client, u32, u64) -> F + Clone + Send + 'static,
) -> Result<Figures, ClusterError>
where
    F: Future<Output = Result<(), ClusterError>> + Send,
{
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        let (session, operation) = (client.session(None)?, operation.clone());
        clients.spawn(async move {
            let mut figures = Figures::new()?;
            for at in 0.. {
                if Instant::now() >= end {
                    break;
                }
                let sent = Instant::now();
                // What is under way at the end is not waited for.
                let Ok(outcome) = timeout_at(end, operation(session.clone(), number, at)).await else {
                    figures.note_unanswered(sent.elapsed());
                    break;
                };
                figures.note(&outcome, sent.elapsed());
            }
            Ok::<_, ClusterError>(figures)
        });
    }
    let mut figures = Figures::new()?;
    while let Some(ended) = clients.join_next().await {
        let of_one = ended.map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))??;
        figures.add(&of_one);
    }
    figures.elapsed = began.elapsed();
    Ok(figures)
}

/// A window as wide as there are clients: a new operation goes out when one is answered.
async fn put_stream(client: &Client, args: &BenchArgs, maker: &Maker) -> Result<Figures, ClusterError> {
    let session = client.session(None)?;
    let figures = Arc::new(Mutex::new(Figures::new()?));
    let noted = Arc::clone(&figures);
    let began = Instant::now();
    let end = began + Duration::from_secs(args.seconds);
    let on_completion = move |completion: Completion| {
        let mut figures = noted.lock().unwrap_or_else(PoisonError::into_inner);
        let late = Instant::now().saturating_duration_since(end);
        if late.is_zero() {
            figures.note(&completion.outcome, completion.elapsed);
        } else {
            figures.note_unanswered(completion.elapsed.saturating_sub(late));
        }
    };
    let options = PipelineOptions {
        in_flight: args.clients as usize,
        deadline: STREAM_DEADLINE,
        ..PipelineOptions::default()
    };
    let mut pipeline = Pipeline::start(&session, options, on_completion);
    for number in 1.. {
        let (operation, partition) = maker.create(session.client_id(), 0, number)?;
        let job = Job::new(number, operation, Some(partition)).at(args.consistency.consistency.into());
        match timeout_at(end, pipeline.submit(job)).await {
            Ok(submitted) => submitted?,
            Err(_) => break,
        }
    }
    let elapsed = began.elapsed();
    pipeline.finish().await?;
    let mut total = Figures::new()?;
    total.add(&figures.lock().unwrap_or_else(PoisonError::into_inner));
    total.elapsed = elapsed;
    Ok(total)
}

async fn nodes_to_read(client: &Client, maker: &Maker) -> Result<Vec<(String, PartitionId)>, ClusterError> {
    let session = client.session(None)?;
    let created = Arc::new(Mutex::new(Vec::with_capacity(READ_NODES)));
    let noted = Arc::clone(&created);
    let mut pipeline = Pipeline::start(&session, PipelineOptions::default(), move |completion| {
        let outcome = completion.outcome.map(|receipt| (receipt.cid, receipt.partition));
        noted.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
    });
    for number in 1..=READ_NODES as u64 {
        let (operation, partition) = maker.create(session.client_id(), 0, number)?;
        pipeline.submit(Job::new(number, operation, Some(partition))).await?;
    }
    pipeline.finish().await?;
    let outcomes = std::mem::take(&mut *created.lock().unwrap_or_else(PoisonError::into_inner));
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_at_the_end_is_an_error() {
        let mut figures = Figures::new().unwrap();
        figures.note_unanswered(TOO_LONG);
        assert_eq!((figures.errors, figures.latencies.len()), (1, 0));
    }

    #[test]
    fn figures_of_all_clients_add_up() {
        let (mut total, mut one) = (Figures::new().unwrap(), Figures::new().unwrap());
        for milliseconds in 1..=100 {
            one.note(&Ok(()), Duration::from_millis(milliseconds));
        }
        one.note::<()>(&Err(ClusterError::NoLeader), Duration::ZERO);
        one.note_unanswered(Duration::from_millis(999));
        total.add(&one);
        total.add(&one);
        total.elapsed = Duration::from_secs(4);
        assert_eq!((total.errors, total.per_second()), (2, 50.0));
        assert!((49.0..=51.0).contains(&total.percentile_ms(50.0)), "{}", total.percentile_ms(50.0));
        assert!((98.0..=100.1).contains(&total.percentile_ms(99.0)), "{}", total.percentile_ms(99.0));
    }
}
