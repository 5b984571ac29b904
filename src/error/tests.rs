use std::{collections::BTreeSet, fs, path::Path};

use super::*;

fn pages() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors")
}

#[test]
fn every_code_has_its_page_and_every_page_its_code() {
    let expected: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| format!("{code}.md")).collect();
    let found: BTreeSet<String> = fs::read_dir(pages())
        .expect("docs/errors is part of the repository")
        .map(|entry| entry.expect("a readable directory").file_name().into_string().expect("plain names"))
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_page_has_the_parts_a_reader_looks_for_and_the_title_of_its_code() {
    for code in ErrorCode::ALL {
        let text = fs::read_to_string(pages().join(format!("{code}.md"))).expect("every code has its page");
        let heading = format!("# {code}: {}\n", code.title());
        assert!(text.starts_with(&heading), "{code} should begin with {heading:?}");
        for part in ["## What happened\n", "## Why\n", "## What to do\n", "## Example\n"] {
            assert!(text.contains(part), "{code} has no part {part:?}");
        }
        let end = format!("; next: {}\n", code.next());
        assert!(text.contains(&format!("error[{code}]: ")) && text.contains(&end), "{code}: example message");
    }
}

#[test]
fn the_index_lists_every_code() {
    let index = fs::read_to_string(pages().join("README.md")).expect("an index");
    for code in ErrorCode::ALL {
        let exit = code.exit_status().number();
        let row = format!("| [{code}]({code}.md) | {} | {exit} |", code.title());
        assert!(index.contains(&row), "docs/errors/README.md has no row {row}");
    }
}

#[test]
fn numbers_run_without_gaps_and_texts_round_trip() {
    for (number, code) in (1..).zip(ErrorCode::ALL) {
        assert_eq!(code.number(), number);
        assert_eq!(ErrorCode::from_number(number), Some(*code));
        assert_eq!(ErrorCode::from_text(&code.to_string()), Some(*code));
    }
    for bad in ["", "KDB-", "KDB-12", "KDB-0000", "KDB-9999", "KDB-+012", "kdb-0012", "KDB-00012"] {
        assert_eq!(ErrorCode::from_text(bad), None, "{bad}");
    }
}

#[test]
fn only_what_may_help_as_it_is_ends_with_unavailable() {
    for code in ErrorCode::ALL {
        if code.exit_status() == ExitStatus::Unavailable {
            assert_eq!(code.retry(), Retry::Same, "{code}");
        }
        if code.exit_status() == ExitStatus::Usage {
            assert_eq!(
                (code.effect(), code.grpc_code()),
                (Effect::Nothing, GrpcCode::InvalidArgument),
                "{code}"
            );
        }
    }
}

#[test]
fn messages_say_what_where_and_what_to_do() {
    let error = ClusterError::new(ErrorCode::AddressInUse, "port 8080 is taken, at 127.0.0.1:8080");
    assert_eq!(
        error.report(),
        "error[KDB-0027]: port 8080 is taken, at 127.0.0.1:8080; next: stop what listens there, or choose another --address"
    );
    assert!(
        ClusterError::NotLeader("node-2".into()).to_string().contains("node-2 does; next: ask the leader")
    );
}

#[test]
fn an_error_survives_the_wire() {
    for &code in ErrorCode::ALL {
        let sent = ClusterError::new(code, "something, somewhere");
        assert_eq!(sent.code(), code);
        assert_eq!(ClusterError::from_wire(&code.to_string(), &sent.to_string()), sent, "{code}");
    }
    let later = ClusterError::from_wire("KDB-4711", "odd, here; next: wonder");
    assert_eq!((later.code(), later.what()), (ErrorCode::Internal, "odd, here (KDB-4711)".into()));
}

#[test]
fn what_the_specification_matches_on_is_there() {
    for (code, expected) in [
        (ErrorCode::NoLeader, ClusterError::NoLeader),
        (ErrorCode::Network, ClusterError::NetworkError("x".into())),
        (ErrorCode::UnknownOutcome, ClusterError::UnknownOutcome("x".into())),
        (ErrorCode::Unavailable, ClusterError::Unavailable("x".into())),
    ] {
        assert_eq!(ClusterError::new(code, "x"), expected);
    }
}

#[test]
fn refusals_of_other_layers_keep_their_reason() {
    assert_eq!(ClusterError::from(MetaRefusal::UnknownNode).code(), ErrorCode::UnknownJoiner);
    assert_eq!(ClusterError::from(MetaRefusal::Superseded).code(), ErrorCode::Superseded);
    assert_eq!(ClusterError::from(GenesisError::SameName("a".into())).code(), ErrorCode::NodeIdMismatch);
    let error =
        ClusterError::from(ConfigError { setting: "raft.election_timeout", problem: "too short".into() });
    assert_eq!(error.what(), "raft.election_timeout: too short");
}
