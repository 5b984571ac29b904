//! `edge create|get|update|delete|history`.

use std::process::ExitCode;

use super::{
    args::EdgeCommand,
    connect::{cid, partition},
    entity::{self, Update},
    properties,
};
use crate::{
    client::v1::{self, operation::Kind as Operation},
    error::ClusterError,
    graph::Kind,
};

pub(super) async fn run(command: EdgeCommand) -> Result<ExitCode, ClusterError> {
    match command {
        EdgeCommand::Create(args) => {
            let create = v1::CreateEdge {
                source_cid: cid(&args.source)?.to_string(),
                target_cid: cid(&args.target)?.to_string(),
                properties: properties::to_wire(properties::parse(&args.properties)?),
                label: args.label,
            };
            entity::write(
                (args.connect, args.request),
                args.output.output,
                Operation::CreateEdge(create),
                None,
            )
            .await
        }
        EdgeCommand::Get(args) => entity::get(args, Kind::Edge).await,
        EdgeCommand::Update(args) => {
            let Update { cid, set, unset } = Update::read(&args)?;
            let update = v1::UpdateEdge { cid, properties: properties::to_wire(set), unset };
            let at = partition(args.partition);
            entity::write((args.connect, args.request), args.output.output, Operation::UpdateEdge(update), at)
                .await
        }
        EdgeCommand::Delete(args) => {
            entity::delete(args, |cid| Operation::DeleteEdge(v1::DeleteEdge { cid })).await
        }
        EdgeCommand::History(args) => entity::history(args, Kind::Edge).await,
    }
}
