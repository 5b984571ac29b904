//! Who the members are: the configuration, and nodes that come back with an empty disk.

use std::time::Duration;

use kotoba_db_cluster_proto::v1;
use tokio::time::sleep;
use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
};

use super::{Services, errors};
use crate::{
    error::{ClusterError, ErrorCode},
    node::{
        bootstrap::{is_final, join_request},
        coordinator::{Route, Routing},
        handle::{AppliedOutcome, NodeHandle, RequestError},
        identity::{Identity, Membership},
        peers::PROTOCOL_VERSION,
    },
    placement::{
        ClusterId, Incarnation, MemberStatus, MetaCommand, MetaOutcome, MetaRefusal, MetaState, NodeId,
        PartitionId,
    },
    raft::{GroupId, PeerId},
    runtime::net,
};

/// Metadata of a request that a node passed on, and that is not passed on again.
const FORWARDED_KEY: &str = "kdb-forwarded";

/// How a request came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// From whoever made it.
    First,
    /// From a node that passed it on.
    PassedOn,
}

impl Hop {
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        if metadata.contains_key(FORWARDED_KEY) { Self::PassedOn } else { Self::First }
    }
}

impl Services {
    pub(super) fn cluster_config(&self) -> Result<v1::ClusterConfig, ClusterError> {
        Ok(config_of(&self.serving()?.coordinator.routing))
    }

    /// Lets a node back in that lost its disk: under its old name, as a new member with new
    /// replicas. Its old replicas' votes and acknowledgements died with the disk, so it must not
    /// pass for them. A member that moved to another address makes it known in the same way.
    pub(crate) async fn do_join(
        &self,
        request: v1::JoinRequest,
        hop: Hop,
    ) -> Result<v1::JoinResponse, ClusterError> {
        let serving = self.serving()?;
        let (routing, handle) = (&serving.coordinator.routing, &serving.coordinator.handle);
        if request.incarnation.is_empty() && request.cluster_id.is_empty() {
            return asked_by_name(routing, &request);
        }
        let joiner = Joiner::parse(&request)?;
        joiner.check_cluster(&handle.meta())?;
        match joiner.standing(&handle.meta())? {
            Standing::Member => return Ok(joined(routing)),
            // What this node has not applied yet the meta group's leader may have.
            Standing::Unknown | Standing::Replacement(_) | Standing::Moved(_) => {}
        }
        match routing.route(GroupId::META, 0) {
            Route::Here => {
                self.settle(&joiner).await?;
                Ok(joined(routing))
            }
            Route::Peer(peer) if hop == Hop::First => self.pass_join_on(peer, request).await,
            Route::Peer(_) | Route::Nobody => Err(ClusterError::new(
                ErrorCode::NoLeader,
                format!("node {} cannot join now: nobody leads the meta group", joiner.node),
            )),
        }
    }

    async fn pass_join_on(
        &self,
        peer: PeerId,
        request: v1::JoinRequest,
    ) -> Result<v1::JoinResponse, ClusterError> {
        let coordinator = &self.serving()?.coordinator;
        let address = coordinator.routing.address(peer).ok_or(ClusterError::NoLeader)?;
        let mut client = coordinator.channels.cluster(&address)?;
        let call = |mut request: Request<_>| async move {
            request.metadata_mut().insert(FORWARDED_KEY, MetadataValue::from_static("1"));
            client.join_cluster(request).await
        };
        let answer = net::within(coordinator.deadline, request, call).await;
        answer.map(tonic::Response::into_inner).map_err(|status| errors::of_status(&status))
    }

    /// Does in the meta group, which this node leads, what lets a joiner in.
    async fn settle(&self, joiner: &Joiner) -> Result<(), ClusterError> {
        let handle = &self.serving()?.coordinator.handle;
        // One at a time: of two that want the same place the second finds the first in it.
        let _turn = self.0.settling.lock().await;
        // A leader answers for the members only after a round: else an unknown name would be
        // refused by a state that is merely old.
        let what = |error: &RequestError| format!("node {} cannot join now: {error:?}", joiner.node);
        handle
            .read(GroupId::META)
            .await
            .map_err(|error| ClusterError::new(ErrorCode::Unavailable, what(&error)))?;
        let meta = handle.meta();
        let command = match joiner.standing(&meta)? {
            Standing::Member => return Ok(()),
            Standing::Unknown => return Err(joiner.refused(MetaRefusal::UnknownNode)),
            Standing::Moved(peer) => {
                self.check_moved(joiner, &meta, peer).await?;
                MetaCommand::UpdateAddress { peer, address: joiner.address.clone() }
            }
            Standing::Replacement(old) => {
                self.check_gone(joiner, &meta, old).await?;
                MetaCommand::ReplaceNode {
                    node_id: joiner.node.clone(),
                    address: joiner.address.clone(),
                    incarnation: joiner.incarnation,
                }
            }
        };
        let applied = handle.propose(GroupId::META, command.encode().into()).await;
        let applied = applied.map_err(|error| ClusterError::new(ErrorCode::UnknownOutcome, what(&error)))?;
        match applied.outcome {
            AppliedOutcome::Meta(MetaOutcome::Member(_) | MetaOutcome::Done) => Ok(()),
            AppliedOutcome::Meta(MetaOutcome::Refused(refusal)) => Err(joiner.refused(refusal)),
            AppliedOutcome::Graph(_) | AppliedOutcome::Verify => {
                let what = "the meta group answered like a partition".to_owned();
                Err(ClusterError::new(ErrorCode::Internal, what))
            }
        }
    }

