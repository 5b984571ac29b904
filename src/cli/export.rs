//! `export`: the whole graph as the lines an import reads.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use bytes::Bytes;
use serde_json::json;

use super::{args::ExportArgs, connect::connect, output, properties};
use crate::{
    client::{Client, v1},
    error::ClusterError,
    graph::Kind,
    placement::PartitionId,
};

const PAGE: u32 = 1000;

pub(super) async fn run(args: ExportArgs) -> Result<ExitCode, ClusterError> {
    let client = connect(args.connect).await?;
    let consistency = args.consistency.consistency.into();
    let partitions = client.partitions().await?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    // Edges name their ends by keys, and an end may live in any partition: nodes first.
    let mut keys = BTreeMap::new();
    for kind in [Kind::Node, Kind::Edge] {
        for partition in (0..partitions).map(PartitionId) {
            let mut scan = Scan { client: &client, partition, consistency, resume: Some(Bytes::new()) };
            while let Some(page) = scan.next_page().await? {
                for entity in page.into_iter().filter(|entity| entity.kind == kind.name()) {
                    let line = line_of(entity, &mut keys)?;
                    output::whole(writeln!(out, "{line}"))?;
                }
            }
        }
    }
    output::whole(out.flush())?;
    Ok(ExitCode::SUCCESS)
}

/// One partition, page by page.
struct Scan<'a> {
    client: &'a Client,
    partition: PartitionId,
    consistency: v1::Consistency,
    resume: Option<Bytes>,
}

impl Scan<'_> {
    async fn next_page(&mut self) -> Result<Option<Vec<v1::Entity>>, ClusterError> {
        let Some(resume) = self.resume.take() else { return Ok(None) };
        let page = self.client.scan(self.partition, resume, PAGE, self.consistency).await?;
        self.resume = (!page.done).then_some(page.resume);
        Ok(Some(page.entities))
    }
}

/// The entity's line. Notes the keys of nodes, which are their CIDs where they have none.
fn line_of(entity: v1::Entity, keys: &mut BTreeMap<String, String>) -> Result<String, ClusterError> {
    let properties = properties::wire_to_json(entity.properties)?;
    if entity.kind == Kind::Node.name() {
        if entity.key.is_empty() {
            return Ok(json!({ "node": entity.cid, "properties": properties }).to_string());
        }
        let line = json!({ "node": entity.key, "properties": properties });
        keys.insert(entity.cid, entity.key);
        return Ok(line.to_string());
    }
    let name = |cid: &String| keys.get(cid).unwrap_or(cid).clone();
    let (from, to) = (name(&entity.source), name(&entity.target));
    Ok(json!({ "edge": entity.label, "from": from, "to": to, "properties": properties }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_name_their_ends_by_keys_where_there_are_any() {
        let mut keys = BTreeMap::new();
        let node = |cid: &str, key: &str| v1::Entity {
            cid: cid.into(),
            kind: "node".into(),
            key: key.into(),
            ..Default::default()
        };
        assert_eq!(line_of(node("b1", "one"), &mut keys).unwrap(), r#"{"node":"one","properties":{}}"#);
        assert_eq!(line_of(node("b2", ""), &mut keys).unwrap(), r#"{"node":"b2","properties":{}}"#);
        let edge = v1::Entity {
            kind: "edge".into(),
            label: "l".into(),
            source: "b1".into(),
            target: "b2".into(),
            ..Default::default()
        };
        let line = line_of(edge, &mut keys).unwrap();
        assert_eq!(line, r#"{"edge":"l","from":"one","properties":{},"to":"b2"}"#);
    }
}
