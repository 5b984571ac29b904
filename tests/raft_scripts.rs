//! Golden scripts: scenarios of the protocol as text, each command followed by what it brings about.
//!
//! A file in `tests/golden/raft` is a list of blocks: command lines, `----`, what they print, a
//! blank line. `UPDATE_GOLDEN=1` writes down what is printed now; read the difference before
//! believing it. The commands are listed in `tests/raft/script.rs`.

#[path = "raft/mutant.rs"]
mod mutant;
#[path = "raft/script.rs"]
mod script;
#[allow(dead_code, reason = "each test uses a part of it")]
#[path = "raft/shell.rs"]
mod shell;

use std::{fs, path::Path};

use script::Script;

/// Runs a script and writes it down with what it printed.
fn replay(text: &str) -> String {
    let mut script = Script::default();
    let mut blocks = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.trim().is_empty()) {
        let asked: Vec<_> =
            block.trim_matches('\n').lines().take_while(|line| line.trim() != "----").collect();
        let is_command = |line: &&&str| !line.starts_with('#');
        if !asked.iter().any(|line| is_command(&line)) {
            blocks.push(asked.join("\n"));
            continue;
        }
        let printed: String = asked.iter().filter(is_command).map(|line| script.run(line)).collect();
        let printed = printed.trim_end();
        let break_line = if printed.is_empty() { "" } else { "\n" };
        blocks.push(format!("{}\n----{break_line}{printed}", asked.join("\n")));
    }
    blocks.join("\n\n") + "\n"
}

#[test]
fn scripts_print_what_they_printed() {
    mutant::put_in();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/raft");
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .expect("the folder of scripts")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 25, "only {} scripts", paths.len());
    let mut different = Vec::new();
    for path in paths {
        let expected = fs::read_to_string(&path).expect("a readable script");
        let printed = replay(&expected);
        if printed == expected {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, printed).expect("a writable script");
        } else {
            let first = printed.lines().zip(expected.lines()).find(|(now, before)| now != before);
            different.push(format!("{}: now and before: {first:#?}", path.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_wrong_expectation_is_noticed() {
    let text = "cluster n=1\ncampaign 1\n----\nnothing at all\n";
    assert_ne!(replay(text), text);
    let again = replay(text);
    assert_eq!(replay(&again), again, "a script repeats itself");
}
