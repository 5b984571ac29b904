//! The lines of a graph file: what they say, and whether all of them make sense together.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::source::Source;
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{
        Cid, Generation, GraphOperation, Operation, OperationDetails, Properties, RoutingKey,
        canonical_properties, json, routing_key,
    },
};

/// One line, read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Line {
    Node { key: String, properties: Properties },
    Edge { label: String, from: String, to: String, properties: Properties },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineKind {
    Node,
    Edge,
    Blank,
}

/// A whole file, checked.
#[derive(Debug)]
pub(super) struct Checked {
    /// Hex, of the file's bytes: the session's name.
    pub(super) hash: String,
    kinds: Vec<LineKind>,
    nodes: BTreeMap<Box<str>, Cid>,
    /// Nodes that edges name by their CIDs and the file does not create, and the first line that does so.
    foreign: BTreeMap<Cid, u64>,
}

/// An edge's end that no line before it names.
type Pending = (u64, Box<str>);

impl Checked {
    /// Reads the file once.
    ///
    /// # Errors
    /// The first line that is wrong, by its number.
    pub(super) fn read(source: &Source) -> Result<Self, ClusterError> {
        let mut reader = source.reader()?;
        let mut hash = blake3::Hasher::new();
        let mut checked =
            Self { hash: String::new(), kinds: Vec::new(), nodes: BTreeMap::new(), foreign: BTreeMap::new() };
        let mut pending: Vec<Pending> = Vec::new();
        let mut text = String::new();
        while reader.next_line(&mut text)? {
            hash.update(text.as_bytes());
            let number = checked.kinds.len() as u64 + 1;
            let kind = checked.check(&text, number, &mut pending)?;
            checked.kinds.push(kind);
        }
        for (number, key) in pending {
            if !checked.nodes.contains_key(&key) {
                let cid = checked.end(&key, number)?;
                checked.foreign.entry(cid).or_insert(number);
            }
        }
        for created in checked.nodes.values() {
            checked.foreign.remove(created);
        }
        checked.hash = hash.finalize().to_hex().to_string();
        Ok(checked)
    }

    fn check(
        &mut self,
        text: &str,
        number: u64,
        pending: &mut Vec<Pending>,
    ) -> Result<LineKind, ClusterError> {
        if text.trim().is_empty() {
            return Ok(LineKind::Blank);
        }
        match parse(text, number)? {
            Line::Node { key, properties } => {
                let cid = identity_of_node(&key, properties).map_err(|error| on_line(number, &error))?;
                match self.nodes.insert(key.as_str().into(), cid) {
                    Some(other) if other != cid => Err(wrong(
                        number,
                        &format!("the node {key:?} was given other properties on an earlier line"),
                    )),
                    _ => Ok(LineKind::Node),
                }
            }
            Line::Edge { label, from, to, properties } => {
                check_edge(label, properties).map_err(|error| on_line(number, &error))?;
                let unknown = [from, to].into_iter().filter(|key| !self.nodes.contains_key(key.as_str()));
                pending.extend(unknown.map(|key| (number, key.into_boxed_str())));
                Ok(LineKind::Edge)
            }
        }
    }

    /// The node that an edge's end names: a key of this file, else a CID.
    pub(super) fn end(&self, name: &str, number: u64) -> Result<Cid, ClusterError> {
        if let Some(cid) = self.nodes.get(name) {
            return Ok(*cid);
        }
        name.parse().map_err(|_| {
            let what = format!("line {number}: {name:?} is neither the key of a node in this file nor a CID");
            ClusterError::new(ErrorCode::EndpointMissing, what)
        })
    }

    /// The nodes that must exist already, each with the first line that names it.
    pub(super) fn foreign(&self) -> impl Iterator<Item = (Cid, u64)> {
        self.foreign.iter().map(|(cid, line)| (*cid, *line))
    }

    pub(super) fn kind(&self, number: u64) -> Option<LineKind> {
        self.kinds.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
    }

    pub(super) fn count(&self, kind: LineKind) -> u64 {
        self.kinds.iter().filter(|found| **found == kind).count() as u64
    }

    pub(super) fn operations(&self) -> u64 {
        self.count(LineKind::Node) + self.count(LineKind::Edge)
    }

