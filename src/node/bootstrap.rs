//! How a node comes to its cluster.
//!
//! A cluster begins without a leader: each of its first nodes gathers the same facts and computes
//! the same first state from them ([`decide`]). The facts are the (id, address, data directory) of
//! every node that was named, and a node begins a cluster only when **every** one of them answered
//! that it is in none and was told the same addresses, partitions and replication factor.
//!
//! # Why two clusters never serve
//!
//! 1. *An answer binds.* A data directory's [`Incarnation`](crate::placement::Incarnation) is on
//!    disk before the first introduction is answered, so whoever answers twice under one
//!    incarnation is the same directory, whatever crashed between.
//! 2. *A directory enters one cluster for ever.* The cluster is on disk before
//!    [`run`] returns, and nothing starts a group before that; a directory with a cluster never
//!    decides again.
//! 3. *Any two sets overlap in a majority.* All who begin a cluster begin it with the same set of
//!    addresses, so two different first states (possible only where a directory was wiped between
//!    two of its answers) have the same number of nodes at the same addresses. A majority of the
//!    one and a majority of the other share an address, whose node is, by 2, in one of them only:
//!    at most one of the two can ever elect a leader. The nodes of the other say so and wait.
//! 4. *A wiped node neither votes nor counts.* It finds its id in the cluster's first members
//!    under another incarnation, and so asks the meta group's leader to be let in as a new peer
//!    with new replicas. If no majority of the others is left, nobody lets it in, which is right:
//!    what was lost with its disk may have been the only other copy.
//!
//! # Crash points
//!
//! | crash after | the next start finds | and |
//! |---|---|---|
//! | creating the directory | no identity | draws one; nobody heard of the earlier |
//! | writing the identity | no cluster | decides again, with the same incarnation |
//! | some peers began the cluster | their introduction names this directory | adopts their genesis |
//! | writing the cluster | the cluster | goes on, asks nobody |
//! | being let in again, before writing it | no cluster | asks again; the answer is the same |
//!
//! A directory that has a cluster begins none and waits for nobody: members and their addresses
//! come from the meta group. It asks once, at the addresses of `--peers` and of the members it
//! began with, whether it is where its operator thinks it is ([`resume`]).

mod decision;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1::{
    self, cluster_service_client::ClusterServiceClient, peer_service_client::PeerServiceClient,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

pub(crate) use decision::{Answer, Decision, Own, Plan, Reason, Resumption, decide, resume};

use super::{
    identity::{Genesis, Identity, Membership},
    peers::{LocalHello, PROTOCOL_VERSION, PeerHello},
    serve::endpoint,
    tls::{Tls, status_story, whole_story},
};
use crate::{
    api::config::NetworkTuning,
    client::failure::is_about_tls,
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    placement::{ClusterId, Incarnation, MemberStatus, MetaState, NodeId},
    raft::PeerId,
    runtime::tasks::JoinSet,
};

/// The pause between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

/// How the node came to its cluster. Which one it is says its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was in one already.
    Resumed,
    /// It is one of the first members, and its groups begin at genesis.
    Founded,
    /// It takes the place of a lost directory; its groups begin empty and receive a snapshot.
    Rejoined,
}

/// How to reach others.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    /// Certificates, where connections are encrypted.
    pub(crate) tls: Option<Tls>,
    /// Time-outs.
    pub(crate) network: NetworkTuning,
}

impl Connector {
    fn channel(&self, address: &str) -> Result<Channel, String> {
        match endpoint(address, self.tls.as_ref(), &self.network) {
            Ok(endpoint) => Ok(endpoint.connect_lazy()),
            Err(error) => Err(whole_story(&error)),
        }
    }

    /// Time for one question and its answer, a connection included.
    fn patience(&self) -> Duration {
        self.network.connect_timeout * 2
    }
}

/// Brings the node into its cluster, however long that takes; `waiting` says for whom and why.
/// Meanwhile this node's own server has to answer introductions with `hello`, which is kept up to
/// date. What `identity` says afterwards is durable.
///
/// # Errors
/// Where no waiting helps: the data directory cannot be written, another node runs under this
/// one's id, or the cluster cannot begin as it was told. Nothing is served.
pub(crate) async fn run(
    identity: &mut Identity,
    plan: &Plan,
    hello: &LocalHello,
    connector: &Connector,
    waiting: &watch::Sender<Vec<String>>,
) -> Result<Outcome, ClusterError> {
    let outcome = match identity.membership() {
        Some(membership) => {
            let members = membership.first_state()?;
            let known = members.active().map(|(_, member)| member.address.as_str());
            let asked = plan.peers().iter().map(String::as_str).chain(known);
            come_back(identity, membership, plan, hello, connector, asked).await?;
            Outcome::Resumed
        }
        None => enter(identity, plan, hello, connector, waiting).await?,
    };
    hello.update(identity);
    tell(waiting, Vec::new());
    Ok(outcome)
}