    /// A name has one living node: the data directory that is to be replaced must not answer.
    async fn check_gone(&self, joiner: &Joiner, meta: &MetaState, old: PeerId) -> Result<(), ClusterError> {
        let coordinator = &self.serving()?.coordinator;
        let member = meta.members.get(&old).ok_or_else(|| joiner.refused(MetaRefusal::UnknownNode))?;
        let lives = old == coordinator.handle.shared.peer
            || coordinator
                .peers
                .who_answers(&member.address)
                .await
                .is_some_and(|hello| hello.incarnation == member.incarnation);
        if lives {
            return Err(joiner.twin_at(&member.address));
        }
        if coordinator.peers.is_connected(old) {
            // It answers nobody, but it was not seen to end either. Its connection will break.
            let what = format!(
                "node {} at {} cannot join now: the one at {} is still connected",
                joiner.node, joiner.address, member.address
            );
            return Err(ClusterError::new(ErrorCode::Unavailable, what));
        }
        Ok(())
    }

    /// A data directory has one living node: no copy of it must answer where it was.
    async fn check_moved(&self, joiner: &Joiner, meta: &MetaState, peer: PeerId) -> Result<(), ClusterError> {
        let coordinator = &self.serving()?.coordinator;
        let member = meta.members.get(&peer).ok_or_else(|| joiner.refused(MetaRefusal::UnknownPeer))?;
        let stays = if peer == coordinator.handle.shared.peer {
            (self.address() != joiner.address).then(|| self.address().to_owned())
        } else {
            let answers = coordinator.peers.who_answers(&member.address).await;
            // The same node may answer at both addresses.
            answers
                .filter(|hello| hello.incarnation == joiner.incarnation && hello.address != joiner.address)
                .map(|hello| hello.address)
        };
        stays.map_or(Ok(()), |address| Err(joiner.twin_at(&address)))
    }

    pub(super) fn do_leave(&self, request: &v1::LeaveRequest) -> Result<v1::LeaveResponse, ClusterError> {
        let meta = self.serving()?.coordinator.routing.meta();
        let node = NodeId(request.node_id.clone());
        if !node.is_valid() || meta.active_peer(&node).is_none() {
            let what = format!("no member of cluster {} is called {:?}", meta.cluster_id, request.node_id);
            return Err(ClusterError::new(ErrorCode::LeaveUnavailable, what));
        }
        let what = format!("node {node} cannot leave cluster {} while it runs", meta.cluster_id);
        Err(ClusterError::new(ErrorCode::LeaveUnavailable, what))
    }
}

/// The pause between two looks at the address this node is known by.
const ADDRESS_PAUSE: Duration = Duration::from_millis(500);

/// Attempts that may fail before it is said.
const FAILURES_QUIET: u32 = 20;

/// Makes known where this node is reached: its identity is in its data directory, so it may be
/// started at another address at any time, and the others have to learn of it.
pub(crate) struct Introduction {
    services: Services,
    peer: PeerId,
    request: v1::JoinRequest,
}

impl Introduction {
    pub(crate) fn new(services: &Services, identity: &Identity, membership: &Membership) -> Self {
        let (node_id, address) = (identity.node_id(), services.address());
        let request = join_request(node_id, address, membership.cluster_id, identity.incarnation());
        Self { services: services.clone(), peer: membership.peer, request }
    }

    /// Tells the meta group whenever it has another address of this node. Ends only where another
    /// node is in this one's place: with that error.
    pub(crate) async fn keep_known(&self, handle: &NodeHandle) -> ClusterError {
        let known = || handle.meta().members.get(&self.peer).map(|member| member.address.clone());
        let mut told = None;
        let mut failures = 0;
        loop {
            let address = known();
            if address.as_deref() != Some(self.services.address()) && address != told {
                match self.services.do_join(self.request.clone(), Hop::First).await {
                    // This node's own state follows.
                    Ok(_) => told = address,
                    Err(error) if is_final(error.code()) => return error,
                    Err(error) => {
                        failures += 1;
                        // The first attempts come before the streams do.
                        if failures == FAILURES_QUIET {
                            tracing::warn!("this node's new address is not known yet: {}", error.report());
                        }
                    }
                }
            }
            sleep(ADDRESS_PAUSE).await;
        }
    }
}

