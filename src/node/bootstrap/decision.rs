//! What a node that is in no cluster yet does about it: a pure function of what it knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    error::{ClusterError, ErrorCode},
    node::{
        identity::{Genesis, Membership},
        peers::{HelloError, PeerCluster, PeerHello},
    },
    placement::{ClusterId, GenesisMember, Incarnation, NodeId},
};

/// What the node's operator told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Where other nodes reach this one, `HOST:PORT`.
    pub(crate) address: String,
    /// The other nodes' addresses, sorted.
    peers: Vec<String>,
    /// Who is expected where, as far as that was told.
    expected: BTreeMap<String, NodeId>,
    /// Partitions of a cluster to begin.
    pub(crate) partition_count: u32,
    /// Replication factor of a cluster to begin.
    pub(crate) replication_factor: u32,
}

impl Plan {
    /// A cluster of the nodes at `address` (this one) and at `peers`, which may name this one, too.
    pub(crate) fn new(
        address: String,
        peers: impl IntoIterator<Item = String>,
        partition_count: u32,
        replication_factor: u32,
    ) -> Self {
        let peers: BTreeSet<String> = peers.into_iter().filter(|peer| *peer != address).collect();
        let peers = peers.into_iter().collect();
        Self { address, peers, expected: BTreeMap::new(), partition_count, replication_factor }
    }

    /// Also says who is expected at which address.
    #[must_use]
    pub(crate) fn expecting(mut self, nodes: impl IntoIterator<Item = (String, NodeId)>) -> Self {
        self.expected = nodes.into_iter().collect();
        self
    }

    /// The other nodes' addresses, sorted.
    pub(crate) fn peers(&self) -> &[String] {
        &self.peers
    }

    /// The addresses of all nodes, sorted: what has to be the same on each of them.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let mut addresses = self.peers.clone();
        addresses.push(self.address.clone());
        addresses.sort_unstable();
        addresses
    }
}

/// Who this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    /// Its name.
    pub(crate) node_id: NodeId,
    /// Its data directory.
    pub(crate) incarnation: Incarnation,
}

/// What came back from an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A node introduced itself.
    Hello(PeerHello),
    /// Something there is not understood.
    NotUnderstood(HelloError),
    /// A node does not talk to this one.
    Refused(Reason),
    /// Nobody answered, for this reason.
    Silent(String),
}

/// Why the node waits, or gives up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Which error it is, or would be.
    pub(crate) code: ErrorCode,
    /// What is the matter, and where.
    pub(crate) what: String,
}

impl Reason {
    pub(crate) fn new(code: ErrorCode, what: impl Into<String>) -> Self {
        Self { code, what: what.into() }
    }

    pub(crate) fn of(error: &ClusterError) -> Self {
        Self::new(error.code(), error.what())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ClusterError::from(self.clone()).report())
    }
}

impl From<Reason> for ClusterError {
    fn from(reason: Reason) -> Self {
        Self::new(reason.code, reason.what)
    }
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Begin this cluster: everybody needed agrees on it.
    Found(Genesis),
    /// A peer has begun this cluster already, with this node among its first members.
    Adopt(Genesis),
    /// This node was a member with another data directory: take the place of that one.
    Rejoin(Genesis),
    /// Ask again later.
    Wait(Vec<Reason>),
    /// No waiting helps.
    Refuse(Reason),
}

/// Decides. `answers` holds one answer for each of [`Plan::peers`].
pub(crate) fn decide(own: &Own, plan: &Plan, answers: &BTreeMap<String, Answer>) -> Decision {
    let hellos = || {
        answers.values().filter_map(|answer| match answer {
            Answer::Hello(hello) => Some(hello),
            Answer::NotUnderstood(_) | Answer::Refused(_) | Answer::Silent(_) => None,
        })
    };
    if let Some(twin) =
        hellos().find(|hello| hello.node_id == own.node_id && hello.incarnation != own.incarnation)
    {
        let what = format!("node {} is also running at {}", own.node_id, twin.address);
        return Decision::Refuse(Reason::new(ErrorCode::NodeIdMismatch, what));
    }
    let clusters: BTreeMap<ClusterId, &PeerCluster> =
        hellos().filter_map(|hello| hello.cluster.as_ref()).map(|c| (c.cluster_id, c)).collect();
    match clusters.len() {
        0 => {}
        1 => return enter(own, &clusters.into_values().next().expect("there is one").genesis),
        _ => {
            let names: Vec<_> = clusters.keys().map(ToString::to_string).collect();
            let what = format!("the peers are in different clusters: {}", names.join(", "));
            return Decision::Wait(vec![Reason::new(ErrorCode::PeerOfOtherCluster, what)]);
        }
    }
    let mut reasons = Vec::new();
    let mut members = vec![GenesisMember {
        node_id: own.node_id.clone(),
        address: plan.address.clone(),
        incarnation: own.incarnation,
    }];
    for address in &plan.peers {
        match accept(own, plan, address, answers.get(address)) {
            Ok(member) => members.push(member),
            Err(reason) => reasons.push(reason),
        }
    }
    if reasons.is_empty() { found(plan, members) } else { Decision::Wait(reasons) }
}

/// There is a cluster: is this node one of its first members, a wiped one of them, or a stranger?
fn enter(own: &Own, genesis: &Genesis) -> Decision {
    let Some(member) = genesis.members.iter().find(|member| member.node_id == own.node_id) else {
        let what = format!("node {} is not a member of the cluster its peers are in", own.node_id);
        return Decision::Wait(vec![Reason::new(ErrorCode::UnknownJoiner, what)]);
    };
    if member.incarnation == own.incarnation {
        Decision::Adopt(genesis.clone())
    } else {
        Decision::Rejoin(genesis.clone())
    }
}