    /// Keys and identities of all nodes, by key.
    pub(super) fn into_nodes(self) -> Vec<(String, Cid)> {
        self.nodes.into_iter().map(|(key, cid)| (key.into(), cid)).collect()
    }
}

/// The identity of the node with this key and these first properties: what the cluster will answer. Also
/// checks everything that the cluster would refuse.
pub(crate) fn identity_of_node(key: &str, properties: Properties) -> Result<Cid, ClusterError> {
    // An export calls a node without a key by its CID. Where the properties are still the first ones,
    // that very node is meant.
    if let Ok(cid) = key.parse::<Cid>()
        && identity(None, properties.clone())? == cid
    {
        return Ok(cid);
    }
    identity(Some(key.to_owned()), properties)
}

fn identity(key: Option<String>, properties: Properties) -> Result<Cid, ClusterError> {
    let operation = Operation::CreateNode { properties: properties.into_iter().collect() };
    let details = OperationDetails { key, ..OperationDetails::default() };
    match routing_key(&GraphOperation::new(operation, details)?) {
        RoutingKey::Identity(cid) | RoutingKey::Edge(cid) => Ok(cid),
    }
}

fn check_edge(label: String, properties: Properties) -> Result<(), ClusterError> {
    let somewhere = Cid::from_digest([0; 32]);
    let properties = properties.into_iter().collect();
    let operation = Operation::CreateEdge { source_cid: somewhere, target_cid: somewhere, label, properties };
    let details =
        OperationDetails { target_generation: Some(Generation::FIRST), ..OperationDetails::default() };
    GraphOperation::new(operation, details)?;
    Ok(())
}

/// Reads one line.
pub(super) fn parse(text: &str, number: u64) -> Result<Line, ClusterError> {
    let json = json::parse_document(text).map_err(|error| on_line(number, &error.into()))?;
    let Json::Object(mut fields) = json else {
        return Err(wrong(number, "not a JSON object"));
    };
    let properties = match fields.remove("properties") {
        Some(json) => {
            let read = json::properties_from_json(json).map_err(|error| on_line(number, &error.into()))?;
            canonical_properties(read).map_err(|error| on_line(number, &error.into()))?
        }
        None => Properties::new(),
    };
    let line = match (fields.remove("node"), fields.remove("edge")) {
        (Some(key), None) => Line::Node { key: text_of(key, "node", number)?, properties },
        (None, Some(label)) => Line::Edge {
            label: text_of(label, "edge", number)?,
            from: required(&mut fields, "from", number)?,
            to: required(&mut fields, "to", number)?,
            properties,
        },
        (Some(_), Some(_)) => return Err(wrong(number, "both \"node\" and \"edge\"")),
        (None, None) => return Err(wrong(number, "neither \"node\" nor \"edge\"")),
    };
    match fields.keys().next() {
        Some(name) => Err(wrong(number, &format!("unknown field {name:?}"))),
        None => Ok(line),
    }
}

fn required(fields: &mut Map<String, Json>, name: &str, number: u64) -> Result<String, ClusterError> {
    let value = fields.remove(name).ok_or_else(|| wrong(number, &format!("{name:?} is missing")))?;
    text_of(value, name, number)
}

fn text_of(value: Json, name: &str, number: u64) -> Result<String, ClusterError> {
    match value {
        Json::String(text) if !text.is_empty() => Ok(text),
        Json::String(_) => Err(wrong(number, &format!("{name:?} is empty"))),
        _ => Err(wrong(number, &format!("{name:?} is no text"))),
    }
}

fn wrong(number: u64, what: &str) -> ClusterError {
    ClusterError::new(ErrorCode::MalformedValue, format!("line {number}: {what}"))
}

