//! The consensus calls of the specification, one message a call.
//!
//! The nodes themselves speak over their peer streams; these calls put the same messages before the
//! same core and return its answer. What a call leaves out is filled in: no group means the meta
//! group, replicas follow from the node ids and the partition map. Nothing is believed that a peer
//! stream would not believe: the core checks the message, the caller must be named as a member.

use std::time::Duration;

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use tokio::{sync::oneshot, time::timeout};

use super::{Services, convert, errors};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{Command as GraphCommand, Execute, RequestId},
    limits::{APPEND_BYTES_MAX, APPEND_ENTRIES_MAX},
    node::{coordinator::of_request, handle::Command},
    placement::{ClusterId, MetaState, NodeId, PartitionId},
    raft::{
        Append, AppendOutcome, Ballot, Body, Configuration, ConfigurationEntry, EntryRange, GroupId, Index,
        Message, Position, ReplicaId, RoleKind, Round, Term, TermRuns, VoteAsk,
    },
};

/// How long the core may take to answer. It is silent where it does not believe a message.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Who speaks to whom, in which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    group: GroupId,
    from: ReplicaId,
    to: ReplicaId,
}

impl Services {
    pub(super) async fn do_request_vote(
        &self,
        request: v1::VoteRequest,
    ) -> Result<v1::VoteResponse, ClusterError> {
        let ends =
            self.ends(request.group, &request.candidate_id, (request.from, request.to), &request.cluster_id)?;
        let campaign = Term(request.term);
        let (ballot, term) = if request.pre_vote {
            (Ballot::Pre, Term(request.term.saturating_sub(1)))
        } else {
            (Ballot::Real, campaign)
        };
        let last = Position::new(Index(request.last_log_index), Term(request.last_log_term));
        let body = Body::VoteAsk(VoteAsk { ballot, campaign_term: campaign, last });
        let answer = self.consult(ends, term, body, Vec::new()).await?;
        Ok(match answer {
            Some(Message { term, body: Body::VoteReply(reply), .. }) => {
                v1::VoteResponse { term: term.0, vote_granted: reply.granted }
            }
            // A replica that hears its leader does not answer candidates.
            Some(_) | None => v1::VoteResponse { term: self.term(ends.group)?, vote_granted: false },
        })
    }

    pub(super) async fn do_append_entries(
        &self,
        request: v1::AppendEntriesRequest,
    ) -> Result<v1::AppendEntriesResponse, ClusterError> {
        let ends =
            self.ends(request.group, &request.leader_id, (request.from, request.to), &request.cluster_id)?;
        let term = Term(request.term);
        let (append, payloads) = append_of(request)?;
        let answer = self.consult(ends, term, Body::Append(append), payloads).await?;
        match answer {
            Some(Message { term, body: Body::AppendReply(reply), .. }) => Ok(match reply.outcome {
                AppendOutcome::Accepted(index) => {
                    v1::AppendEntriesResponse { term: term.0, success: true, match_index: index.0 }
                }
                AppendOutcome::Rejected { hint, .. } => {
                    v1::AppendEntriesResponse { term: term.0, success: false, match_index: hint.index.0 }
                }
            }),
            Some(message) => {
                Ok(v1::AppendEntriesResponse { term: message.term.0, success: false, match_index: 0 })
            }
            None => {
                let what =
                    format!("replica {} of group {} did not answer the append", ends.to.0, ends.group.0);
                Err(ClusterError::new(ErrorCode::UnknownOutcome, what))
            }
        }
    }

    pub(super) async fn do_heartbeat(
        &self,
        request: &v1::HeartbeatRequest,
    ) -> Result<v1::HeartbeatResponse, ClusterError> {
        let coordinator = &self.serving()?.coordinator;
        member(&coordinator.routing.meta(), &request.from_node)?;
        let groups = coordinator.handle.status().await.map_err(|error| of_request(error, PartitionId(0)))?;
        let meta = groups.iter().find(|group| group.group == GroupId::META);
        let role = match meta.map(|group| group.role) {
            Some(RoleKind::Leader) => v1::NodeRole::Leader,
            Some(RoleKind::Candidate | RoleKind::PreCandidate) => v1::NodeRole::Candidate,
            Some(RoleKind::Follower | RoleKind::Faulted) | None => v1::NodeRole::Follower,
        };
        Ok(v1::HeartbeatResponse {
            node_id: self.node_id().0.clone(),
            role: role.into(),
            last_log_index: meta.map_or(0, |group| group.last.0),
            commit_index: meta.map_or(0, |group| group.commit.0),
        })
    }

