//! The program `kotoba-sim`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kotoba_sim::cli::main()
}
