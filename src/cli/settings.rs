//! What a node is started with: flags, then the environment, then a TOML file, then defaults.

use std::{
    fmt::Display,
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};

use super::{args::NodeArgs, connect::DEFAULT_ADDRESS};
use crate::{
    api::config::{ClusterConfig, LogTuning, NetworkTuning, RaftTuning, StoreTuning, TlsConfig, Tuning},
    error::{ClusterError, ErrorCode},
    placement::NodeId,
};

/// Everything a node needs to start, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) node_id: NodeId,
    /// As it was given: how others reach the node.
    pub(super) address: String,
    pub(super) listen: SocketAddr,
    pub(super) peers: Vec<String>,
    pub(super) data_dir: PathBuf,
    /// `None` where nothing was said.
    pub(super) partitions: Option<u32>,
    /// `None` where nothing was said.
    pub(super) replication_factor: Option<u32>,
    pub(super) tls: Option<TlsConfig>,
    pub(super) tuning: Tuning,
}

/// The file: the flags' names with underscores, and a table for each kind of tuning.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    node_id: Option<String>,
    address: Option<String>,
    peers: Option<Vec<String>>,
    data_dir: Option<PathBuf>,
    partitions: Option<u32>,
    replication_factor: Option<u32>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    raft: RaftTable,
    log: LogTable,
    store: StoreTable,
    network: NetworkTable,
}

/// A duration as people write it: "150ms", "2s".
#[derive(Clone, Copy, Debug)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|error| de::Error::custom(format!("{text:?} is no duration such as \"150ms\": {error}")))
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// A table whose entries replace the fields of the same names.
macro_rules! table {
    ($name:ident for $target:ty { $($field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct $name { $($field: Option<$kind>),* }

        impl $name {
            fn onto(self, tuning: &mut $target) {
                $(if let Some(value) = self.$field { tuning.$field = value.into(); })*
            }
        }
    };
}

table!(RaftTable for RaftTuning {
    heartbeat_interval: Span, election_timeout: Span, keep_bytes: u64,
});
table!(LogTable for LogTuning {
    segment_bytes: u64, cache_bytes: u64, disk_budget_bytes: u64,
    disk_reserve_bytes: u64, disk_full_poll_interval: Span,
});
table!(StoreTable for StoreTuning {
    cache_bytes: u64, write_buffer_bytes: u64, bloom_bits_per_key: u32, compaction_threads: usize,
    persist_interval: Span,
});
table!(NetworkTable for NetworkTuning {
    connect_timeout: Span, keep_alive_interval: Span, keep_alive_timeout: Span, reconnect_backoff_min: Span,
    reconnect_backoff_max: Span, request_timeout: Span, shutdown_timeout: Span,
});

impl Settings {
    /// Puts the settings together. `environment` looks up a variable.
    pub(super) fn gather(
        args: NodeArgs,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ClusterError> {
        // A variable that is set to nothing is not set.
        let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let file = match args.config.or_else(|| path("KOTOBA_CONFIG")) {
            Some(path) => File::read(&path)?,
            None => File::default(),
        };
        let node_id = args.node_id.or_else(|| variable("KOTOBA_NODE_ID")).or(file.node_id);
        let node_id =
            node_id.map(NodeId).ok_or_else(|| usage("--node-id is missing: a node needs a name"))?;
        if !node_id.is_valid() {
            return Err(usage(format!(
                "{:?} cannot be a node id: it has white space or a wrong length",
                node_id.0
            )));
        }
        let address = args.address.or_else(|| variable("KOTOBA_ADDRESS")).or(file.address);
        let address = address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let from_environment =
            || variable("KOTOBA_PEERS").map(|text| text.split(',').map(str::to_owned).collect());
        let peers = args.peers.or_else(from_environment).or(file.peers).unwrap_or_default();
        let data_dir = args.data_dir.or_else(|| path("KOTOBA_DATA_DIR")).or(file.data_dir);
        let partitions = number(args.partitions, &variable, "KOTOBA_PARTITIONS", file.partitions)?;
        let replication_factor =
            number(args.replication_factor, &variable, "KOTOBA_REPLICATION_FACTOR", file.replication_factor)?;
        let tls = TlsConfig::from_parts(
            args.tls.tls_cert.or_else(|| path("KOTOBA_TLS_CERT")).or(file.tls_cert),
            args.tls.tls_key.or_else(|| path("KOTOBA_TLS_KEY")).or(file.tls_key),
            args.tls.tls_ca.or_else(|| path("KOTOBA_TLS_CA")).or(file.tls_ca),
        )?;
        let mut tuning = Tuning::default();
        file.raft.onto(&mut tuning.raft);
        file.log.onto(&mut tuning.log);
        file.store.onto(&mut tuning.store);
        file.network.onto(&mut tuning.network);
        tuning.check()?;
        let settings = Self {
            listen: resolve(&address)?,
            peers: peers_of(peers, &address)?,
            data_dir: data_dir.unwrap_or_else(|| default_data_dir(&node_id)),
            node_id,
            address,
            partitions,
            replication_factor,
            tls,
            tuning,
        };
        settings.check_counts()?;
        Ok(settings)
    }

    fn check_counts(&self) -> Result<(), ClusterError> {
        let default = ClusterConfig::default();
        let or = |said: Option<u32>, default| said.map_or(default, |number| number as usize);
        let config = ClusterConfig {
            partition_count: or(self.partitions, default.partition_count),
            replication_factor: or(self.replication_factor, default.replication_factor),
            ..default
        };
        Ok(config.check()?)
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, ClusterError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ClusterError::new(ErrorCode::Configuration, format!("cannot read {}: {error}", path.display()))
        })?;
        toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            let what = format!("{}, in {} line {line}", error.message().trim(), path.display());
            ClusterError::new(ErrorCode::Configuration, what)
        })
    }
}