fn on_line(number: u64, error: &ClusterError) -> ClusterError {
    ClusterError::new(error.code(), format!("line {number}: {}", error.what()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Value;

    fn checked(lines: &[&str]) -> Result<Checked, ClusterError> {
        Checked::read(&Source::of_text(&lines.join("\n")).unwrap())
    }

    const A: &str = r#"{"node":"a","properties":{"n":1}}"#;
    const B: &str = r#"{"node":"b","properties":{}}"#;

    #[test]
    fn nodes_and_edges_are_read() {
        let node = parse(r#"{"node":"a","properties":{"n":1,"f":1.0,"x":null}}"#, 1).unwrap();
        let properties: Properties = [("n", Value::Int(1)), ("f", Value::Float(1.0)), ("x", Value::Null)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        assert_eq!(node, Line::Node { key: "a".into(), properties });
        let edge = parse(r#"{"edge":"knows","from":"a","to":"b"}"#, 1).unwrap();
        let expected = Line::Edge {
            label: "knows".into(),
            from: "a".into(),
            to: "b".into(),
            properties: Properties::new(),
        };
        assert_eq!(edge, expected);
    }

    #[test]
    fn edges_may_name_keys_of_later_lines_and_cids() {
        let cid = Cid::of(b"elsewhere").to_string();
        let edge = format!(r#"{{"edge":"l","from":"b","to":"{cid}"}}"#);
        let checked = checked(&[&edge, "", A, B]).unwrap();
        assert_eq!((checked.count(LineKind::Node), checked.count(LineKind::Edge)), (2, 1));
        assert_eq!(checked.operations(), 3);
        assert_eq!(checked.kind(2), Some(LineKind::Blank));
        assert_eq!(checked.kind(5), None);
        assert_eq!(checked.end(&cid, 1).unwrap(), Cid::of(b"elsewhere"));
        assert_eq!(checked.foreign().collect::<Vec<_>>(), [(Cid::of(b"elsewhere"), 1)]);
    }

    #[test]
    fn what_the_file_creates_itself_need_not_exist_before() {
        let own = identity_of_node("a", Properties::from([("n".to_owned(), Value::Int(1))])).unwrap();
        let edge = format!(r#"{{"edge":"l","from":"b","to":"{own}"}}"#);
        assert_eq!(checked(&[&edge, A, B]).unwrap().foreign().count(), 0);
    }

    #[test]
    fn a_node_called_by_its_own_cid_is_that_very_node() {
        let properties = || Properties::from([("n".to_owned(), Value::Int(1))]);
        let keyless = identity(None, properties()).unwrap();
        assert_eq!(identity_of_node(&keyless.to_string(), properties()).unwrap(), keyless);
        // Changed since: another node, called the same.
        let changed = identity_of_node(&keyless.to_string(), Properties::new()).unwrap();
        assert_ne!(changed, keyless);
        assert_eq!(changed, identity(Some(keyless.to_string()), Properties::new()).unwrap());
    }

    #[test]
    fn different_keys_are_different_nodes() {
        let properties = || Properties::from([("name".to_owned(), Value::from("Alice"))]);
        let (one, two) =
            (identity_of_node("1", properties()).unwrap(), identity_of_node("2", properties()).unwrap());
        assert_ne!(one, two);
        assert_eq!(one, identity_of_node("1", properties()).unwrap());
    }

    #[test]
    fn the_first_wrong_line_is_named() {
        for (line, part) in [
            ("{", "not JSON"),
            ("[]", "not a JSON object"),
            ("{}", "neither"),
            (r#"{"node":"c","edge":"e"}"#, "both"),
            (r#"{"node":7}"#, "no text"),
            (r#"{"node":""}"#, "empty"),
            (r#"{"node":"c","extra":1}"#, "extra"),
            (r#"{"node":"c","properties":[]}"#, "JSON object"),
            (r#"{"node":"c","properties":{"n":9223372036854775808}}"#, "64-bit"),
            (r#"{"node":"a","properties":{"n":2}}"#, "other properties"),
            (r#"{"edge":"l","from":"a"}"#, "\"to\" is missing"),
            (r#"{"edge":"l","from":"a","to":"nobody"}"#, "neither the key"),
            (r#"{"edge":"","from":"a","to":"b"}"#, "empty"),
        ] {
            let error = checked(&[A, B, line]).unwrap_err().to_string();
            assert!(error.starts_with("line 3: ") && error.contains(part), "{line}: {error}");
        }
        assert!(checked(&[A, A]).is_ok(), "the same node twice is one node");
    }

    #[test]
    fn the_sessions_name_depends_on_every_byte() {
        let hash = |lines: &[&str]| checked(lines).unwrap().hash;
        assert_eq!(hash(&[A, B]), hash(&[A, B]));
        assert_ne!(hash(&[A, B]), hash(&[B, A]));
    }
}
