//! Runs one input through a target's body, without libFuzzer: `cargo run --example replay -- TARGET FILE…`.

use std::{env, error::Error, fs};

use kotoba_fuzz::TARGETS;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().ok_or("usage: replay TARGET FILE…")?;
    let target = TARGETS.iter().find(|target| target.name == name).ok_or("no such target")?;
    for file in arguments {
        let reached: Vec<_> = (target.run)(&fs::read(&file)?).iter().collect();
        println!("{file}: {}", reached.join(", "));
    }
    Ok(())
}