/// Asks once, at these addresses, whether this directory still counts, runs nowhere else, and
/// belongs to the cluster of those it was told of. Silence is no objection.
///
/// # Errors
/// Where it must not run here.
pub(crate) async fn come_back(
    identity: &Identity,
    membership: &Membership,
    plan: &Plan,
    hello: &LocalHello,
    connector: &Connector,
    addresses: impl IntoIterator<Item = &str>,
) -> Result<(), ClusterError> {
    let own = Own { node_id: identity.node_id().clone(), incarnation: identity.incarnation() };
    let asked: BTreeSet<&str> = addresses.into_iter().filter(|address| *address != plan.address).collect();
    let answers = Rounds::new(asked, connector).ask_all(hello).await;
    match resume(&own, membership, plan, &answers) {
        Resumption::Go(doubts) => {
            for doubt in doubts {
                tracing::warn!("{doubt}");
            }
            Ok(())
        }
        Resumption::Refuse(reason) => Err(reason.into()),
    }
}

async fn enter(
    identity: &mut Identity,
    plan: &Plan,
    hello: &LocalHello,
    connector: &Connector,
    waiting: &watch::Sender<Vec<String>>,
) -> Result<Outcome, ClusterError> {
    let own = Own { node_id: identity.node_id().clone(), incarnation: identity.incarnation() };
    let mut rounds = Rounds::new(plan.peers().iter().map(String::as_str), connector);
    loop {
        let answers = rounds.ask_all(hello).await;
        let reasons = match decide(&own, plan, &answers) {
            Decision::Found(genesis) | Decision::Adopt(genesis) => {
                identity.found(genesis)?;
                return Ok(Outcome::Founded);
            }
            Decision::Rejoin(genesis) => match ask_to_join(&own, plan, &genesis, connector).await {
                Ok((peer, meta_state)) => {
                    identity.rejoin(genesis, peer, meta_state)?;
                    return Ok(Outcome::Rejoined);
                }
                Err(reason) if is_final(reason.code) => return Err(reason.into()),
                Err(reason) => vec![reason],
            },
            Decision::Wait(reasons) => reasons,
            Decision::Refuse(reason) => return Err(reason.into()),
        };
        tell(waiting, reasons.iter().map(ToString::to_string).collect());
        sleep(ROUND_PAUSE).await;
    }
}

/// Says for whom the node waits, once per change.
fn tell(waiting: &watch::Sender<Vec<String>>, reasons: Vec<String>) {
    waiting.send_if_modified(|told| {
        if *told == reasons {
            return false;
        }
        for reason in &reasons {
            tracing::warn!("waiting: {reason}");
        }
        *told = reasons;
        true
    });
}

/// Rounds of questions over the same channels.
struct Rounds<'a> {
    connector: &'a Connector,
    channels: BTreeMap<String, Result<Channel, String>>,
}

impl<'a> Rounds<'a> {
    fn new<'b>(addresses: impl IntoIterator<Item = &'b str>, connector: &'a Connector) -> Self {
        let channel = |address: &str| (address.to_owned(), connector.channel(address));
        let channels = addresses.into_iter().map(channel).collect();
        Self { connector, channels }
    }

    /// Asks every peer, all at once.
    async fn ask_all(&mut self, hello: &LocalHello) -> BTreeMap<String, Answer> {
        let mut questions = JoinSet::new();
        let mut answers = BTreeMap::new();
        for (address, channel) in &self.channels {
            let address = address.clone();
            match channel {
                Ok(channel) => {
                    let question = ask(channel.clone(), hello.current(), self.connector.patience());
                    questions.spawn(async move { (address, question.await) });
                }
                Err(reason) => {
                    answers.insert(address, Answer::Silent(reason.clone()));
                }
            }
        }
        while let Some(answered) = questions.join_next().await {
            // A question that was aborted has no answer: `decide` then waits for it.
            answers.extend(answered.ok());
        }
        answers
    }
}

async fn ask(channel: Channel, hello: v1::Hello, patience: Duration) -> Answer {
    let mut client = PeerServiceClient::new(channel);
    match timeout(patience, client.handshake(hello)).await {
        Ok(Ok(answer)) => match PeerHello::parse(answer.into_inner()) {
            Ok(hello) => Answer::Hello(hello),
            Err(error) => Answer::NotUnderstood(error),
        },
        Ok(Err(status)) => match refusal_code(&status) {
            Some(code) => {
                Answer::Refused(Reason::of(&ClusterError::from_wire(&code.to_string(), status.message())))
            }
            None if is_about_tls(&status) => {
                let what = format!("TLS with the node there fails: {}", status_story(&status));
                Answer::Refused(Reason::new(ErrorCode::Tls, what))
            }
            None => Answer::Silent(status_story(&status)),
        },
        Err(_) => Answer::Silent("it takes too long".into()),
    }
}

