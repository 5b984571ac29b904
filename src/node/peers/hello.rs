//! How nodes introduce themselves, and who is refused.

use std::{
    fmt,
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use thiserror::Error;
use tonic::{Code, Status, metadata::MetadataValue};

use crate::{
    error::{ClusterError, ErrorCode},
    node::identity::{Genesis, Identity},
    placement::{ClusterId, GenesisMember, Incarnation, NodeId},
    raft::PeerId,
};

/// The version of what nodes say to each other. Nodes of different versions do not talk.
pub(crate) const PROTOCOL_VERSION: u32 = 1;
/// Metadata of a refused call: the code of its error, `KDB-0012`.
pub(crate) const ERROR_CODE_METADATA: &str = "kdb-error-code";

/// What this node says of itself. Shared, because it changes once: when there is a cluster.
#[derive(Clone, Debug)]
pub(crate) struct LocalHello(Arc<RwLock<v1::Hello>>);

impl LocalHello {
    /// The introduction of a node that was told to begin a cluster at these addresses, its own
    /// included. `identity` must be durable by now: peers will hold the node to it.
    pub(crate) fn new(
        identity: &Identity,
        address: String,
        addresses: Vec<String>,
        partition_count: u32,
        replication_factor: u32,
    ) -> Self {
        let mut hello = v1::Hello {
            protocol_version: PROTOCOL_VERSION,
            node_id: identity.node_id().0.clone(),
            address,
            incarnation: Bytes::copy_from_slice(&identity.incarnation().0),
            peers: addresses,
            partition_count,
            replication_factor,
            ..v1::Hello::default()
        };
        tell_membership(&mut hello, identity);
        Self(Arc::new(RwLock::new(hello)))
    }

    /// Says from now on which cluster the node belongs to, where its identity has one.
    pub(crate) fn update(&self, identity: &Identity) {
        tell_membership(&mut self.0.write().expect("no holder of this lock panics"), identity);
    }

    /// The introduction as it is now.
    pub(crate) fn current(&self) -> v1::Hello {
        self.0.read().expect("no holder of this lock panics").clone()
    }

    /// What a member needs to be recognised by, and no more.
    pub(super) fn brief(&self) -> v1::Hello {
        v1::Hello { peers: Vec::new(), genesis: Vec::new(), ..self.current() }
    }
}

fn tell_membership(hello: &mut v1::Hello, identity: &Identity) {
    let Some(membership) = identity.membership() else { return };
    let genesis = &membership.genesis;
    hello.cluster_id = membership.cluster_id.to_string();
    hello.peer = membership.peer.0;
    hello.partition_count = genesis.partition_count;
    hello.replication_factor = genesis.replication_factor;
    hello.genesis = genesis.members.iter().map(member_to_wire).collect();
}

fn member_to_wire(member: &GenesisMember) -> v1::GenesisMember {
    v1::GenesisMember {
        node_id: member.node_id.0.clone(),
        address: member.address.clone(),
        incarnation: Bytes::copy_from_slice(&member.incarnation.0),
    }
}

/// What another node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerHello {
    /// Its name.
    pub(crate) node_id: NodeId,
    /// Where others reach it.
    pub(crate) address: String,
    /// Its data directory.
    pub(crate) incarnation: Incarnation,
    /// Where it was told to begin a cluster, sorted.
    pub(crate) addresses: Vec<String>,
    /// How many partitions it was told, or its cluster has.
    pub(crate) partition_count: u32,
    /// The replication factor it was told, or its cluster has.
    pub(crate) replication_factor: u32,
    /// Its cluster; `None` before bootstrap.
    pub(crate) cluster: Option<PeerCluster>,
}

/// The cluster another node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerCluster {
    /// The cluster.
    pub(crate) cluster_id: ClusterId,
    /// The node's number in it.
    pub(crate) peer: PeerId,
    /// What it began as; checked against the cluster's id.
    pub(crate) genesis: Genesis,
}

/// Why an introduction is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum HelloError {
    /// The other node speaks another version.
    #[error("it speaks protocol version {theirs}, this node {PROTOCOL_VERSION}")]
    Version { theirs: u32 },
    /// A part is missing or malformed.
    #[error("its introduction is not well formed: {0}")]
    Malformed(&'static str),
}

impl HelloError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Version { .. } => ErrorCode::ProtocolVersion,
            Self::Malformed(_) => ErrorCode::Network,
        }
    }
}

impl PeerHello {
    /// Checks an introduction. The version is looked at first: nothing else need be as expected
    /// where it differs.
    ///
    /// # Errors
    /// Where it is not understood.
    pub(crate) fn parse(hello: v1::Hello) -> Result<Self, HelloError> {
        if hello.protocol_version != PROTOCOL_VERSION {
            return Err(HelloError::Version { theirs: hello.protocol_version });
        }
        let node_id = NodeId(hello.node_id);
        if !node_id.is_valid() {
            return Err(HelloError::Malformed("node id"));
        }
        let incarnation = incarnation(&hello.incarnation)?;
        let cluster = match hello.cluster_id.as_str() {
            "" => None,
            id => {
                let genesis = Genesis {
                    members: hello.genesis.into_iter().map(member_from_wire).collect::<Result<_, _>>()?,
                    partition_count: hello.partition_count,
                    replication_factor: hello.replication_factor,
                };
                Some(PeerCluster::check(id, hello.peer, genesis)?)
            }
        };
        Ok(Self {
            node_id,
            address: hello.address,
            incarnation,
            addresses: hello.peers,
            partition_count: hello.partition_count,
            replication_factor: hello.replication_factor,
            cluster,
        })
    }
}

