//! What a node does with a client's request that is not about its own state alone.
//!
//! Any node takes any request. The coordinator checks it, finds the partition, asks what has to be
//! known first and brings it to the node that leads the partition: itself, or another over the peer
//! stream. It holds no state a request depends on; what it remembers are hints ([`routing`]) and
//! facts that never change ([`locations`]).

mod barrier;
mod forwarded;
mod locations;
mod outcome;
mod pipeline;
mod prepare;
mod routing;
mod session;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1::{
    ClientRequest, ClientResponse, GetBlockRequest, LookupRequest, ReadOptions,
};

pub(crate) use barrier::Barriers;
pub(crate) use forwarded::ForwardedWrites;
pub(crate) use locations::{Locations, Targets};
pub(crate) use outcome::of_request;
pub(crate) use pipeline::Pipeline;
pub(crate) use prepare::{Session, Write};
pub(crate) use routing::{Route, Routing};
pub(crate) use session::OwnSession;

use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Block, Cid, GraphOperation},
    node::{
        handle::NodeHandle,
        peers::Peers,
        service::{channels::Channels, errors, local::LocalReads},
    },
    placement::PartitionId,
    runtime::{net, tasks::JoinSet},
};

/// Brings requests to where they can be carried out.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) handle: NodeHandle,
    pub(crate) routing: Arc<Routing>,
    pub(crate) peers: Peers,
    pub(crate) channels: Arc<Channels>,
    pub(crate) reads: Arc<dyn LocalReads>,
    pub(crate) barriers: Arc<Barriers>,
    pub(crate) locations: Locations,
    pub(crate) targets: Targets,
    pub(crate) own_session: OwnSession,
    pub(crate) deadline: Duration,
}

impl Coordinator {
    /// A coordinator that gives each request `deadline`.
    pub(crate) fn new(
        handle: NodeHandle,
        routing: Arc<Routing>,
        peers: Peers,
        channels: Arc<Channels>,
        reads: Arc<dyn LocalReads>,
        deadline: Duration,
    ) -> Arc<Self> {
        let barriers =
            Arc::new(Barriers::new(handle.clone(), Arc::clone(&routing), Arc::clone(&channels), deadline));
        Arc::new(Self {
            handle,
            routing,
            peers,
            channels,
            reads,
            barriers,
            locations: Locations::default(),
            targets: Targets::default(),
            own_session: OwnSession::default(),
            deadline,
        })
    }

    /// Carries out one write and waits for its outcome.
    pub(crate) async fn execute(self: &Arc<Self>, request: ClientRequest) -> ClientResponse {
        let mut pipeline = Pipeline::new(Arc::clone(self));
        pipeline.submit(request);
        pipeline.next().await
    }

    /// Carries out one operation under a session of this node's own.
    pub(crate) async fn execute_own(
        self: &Arc<Self>,
        operation: GraphOperation,
        hint: Option<PartitionId>,
    ) -> Result<ClientResponse, ClusterError> {
        let turn = self.own_session.turn().await?;
        Ok(self.execute_write(Write { session: turn.session(), operation, hint }).await)
    }

    /// Carries out one well-formed write.
    pub(crate) async fn execute_write(self: &Arc<Self>, write: Write) -> ClientResponse {
        let mut pipeline = Pipeline::new(Arc::clone(self));
        pipeline.admit(self.prepare_write(write));
        pipeline.next().await
    }

    /// Adds to an answer what helps the client to route the next request.
    fn sign(&self, response: &mut ClientResponse) {
        let meta = self.routing.meta();
        response.map_epoch = meta.map.epoch;
        if response.leader_address.is_empty() {
            let leader = self.routing.leader(PartitionId(response.partition).group());
            if let Some(member) = leader.and_then(|peer| meta.members.get(&peer)) {
                response.leader_address.clone_from(&member.address);
            }
        }
    }

