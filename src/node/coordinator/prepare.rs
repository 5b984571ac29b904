//! From a client's request to the entry of a log: checked, canonical, and addressed.

use bytes::Bytes;
use kotoba_db_cluster_proto::v1::{self, ClientRequest};

use super::Coordinator;
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Cid, Command, Execute, Generation, GraphOperation, RequestId, RoutingKey, routing_key},
    limits::CLIENT_ID_BYTES_MAX,
    node::service::convert,
    placement::PartitionId,
};

/// The key under which a write takes effect once.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) client_id: String,
    pub(crate) request_id: u64,
    pub(crate) acked_below: u64,
}

/// A write whose request was found to be well formed.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) session: Session,
    pub(crate) operation: GraphOperation,
    /// The partition the client says the entity is in.
    pub(crate) hint: Option<PartitionId>,
}

/// A write and what it lacks.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) write: Write,
    pub(crate) need: Need,
}

/// What has to be known before a write can be proposed.
#[derive(Debug)]
pub(crate) enum Need {
    /// Nothing: the partition follows from the operation.
    Nothing { partition: PartitionId, command: Bytes },
    /// The generation of an edge's target, by a linearizable read.
    Target { partition: PartitionId, target: Cid, target_partition: PartitionId },
    /// The partition of an edge and the node it enters; the partition the client names is looked at
    /// first.
    Edge { edge: Cid, hint: Option<PartitionId> },
}

impl Session {
    /// # Errors
    /// Where the ids cannot name a request.
    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        let refuse = |code, what: String| Err(ClusterError::new(code, what));
        if self.client_id.is_empty() {
            return refuse(ErrorCode::MalformedValue, "the request's client_id is empty".to_owned());
        }
        if self.client_id.len() > CLIENT_ID_BYTES_MAX {
            let length = self.client_id.len();
            let what =
                format!("the request's client_id has {length} bytes, {CLIENT_ID_BYTES_MAX} are possible");
            return refuse(ErrorCode::TooLarge, what);
        }
        if self.request_id == 0 {
            let what = format!("a request of client {} has request_id 0, ids begin at 1", self.client_id);
            return refuse(ErrorCode::MalformedValue, what);
        }
        Ok(())
    }
}

impl Write {
    /// The entry to propose for an operation that is complete.
    pub(crate) fn command(&self) -> Bytes {
        encode(&self.session, self.operation.clone())
    }

    /// The entry to propose for an edge whose target has this generation; 0 where the target is
    /// not alive. The state machine then refuses the operation: it, not the coordinator, so that a
    /// repeat of a request that once succeeded still gets the first outcome.
    pub(crate) fn command_for_target(&self, generation: u64) -> Bytes {
        let mut operation = self.operation.clone();
        match &mut operation {
            GraphOperation::CreateEdge { target_generation, .. }
            | GraphOperation::UpdateEdge { target_generation, .. }
            | GraphOperation::DeleteEdge { target_generation, .. } => {
                *target_generation = Generation(generation);
            }
            GraphOperation::CreateNode { .. }
            | GraphOperation::UpdateNode { .. }
            | GraphOperation::DeleteNode { .. } => {}
        }
        encode(&self.session, operation)
    }

    /// The node that is to be changed or deleted.
    pub(crate) fn node_changed(&self) -> Option<Cid> {
        match &self.operation {
            GraphOperation::UpdateNode { cid, .. } | GraphOperation::DeleteNode { cid } => Some(*cid),
            GraphOperation::CreateNode { .. }
            | GraphOperation::CreateEdge { .. }
            | GraphOperation::UpdateEdge { .. }
            | GraphOperation::DeleteEdge { .. } => None,
        }
    }

    /// The entity of an update or deletion.
    pub(crate) fn entity(&self) -> Option<Cid> {
        match &self.operation {
            GraphOperation::UpdateNode { cid, .. }
            | GraphOperation::DeleteNode { cid }
            | GraphOperation::UpdateEdge { cid, .. }
            | GraphOperation::DeleteEdge { cid, .. } => Some(*cid),
            GraphOperation::CreateNode { .. } | GraphOperation::CreateEdge { .. } => None,
        }
    }

    pub(crate) fn not_found(&self) -> ClusterError {
        let what = match self.entity() {
            Some(cid) => format!("no partition has an entity {cid}"),
            None => "no partition has the entity".to_owned(),
        };
        ClusterError::new(ErrorCode::NotFound, what)
    }
}

fn encode(session: &Session, operation: GraphOperation) -> Bytes {
    let command = Command::Execute(Execute {
        client_id: session.client_id.clone(),
        request_id: RequestId(session.request_id),
        acked_below: RequestId(session.acked_below),
        operation,
    });
    command.encode()
}

impl Coordinator {
    /// Checks a client's request and finds out what it needs.
    ///
    /// # Errors
    /// Where the request cannot be carried out by anyone.
    pub(crate) fn prepare(&self, request: ClientRequest) -> Result<Prepared, ClusterError> {
        let session = Session {
            client_id: request.client_id,
            request_id: request.request_id,
            acked_below: request.acked_below,
        };
        session.check()?;
        let operation = request.operation.ok_or_else(|| {
            let what =
                format!("request {} of client {} has no operation", session.request_id, session.client_id);
            ClusterError::new(ErrorCode::MalformedValue, what)
        })?;
        let operation = convert::operation_from_wire(operation)?;
        convert::known::<v1::Consistency>(request.consistency, "consistency")?;
        let hint = request.partition.map(|partition| self.checked_partition(partition)).transpose()?;
        Ok(self.prepare_write(Write { session, operation, hint }))
    }

    /// Finds out what a write needs.
    pub(crate) fn prepare_write(&self, write: Write) -> Prepared {
        let need = self.need(&write);
        Prepared { write, need }
    }

    pub(super) fn need(&self, write: &Write) -> Need {
        let meta = self.routing.meta();
        let partition_of = |cid: &Cid| meta.map.partition_of(&cid.to_bytes());
        match (routing_key(&write.operation), &write.operation) {
            (RoutingKey::Identity(source), GraphOperation::CreateEdge { target, .. }) => Need::Target {
                partition: partition_of(&source),
                target: *target,
                target_partition: partition_of(target),
            },
            (RoutingKey::Identity(cid), _) => {
                Need::Nothing { partition: partition_of(&cid), command: write.command() }
            }
            (RoutingKey::Edge(edge), _) => match (self.locations.get(&edge), self.targets.get(&edge)) {
                (Some(partition), Some(target)) => {
                    Need::Target { partition, target, target_partition: partition_of(&target) }
                }
                (Some(_), None) | (None, _) => Need::Edge { edge, hint: write.hint },
            },
        }
    }

    /// # Errors
    /// Where the cluster has no such partition.
    pub(crate) fn checked_partition(&self, partition: u32) -> Result<PartitionId, ClusterError> {
        let count = self.routing.meta().map.partition_count;
        if partition < count {
            return Ok(PartitionId(partition));
        }
        let what = format!("partition {partition} was named, the cluster has partitions 0 to {}", count - 1);
        Err(ClusterError::new(ErrorCode::NotFound, what))
    }
}
