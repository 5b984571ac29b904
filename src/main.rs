//! The program: see the module `cli` of the library.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    kotoba_db_cluster::cli::run(env::args_os())
}
