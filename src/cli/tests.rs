use clap::{CommandFactory as _, Parser as _};

use super::{
    args::{Arguments, Command, Consistency, NodeCommand},
    usage_error,
};

fn parse(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("kotoba-cluster").chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_consistent_in_itself() {
    Arguments::command().debug_assert();
}

#[test]
fn the_specifications_flags_start_a_node() {
    let arguments =
        parse("--node-id=node1 --address=127.0.0.1:8080 --peers=127.0.0.1:8081,127.0.0.1:8082").unwrap();
    assert!(arguments.command.is_none());
    assert_eq!(arguments.node.node_id.as_deref(), Some("node1"));
    assert_eq!(arguments.node.peers.unwrap(), ["127.0.0.1:8081", "127.0.0.1:8082"]);
    let arguments = parse("--node-id node1 --partitions 8 --replication-factor 1").unwrap();
    assert_eq!((arguments.node.partitions, arguments.node.replication_factor), (Some(8), Some(1)));
}

#[test]
fn commands_take_their_flags() {
    let Some(Command::Node { command: NodeCommand::Create(args) }) =
        parse("node create --key k name=Alice age:=30 --endpoints a:1,b:2").unwrap().command
    else {
        panic!("not node create");
    };
    assert_eq!(args.properties, ["name=Alice", "age:=30"]);
    assert_eq!(args.connect.endpoints.unwrap(), ["a:1", "b:2"]);
    let Some(Command::Node { command: NodeCommand::Get(args) }) =
        parse("node get b123 --consistency=eventual --output json").unwrap().command
    else {
        panic!("not node get");
    };
    assert_eq!(args.consistency.consistency, Consistency::Eventual);
}

#[test]
fn what_is_wrong_is_one_sentence_with_the_code_of_usage() {
    for (line, part) in [
        ("--node", "--node"),
        ("--node-id=a --bogus", "--bogus"),
        ("frobnicate", "frobnicate"),
        ("--node-id a status", "cannot be used with"),
        ("status --output yaml", "yaml"),
        ("node update b1", "required"),
        ("edge create a", "required"),
        ("generate --nodes many --edges 1", "many"),
        ("bench --clients 0", "clients"),
        ("--partitions=-1 --node-id=a", "partitions"),
    ] {
        let error = usage_error(&parse(line).unwrap_err());
        assert_eq!(error.code().to_string(), "KDB-0001");
        assert!(error.what().contains(part), "{line}: {error}");
        assert!(!error.what().contains('\n'), "{line}: {error}");
    }
}
