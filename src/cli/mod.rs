//! The program `kotoba-cluster`: one file per command.
//!
//! Without a command it is a node; with one it is a client of a running cluster. Standard output is data,
//! standard error is talk. It ends with 0 (done), 1 (failed), 2 (called wrongly) or 3 (the cluster cannot
//! answer now).

mod args;
mod bench;
mod block;
mod connect;
mod demo;
mod edge;
mod entity;
mod export;
mod generate;
mod import;
mod neighbors;
mod node;
mod output;
mod progress;
mod properties;
mod serve;
mod settings;
mod status;
mod verify;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};

use self::args::{Arguments, Command};
use crate::error::{ClusterError, ErrorCode};

/// Runs the program with these arguments, the program's own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return refuse_arguments(&error),
    };
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ClusterError::new(ErrorCode::Internal, format!("cannot start the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(dispatch(arguments)));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            output::talk(&output::visible(&error.report()));
            ExitCode::from(error.code().exit_status().number())
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<ExitCode, ClusterError> {
    let Some(command) = arguments.command else {
        return serve::run(arguments.node).await;
    };
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Node { command } => node::run(command).await,
        Command::Edge { command } => edge::run(command).await,
        Command::Neighbors(args) => neighbors::run(args).await,
        Command::Block { command } => block::run(command).await,
        Command::Import(args) => import::run(args).await,
        Command::Export(args) => export::run(args).await,
        Command::Generate(args) => generate::run(args),
        Command::Bench(args) => bench::run(args).await,
        Command::Verify(args) => verify::run(args).await,
    }
}

/// Help and version are answers; everything else is one sentence and exit status 2.
fn refuse_arguments(error: &clap::Error) -> ExitCode {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // Nobody is left to tell where the terminal is gone.
        let _ = error.print();
        if !error.use_stderr() {
            return ExitCode::SUCCESS;
        }
        output::talk(&ClusterError::new(ErrorCode::Usage, "a command is missing").report());
        return ExitCode::from(2);
    }
    output::talk(&usage_error(error).report());
    ExitCode::from(2)
}

fn usage_error(error: &clap::Error) -> ClusterError {
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let sentence: Vec<&str> = paragraph.split_whitespace().collect();
    let sentence = sentence.join(" ");
    let what = sentence.strip_prefix("error: ").unwrap_or(&sentence).trim_end_matches('.');
    ClusterError::new(ErrorCode::Usage, what)
}

#[cfg(test)]
mod tests;
