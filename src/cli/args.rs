//! The command line, as types.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::v1;

/// A content-addressed graph database on several machines.
///
/// Without a command: runs a node of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kotoba-cluster", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) node: NodeArgs,
}

/// What a node is started with. Each may also stand in the environment (KOTOBA_NODE_ID, …) or in the
/// file; a flag wins over the environment, which wins over the file.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct NodeArgs {
    /// The node's name, the same at every start.
    #[arg(long, value_name = "ID")]
    pub(super) node_id: Option<String>,
    /// Where the node listens, and where others reach it [default: 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) address: Option<String>,
    /// The other nodes to begin a cluster with.
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(super) peers: Option<Vec<String>>,
    /// Where the node keeps its data [default: ./kotoba-data/NODE-ID].
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,
    /// Partitions of a new cluster [default: 64].
    #[arg(long, value_name = "N")]
    pub(super) partitions: Option<u32>,
    /// Replicas of each partition of a new cluster [default: 3].
    #[arg(long, value_name = "N")]
    pub(super) replication_factor: Option<u32>,
    /// Settings from a TOML file.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
}

/// Mutual TLS: all three files or none.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct TlsArgs {
    /// This side's certificate chain (PEM).
    #[arg(long, value_name = "FILE")]
    pub(super) tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE")]
    pub(super) tls_key: Option<PathBuf>,
    /// The authority that signed both sides' certificates (PEM).
    #[arg(long, value_name = "FILE")]
    pub(super) tls_ca: Option<PathBuf>,
}

/// How a client reaches the cluster.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ConnectArgs {
    /// Nodes of the cluster; one that lives is enough [default: $KOTOBA_ENDPOINTS, else 127.0.0.1:8080].
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(super) endpoints: Option<Vec<String>>,
    #[command(flatten)]
    pub(super) tls: TlsArgs,
}

