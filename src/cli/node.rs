//! `node create|get|update|delete|history`.

use std::process::ExitCode;

use super::{
    args::NodeCommand,
    connect::partition,
    entity::{self, Update},
    properties,
};
use crate::{
    client::v1::{self, operation::Kind as Operation},
    error::{ClusterError, ErrorCode},
    graph::{Cid, Kind},
};

pub(super) async fn run(command: NodeCommand) -> Result<ExitCode, ClusterError> {
    match command {
        NodeCommand::Create(args) => {
            if args.key.as_deref() == Some("") {
                return Err(ClusterError::new(ErrorCode::Usage, "the key is empty"));
            }
            if let Some(key) = args.key.as_deref().filter(|key| key.parse::<Cid>().is_ok()) {
                let what = format!("the key {key:?} is a CID: edges could not tell which node they name");
                return Err(ClusterError::new(ErrorCode::Usage, what));
            }
            let properties = properties::to_wire(properties::parse(&args.properties)?);
            let create = v1::CreateNode { properties, key: args.key.unwrap_or_default() };
            entity::write(
                (args.connect, args.request),
                args.output.output,
                Operation::CreateNode(create),
                None,
            )
            .await
        }
        NodeCommand::Get(args) => entity::get(args, Kind::Node).await,
        NodeCommand::Update(args) => {
            let Update { cid, set, unset } = Update::read(&args)?;
            let update = v1::UpdateNode { cid, properties: properties::to_wire(set), unset };
            let at = partition(args.partition);
            entity::write((args.connect, args.request), args.output.output, Operation::UpdateNode(update), at)
                .await
        }
        NodeCommand::Delete(args) => {
            entity::delete(args, |cid| Operation::DeleteNode(v1::DeleteNode { cid })).await
        }
        NodeCommand::History(args) => entity::history(args, Kind::Node).await,
    }
}