    /// Puts a message before the core; `None` where it does not answer.
    async fn consult(
        &self,
        ends: Ends,
        term: Term,
        body: Body,
        payloads: Vec<Bytes>,
    ) -> Result<Option<Message>, ClusterError> {
        let handle = &self.serving()?.coordinator.handle;
        let message = Message { from: ends.from, to: ends.to, term, body };
        let (reply, answer) = oneshot::channel();
        let command = Command::Consensus { group: ends.group, message, payloads, reply };
        handle.send(command).await.map_err(|error| of_request(error, PartitionId(0)))?;
        Ok(timeout(ANSWER_TIMEOUT, answer).await.ok().and_then(Result::ok))
    }

    fn term(&self, group: GroupId) -> Result<u64, ClusterError> {
        Ok(self.serving()?.coordinator.routing.term(group))
    }

    fn ends(&self, group: u32, node: &str, ids: (u64, u64), cluster: &str) -> Result<Ends, ClusterError> {
        let handle = &self.serving()?.coordinator.handle;
        let meta = handle.meta();
        if !cluster.is_empty() && ClusterId::from_hex(cluster) != Some(meta.cluster_id) {
            let what = format!("a message of cluster {cluster:?} came to cluster {}", meta.cluster_id);
            return Err(ClusterError::new(ErrorCode::PeerOfOtherCluster, what));
        }
        resolve(&meta, GroupId(group), node, ids, |descriptor| descriptor.replica_at(handle.shared.peer))
    }
}

fn member(meta: &MetaState, node: &str) -> Result<crate::raft::PeerId, ClusterError> {
    let found = meta.active_peer(&NodeId(node.to_owned()));
    found.ok_or_else(|| {
        let what = format!("no member of cluster {} is called {node:?}", meta.cluster_id);
        ClusterError::new(ErrorCode::NotFound, what)
    })
}

/// The replicas a message is from and to. Ids that are given must be the ones the map knows.
fn resolve(
    meta: &MetaState,
    group: GroupId,
    node: &str,
    (from, to): (u64, u64),
    own: impl Fn(&crate::placement::GroupDescriptor) -> Option<ReplicaId>,
) -> Result<Ends, ClusterError> {
    let peer = member(meta, node)?;
    let missing = |whose: &str| {
        ClusterError::new(ErrorCode::NotFound, format!("{whose} has no replica of group {}", group.0))
    };
    let descriptor = meta.map.group(group).ok_or_else(|| {
        ClusterError::new(
            ErrorCode::NotFound,
            format!("cluster {} has no group {}", meta.cluster_id, group.0),
        )
    })?;
    let sender = descriptor.replica_at(peer).ok_or_else(|| missing(node))?;
    let receiver = own(descriptor).ok_or_else(|| missing("the node asked"))?;
    let agrees = |given: u64, known: ReplicaId| given == 0 || given == known.0;
    if !agrees(from, sender) || !agrees(to, receiver) {
        let what = format!(
            "a message from replica {from} to {to} of group {} came, {node} has replica {} and this node {}",
            group.0, sender.0, receiver.0
        );
        return Err(ClusterError::new(ErrorCode::Superseded, what));
    }
    Ok(Ends { group, from: sender, to: receiver })
}

/// The core's form of the call, and the payload of each entry.
fn append_of(request: v1::AppendEntriesRequest) -> Result<(Append, Vec<Bytes>), ClusterError> {
    if request.entries.len() as u64 > APPEND_ENTRIES_MAX {
        let what = format!(
            "{} entries are appended at once, {APPEND_ENTRIES_MAX} are possible",
            request.entries.len()
        );
        return Err(ClusterError::new(ErrorCode::TooLarge, what));
    }
    let prev = Position::new(Index(request.prev_log_index), Term(request.prev_log_term));
    let (mut runs, mut configurations, mut payloads) = (TermRuns::default(), Vec::new(), Vec::new());
    let mut last = prev;
    for entry in request.entries {
        let at = Position::new(Index(entry.index), Term(entry.term));
        let follows = last.index.0.checked_add(1) == Some(entry.index) && last.term <= at.term;
        if !follows || at.term.0 > request.term || !runs.push(at) {
            return Err(errors::malformed(format!(
                "entry {} does not follow the one before it",
                entry.index
            )));
        }
        let payload = payload_of(entry, &mut configurations)?;
        payloads.push(payload);
        last = at;
    }
    let bytes: u64 = payloads.iter().map(|payload| payload.len() as u64).sum();
    if bytes > APPEND_BYTES_MAX && payloads.len() > 1 {
        let what = format!("{bytes} bytes of entries are appended at once, {APPEND_BYTES_MAX} are possible");
        return Err(ClusterError::new(ErrorCode::TooLarge, what));
    }
    let append = Append {
        prev,
        entries: EntryRange { first: Index(prev.index.0.saturating_add(1)), bytes, runs },
        configurations,
        commit: Index(request.leader_commit),
        round: Round(0),
        clock: None,
    };
    Ok((append, payloads))
}

