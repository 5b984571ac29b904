//! The program: see the module `cli` of the library.

#[cfg(kotoba_mutants)]
compile_error!("the program is never built with bugs in it: `kotoba_mutants` is for tests of the library");

use std::{env, process::ExitCode};

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    kotoba_db_cluster::cli::run(env::args_os())
}