    /// Generations of the living nodes among `cids`, all of one partition, linearizably; 0 for one
    /// that does not live.
    pub(crate) async fn living(
        &self,
        partition: PartitionId,
        cids: Vec<Cid>,
    ) -> Result<Vec<u64>, ClusterError> {
        if self.routing.is_here(partition.group()) {
            self.barriers.fresh(partition).await?;
            return self.reads.generations(partition, &cids);
        }
        let options = ReadOptions { partition: Some(partition.0), forwarded: true, ..ReadOptions::default() };
        self.lookup(partition, &cids, options).await
    }

    /// Asks another node for the generations of living nodes.
    pub(crate) async fn lookup(
        &self,
        partition: PartitionId,
        cids: &[Cid],
        options: ReadOptions,
    ) -> Result<Vec<u64>, ClusterError> {
        let wanted = cids.len();
        let texts: Vec<String> = cids.iter().map(ToString::to_string).collect();
        let request = LookupRequest { partition: partition.0, cids: texts, options: Some(options) };
        let generations = self
            .ask(partition, |address| {
                let (client, request) = (self.channels.reads(&address), request.clone());
                async move {
                    let mut client = client?;
                    let call = |request| async move { client.lookup(request).await };
                    let answer = net::within(self.deadline, request, call).await;
                    answer
                        .map(|response| response.into_inner().generations)
                        .map_err(|status| errors::of_status(&status))
                }
            })
            .await?;
        if generations.len() == wanted {
            return Ok(generations);
        }
        let what = format!(
            "a node answered {} of {wanted} look-ups in partition {}",
            generations.len(),
            partition.0
        );
        Err(ClusterError::new(ErrorCode::Internal, what))
    }

