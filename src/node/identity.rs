//! Who a data directory belongs to.
//!
//! `identity.json` is the first file of a data directory. It holds the node's name, the
//! directory's [`Incarnation`] (random bytes, drawn once) and, as soon as there is a cluster, what
//! the cluster began as. It is replaced as a whole: written under another name, flushed, renamed
//! over the old one, and the directory flushed, so that a crash leaves the old or the new file.
//!
//! Two promises hang on it. The incarnation is durable before anybody hears of it, so that a name
//! once answered stands for this directory and no other; and the cluster is durable before a group
//! starts, so that a node that may have voted never bootstraps again.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    error::{ClusterError, ErrorCode},
    placement::{ClusterId, DecodeError, GenesisError, GenesisMember, Incarnation, MetaState, NodeId},
    raft::PeerId,
    runtime::{
        fs::{self, File},
        random,
    },
};

const FILE: &str = "identity.json";
const TEMPORARY: &str = "identity.json.new";
/// The log's directory: where it exists, the identity must.
const LOG: &str = "wal";
const FORMAT: u32 = 1;

/// What a cluster began as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Genesis {
    /// Its first members, sorted.
    pub(crate) members: Vec<GenesisMember>,
    /// Its partitions.
    pub(crate) partition_count: u32,
    /// Replicas a partition should have.
    pub(crate) replication_factor: u32,
}

impl Genesis {
    /// The meta group's first state.
    ///
    /// # Errors
    /// Where no cluster can begin like this.
    pub(crate) fn state(&self) -> Result<MetaState, GenesisError> {
        MetaState::genesis(&self.members, self.partition_count, self.replication_factor)
    }
}

/// How this directory came to its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is one of the first members.
    Founder,
    /// It took the place of a lost directory: the meta group's state (encoded) as it was then.
    /// Until the meta group's log has arrived here, this tells who the peers are.
    Rejoined { meta_state: Vec<u8> },
}

/// The cluster a directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The cluster.
    pub(crate) cluster_id: ClusterId,
    /// This directory's number in it.
    pub(crate) peer: PeerId,
    /// What the cluster began as.
    pub(crate) genesis: Genesis,
    /// How the directory came to it.
    pub(crate) origin: Origin,
}

impl Membership {
    /// The meta group's state to begin with, until its log tells a later one.
    ///
    /// # Errors
    /// Where what is on disk makes none.
    pub(crate) fn first_state(&self) -> Result<MetaState, IdentityError> {
        match &self.origin {
            Origin::Founder => Ok(self.genesis.state()?),
            Origin::Rejoined { meta_state } => Ok(MetaState::decode(meta_state)?),
        }
    }
}