/// A node that asks to be let in.
#[derive(Debug)]
struct Joiner {
    node: NodeId,
    address: String,
    incarnation: Incarnation,
    cluster: Option<ClusterId>,
}

/// What a joiner is to the cluster, as far as this node knows.
enum Standing {
    /// A member already, with this data directory and at this address.
    Member,
    /// This member, which is known by another address.
    Moved(PeerId),
    /// The name of this member with a new data directory.
    Replacement(PeerId),
    /// No member's name.
    Unknown,
}

impl Joiner {
    fn parse(request: &v1::JoinRequest) -> Result<Self, ClusterError> {
        if request.protocol_version != PROTOCOL_VERSION {
            let what = format!(
                "a node that speaks protocol version {} wants to join, this cluster speaks {PROTOCOL_VERSION}",
                request.protocol_version
            );
            return Err(ClusterError::new(ErrorCode::ProtocolVersion, what));
        }
        let node = request
            .node
            .as_ref()
            .ok_or_else(|| errors::malformed("the joining node does not say who it is"))?;
        let id = NodeId(node.id.clone());
        if !id.is_valid() {
            return Err(errors::malformed("the joining node's id is empty, too long or not printable"));
        }
        let incarnation = request.incarnation.as_ref().try_into().map(Incarnation);
        let incarnation = incarnation.map_err(|_| errors::malformed("an incarnation has 16 bytes"))?;
        let cluster = match request.cluster_id.as_str() {
            "" => None,
            text => Some(
                ClusterId::from_hex(text)
                    .ok_or_else(|| errors::malformed("a cluster id has 32 hex digits"))?,
            ),
        };
        // An address with its port in it is taken as it is.
        let address =
            if node.port == 0 { node.address.clone() } else { format!("{}:{}", node.address, node.port) };
        Ok(Self { node: id, address, incarnation, cluster })
    }