/// The member that waits at an address, where it agrees with this node on everything.
fn accept(own: &Own, plan: &Plan, address: &str, answer: Option<&Answer>) -> Result<GenesisMember, Reason> {
    let hello = match answer {
        Some(Answer::Hello(hello)) => hello,
        Some(Answer::NotUnderstood(error)) => {
            return Err(Reason::new(
                error.code(),
                format!("the node at {address} is not understood: {error}"),
            ));
        }
        Some(Answer::Refused(reason)) => return Err(reason.clone()),
        Some(Answer::Silent(why)) => {
            return Err(Reason::new(ErrorCode::PeersDown, format!("nobody answers at {address} ({why})")));
        }
        None => return Err(Reason::new(ErrorCode::PeersDown, format!("nobody was asked at {address}"))),
    };
    let node = &hello.node_id;
    let differs = |what: String| Err(Reason::new(ErrorCode::BootstrapMismatch, what));
    if hello.incarnation == own.incarnation {
        return differs(format!("{address} is this node itself, which is started at {}", plan.address));
    }
    if let Some(expected) = plan.expected.get(address).filter(|expected| *expected != node) {
        let what = format!("node {node} answers at {address}, where {expected} is expected");
        return Err(Reason::new(ErrorCode::NodeIdMismatch, what));
    }
    if hello.address != address {
        return differs(format!("node {node} at {address} says it is reached at {}", hello.address));
    }
    if hello.addresses != plan.addresses() {
        return differs(format!(
            "node {node} at {address} was started with the addresses {}, this node with {}",
            hello.addresses.join(","),
            plan.addresses().join(",")
        ));
    }
    if hello.partition_count != plan.partition_count {
        let (theirs, ours) = (hello.partition_count, plan.partition_count);
        return differs(format!(
            "node {node} at {address} was started with {theirs} partitions, this node with {ours}"
        ));
    }
    if hello.replication_factor != plan.replication_factor {
        let (theirs, ours) = (hello.replication_factor, plan.replication_factor);
        return differs(format!(
            "node {node} at {address} was started with replication factor {theirs}, this node with {ours}"
        ));
    }
    Ok(GenesisMember { node_id: node.clone(), address: address.to_owned(), incarnation: hello.incarnation })
}

fn found(plan: &Plan, mut members: Vec<GenesisMember>) -> Decision {
    members.sort_unstable();
    let genesis = Genesis {
        members,
        partition_count: plan.partition_count,
        replication_factor: plan.replication_factor,
    };
    match genesis.state() {
        Ok(_) => Decision::Found(genesis),
        Err(error) => {
            let error = ClusterError::from(error);
            Decision::Refuse(Reason::new(error.code(), error.what()))
        }
    }
}

/// What a node that is in a cluster already does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// Go on; these things are odd, and said.
    Go(Vec<Reason>),
    /// This directory must not run here.
    Refuse(Reason),
}

/// Decides whether a directory with a cluster goes on. `answers` are those of the plan's peers and
/// of the members that the directory began with, as far as they were asked.
pub(crate) fn resume(
    own: &Own,
    membership: &Membership,
    plan: &Plan,
    answers: &BTreeMap<String, Answer>,
) -> Resumption {
    let mut others: BTreeMap<&str, ClusterId> = BTreeMap::new();
    let mut any_of_ours = false;
    for (address, answer) in answers {
        let hello = match answer {
            Answer::Hello(hello) => hello,
            Answer::Refused(reason) if reason.code == ErrorCode::Superseded => {
                return Resumption::Refuse(replaced(own, address));
            }
            Answer::Refused(_) | Answer::NotUnderstood(_) | Answer::Silent(_) => continue,
        };
        if hello.incarnation == own.incarnation && hello.address != plan.address {
            let what = format!("a copy of this data directory of node {} runs at {address}", own.node_id);
            return Resumption::Refuse(Reason::new(ErrorCode::NodeIdMismatch, what));
        }
        let Some(cluster) = &hello.cluster else { continue };
        if cluster.cluster_id != membership.cluster_id {
            others.insert(address, cluster.cluster_id);
            continue;
        }
        // Numbers rise: the directory with the larger one took the place of the other.
        if hello.node_id == own.node_id && cluster.peer > membership.peer {
            return Resumption::Refuse(replaced(own, address));
        }
        any_of_ours = true;
    }
    others.retain(|address, _| plan.peers.iter().any(|peer| peer == address));
    let ours = membership.cluster_id;
    match others.first_key_value() {
        Some((address, theirs)) if !any_of_ours => {
            let what =
                format!("the data directory belongs to cluster {ours}, the node at {address} to {theirs}");
            Resumption::Refuse(Reason::new(ErrorCode::DataDirOfOtherCluster, what))
        }
        Some(_) | None => {
            let odd = |(address, theirs): (&&str, &ClusterId)| {
                let what = format!("the node at {address} is in cluster {theirs}, this node in {ours}");
                Reason::new(ErrorCode::PeerOfOtherCluster, what)
            };
            Resumption::Go(others.iter().map(odd).collect())
        }
    }
}

fn replaced(own: &Own, address: &str) -> Reason {
    let what = format!(
        "this data directory of node {} was replaced by a newer one, says the node at {address}",
        own.node_id
    );
    Reason::new(ErrorCode::Superseded, what)
}

#[cfg(test)]
mod tests;