/// Why a data directory cannot be used. Nothing in it was changed.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    /// Another node's.
    #[error("{} belongs to node {found}, not to {wanted}", dir.display())]
    OtherNode { dir: PathBuf, found: NodeId, wanted: NodeId },
    /// It is a member of another cluster already.
    #[error("{} belongs to cluster {found}, not to {wanted}", dir.display())]
    OtherCluster { dir: PathBuf, found: ClusterId, wanted: ClusterId },
    /// Written by another version of the program.
    #[error("{} has format {found}, this program reads format {FORMAT}", path.display())]
    Version { path: PathBuf, found: u32 },
    /// The file is not what was written.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// The directory has a log, but nothing says whose it is.
    #[error("{} has a log but no {FILE}", dir.display())]
    LogWithoutIdentity { dir: PathBuf },
    /// The operating system refused.
    #[error("cannot {what} {}: {error}", path.display())]
    Unwritable { what: &'static str, path: PathBuf, error: io::Error },
    /// No cluster can begin like this.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// The state it began with is not readable.
    #[error("the meta group's state in {FILE} is not readable: {0}")]
    MetaState(#[from] DecodeError),
}

impl From<IdentityError> for ClusterError {
    fn from(error: IdentityError) -> Self {
        let code = match error {
            IdentityError::OtherNode { .. } => ErrorCode::DataDirOfOtherNode,
            IdentityError::OtherCluster { .. } => ErrorCode::DataDirOfOtherCluster,
            IdentityError::Version { .. } => ErrorCode::DataDirVersion,
            IdentityError::Damaged { .. }
            | IdentityError::LogWithoutIdentity { .. }
            | IdentityError::MetaState(_) => ErrorCode::DataDirDamaged,
            IdentityError::Unwritable { .. } => ErrorCode::DataDirUnwritable,
            IdentityError::Genesis(error) => return error.into(),
        };
        Self::new(code, error.to_string())
    }
}

/// The identity of an open data directory.
#[derive(Debug)]
pub(crate) struct Identity {
    dir: PathBuf,
    node_id: NodeId,
    incarnation: Incarnation,
    membership: Option<Membership>,
}

impl Identity {
    /// Opens the directory of a node, or begins it. What it returns is durable.
    ///
    /// # Errors
    /// Where the directory is not this node's, not readable, not writable, or damaged.
    pub(crate) fn open(dir: &Path, node_id: &NodeId) -> Result<Self, IdentityError> {
        create_dir(dir)?;
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::load(dir, &path, &bytes, node_id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::begin(dir, node_id),
            Err(error) => Err(IdentityError::Unwritable { what: "read", path, error }),
        }
    }

    /// The node's name.
    pub(crate) fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// The directory's own random bytes; also fit to name its log.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The cluster it belongs to; `None` before bootstrap.
    pub(crate) fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// Makes this directory one of the first members of a cluster, durably. Repeating it changes
    /// nothing.
    ///
    /// # Errors
    /// Where it belongs to another cluster, is not among the members, or cannot be written. Unless
    /// the write itself failed, nothing was changed; after a failed write the next open tells.
    pub(crate) fn found(&mut self, genesis: Genesis) -> Result<&Membership, IdentityError> {
        let state = genesis.state()?;
        let peer = state.member_by_incarnation(self.incarnation).map(|(peer, _)| peer).ok_or_else(|| {
            self.damaged(format!("{} is not among the members of the cluster", self.incarnation))
        })?;
        self.join(Membership { cluster_id: state.cluster_id, peer, genesis, origin: Origin::Founder })
    }

    /// Makes this directory the successor of a lost one, durably. Repeating it with a later meta
    /// state keeps the first.
    ///
    /// # Errors
    /// Where it belongs to another cluster or cannot be written.
    pub(crate) fn rejoin(
        &mut self,
        genesis: Genesis,
        peer: PeerId,
        meta_state: Vec<u8>,
    ) -> Result<&Membership, IdentityError> {
        let cluster_id = genesis.state()?.cluster_id;
        self.join(Membership { cluster_id, peer, genesis, origin: Origin::Rejoined { meta_state } })
    }

    fn join(&mut self, membership: Membership) -> Result<&Membership, IdentityError> {
        match &self.membership {
            Some(present) if present.cluster_id != membership.cluster_id => {
                return Err(IdentityError::OtherCluster {
                    dir: self.dir.clone(),
                    found: present.cluster_id,
                    wanted: membership.cluster_id,
                });
            }
            Some(_) => {}
            None => {
                write(&self.dir, &self.record(Some(&membership)))?;
                self.membership = Some(membership);
            }
        }
        Ok(self.membership.as_ref().expect("just set, or present before"))
    }

    fn begin(dir: &Path, node_id: &NodeId) -> Result<Self, IdentityError> {
        let log = dir.join(LOG);
        let unreadable = |error| IdentityError::Unwritable { what: "read", path: log.clone(), error };
        if fs::exists(&log).map_err(unreadable)? {
            return Err(IdentityError::LogWithoutIdentity { dir: dir.into() });
        }
        let mut bytes = [0; 16];
        random::fill(&mut bytes).map_err(|error| IdentityError::Unwritable {
            what: "draw random bytes for",
            path: dir.into(),
            error: io::Error::other(error),
        })?;
        let identity = Self {
            dir: dir.into(),
            node_id: node_id.clone(),
            incarnation: Incarnation(bytes),
            membership: None,
        };
        write(dir, &identity.record(None))?;
        Ok(identity)
    }

    fn load(dir: &Path, path: &Path, bytes: &[u8], wanted: &NodeId) -> Result<Self, IdentityError> {
        let record = Record::parse(path, bytes)?;
        let damaged = |problem: &str| IdentityError::Damaged { path: path.into(), problem: problem.into() };
        let node_id = NodeId(record.node_id);
        if node_id != *wanted {
            return Err(IdentityError::OtherNode { dir: dir.into(), found: node_id, wanted: wanted.clone() });
        }
        let incarnation =
            Incarnation::from_hex(&record.incarnation).ok_or_else(|| damaged("malformed incarnation"))?;
        let membership = record
            .membership
            .map(|membership| membership.parse().ok_or_else(|| damaged("malformed membership")))
            .transpose()?;
        Ok(Self { dir: dir.into(), node_id, incarnation, membership })
    }

    fn record(&self, membership: Option<&Membership>) -> Record {
        Record {
            node_id: self.node_id.0.clone(),
            incarnation: self.incarnation.to_string(),
            membership: membership.map(MembershipRecord::of),
        }
    }

    fn damaged(&self, problem: String) -> IdentityError {
        IdentityError::Damaged { path: self.dir.join(FILE), problem }
    }
}

/// The file: `crc32` is that of `identity` in compact JSON, so that white space does not count.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    crc32: u32,
    identity: Record,
}

