//! The program as a process: what is wrong with a command line or its surroundings is one sentence on
//! standard error, nothing on standard output, and the documented exit status.

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kotoba-cluster"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KOTOBA_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

#[track_caller]
fn refused(arguments: &[&str], status: i32, code: &str, part: &str) {
    let output = run(arguments);
    let talk = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {talk}");
    assert!(talk.starts_with(&format!("error[{code}]: ")), "{arguments:?}: {talk}");
    assert!(talk.contains(part) && talk.contains("; next: "), "{arguments:?}: {talk}");
    assert_eq!(talk.lines().count(), 1, "{arguments:?}: {talk}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn wrong_command_lines_end_with_2() {
    refused(&[], 2, "KDB-0001", "--node-id");
    refused(&["--bogus"], 2, "KDB-0001", "--bogus");
    refused(&["--node-id=a", "status"], 2, "KDB-0001", "cannot be used with");
    refused(&["--node-id=a", "--address=nowhere"], 2, "KDB-0001", "nowhere");
    refused(&["--node-id=a", "--partitions=0"], 2, "KDB-0002", "partition_count");
    refused(&["--node-id=a", "--tls-cert=x.pem"], 2, "KDB-0002", "all three or none");
    refused(&["--node-id=a", "--config=/nonexistent.toml"], 2, "KDB-0002", "/nonexistent.toml");
    refused(&["node", "get", "bogus"], 2, "KDB-0003", "bogus");
    refused(&["edge", "create", "x", "knows", "y"], 2, "KDB-0003", "\"x\"");
    refused(&["node", "create", "age:=thirty"], 2, "KDB-0004", "age:=thirty");
    refused(&["status", "--endpoints", "nowhere"], 2, "KDB-0001", "nowhere");
    refused(&["generate", "--nodes", "0", "--edges", "1"], 2, "KDB-0001", "at least one node");
}

#[test]
fn a_cluster_that_is_not_there_ends_with_3() {
    let address = nobody();
    refused(&["status", "--endpoints", &address], 3, "KDB-0016", &address);
}

#[test]
fn files_are_checked_before_anything_is_sent() {
    refused(&["import", "/nonexistent.jsonl"], 1, "KDB-0039", "/nonexistent.jsonl");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{{\"node\":\"a\"}}\n{{\"node\":").unwrap();
    let path = file.path().to_str().unwrap();
    refused(&["import", path, "--endpoints", &nobody()], 2, "KDB-0004", "line 2");
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("data");
    let address = nobody();
    let arguments = ["--node-id=a", "--address", &address, "--data-dir", path.to_str().unwrap()];
    refused(&arguments, 1, "KDB-0022", path.to_str().unwrap());
}

#[test]
fn help_and_version_are_answers() {
    for arguments in [&["--help"][..], &["--version"], &["import", "--help"], &["node", "create", "--help"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn generate_writes_the_same_graph_again() {
    let arguments = ["generate", "--nodes", "20", "--edges", "30", "--value-bytes", "16", "--seed", "5"];
    let (one, two) = (run(&arguments), run(&arguments));
    assert_eq!(one.status.code(), Some(0));
    assert_eq!(one.stdout, two.stdout);
    assert_eq!(one.stdout.split(|byte| *byte == b'\n').count(), 51);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = program(&["generate", "--nodes", "100000", "--edges", "0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
