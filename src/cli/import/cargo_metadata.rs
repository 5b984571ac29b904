//! `cargo metadata --format-version 1` as a graph: packages are nodes, dependencies edges.
//!
//! Kept are name, version, license and edition. Paths and source URLs say things about the machine, not
//! about the graph, and are not even read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::error::{ClusterError, ErrorCode};

const LABEL: &str = "depends_on";

#[derive(Deserialize)]
struct Metadata {
    version: u32,
    packages: Vec<Package>,
    resolve: Option<Resolve>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    edition: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Resolved>,
}

#[derive(Deserialize)]
struct Resolved {
    id: String,
    #[serde(default)]
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    #[serde(default)]
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

/// The graph's lines, sorted, so that the same dependencies give the same file.
pub(super) fn to_lines(text: &str) -> Result<String, ClusterError> {
    let metadata: Metadata = serde_json::from_str(text)
        .map_err(|error| malformed(&format!("this is no output of `cargo metadata`: {error}")))?;
    if metadata.version != 1 {
        return Err(malformed(&format!("cargo metadata of version {}, not 1", metadata.version)));
    }
    let keys: BTreeMap<&str, String> = metadata
        .packages
        .iter()
        .map(|package| (package.id.as_str(), format!("{}@{}", package.name, package.version)))
        .collect();
    let mut lines: BTreeSet<(u8, String)> = BTreeSet::new();
    for package in &metadata.packages {
        lines.insert((0, node_line(package)));
    }
    for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
        for dependency in &node.deps {
            let end = |id: &str| keys.get(id).ok_or_else(|| malformed(&format!("there is no package {id}")));
            let (from, to) = (end(&node.id)?, end(&dependency.pkg)?);
            for kind in kinds(dependency) {
                let line = json!({ "edge": LABEL, "from": from, "to": to, "properties": { "kind": kind } });
                lines.insert((1, line.to_string()));
            }
        }
    }
    let mut text = String::new();
    for (_, line) in lines {
        writeln!(text, "{line}").map_err(|error| malformed(&error.to_string()))?;
    }
    Ok(text)
}

fn node_line(package: &Package) -> String {
    let mut properties = Map::new();
    properties.insert("name".into(), package.name.clone().into());
    properties.insert("version".into(), package.version.clone().into());
    for (name, value) in [("license", &package.license), ("edition", &package.edition)] {
        if let Some(value) = value {
            properties.insert(name.into(), value.clone().into());
        }
    }
    let key = format!("{}@{}", package.name, package.version);
    json!({ "node": key, "properties": Json::Object(properties) }).to_string()
}

/// `normal`, `build`, `dev`; a dependency that does not say is a normal one.
fn kinds(dependency: &Dependency) -> BTreeSet<&str> {
    let named = dependency.dep_kinds.iter().map(|kind| kind.kind.as_deref().unwrap_or("normal"));
    let mut kinds: BTreeSet<&str> = named.collect();
    if kinds.is_empty() {
        kinds.insert("normal");
    }
    kinds
}

fn malformed(what: &str) -> ClusterError {
    ClusterError::new(ErrorCode::MalformedValue, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str = r#"{
        "version": 1,
        "workspace_root": "/home/somebody/project",
        "packages": [
            {"id": "path+file:///home/somebody/project#0.1.0", "name": "project", "version": "0.1.0",
             "license": null, "edition": "2024", "manifest_path": "/home/somebody/project/Cargo.toml"},
            {"id": "registry+https://example.org/index#log@0.4.1", "name": "log", "version": "0.4.1",
             "license": "MIT OR Apache-2.0", "edition": "2021", "source": "registry+https://example.org/index"}
        ],
        "resolve": {"nodes": [
            {"id": "path+file:///home/somebody/project#0.1.0", "deps": [
                {"name": "log", "pkg": "registry+https://example.org/index#log@0.4.1",
                 "dep_kinds": [{"kind": null, "target": null}, {"kind": "dev", "target": null},
                               {"kind": null, "target": "cfg(unix)"}]}]},
            {"id": "registry+https://example.org/index#log@0.4.1", "deps": []}
        ]}
    }"#;

    #[test]
    fn packages_are_nodes_and_dependencies_edges() {
        let lines = to_lines(METADATA).unwrap();
        let expected = [
            r#"{"node":"log@0.4.1","properties":{"edition":"2021","license":"MIT OR Apache-2.0","name":"log","version":"0.4.1"}}"#,
            r#"{"node":"project@0.1.0","properties":{"edition":"2024","name":"project","version":"0.1.0"}}"#,
            r#"{"edge":"depends_on","from":"project@0.1.0","properties":{"kind":"dev"},"to":"log@0.4.1"}"#,
            r#"{"edge":"depends_on","from":"project@0.1.0","properties":{"kind":"normal"},"to":"log@0.4.1"}"#,
        ];
        assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
        assert!(!lines.contains("somebody") && !lines.contains("example.org"), "no path, no source");
    }

    #[test]
    fn other_json_is_refused() {
        for text in ["", "{}", "[1]", r#"{"version":2,"packages":[]}"#] {
            assert_eq!(to_lines(text).unwrap_err().code(), ErrorCode::MalformedValue, "{text}");
        }
        let dangling = METADATA.replacen("log@0.4.1\", \"name\": \"log\"", "other\", \"name\": \"log\"", 1);
        assert!(to_lines(&dangling).unwrap_err().what().contains("there is no package"));
    }
}