/// `./kotoba-data/NODE-ID`; a name that would leave that directory is put into one path component.
fn default_data_dir(node_id: &NodeId) -> PathBuf {
    let name: String = node_id.0.chars().map(|c| if matches!(c, '/' | '\\') { '_' } else { c }).collect();
    let name = if name.chars().all(|c| c == '.') { name.replace('.', "_") } else { name };
    Path::new("kotoba-data").join(name)
}

fn usage(what: impl Into<String>) -> ClusterError {
    ClusterError::new(ErrorCode::Usage, what)
}

fn number<T>(
    flag: Option<T>,
    variable: &impl Fn(&str) -> Option<String>,
    name: &str,
    file: Option<T>,
) -> Result<Option<T>, ClusterError>
where
    T: FromStr<Err: Display>,
{
    if flag.is_some() {
        return Ok(flag);
    }
    if let Some(text) = variable(name) {
        let wrong =
            |error| ClusterError::new(ErrorCode::Configuration, format!("{name} is {text:?}: {error}"));
        return text.trim().parse().map(Some).map_err(wrong);
    }
    Ok(file)
}

fn resolve(address: &str) -> Result<SocketAddr, ClusterError> {
    let wrong = |why: String| usage(format!("--address {address:?} cannot be used: {why}"));
    address
        .to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .next()
        .ok_or_else(|| wrong("the name has no address".into()))
}

