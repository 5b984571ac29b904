//! Writes the checked-in seeds: `cargo run --example seeds [TARGET…]`. Inputs in `corpus/`, where a fuzzer left some,
//! are candidates too, and so are the seeds that are there. Those with a name, not a number, failed once
//! and are kept as they are.

use std::{env, error::Error, fs, path::Path};

use kotoba_fuzz::{TARGETS, seeds::choose};

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named: Vec<String> = env::args().skip(1).collect();
    let chosen = |name: &str| named.is_empty() || named.iter().any(|named| named == name);
    for target in TARGETS.iter().filter(|target| chosen(target.name)) {
        let folder = root.join("seeds").join(target.name);
        fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for file in fs::read_dir(root.join("corpus").join(target.name)).into_iter().flatten() {
            found.push(fs::read(file?.path())?);
        }
        for file in fs::read_dir(&folder)? {
            let file = file?;
            if file.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
                found.push(fs::read(file.path())?);
                fs::remove_file(file.path())?;
            }
        }
        let seeds = choose(target, found);
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("{number:02}")), seed)?;
        }
        let bytes: usize = seeds.iter().map(Vec::len).sum();
        println!("{}: {} seeds, {bytes} bytes", target.name, seeds.len());
    }
    Ok(())
}