    fn check_cluster(&self, meta: &MetaState) -> Result<(), ClusterError> {
        match self.cluster {
            Some(cluster) if cluster != meta.cluster_id => {
                let what =
                    format!("node {} belongs to cluster {cluster}, this is {}", self.node, meta.cluster_id);
                Err(ClusterError::new(ErrorCode::PeerOfOtherCluster, what))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn standing(&self, meta: &MetaState) -> Result<Standing, ClusterError> {
        match meta.member_by_incarnation(self.incarnation) {
            Some((_, member)) if member.node != self.node => {
                Err(self.refused(MetaRefusal::OtherNodesDirectory))
            }
            Some((_, member)) if member.status == MemberStatus::Replaced => {
                Err(self.refused(MetaRefusal::Superseded))
            }
            Some((peer, member)) if member.address != self.address => Ok(Standing::Moved(peer)),
            Some(_) => Ok(Standing::Member),
            None => Ok(meta.active_peer(&self.node).map_or(Standing::Unknown, Standing::Replacement)),
        }
    }

    fn twin_at(&self, address: &str) -> ClusterError {
        let what = format!("two nodes are called {}, at {address} and {}", self.node, self.address);
        ClusterError::new(ErrorCode::NodeIdMismatch, what)
    }

    fn refused(&self, refusal: MetaRefusal) -> ClusterError {
        let error = ClusterError::from(refusal);
        ClusterError::new(
            error.code(),
            format!("node {} at {} cannot join: {refusal}", self.node, self.address),
        )
    }
}

/// The specification's call, which names a node and nothing else: a member is told the configuration.
fn asked_by_name(routing: &Routing, request: &v1::JoinRequest) -> Result<v1::JoinResponse, ClusterError> {
    let node =
        request.node.as_ref().ok_or_else(|| errors::malformed("the joining node does not say who it is"))?;
    let name = NodeId(node.id.clone());
    if routing.meta().active_peer(&name).is_some() {
        return Ok(joined(routing));
    }
    let refusal = MetaRefusal::UnknownNode;
    let what = format!("node {:?} cannot join: {refusal}", name.0);
    Err(ClusterError::new(ClusterError::from(refusal).code(), what))
}

fn joined(routing: &Routing) -> v1::JoinResponse {
    v1::JoinResponse { config: Some(config_of(routing)), meta_state: routing.meta().encode().into() }
}

/// The configuration for clients: the members, and who leads what as far as this node knows.
fn config_of(routing: &Routing) -> v1::ClusterConfig {
    let meta = routing.meta();
    let name = |peer: PeerId| meta.members.get(&peer).map(|member| member.node.0.clone());
    let leader = |group: GroupId| routing.leader(group).and_then(name).unwrap_or_default();
    let meta_leader = leader(GroupId::META);
    let nodes = meta.active().map(|(_, member)| {
        let role = if member.node.0 == meta_leader { v1::NodeRole::Leader } else { v1::NodeRole::Follower };
        let (host, port) = split_address(&member.address);
        v1::NodeId {
            id: member.node.0.clone(),
            address: host,
            port,
            role: role.into(),
            term: routing.term(GroupId::META),
        }
    });
    let partitions = routing.partitions().map(|partition: PartitionId| {
        let replicas =
            meta.map.partition(partition).map(|group| group.replicas.as_slice()).unwrap_or_default();
        v1::PartitionReplicas {
            partition: partition.0,
            nodes: replicas.iter().filter_map(|place| name(place.peer)).collect(),
            leader: leader(partition.group()),
        }
    });
    v1::ClusterConfig {
        nodes: nodes.collect(),
        version: meta.map.epoch,
        cluster_id: meta.cluster_id.to_string(),
        partition_count: meta.map.partition_count,
        replication_factor: meta.replication_factor,
        partitions: partitions.collect(),
    }
}

/// `HOST:PORT` in its two parts; a text without a port keeps it whole.
pub(crate) fn split_address(address: &str) -> (String, u32) {
    match address.rsplit_once(':') {
        Some((host, port)) => match port.parse::<u16>() {
            Ok(port) => (host.to_owned(), port.into()),
            Err(_) => (address.to_owned(), 0),
        },
        None => (address.to_owned(), 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::GenesisMember;

    fn state() -> MetaState {
        let member = |name: &str, byte| GenesisMember {
            node_id: NodeId::from(name),
            address: format!("127.0.0.1:{}", 8000 + u16::from(byte)),
            incarnation: Incarnation([byte; 16]),
        };
        MetaState::genesis(&[member("a", 1), member("b", 2), member("c", 3)], 4, 3)
            .expect("a cluster can begin so")
    }

    fn joiner(name: &str, byte: u8) -> Joiner {
        let request = v1::JoinRequest {
            node: Some(v1::NodeId {
                id: name.into(),
                address: "127.0.0.1".into(),
                port: 9000,
                ..Default::default()
            }),
            cluster_id: String::new(),
            incarnation: vec![byte; 16].into(),
            protocol_version: PROTOCOL_VERSION,
        };
        Joiner::parse(&request).expect("the request is well formed")
    }

    #[test]
    fn a_joiner_is_told_apart_by_its_name_and_directory() {
        let mut state = state();
        assert!(matches!(joiner("a", 1).standing(&state), Ok(Standing::Moved(PeerId(1)))));
        assert!(matches!(joiner("a", 9).standing(&state), Ok(Standing::Replacement(PeerId(1)))));
        assert!(matches!(joiner("d", 9).standing(&state), Ok(Standing::Unknown)));
        let at_home = Joiner { address: "127.0.0.1:8001".into(), ..joiner("a", 1) };
        assert!(matches!(at_home.standing(&state), Ok(Standing::Member)));
        let stolen = joiner("b", 1).standing(&state).err().map(|error| error.code());
        assert_eq!(stolen, Some(ErrorCode::NodeIdMismatch));
        let incarnation = Incarnation([9; 16]);
        state.apply(MetaCommand::ReplaceNode {
            node_id: "a".into(),
            address: "127.0.0.1:9000".into(),
            incarnation,
        });
        assert!(matches!(joiner("a", 9).standing(&state), Ok(Standing::Member)));
        let old = joiner("a", 1).standing(&state).err().map(|error| error.code());
        assert_eq!(old, Some(ErrorCode::Superseded));
    }

    #[test]
    fn a_joiner_of_another_cluster_or_version_is_refused() {
        let other = Joiner { cluster: Some(ClusterId([7; 16])), ..joiner("a", 9) };
        let refused = other.check_cluster(&state()).err().map(|error| error.code());
        assert_eq!(refused, Some(ErrorCode::PeerOfOtherCluster));
        let request =
            v1::JoinRequest { protocol_version: PROTOCOL_VERSION + 1, ..v1::JoinRequest::default() };
        let refused = Joiner::parse(&request).err().map(|error| error.code());
        assert_eq!(refused, Some(ErrorCode::ProtocolVersion));
    }

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split_address("127.0.0.1:8080"), ("127.0.0.1".to_owned(), 8080));
        assert_eq!(split_address("[::1]:8080"), ("[::1]".to_owned(), 8080));
        assert_eq!(split_address("somewhere"), ("somewhere".to_owned(), 0));
    }
}