/// Under which name a write is sent. Without these it gets a new one.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RequestArgs {
    /// Repeats a write whose outcome is unknown: the client id of its error, with --request-id.
    #[arg(long, value_name = "ID", requires = "request_id")]
    pub(super) client_id: Option<String>,
    /// The request id of its error, with --client-id.
    #[arg(long, value_name = "N", requires = "client_id", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) request_id: Option<u64>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the last line is one JSON text.
    Json,
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct OutputArgs {
    /// How results are printed.
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub(super) output: Output,
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Consistency {
    /// The latest, confirmed by a quorum.
    #[default]
    Strong,
    /// What this session wrote is included.
    Session,
    /// Whatever the asked node holds.
    Eventual,
}

impl From<Consistency> for v1::Consistency {
    fn from(level: Consistency) -> Self {
        match level {
            Consistency::Strong => Self::Strong,
            Consistency::Session => Self::Session,
            Consistency::Eventual => Self::Eventual,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct ConsistencyArgs {
    /// How fresh the answer must be.
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
    pub(super) consistency: Consistency,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Runs three nodes, kills the busiest leader while writing, and shows that nothing was lost.
    Demo(DemoArgs),
    /// Shows nodes, leaders, positions and digests. Ends with 3 until the cluster serves.
    Status(StatusArgs),
    /// Creates, reads, changes and deletes nodes of the graph.
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Creates, reads, changes and deletes edges of the graph.
    Edge {
        #[command(subcommand)]
        command: EdgeCommand,
    },
    /// Lists the edges of a node and the nodes at their other ends.
    Neighbors(NeighborsArgs),
    /// Reads blocks.
    Block {
        #[command(subcommand)]
        command: BlockCommand,
    },
    /// Loads a graph. Repeating the same command resumes.
    Import(ImportArgs),
    /// Writes the whole graph as JSON lines.
    Export(ExportArgs),
    /// Writes a made-up graph as JSON lines, the same for the same arguments.
    Generate(GenerateArgs),
    /// Measures the cluster.
    Bench(BenchArgs),
    /// Compares the members' states at one log position per partition. Ends with 1 where they differ.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Ends by itself: with 0 where all went well, else with 1.
    #[arg(long)]
    pub(super) once: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Shows it anew every second, until ctrl-c.
    #[arg(long)]
    pub(super) watch: bool,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Creates a node and prints its CID.
    Create(CreateNodeArgs),
    /// Shows a node.
    Get(GetArgs),
    /// Replaces properties of a node.
    Update(UpdateArgs),
    /// Deletes a node; its edges become invisible.
    Delete(DeleteArgs),
    /// Shows all versions of a node, oldest first.
    History(GetArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum EdgeCommand {
    /// Creates an edge and prints its CID.
    Create(CreateEdgeArgs),
    /// Shows an edge.
    Get(GetArgs),
    /// Replaces properties of an edge.
    Update(UpdateArgs),
    /// Deletes an edge.
    Delete(DeleteArgs),
    /// Shows all versions of an edge, oldest first.
    History(GetArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateNodeArgs {
    /// Tells nodes with equal properties apart.
    #[arg(long)]
    pub(super) key: Option<String>,
    /// `name=text` or `name:=JSON`.
    #[arg(value_name = "K=V")]
    pub(super) properties: Vec<String>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct CreateEdgeArgs {
    /// CID of the node the edge leaves.
    #[arg(value_name = "SRC")]
    pub(super) source: String,
    /// What the edge means.
    pub(super) label: String,
    /// CID of the node the edge enters.
    #[arg(value_name = "DST")]
    pub(super) target: String,
    /// `name=text` or `name:=JSON`.
    #[arg(value_name = "K=V")]
    pub(super) properties: Vec<String>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// The entity's CID.
    pub(super) cid: String,
    /// The partition it lives in, as its receipt said; saves a look-up.
    #[arg(long, value_name = "N")]
    pub(super) partition: Option<u32>,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(flatten)]
    pub(super) consistency: ConsistencyArgs,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// The entity's CID.
    pub(super) cid: String,
    /// `name=text` or `name:=JSON`; the other properties stay.
    #[arg(value_name = "K=V", required_unless_present = "unset")]
    pub(super) properties: Vec<String>,
    /// Removes a property. May be given several times.
    #[arg(long, value_name = "KEY")]
    pub(super) unset: Vec<String>,
    /// The partition it lives in, as its receipt said; saves a look-up.
    #[arg(long, value_name = "N")]
    pub(super) partition: Option<u32>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The entity's CID.
    pub(super) cid: String,
    /// The partition it lives in, as its receipt said; saves a look-up.
    #[arg(long, value_name = "N")]
    pub(super) partition: Option<u32>,
    #[command(flatten)]
    pub(super) request: RequestArgs,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// Which edges of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Direction {
    /// Those that leave it.
    #[default]
    Out,
    /// Those that enter it.
    In,
    /// All.
    Both,
}

#[derive(Debug, Args)]
pub(super) struct NeighborsArgs {
    /// The node's CID.
    pub(super) cid: String,
    /// Which edges.
    #[arg(long, value_enum, default_value_t)]
    pub(super) direction: Direction,
    /// Only edges of this label.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) label: String,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(flatten)]
    pub(super) consistency: ConsistencyArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum BlockCommand {
    /// Writes the block's raw bytes (DAG-CBOR) to standard output.
    Get(BlockArgs),
}

#[derive(Debug, Args)]
pub(super) struct BlockArgs {
    /// The block's CID: an entity's or a version's.
    pub(super) cid: String,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) consistency: ConsistencyArgs,
}

/// What an import reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One node or edge a line, as JSON.
    #[default]
    Graph,
    /// The output of `cargo metadata --format-version 1`.
    CargoMetadata,
}

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The file; `-` for standard input.
    pub(super) file: PathBuf,
    /// What it holds.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) consistency: ConsistencyArgs,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct GenerateArgs {
    /// Nodes.
    #[arg(long, value_name = "N")]
    pub(super) nodes: u64,
    /// Edges.
    #[arg(long, value_name = "M")]
    pub(super) edges: u64,
    /// Bytes of each node's property `value`.
    #[arg(long, value_name = "B", default_value_t = 256)]
    pub(super) value_bytes: usize,
    /// Another seed gives another graph.
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub(super) seed: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchOp {
    /// Creating nodes.
    Put,
    /// Reading nodes.
    Get,
}

/// How writes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BenchMode {
    /// One call per operation.
    Unary,
    /// One stream per node.
    Stream,
}

#[derive(Clone, Debug, Args)]
pub(super) struct BenchArgs {
    /// Operations in flight: each client sends its next one when the last is answered.
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(super) clients: u32,
    /// How long.
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) seconds: u64,
    /// Bytes of each value.
    #[arg(long, value_name = "B", default_value_t = 256)]
    pub(super) value_bytes: usize,
    /// What is measured.
    #[arg(long, value_enum, default_value = "put")]
    pub(super) op: BenchOp,
    /// How it travels.
    #[arg(long, value_enum, default_value = "unary")]
    pub(super) mode: BenchMode,
    #[command(flatten)]
    pub(super) consistency: ConsistencyArgs,
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) connect: ConnectArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}
