//! `import`: loads a graph, thousands of operations in flight, exactly once.
//!
//! The file is read twice: a first time to check every line, and that the nodes exist which it names by CID
//! and does not create, so that nothing is sent of a file that is wrong somewhere; then to send. The session's name is a hash of the file and the request id is the line
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
use tokio::{task::JoinSet, time::Instant};

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
    client::{Client, Completion, Job, Pipeline, PipelineOptions, ReadFrom, Refusals, v1},
    error::{ClusterError, ErrorCode},
    graph::{Cid, Kind},
    placement::{PartitionId, partition_of},
};

/// Nodes looked for at a time.
const QUESTIONS_IN_FLIGHT: usize = 64;

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
    check_foreign(client, checked).await?;
    let mut acknowledged = 0;
    for (kind, suffix, what) in [(LineKind::Node, "", "nodes"), (LineKind::Edge, "-edges", "edges")] {
        let session = client.session(Some(format!("import-{}{suffix}", checked.hash)))?;
        let progress = Arc::new(Progress::new(what, checked.count(kind)));
        let sent = send_all(&session, source, checked, kind, partition_count, &progress).await;
        acknowledged += progress.done();
        sent.map_err(|error| interrupted(&error, acknowledged, checked.operations()))?;
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

/// Looks for the nodes that edges name by CID and the file does not create.
async fn check_foreign(client: &Client, checked: &Checked) -> Result<(), ClusterError> {
    let mut questions = JoinSet::new();
    let mut foreign = checked.foreign();
    loop {
        while questions.len() < QUESTIONS_IN_FLIGHT
            && let Some((cid, line)) = foreign.next()
        {
            let client = client.clone();
            questions.spawn(async move {
                let found = client.entity(&cid.to_string(), ReadFrom::default()).await;
                found
                    .and_then(|entity| check_end(cid, entity.as_ref()))
                    .map_err(|error| at_line(line, &error))
            });
        }
        match questions.join_next().await {
            Some(answer) => {
                answer.map_err(|error| ClusterError::new(ErrorCode::Internal, error.to_string()))??;
            }
            None => return Ok(()),
        }
    }
}

fn check_end(cid: Cid, entity: Option<&v1::Entity>) -> Result<(), ClusterError> {
    let what = match entity {
        Some(entity) if entity.kind != Kind::Node.name() => format!("{cid} is no node"),
        Some(entity) if entity.deleted => format!("the node {cid} was deleted"),
        Some(_) => return Ok(()),
        None => format!("there is no node {cid} in this cluster"),
    };
    Err(ClusterError::new(ErrorCode::EndpointMissing, what))
}

/// An import that failed half way says how far it got, and that it resumes.
fn interrupted(error: &ClusterError, acknowledged: u64, operations: u64) -> ClusterError {
    let what = format!(
        "{}; {acknowledged} of {operations} operations are acknowledged, and the same command resumes behind them",
        error.what()
    );
    ClusterError::new(error.code(), what)
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
) -> Result<(), ClusterError> {
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
    failed.map_or(Ok(()), |(line, error)| Err(at_line(line, &error)))
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
            // A node that is called by its own CID has no key.
            let key = if key == cid.to_string() { String::new() } else { key };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_of_a_file_ends_at_living_nodes() {
        let cid = Cid::of(b"n");
        let entity = |kind: &str, deleted| v1::Entity { kind: kind.into(), deleted, ..Default::default() };
        let code = |entity: Option<v1::Entity>| check_end(cid, entity.as_ref()).map_err(|error| error.code());
        assert_eq!(code(Some(entity("node", false))), Ok(()));
        for wrong in [None, Some(entity("node", true)), Some(entity("edge", false))] {
            assert_eq!(code(wrong), Err(ErrorCode::EndpointMissing));
        }
    }
}
