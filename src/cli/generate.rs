//! `generate`: a made-up graph. The same arguments give the same bytes, on every machine and for ever.

use std::{
    io::{self, BufWriter, Write},
    process::ExitCode,
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use serde_json::json;

use super::{args::GenerateArgs, output};
use crate::error::{ClusterError, ErrorCode};

const LABELS: [&str; 4] = ["knows", "likes", "follows", "cites"];

pub(super) fn run(args: GenerateArgs) -> Result<ExitCode, ClusterError> {
    if args.nodes == 0 && args.edges > 0 {
        return Err(ClusterError::new(ErrorCode::Usage, "edges need at least one node"));
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    output::whole(write_graph(&args, &mut out).and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

fn write_graph(args: &GenerateArgs, out: &mut impl Write) -> io::Result<()> {
    let mut random = ChaCha8Rng::seed_from_u64(args.seed);
    for number in 0..args.nodes {
        let properties = json!({ "number": number, "value": letters(&mut random, args.value_bytes) });
        writeln!(out, "{}", json!({ "node": key(number), "properties": properties }))?;
    }
    for number in 0..args.edges {
        let (from, to) = (below(&mut random, args.nodes), below(&mut random, args.nodes));
        let label = LABELS[below(&mut random, LABELS.len() as u64) as usize];
        let properties = json!({ "number": number });
        let line = json!({ "edge": label, "from": key(from), "to": key(to), "properties": properties });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn key(number: u64) -> String {
    format!("n{number}")
}

fn letters(random: &mut ChaCha8Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        text.extend(random.next_u64().to_le_bytes().map(|byte| char::from(b'a' + byte % 26)));
    }
    text.truncate(bytes);
    text
}

/// A number below `bound`. The product's upper half is as even as a graph needs.
fn below(random: &mut ChaCha8Rng, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let args = GenerateArgs { nodes: 50, edges: 80, value_bytes: 33, seed };
        write_graph(&args, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_same_arguments_give_the_same_bytes_for_ever() {
        let graph_of_7 = graph(7);
        assert_eq!((graph_of_7.len(), crc32fast::hash(&graph_of_7)), (9711, 0x2721_5d0d));
        assert_ne!(graph_of_7, graph(8));
    }

    #[test]
    fn a_graph_has_the_size_it_was_asked_for() {
        let text = String::from_utf8(graph(1)).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 130);
        assert!(lines[..50].iter().all(|line| line["properties"]["value"].as_str().unwrap().len() == 33));
        assert!(lines[50..].iter().all(|line| line["edge"].is_string()));
    }
}
