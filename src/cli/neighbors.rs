//! `neighbors`: the edges of a node, from both sides where asked.

use std::process::ExitCode;

use serde_json::{Value as Json, json};

use super::{
    args::{Direction, NeighborsArgs},
    connect::{cid, connect},
    output::{self, columns, row},
};
use crate::{
    client::{ReadFrom, v1},
    error::ClusterError,
};

pub(super) async fn run(args: NeighborsArgs) -> Result<ExitCode, ClusterError> {
    let text = cid(&args.cid)?.to_string();
    let client = connect(args.connect).await?;
    let direction = match args.direction {
        Direction::Out => v1::Direction::Out,
        Direction::In => v1::Direction::In,
        Direction::Both => v1::Direction::Both,
    };
    let from = ReadFrom::with(args.consistency.consistency.into());
    let rows = client.neighbors(&text, direction, &args.label, from).await?;
    let json = Json::Array(rows.iter().map(row_json).collect());
    let table = || {
        let head = row!["direction", "label", "node", "edge"];
        let rows = rows.iter().map(|row| row![direction_name(row), row.label, row.node, row.edge]);
        columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
    };
    output::print(args.output.output, &json, table)?;
    Ok(ExitCode::SUCCESS)
}

fn row_json(row: &v1::Neighbor) -> Json {
    json!({ "edge": row.edge, "label": row.label, "direction": direction_name(row), "node": row.node })
}

fn direction_name(row: &v1::Neighbor) -> &'static str {
    match row.direction() {
        v1::Direction::Out => "out",
        v1::Direction::In => "in",
        v1::Direction::Both => "both",
    }
}