    /// Asks a node that has a replica of the partition, the leader first, until one answers.
    pub(crate) async fn ask<T, F, A>(&self, partition: PartitionId, question: F) -> Result<T, ClusterError>
    where
        F: Fn(String) -> A,
        A: Future<Output = Result<T, ClusterError>>,
    {
        let group = partition.group();
        let attempts =
            u32::try_from(self.routing.replicas(group).len()).unwrap_or(u32::MAX).saturating_mul(2).max(2);
        let mut last = self.routing.fault(group).unwrap_or(ClusterError::NoLeader);
        for attempt in 0..attempts {
            let Route::Peer(peer) = self.routing.route(group, attempt) else { continue };
            let Some(address) = self.routing.address(peer) else { continue };
            match question(address).await {
                Ok(answer) => return Ok(answer),
                Err(error) if errors::is_passing(&error) => {
                    self.routing.distrust(group, peer);
                    last = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The partition that holds an entity or block; `None` only after every partition said no,
    /// linearizably.
    pub(crate) async fn locate(self: &Arc<Self>, cid: Cid) -> Result<Option<PartitionId>, ClusterError> {
        if let Some(partition) =
            self.locations.get(&cid).map_or_else(|| self.locate_here(&cid), |known| Ok(Some(known)))?
        {
            return Ok(Some(partition));
        }
        let mut questions = JoinSet::new();
        for partition in self.routing.partitions() {
            let coordinator = Arc::clone(self);
            questions.spawn(async move { (partition, coordinator.block(partition, cid).await) });
        }
        let mut failure = None;
        while let Some(answer) = questions.join_next().await {
            match answer {
                Ok((partition, Ok(Some(_)))) => {
                    self.locations.remember(cid, partition);
                    return Ok(Some(partition));
                }
                Ok((_, Ok(None))) => {}
                Ok((partition, Err(error))) => failure = Some(not_everywhere(&cid, partition, &error)),
                Err(panicked) => {
                    failure = Some(ClusterError::new(
                        ErrorCode::Internal,
                        format!("looking for {cid} failed: {panicked}"),
                    ));
                }
            }
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(None),
        }
    }

    /// Looks at this node's own replicas, however old their state: where something is never changes.
    pub(crate) fn locate_here(&self, cid: &Cid) -> Result<Option<PartitionId>, ClusterError> {
        for partition in self.routing.partitions() {
            if self.routing.is_here(partition.group()) && self.reads.holds(partition, cid)? {
                self.locations.remember(*cid, partition);
                return Ok(Some(partition));
            }
        }
        Ok(None)
    }

    /// Where an edge is and the node it enters; `None` only after every partition said, linearizably, that
    /// it has nothing with this CID. The partition of `hint` is asked first.
    pub(crate) async fn find_edge(
        self: &Arc<Self>,
        edge: Cid,
        hint: Option<PartitionId>,
    ) -> Result<Option<EdgePlace>, ClusterError> {
        let mut found = match hint {
            Some(partition) => self.block(partition, edge).await?.map(|block| (partition, block)),
            None => None,
        };
        if found.is_none() {
            let Some(partition) = self.locate(edge).await? else { return Ok(None) };
            found = self.block(partition, edge).await?.map(|block| (partition, block));
        }
        let Some((partition, block)) = found else { return Ok(None) };
        self.locations.remember(edge, partition);
        let damaged = |error| ClusterError::new(ErrorCode::Internal, format!("the block {edge}: {error}"));
        let target = match Block::decode(&block).map_err(damaged)? {
            Block::Edge(block) => Some(block.target),
            Block::Node(_) => None,
            Block::Version(version) => {
                let of = version.identity;
                let what = format!("{edge} is a version of {of}: changes are asked for by that");
                return Err(ClusterError::new(ErrorCode::WrongKind, what));
            }
        };
        let target = target.map(|target| {
            self.targets.remember(edge, target);
            (target, self.routing.meta().map.partition_of(&target.to_bytes()))
        });
        Ok(Some(EdgePlace { partition, target }))
    }

    /// Why there is no node with this CID, where an edge or a version has it.
    pub(crate) async fn why_no_node(
        self: &Arc<Self>,
        cid: Cid,
    ) -> Result<Option<(PartitionId, ClusterError)>, ClusterError> {
        let Some(partition) = self.locate(cid).await? else { return Ok(None) };
        let block = self.block(partition, cid).await?;
        let what = match block.as_deref().map(Block::decode) {
            Some(Ok(Block::Version(version))) => {
                format!("{cid} is a version of {}: changes are asked for by that", version.identity)
            }
            Some(Ok(Block::Edge(_))) => format!("{cid} is no node but an edge"),
            Some(Ok(Block::Node(_)) | Err(_)) | None => return Ok(None),
        };
        Ok(Some((partition, ClusterError::new(ErrorCode::WrongKind, what))))
    }

    /// A block of a partition, linearizably.
    async fn block(
        self: &Arc<Self>,
        partition: PartitionId,
        cid: Cid,
    ) -> Result<Option<Bytes>, ClusterError> {
        if self.routing.is_here(partition.group()) {
            self.barriers.fresh(partition).await?;
            return self.reads.block(partition, &cid);
        }
        let request = GetBlockRequest {
            cid: cid.to_string(),
            options: Some(ReadOptions {
                partition: Some(partition.0),
                forwarded: true,
                ..ReadOptions::default()
            }),
        };
        self.ask(partition, |address| {
            let (client, request) = (self.channels.cluster(&address), request.clone());
            async move {
                let mut client = client?;
                let call = |request| async move { client.get_block(request).await };
                let answer = net::within(self.deadline, request, call).await;
                let answer = answer.map(tonic::Response::into_inner);
                answer
                    .map(|answer| answer.found.then_some(answer.block))
                    .map_err(|status| errors::of_status(&status))
            }
        })
        .await
    }
}

/// Where an edge is and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EdgePlace {
    /// The partition that holds it.
    pub(crate) partition: PartitionId,
    /// The node it enters and that node's partition; `None` where the CID is not an edge's.
    pub(crate) target: Option<(Cid, PartitionId)>,
}

fn not_everywhere(cid: &Cid, partition: PartitionId, error: &ClusterError) -> ClusterError {
    let what = format!("{cid} was not found, but partition {} did not answer: {}", partition.0, error.what());
    let code = if errors::is_passing(error) { ErrorCode::Unavailable } else { error.code() };
    ClusterError::new(code, what)
}

#[cfg(test)]
mod tests;
