//! `import`: loads a graph, thousands of operations in flight, exactly once.
//!
//! The file is read twice: a first time to check every line, so that nothing is sent of a file that is
//! wrong somewhere; then to send. The session's name is a hash of the file and the request id is the line
//! number, so repeating the command repeats the same requests: what was acknowledged is answered from
//! the partitions' memory, the rest is done. No file says how far it got.
//!
//! Edges are sent when all nodes are acknowledged, under a session of their own, because the ids of one
//! session must rise.

mod cargo_metadata;
mod lines;
mod source;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;
use tokio::time::Instant;

pub(super) use self::lines::identity_of_node;
use self::{
    lines::{Checked, Line, LineKind},
    source::Source,
};
use super::{
    args::ImportArgs,
    connect::connect,
    output::{self, columns, row},
    progress::Progress,
    properties,
};
use crate::{
    client::{Client, Completion, Job, Pipeline, PipelineOptions, Refusals, v1},
    error::{ClusterError, ErrorCode},
    graph::Cid,
    placement::{PartitionId, partition_of},
};

pub(super) async fn run(args: ImportArgs) -> Result<ExitCode, ClusterError> {
    let source = Source::open(&args.file, args.format)?;
    let checked = Checked::read(&source)?;
    let client = connect(args.connect).await?;
    let report = import(&client, &source, &checked).await?;
    let json = json!({
        "operations": report.operations,
        "acknowledged": report.acknowledged,
        "seconds": report.seconds,
        "per_second": report.per_second(),
        "fsyncs": report.fsyncs,
    });
    output::print(args.output.output, &json, || {
        columns(&[
            row!["operations", "acknowledged", "seconds", "per second", "fsyncs"],
            row![
                report.operations,
                report.acknowledged,
                format!("{:.2}", report.seconds),
                format!("{:.0}", report.per_second()),
                report.fsyncs
            ],
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What an import came to.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) operations: u64,
    pub(super) acknowledged: u64,
    pub(super) seconds: f64,
    /// Of all nodes together, while the import ran.
    pub(super) fsyncs: u64,
}

impl Report {
    fn per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.acknowledged as f64 / self.seconds } else { 0.0 }
    }
}

/// Loads the graph whose lines are given as text.
pub(super) async fn import_text(
    client: &Client,
    text: &str,
) -> Result<(Report, Vec<(String, Cid)>), ClusterError> {
    let source = Source::of_text(text)?;
    let checked = Checked::read(&source)?;
    let report = import(client, &source, &checked).await?;
    Ok((report, checked.into_nodes()))
}

/// The lines of `cargo metadata`'s output.
pub(super) fn lines_of_cargo_metadata(text: &str) -> Result<String, ClusterError> {
    cargo_metadata::to_lines(text)
}

async fn import(client: &Client, source: &Source, checked: &Checked) -> Result<Report, ClusterError> {
    let fsyncs_before = fsyncs(client).await?;
    let partition_count = client.partitions().await?;
    let began = Instant::now();
    let mut acknowledged = 0;
    for (kind, suffix, what) in [(LineKind::Node, "", "nodes"), (LineKind::Edge, "-edges", "edges")] {
        let session = client.session(Some(format!("import-{}{suffix}", checked.hash)))?;
        let progress = Arc::new(Progress::new(what, checked.count(kind)));
        acknowledged += send_all(&session, source, checked, kind, partition_count, &progress).await?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let after = fsyncs(client).await?;
    let during =
        |(id, count): (&String, &u64)| count.saturating_sub(fsyncs_before.get(id).copied().unwrap_or(0));
    let fsyncs = after.iter().map(during).sum();
    Ok(Report { operations: checked.operations(), acknowledged, seconds, fsyncs })
}

async fn fsyncs(client: &Client) -> Result<std::collections::BTreeMap<String, u64>, ClusterError> {
    Ok(client.status().await?.nodes.into_iter().map(|node| (node.id, node.fsyncs)).collect())
}

/// The first write that failed, and its line.
type FirstFailure = Mutex<Option<(u64, ClusterError)>>;

async fn send_all(
    client: &Client,
    source: &Source,
    checked: &Checked,
    kind: LineKind,
    partition_count: u32,
    progress: &Arc<Progress>,
) -> Result<u64, ClusterError> {
    let failure = Arc::new(FirstFailure::default());
    let options = PipelineOptions { refusals: Refusals::Stop, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::start(client, options, count(Arc::clone(progress), Arc::clone(&failure)));
    let mut reader = source.reader()?;
    let mut text = String::new();
    let mut number = 0;
    while reader.next_line(&mut text)? {
        number += 1;
        if checked.kind(number) != Some(kind) {
            continue;
        }
        let (operation, partition) =
            operation_of(lines::parse(&text, number)?, checked, partition_count, number)?;
        let refused = pipeline.submit(Job::new(number, operation, Some(partition))).await.is_err();
        if refused || locked(&failure).is_some() {
            break;
        }
    }
    pipeline.finish().await?;
    let failed = locked(&failure).take();
    failed.map_or(Ok(progress.done()), |(line, error)| Err(at_line(line, &error)))
}

fn count(progress: Arc<Progress>, failure: Arc<FirstFailure>) -> impl FnMut(Completion) + Send + 'static {
    move |completion| match completion.outcome {
        Ok(_) => progress.one_more(),
        // The span rule (see the pipeline): an id this old was answered in an earlier run.
        Err(error) if error.code() == ErrorCode::SessionExpired => progress.one_more(),
        Err(error) => {
            locked(&failure).get_or_insert((completion.request_id, error));
        }
    }
}

fn locked(failure: &FirstFailure) -> MutexGuard<'_, Option<(u64, ClusterError)>> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

fn at_line(line: u64, error: &ClusterError) -> ClusterError {
    ClusterError::new(error.code(), format!("line {line}: {}", error.what()))
}

fn operation_of(
    line: Line,
    checked: &Checked,
    partition_count: u32,
    number: u64,
) -> Result<(v1::Operation, PartitionId), ClusterError> {
    let place = |cid: Cid| partition_of(&cid.to_bytes(), partition_count);
    let (kind, partition) = match line {
        Line::Node { key, properties } => {
            let cid = checked.end(&key, number)?;
            let create = v1::CreateNode { properties: properties::to_wire(properties), key };
            (v1::operation::Kind::CreateNode(create), place(cid))
        }
        Line::Edge { label, from, to, properties } => {
            let (source, target) = (checked.end(&from, number)?, checked.end(&to, number)?);
            let create = v1::CreateEdge {
                source_cid: source.to_string(),
                target_cid: target.to_string(),
                properties: properties::to_wire(properties),
                label,
            };
            (v1::operation::Kind::CreateEdge(create), place(source))
        }
    };
    Ok((v1::Operation { kind: Some(kind) }, partition))
}