/// The peers without white space, repetitions and this node itself.
fn peers_of(listed: Vec<String>, own: &str) -> Result<Vec<String>, ClusterError> {
    let mut peers: Vec<String> = Vec::new();
    for peer in listed {
        let peer = peer.trim();
        let port = peer.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if !port.is_some_and(|(host, port)| !host.is_empty() && port != 0) {
            return Err(usage(format!("--peers names {peer:?}, which is not of the form HOST:PORT")));
        }
        if peer != own && !peers.iter().any(|known| known == peer) {
            peers.push(peer.to_owned());
        }
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write as _};

    use super::*;

    fn gather(args: NodeArgs, environment: &[(&str, &str)]) -> Result<Settings, ClusterError> {
        let environment: BTreeMap<&str, &str> = environment.iter().copied().collect();
        Settings::gather(args, |name| environment.get(name).map(|value| (*value).to_owned()))
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn named(id: &str) -> NodeArgs {
        NodeArgs { node_id: Some(id.into()), ..NodeArgs::default() }
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = gather(named("n1"), &[]).unwrap();
        assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(settings.data_dir, Path::new("kotoba-data/n1"));
        assert_eq!((settings.partitions, settings.replication_factor), (None, None));
        assert_eq!(settings.tuning, Tuning::default());
        assert_eq!(gather(named(".."), &[]).unwrap().data_dir, Path::new("kotoba-data/__"));
    }

    #[test]
    fn a_flag_wins_over_the_environment_which_wins_over_the_file() {
        let file =
            file("node_id = \"file\"\naddress = \"127.0.0.1:3\"\npartitions = 3\nreplication_factor = 5\n");
        let path = file.path().to_str().unwrap();
        let mut args = NodeArgs { partitions: Some(1), ..NodeArgs::default() };
        let environment =
            [("KOTOBA_CONFIG", path), ("KOTOBA_PARTITIONS", "2"), ("KOTOBA_ADDRESS", "127.0.0.1:2")];
        let settings = gather(args.clone(), &environment).unwrap();
        assert_eq!(settings.node_id, NodeId("file".into()));
        assert_eq!(settings.listen.port(), 2);
        assert_eq!((settings.partitions, settings.replication_factor), (Some(1), Some(5)));
        args.partitions = None;
        assert_eq!(gather(args, &environment).unwrap().partitions, Some(2));
    }

    #[test]
    fn the_file_tunes_and_refuses_what_it_does_not_know() {
        let with = |text: &str| {
            let file = file(text);
            let args = NodeArgs { config: Some(file.path().to_owned()), ..named("n") };
            gather(args, &[])
        };
        let settings =
            with("[raft]\nelection_timeout = \"1s 500ms\"\n[log]\nsegment_bytes = 8388608\n").unwrap();
        assert_eq!(settings.tuning.raft.election_timeout, Duration::from_millis(1500));
        assert_eq!(settings.tuning.log.segment_bytes, 8 << 20);
        for (text, part) in [
            ("nodeid = \"x\"", "unknown field `nodeid`"),
            ("\n[raft]\nelection = \"1s\"", "line 3"),
            ("[raft]\nelection_timeout = 150", "line 2"),
            ("[raft]\nelection_timeout = \"soon\"", "no duration such as \"150ms\""),
            ("[raft]\nelection_timeout = \"10ms\"", "raft.election_timeout"),
            ("partitions = 0", "partition_count"),
            ("partitions = -1", "line 1"),
            ("peers = [\"nowhere\"]", "HOST:PORT"),
            ("tls_cert = \"a.pem\"", "tls"),
        ] {
            let error = with(text).unwrap_err();
            assert_eq!(error.code().exit_status().number(), 2, "{text}");
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(!error.what().contains('\n'), "one sentence: {error}");
        }
    }

    #[test]
    fn the_own_address_is_no_peer() {
        let peers = vec!["127.0.0.1:8080".into(), " h:1".into(), "h:1".into()];
        let settings = gather(NodeArgs { peers: Some(peers), ..named("n") }, &[]).unwrap();
        assert_eq!(settings.peers, ["h:1"]);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(gather(NodeArgs::default(), &[]).unwrap_err().to_string().contains("--node-id"));
        assert!(gather(named("a b"), &[]).unwrap_err().to_string().contains("a b"));
        let error = gather(named("n"), &[("KOTOBA_PARTITIONS", "many")]).unwrap_err();
        assert!(error.to_string().contains("KOTOBA_PARTITIONS"), "{error}");
        let args = NodeArgs { address: Some("127.0.0.1".into()), ..named("n") };
        assert_eq!(gather(args, &[]).unwrap_err().code(), ErrorCode::Usage);
    }
}