impl PeerCluster {
    fn check(id: &str, peer: u64, genesis: Genesis) -> Result<Self, HelloError> {
        let cluster_id = ClusterId::from_hex(id).ok_or(HelloError::Malformed("cluster id"))?;
        let state = genesis.state().map_err(|_| HelloError::Malformed("first members"))?;
        if state.cluster_id != cluster_id {
            return Err(HelloError::Malformed("first members of another cluster"));
        }
        if peer == 0 {
            return Err(HelloError::Malformed("peer number"));
        }
        Ok(Self { cluster_id, peer: PeerId(peer), genesis })
    }
}

fn member_from_wire(member: v1::GenesisMember) -> Result<GenesisMember, HelloError> {
    Ok(GenesisMember {
        node_id: NodeId(member.node_id),
        address: member.address,
        incarnation: incarnation(&member.incarnation)?,
    })
}

fn incarnation(bytes: &Bytes) -> Result<Incarnation, HelloError> {
    bytes.as_ref().try_into().map(Incarnation).map_err(|_| HelloError::Malformed("incarnation"))
}

/// A member of the cluster, as the meta group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerRecord {
    /// Its number.
    pub(crate) peer: PeerId,
    /// Its name.
    pub(crate) node_id: NodeId,
    /// Where it is reached, `HOST:PORT`.
    pub(crate) address: String,
    /// Its data directory.
    pub(crate) incarnation: Incarnation,
}

/// What a peer number stands for, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known<'a> {
    /// A member that counts.
    Member(&'a PeerRecord),
    /// A data directory that a newer one of its node replaced.
    Replaced(Incarnation),
    /// Nothing yet: a number that was given out since this node last heard of the meta group.
    Nothing,
}

/// Why a node is not talked to. Nothing changed; it may try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HelloRefusal {
    /// Which error.
    pub(crate) code: ErrorCode,
    /// What is wrong with whom.
    pub(crate) what: String,
}

impl HelloRefusal {
    pub(crate) fn new(code: ErrorCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    /// The status a refused call is answered with.
    pub(crate) fn status(&self) -> Status {
        let error = ClusterError::from(self.clone());
        let mut status = Status::new(Code::from(self.code.grpc_code() as i32), error.to_string());
        if let Ok(code) = MetadataValue::try_from(self.code.to_string()) {
            status.metadata_mut().insert(ERROR_CODE_METADATA, code);
        }
        status
    }
}

impl From<HelloRefusal> for ClusterError {
    fn from(refusal: HelloRefusal) -> Self {
        Self::new(refusal.code, refusal.what)
    }
}

impl fmt::Display for HelloRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Who is on the other end of a stream: the member that `hello` says it is, and nobody else.
///
/// # Errors
/// Why it is refused.
pub(crate) fn recognise<'a>(
    hello: &v1::Hello,
    cluster_id: ClusterId,
    known: impl FnOnce(PeerId) -> Known<'a>,
) -> Result<&'a PeerRecord, HelloRefusal> {
    let named = format!("node {} at {}", shown(&hello.node_id), shown(&hello.address));
    let refuse = |error: HelloError| HelloRefusal::new(error.code(), format!("{named} is refused: {error}"));
    if hello.protocol_version != PROTOCOL_VERSION {
        return Err(refuse(HelloError::Version { theirs: hello.protocol_version }));
    }
    let incarnation = incarnation(&hello.incarnation).map_err(refuse)?;
    if hello.cluster_id.is_empty() {
        return Err(HelloRefusal::new(ErrorCode::Unavailable, format!("{named} is in no cluster yet")));
    }
    if ClusterId::from_hex(&hello.cluster_id) != Some(cluster_id) {
        let theirs = shown(&hello.cluster_id);
        let what = format!("{named} is in cluster {theirs}, this node in {cluster_id}");
        return Err(HelloRefusal::new(ErrorCode::PeerOfOtherCluster, what));
    }
    let record = match known(PeerId(hello.peer)) {
        Known::Member(record) => record,
        Known::Replaced(replaced) if replaced == incarnation => {
            let what = format!("{named} is peer {}, whose data directory was replaced", hello.peer);
            return Err(HelloRefusal::new(ErrorCode::Superseded, what));
        }
        Known::Replaced(_) => {
            let what = format!("{named} says it is peer {}, which had another data directory", hello.peer);
            return Err(HelloRefusal::new(ErrorCode::NodeIdMismatch, what));
        }
        Known::Nothing => {
            let what = format!("{named} says it is peer {}, which is not known here yet", hello.peer);
            return Err(HelloRefusal::new(ErrorCode::Unavailable, what));
        }
    };
    if record.node_id.0 != hello.node_id || record.incarnation != incarnation {
        let what = format!(
            "{named} with data directory {incarnation} says it is peer {}, which is node {} with {}",
            hello.peer, record.node_id, record.incarnation
        );
        return Err(HelloRefusal::new(ErrorCode::NodeIdMismatch, what));
    }
    Ok(record)
}

/// A text that a remote chose, fit for a line of a log.
fn shown(text: &str) -> String {
    text.chars().take(100).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests;