/// All that a file of any format has in common.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    node_id: String,
    incarnation: String,
    membership: Option<MembershipRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MembershipRecord {
    cluster_id: String,
    peer: u64,
    partition_count: u32,
    replication_factor: u32,
    members: Vec<MemberRecord>,
    /// Base64; present where the directory took the place of a lost one.
    meta_state: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberRecord {
    node_id: String,
    address: String,
    incarnation: String,
}

impl Record {
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, IdentityError> {
        let damaged = |problem: String| IdentityError::Damaged { path: path.into(), problem };
        let probe: AnyFormat = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if probe.format != FORMAT {
            return Err(IdentityError::Version { path: path.into(), found: probe.format });
        }
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if envelope.identity.crc32() != envelope.crc32 {
            return Err(damaged("its checksum does not match".into()));
        }
        Ok(envelope.identity)
    }

    fn crc32(&self) -> u32 {
        let compact = serde_json::to_vec(self).expect("texts and numbers always become JSON");
        crc32fast::hash(&compact)
    }
}

impl MembershipRecord {
    fn of(membership: &Membership) -> Self {
        let Membership { cluster_id, peer, genesis, origin } = membership;
        let member = |member: &GenesisMember| MemberRecord {
            node_id: member.node_id.0.clone(),
            address: member.address.clone(),
            incarnation: member.incarnation.to_string(),
        };
        Self {
            cluster_id: cluster_id.to_string(),
            peer: peer.0,
            partition_count: genesis.partition_count,
            replication_factor: genesis.replication_factor,
            members: genesis.members.iter().map(member).collect(),
            meta_state: match origin {
                Origin::Founder => None,
                Origin::Rejoined { meta_state } => Some(BASE64.encode(meta_state)),
            },
        }
    }

    fn parse(self) -> Option<Membership> {
        let member = |member: MemberRecord| {
            Some(GenesisMember {
                node_id: NodeId(member.node_id),
                address: member.address,
                incarnation: Incarnation::from_hex(&member.incarnation)?,
            })
        };
        Some(Membership {
            cluster_id: ClusterId::from_hex(&self.cluster_id)?,
            peer: PeerId(self.peer),
            genesis: Genesis {
                members: self.members.into_iter().map(member).collect::<Option<_>>()?,
                partition_count: self.partition_count,
                replication_factor: self.replication_factor,
            },
            origin: match self.meta_state {
                None => Origin::Founder,
                Some(text) => Origin::Rejoined { meta_state: BASE64.decode(text.as_bytes()).ok()? },
            },
        })
    }
}

fn create_dir(dir: &Path) -> Result<(), IdentityError> {
    let unwritable = |error| IdentityError::Unwritable { what: "create", path: dir.into(), error };
    fs::create_dir_all(dir).map_err(unwritable)?;
    // The directory's own name must survive a crash, too, whoever created it.
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_dir(parent).map_err(unwritable),
        None => Ok(()),
    }
}

fn write(dir: &Path, record: &Record) -> Result<(), IdentityError> {
    let path = dir.join(FILE);
    let unwritable = |error| IdentityError::Unwritable { what: "write", path: path.clone(), error };
    replace(dir, &path, record).map_err(unwritable)
}

fn replace(dir: &Path, path: &Path, record: &Record) -> io::Result<()> {
    let envelope = EnvelopeRef { format: FORMAT, crc32: record.crc32(), identity: record };
    let mut json = serde_json::to_vec_pretty(&envelope)?;
    json.push(b'\n');
    let temporary = dir.join(TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(&json)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(dir)
}

#[derive(Serialize)]
struct EnvelopeRef<'a> {
    format: u32,
    crc32: u32,
    identity: &'a Record,
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
