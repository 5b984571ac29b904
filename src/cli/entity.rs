//! What the commands for nodes and for edges have in common.

use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::{
    args::{ConnectArgs, DeleteArgs, GetArgs, Output, RequestArgs, UpdateArgs},
    connect::{cid, connect, connect_to_write, partition},
    output::{self, columns, row},
    properties,
};
use crate::{
    client::{Client, ReadFrom, Receipt, v1},
    error::{ClusterError, ErrorCode},
    graph::{Block, Kind},
    placement::PartitionId,
};

/// Carries out one write and prints its receipt.
pub(super) async fn write(
    (connect, request): (ConnectArgs, RequestArgs),
    output: Output,
    operation: v1::operation::Kind,
    partition: Option<PartitionId>,
) -> Result<ExitCode, ClusterError> {
    let client = connect_to_write(connect, &request).await?;
    let operation = v1::Operation { kind: Some(operation) };
    let receipt = match request.request_id {
        Some(request_id) => client.execute_as(request_id, operation, partition).await?,
        None => client.execute(operation, partition).await?,
    };
    output::print(output, &receipt_json(&receipt), || receipt.cid.clone())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn receipt_json(receipt: &Receipt) -> Json {
    json!({
        "cid": receipt.cid,
        "version": receipt.version,
        "partition": receipt.partition.0,
        "index": receipt.index,
    })
}

pub(super) async fn get(args: GetArgs, kind: Kind) -> Result<ExitCode, ClusterError> {
    let text = cid(&args.cid)?.to_string();
    let from = read_from(&args);
    let client = connect(args.connect).await?;
    let json = entity_json(entity_of_kind(&client, &text, kind, from).await?)?;
    output::print(args.output.output, &json, || entity_table(&json))?;
    Ok(ExitCode::SUCCESS)
}

async fn entity_of_kind(
    client: &Client,
    cid: &str,
    kind: Kind,
    from: ReadFrom,
) -> Result<v1::Entity, ClusterError> {
    let Some(entity) = client.entity(cid, from).await? else {
        return Err(missing(client, kind, cid, from).await);
    };
    if entity.kind == kind.name() {
        return Ok(entity);
    }
    let what = format!("{cid} is no {kind} but has the kind {}", entity.kind);
    Err(ClusterError::new(ErrorCode::WrongKind, what))
}

fn entity_json(entity: v1::Entity) -> Result<Json, ClusterError> {
    let mut json = json!({
        "cid": entity.cid,
        "version": entity.version,
        "deleted": entity.deleted,
        "properties": properties::wire_to_json(entity.properties)?,
    });
    if entity.kind == Kind::Edge.name() {
        json["label"] = entity.label.into();
        json["source"] = entity.source.into();
        json["target"] = entity.target.into();
    }
    Ok(json)
}

fn entity_table(json: &Json) -> String {
    let text = |name: &str| json[name].as_str().map_or_else(|| json[name].to_string(), str::to_owned);
    let mut rows: Vec<Vec<String>> = ["cid", "version", "deleted", "label", "source", "target"]
        .into_iter()
        .filter(|name| json.get(name).is_some())
        .map(|name| row![name, text(name)])
        .collect();
    for (name, value) in json["properties"].as_object().into_iter().flatten() {
        rows.push(row![format!("  {name}"), value]);
    }
    columns(&rows)
}

pub(super) async fn history(args: GetArgs, kind: Kind) -> Result<ExitCode, ClusterError> {
    let text = cid(&args.cid)?.to_string();
    let from = read_from(&args);
    let client = connect(args.connect).await?;
    entity_of_kind(&client, &text, kind, from).await?;
    let versions = client.history(&text, from).await?.ok_or_else(|| not_found(kind, &text))?;
    let rows = versions.into_iter().map(version_json).collect::<Result<Vec<_>, _>>()?;
    let table = || {
        let head = row!["generation", "index", "version", "properties"];
        let rows = rows.iter().map(|version| {
            let content =
                if version["deleted"] == true { "deleted".into() } else { version["properties"].to_string() };
            let cid = version["version"].as_str().unwrap_or_default();
            row![version["generation"], version["index"], cid, content]
        });
        columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    };
    output::print(args.output.output, &Json::Array(rows.clone()), table)?;
    Ok(ExitCode::SUCCESS)
}

fn version_json(version: v1::Version) -> Result<Json, ClusterError> {
    Ok(json!({
        "version": version.version,
        "deleted": version.deleted,
        "generation": version.generation,
        "index": version.log_index,
        "properties": properties::wire_to_json(version.properties)?,
    }))
}

/// The parts of an update, checked.
pub(super) struct Update {
    pub(super) cid: String,
    pub(super) set: crate::graph::Properties,
    pub(super) unset: Vec<String>,
}

impl Update {
    pub(super) fn read(args: &UpdateArgs) -> Result<Self, ClusterError> {
        let cid = cid(&args.cid)?.to_string();
        let set = properties::parse(&args.properties)?;
        if let Some(name) = args.unset.iter().find(|name| set.contains_key(*name)) {
            let what = format!("the property {name:?} is both set and removed");
            return Err(ClusterError::new(ErrorCode::Usage, what));
        }
        Ok(Self { cid, set, unset: args.unset.clone() })
    }
}

pub(super) async fn delete(
    args: DeleteArgs,
    operation: impl FnOnce(String) -> v1::operation::Kind,
) -> Result<ExitCode, ClusterError> {
    let text = cid(&args.cid)?.to_string();
    let to = (args.connect, args.request);
    write(to, args.output.output, operation(text), partition(args.partition)).await
}

fn read_from(args: &GetArgs) -> ReadFrom {
    let freshness = ReadFrom::with(args.consistency.consistency.into());
    ReadFrom { partition: partition(args.partition), ..freshness }
}

/// Why there is no such entity: perhaps the CID is that of one of its versions.
async fn missing(client: &Client, kind: Kind, cid: &str, from: ReadFrom) -> ClusterError {
    let block = match client.block(cid, from).await {
        Ok(block) => block.and_then(|block| Block::decode(&block).ok()),
        Err(error) => return error,
    };
    match block {
        Some(Block::Version(version)) => {
            let what = format!(
                "{cid} is a version of {identity}: its content is at `block get {cid}` and in the history of {identity}",
                identity = version.identity
            );
            ClusterError::NotFound(what)
        }
        Some(Block::Node(_) | Block::Edge(_)) | None if from.consistency == v1::Consistency::Eventual => {
            let what = format!("the node that was asked has not heard of a {kind} {cid}, others may have");
            ClusterError::NotFound(what)
        }
        Some(Block::Node(_) | Block::Edge(_)) | None => not_found(kind, cid),
    }
}

pub(super) fn not_found(kind: impl std::fmt::Display, cid: &str) -> ClusterError {
    ClusterError::NotFound(format!("there is no {kind} {cid} in this cluster"))
}
