//! `block get`: the raw bytes behind a CID, so that any IPLD tool can check it.

use std::process::ExitCode;

use super::{
    args::BlockCommand,
    connect::{cid, connect},
    entity, output,
};
use crate::{
    client::ReadFrom,
    error::{ClusterError, ErrorCode},
    graph::Cid,
};

pub(super) async fn run(command: BlockCommand) -> Result<ExitCode, ClusterError> {
    let BlockCommand::Get(args) = command;
    let wanted = cid(&args.cid)?;
    let client = connect(args.connect).await?;
    let from = ReadFrom::with(args.consistency.consistency.into());
    let text = wanted.to_string();
    let block = client.block(&text, from).await?.ok_or_else(|| entity::not_found("block", &text))?;
    if Cid::of(&block) != wanted {
        let what = format!("the node answered {} bytes that are not the block {text}", block.len());
        return Err(ClusterError::new(ErrorCode::Internal, what));
    }
    output::write(&block)?;
    Ok(ExitCode::SUCCESS)
}