/// Asks the members, one after the other, to be let in under a new number. Any of them passes the
/// request on to the meta group's leader.
async fn ask_to_join(
    own: &Own,
    plan: &Plan,
    genesis: &Genesis,
    connector: &Connector,
) -> Result<(PeerId, Vec<u8>), Reason> {
    let cluster_id = genesis.state().map_err(|error| internal(&error))?.cluster_id;
    let listed = plan.peers().iter();
    let first = genesis.members.iter().filter(|member| member.node_id != own.node_id);
    let mut addresses: Vec<&str> = listed.map(String::as_str).collect();
    addresses.extend(first.map(|member| member.address.as_str()));
    addresses.dedup();
    let mut last = Reason::new(ErrorCode::PeersDown, "no member of the cluster is known by its address");
    for address in addresses {
        match ask_member(own, plan, cluster_id, address, connector).await {
            Ok(joined) => return Ok(joined),
            Err(reason) if is_final(reason.code) => return Err(reason),
            Err(reason) => last = reason,
        }
    }
    Err(last)
}

async fn ask_member(
    own: &Own,
    plan: &Plan,
    cluster_id: ClusterId,
    address: &str,
    connector: &Connector,
) -> Result<(PeerId, Vec<u8>), Reason> {
    let refused = |code, why: &str| {
        Reason::new(
            code,
            format!("the cluster does not let node {} in again at {address}: {why}", own.node_id),
        )
    };
    let channel = connector.channel(address).map_err(|why| refused(ErrorCode::Network, &why))?;
    let mut client = ClusterServiceClient::new(channel).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let request = join_request(&own.node_id, &plan.address, cluster_id, own.incarnation);
    let patience = connector.network.request_timeout + connector.patience();
    let response = match timeout(patience, client.join_cluster(request)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return Err(not_let_in(&status, |code, why| refused(code, why))),
        Err(_) => return Err(refused(ErrorCode::Unavailable, "it takes too long")),
    };
    let state = MetaState::decode(&response.meta_state)
        .map_err(|error| refused(ErrorCode::Internal, &error.to_string()))?;
    if state.cluster_id != cluster_id {
        return Err(refused(ErrorCode::PeerOfOtherCluster, "it is another cluster"));
    }
    match state.member_by_incarnation(own.incarnation) {
        Some((peer, member)) if member.status == MemberStatus::Active => {
            Ok((peer, response.meta_state.into()))
        }
        Some(_) => Err(refused(ErrorCode::Superseded, "this data directory was itself replaced")),
        None => Err(refused(ErrorCode::Internal, "its answer does not name this data directory")),
    }
}

/// What a node says that wants to be a member, or to be one at another address.
pub(crate) fn join_request(
    node_id: &NodeId,
    address: &str,
    cluster_id: ClusterId,
    incarnation: Incarnation,
) -> v1::JoinRequest {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    v1::JoinRequest {
        node: Some(v1::NodeId {
            id: node_id.0.clone(),
            address: host.to_owned(),
            port: port.parse().unwrap_or(0),
            ..v1::NodeId::default()
        }),
        cluster_id: cluster_id.to_string(),
        incarnation: Bytes::copy_from_slice(&incarnation.0),
        protocol_version: PROTOCOL_VERSION,
    }
}

/// Refusals that no waiting changes: another data directory has this node's place.
pub(crate) fn is_final(code: ErrorCode) -> bool {
    code == ErrorCode::NodeIdMismatch || code == ErrorCode::Superseded
}

/// The reason a member gave, or why it gave none.
fn not_let_in(status: &Status, refused: impl FnOnce(ErrorCode, &str) -> Reason) -> Reason {
    match refusal_code(status) {
        Some(code) => {
            let error = ClusterError::from_wire(&code.to_string(), status.message());
            if is_final(code) { Reason::of(&error) } else { refused(code, &error.what()) }
        }
        None => refused(ErrorCode::Unavailable, &status_story(status)),
    }
}

fn refusal_code(status: &Status) -> Option<ErrorCode> {
    let code = status.metadata().get(super::peers::ERROR_CODE_METADATA);
    code.and_then(|code| code.to_str().ok()).and_then(ErrorCode::from_text)
}

fn internal(error: &dyn std::error::Error) -> Reason {
    Reason::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests;