/// The bytes of an entry: as given, or of the operation that is given instead.
fn payload_of(
    entry: v1::LogEntry,
    configurations: &mut Vec<ConfigurationEntry>,
) -> Result<Bytes, ClusterError> {
    match convert::known::<v1::EntryKind>(entry.kind, "entry's kind")? {
        v1::EntryKind::Empty if entry.payload.is_empty() => Ok(Bytes::new()),
        v1::EntryKind::Empty => {
            Err(errors::malformed(format!("entry {} is empty and has bytes", entry.index)))
        }
        v1::EntryKind::Configuration => {
            let configuration = Configuration::decode(&entry.payload).map_err(|error| {
                errors::malformed(format!("entry {} is no configuration: {error}", entry.index))
            })?;
            configurations.push(ConfigurationEntry { index: Index(entry.index), configuration });
            Ok(entry.payload)
        }
        v1::EntryKind::Normal if !entry.payload.is_empty() => Ok(entry.payload),
        v1::EntryKind::Normal => {
            let operation = entry.operation.ok_or_else(|| {
                errors::malformed(format!("entry {} has neither bytes nor an operation", entry.index))
            })?;
            let command = GraphCommand::Execute(Execute {
                client_id: entry.client_id,
                request_id: RequestId(entry.request_id),
                acked_below: RequestId(0),
                operation: convert::operation_from_wire(operation)?,
            });
            Ok(command.encode())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{GenesisMember, Incarnation};

    fn request(entries: Vec<v1::LogEntry>) -> v1::AppendEntriesRequest {
        v1::AppendEntriesRequest {
            term: 5,
            prev_log_index: 7,
            prev_log_term: 2,
            entries,
            ..Default::default()
        }
    }

    fn entry(index: u64, term: u64) -> v1::LogEntry {
        v1::LogEntry { index, term, payload: Bytes::from_static(b"payload"), ..Default::default() }
    }

    #[test]
    fn entries_become_a_range_with_term_runs() {
        let (append, payloads) = append_of(request(vec![entry(8, 2), entry(9, 2), entry(10, 5)]))
            .expect("the entries follow each other");
        assert_eq!((append.entries.first, append.entries.count(), append.entries.bytes), (Index(8), 3, 21));
        let runs = [Position::new(Index(9), Term(2)), Position::new(Index(10), Term(5))];
        assert_eq!(append.entries.runs.as_slice(), runs);
        assert_eq!(payloads.len(), 3);
    }

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        let huge = v1::AppendEntriesRequest { prev_log_index: u64::MAX, ..request(vec![entry(0, 5)]) };
        let cases = [
            request(vec![entry(9, 2)]),
            request(vec![entry(8, 1)]),
            request(vec![entry(8, 6)]),
            request(vec![entry(8, 2), entry(8, 2)]),
            request(vec![v1::LogEntry { index: 8, term: 2, ..Default::default() }]),
            huge,
        ];
        for request in cases {
            let refused = append_of(request.clone()).err().map(|error| error.code());
            assert_eq!(refused, Some(ErrorCode::MalformedValue), "{request:?}");
        }
    }

    #[test]
    fn an_operation_becomes_the_entry_that_the_log_would_hold() {
        let operation = v1::Operation {
            kind: Some(v1::operation::Kind::DeleteNode(v1::DeleteNode {
                cid: crate::graph::Cid::of(b"x").to_string(),
            })),
        };
        let entry = v1::LogEntry {
            index: 8,
            term: 2,
            operation: Some(operation),
            client_id: "client".into(),
            request_id: 3,
            ..Default::default()
        };
        let (_, payloads) = append_of(request(vec![entry])).expect("the entry is well formed");
        let GraphCommand::Execute(execute) = GraphCommand::decode(&payloads[0]).expect("it is a command")
        else {
            panic!("an operation is no marker");
        };
        assert_eq!((execute.client_id.as_str(), execute.request_id), ("client", RequestId(3)));
    }

    #[test]
    fn replicas_follow_from_node_ids_and_must_agree_where_given() {
        let member = |name: &str, byte| GenesisMember {
            node_id: NodeId::from(name),
            address: format!("127.0.0.1:{}", 8000 + u16::from(byte)),
            incarnation: Incarnation([byte; 16]),
        };
        let meta =
            MetaState::genesis(&[member("a", 1), member("b", 2)], 2, 2).expect("a cluster can begin so");
        let own =
            |descriptor: &crate::placement::GroupDescriptor| descriptor.replica_at(crate::raft::PeerId(1));
        let ends = resolve(&meta, GroupId::META, "b", (0, 0), own).expect("both are members");
        assert_ne!(ends.from, ends.to);
        assert_eq!(resolve(&meta, GroupId::META, "b", (ends.from.0, ends.to.0), own), Ok(ends));
        assert!(resolve(&meta, GroupId::META, "b", (99, 0), own).is_err());
        assert!(resolve(&meta, GroupId::META, "c", (0, 0), own).is_err());
        assert!(resolve(&meta, GroupId(9), "b", (0, 0), own).is_err());
    }
}
