//! Runs one seed of the engine that runs the whole program, and prints what it came to as JSON.
//!
//! Built with `--cfg madsim` only, which `kotoba-sim run --engine madsim` sees to.

use std::process::ExitCode;

#[cfg(madsim)]
fn main() -> ExitCode {
    kotoba_sim::madsim::inside::main()
}

#[cfg(not(madsim))]
fn main() -> ExitCode {
    use std::io::Write as _;

    let what = "this program runs inside the madsim engine; next: kotoba-sim run --engine madsim";
    // Nobody may listen.
    let _ = writeln!(std::io::stderr(), "{what}");
    ExitCode::from(2)
}
