//! `export`: the whole graph as the lines an import reads.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    limits::LABEL_BYTES_MAX,
    placement::PartitionId,
};

const PAGE: u32 = 1000;

pub(super) async fn run(args: ExportArgs) -> Result<ExitCode, ClusterError> {
    let client = connect(args.connect).await?;
    let consistency = args.consistency.consistency.into();
    let partitions = client.partitions().await?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    // Edges name their ends by keys, and an end may live in any partition: nodes first.
    let mut names = Names::default();
    for kind in [Kind::Node, Kind::Edge] {
        for partition in (0..partitions).map(PartitionId) {
            let mut scan = Scan { client: &client, partition, consistency, resume: Some(Bytes::new()) };
            while let Some(page) = scan.next_page().await? {
                for entity in page.into_iter().filter(|entity| entity.kind == kind.name()) {
                    let line = line_of(entity, &mut names)?;
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

/// What the lines call the nodes: by their keys, or their CIDs where they have none. A name that another node
/// has already taken gets the CID behind it, so that every name in the file means one node.
#[derive(Debug, Default)]
struct Names {
    taken: BTreeSet<String>,
    /// Of nodes that are not called by their CIDs.
    by_cid: BTreeMap<String, String>,
}

impl Names {
    fn call(&mut self, cid: String, key: String) -> String {
        let mut name = if key.is_empty() { cid.clone() } else { key };
        while !self.taken.insert(name.clone()) {
            // The whole must still be a key.
            let room = LABEL_BYTES_MAX.saturating_sub(cid.len() + 1);
            name.truncate(name.floor_char_boundary(room));
            name = format!("{name}#{cid}");
        }
        if name != cid {
            self.by_cid.insert(cid, name.clone());
        }
        name
    }

    fn of<'a>(&'a self, cid: &'a String) -> &'a String {
        self.by_cid.get(cid).unwrap_or(cid)
    }
}

/// The entity's line. Notes the names of nodes.
fn line_of(entity: v1::Entity, names: &mut Names) -> Result<String, ClusterError> {
    let properties = properties::wire_to_json(entity.properties)?;
    if entity.kind == Kind::Node.name() {
        let name = names.call(entity.cid, entity.key);
        return Ok(json!({ "node": name, "properties": properties }).to_string());
    }
    let (from, to) = (names.of(&entity.source), names.of(&entity.target));
    Ok(json!({ "edge": entity.label, "from": from, "to": to, "properties": properties }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_name_their_ends_by_keys_where_there_are_any() {
        let mut keys = Names::default();
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

    #[test]
    fn every_name_means_one_node() {
        let mut names = Names::default();
        let mut call = |cid: &str, key: &str| names.call(cid.into(), key.into());
        assert_eq!(call("b1", "k"), "k");
        assert_eq!(call("b2", "k"), "k#b2");
        assert_eq!(call("b3", "b4"), "b4", "a key that is another node's CID");
        assert_eq!(call("b4", ""), "b4#b4");
        assert_eq!(call("b5", "k#b2"), "k#b2#b5");
        let long = "é".repeat(LABEL_BYTES_MAX / 2);
        assert_eq!(call("b6", &long), long);
        let shortened = call("b7", &long);
        assert!(shortened.len() <= LABEL_BYTES_MAX && shortened.ends_with("é#b7"), "{shortened}");
        let of = |cid: &str| names.of(&cid.to_owned()).clone();
        assert_eq!((of("b2").as_str(), of("b4").as_str(), of("b3").as_str()), ("k#b2", "b4#b4", "b4"));
    }
}
