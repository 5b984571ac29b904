//! Pipelines in front of a driver whose answers the test chooses.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use kotoba_db_cluster_proto::v1::{self, operation};
use tokio::sync::{broadcast, mpsc, watch};

use super::*;
use crate::{
    api::{Version, config::NetworkTuning},
    error::ErrorCode,
    graph::{
        Command as GraphCommand, Generation, GraphOperation, Receipt,
        read::{Page, PageOf},
    },
    node::{
        handle::{Applied, AppliedOutcome, Command, GroupHint, ProposalResult, RequestError, Shared},
        identity::Identity,
        peers::{LocalHello, PeersConfig},
        service::local::{LocalEdge, LocalEntity, LocalPage},
        status::GroupFault,
    },
    placement::{GenesisMember, Incarnation, MetaState, NodeId},
    raft::{BusyReason, GroupId, Index, PeerId, Refusal, RoleKind, Term},
};

const PARTITIONS: u32 = 4;

/// A store in which every node asked for lives, but the dead ones.
#[derive(Debug, Default)]
struct Living {
    dead: Vec<Cid>,
    questions: AtomicU64,
}

impl LocalReads for Living {
    fn entity(&self, _: PartitionId, _: &Cid) -> Result<Option<LocalEntity>, ClusterError> {
        Ok(None)
    }
    fn generations(&self, _: PartitionId, cids: &[Cid]) -> Result<Vec<u64>, ClusterError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        Ok(cids.iter().map(|cid| u64::from(!self.dead.contains(cid)) * 3).collect())
    }
    fn holds(&self, _: PartitionId, _: &Cid) -> Result<bool, ClusterError> {
        Ok(false)
    }
    fn block(&self, _: PartitionId, _: &Cid) -> Result<Option<Bytes>, ClusterError> {
        Ok(None)
    }
    fn history(&self, _: PartitionId, _: &Cid) -> Result<Option<Vec<Version>>, ClusterError> {
        Ok(None)
    }
    fn out_edges(
        &self,
        _: PartitionId,
        _: &Cid,
        _: Option<&str>,
        _: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError> {
        Ok(PageOf { items: Vec::new(), resume: None })
    }
    fn in_edges(
        &self,
        _: PartitionId,
        _: &Cid,
        _: Option<&str>,
        _: &Page,
    ) -> Result<PageOf<LocalEdge>, ClusterError> {
        Ok(PageOf { items: Vec::new(), resume: None })
    }
    fn page(&self, _: PartitionId, _: &[u8], _: usize) -> Result<LocalPage, ClusterError> {
        Ok(LocalPage { entities: Vec::new(), resume: None })
    }
}

/// What the driver was asked to propose, in order.
type Proposals = Arc<Mutex<Vec<(GroupId, Bytes)>>>;

/// What node `a` knows in a cluster of these nodes, all of whose groups it leads.
fn shared(nodes: &[&str]) -> Arc<Shared> {
    let member = |(number, name): (u8, &&str)| GenesisMember {
        node_id: NodeId::from(*name),
        address: format!("127.0.0.1:{number}"),
        incarnation: Incarnation([number; 16]),
    };
    let members: Vec<_> = (1..).zip(nodes).map(member).collect();
    let factor = u32::try_from(nodes.len()).expect("a few nodes");
    let meta = MetaState::genesis(&members, PARTITIONS, factor).expect("a cluster can begin so");
    let hints: BTreeMap<GroupId, Arc<GroupHint>> = (0..=PARTITIONS)
        .map(|group| {
            let hint = GroupHint::default();
            hint.set_role(RoleKind::Leader, Term(1), Some(PeerId(1)));
            (GroupId(group), Arc::new(hint))
        })
        .collect();
    Arc::new(Shared {
        meta: RwLock::new(Arc::new(meta)),
        hints: RwLock::new(hints),
        log: Arc::default(),
        events: broadcast::channel(1).0,
        changes: watch::channel(0).0,
        disk_full: AtomicBool::new(false),
        peer: PeerId(1),
    })
}

/// A coordinator of a cluster of one that leads everything; `answer` is told how many proposals
/// came before.
fn coordinator(
    deadline: Duration,
    reads: Arc<Living>,
    mut answer: impl FnMut(usize) -> ProposalResult + Send + 'static,
) -> (Arc<Coordinator>, Proposals) {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let identity = Identity::open(dir.path(), &NodeId::from("a")).expect("the directory is new");
    let address = "127.0.0.1:1".to_owned();
    let shared = shared(&["a"]);
    let cluster_id = shared.meta.read().expect("no holder of this lock panics").cluster_id;
    let (commands, mut arriving) = mpsc::channel(64);
    let proposals = Proposals::default();
    let seen = Arc::clone(&proposals);
    tokio::spawn(async move {
        while let Some(command) = arriving.recv().await {
            match command {
                Command::Propose { group, entry, responder } => {
                    let before = {
                        let mut seen = seen.lock().expect("no holder of this lock panics");
                        seen.push((group, entry));
                        seen.len() - 1
                    };
                    responder.answer(answer(before));
                }
                Command::Read { reply, .. } => drop(reply.send(Ok(Index(1)))),
                Command::WaitApplied { index, reply, .. } => drop(reply.send(Ok(index))),
                _ => {}
            }
        }
    });
    let peers = Peers::new(PeersConfig {
        listed: Vec::new(),
        own: PeerId(1),
        cluster_id,
        hello: LocalHello::new(&identity, address.clone(), vec![address], PARTITIONS, 1),
        tls: None,
        network: NetworkTuning::default(),
        commands: commands.clone(),
    });
    let handle = NodeHandle { commands, shared };
    let routing = Arc::new(Routing::new(handle.clone()));
    let channels = Arc::new(Channels::new(None, NetworkTuning::default()));
    (Coordinator::new(handle, routing, peers, channels, reads, deadline), proposals)
}

fn applied() -> ProposalResult {
    let cid = Cid::of(b"entity");
    let receipt = Receipt { cid, version: cid, index: Index(7) };
    Ok(Applied { index: Index(7), outcome: AppliedOutcome::Graph(Ok(receipt)) })
}

fn refused(reason: Refusal) -> ProposalResult {
    Err(RequestError::Refused(reason))
}

fn request(id: u64, kind: operation::Kind) -> ClientRequest {
    ClientRequest {
        client_id: "client".into(),
        request_id: id,
        operation: Some(v1::Operation { kind: Some(kind) }),
        ..ClientRequest::default()
    }
}

fn create(id: u64) -> ClientRequest {
    let value = v1::Value { kind: Some(v1::value::Kind::IntValue(id.cast_signed())) };
    let create = v1::CreateNode { properties: [("n".to_owned(), value)].into(), key: String::new() };
    request(id, operation::Kind::CreateNode(create))
}

fn edge(id: u64, target: Cid) -> ClientRequest {
    let create = v1::CreateEdge {
        source_cid: Cid::of(&id.to_be_bytes()).to_string(),
        target_cid: target.to_string(),
        label: "knows".into(),
        ..v1::CreateEdge::default()
    };
    request(id, operation::Kind::CreateEdge(create))
}

fn code(response: &ClientResponse) -> Option<ErrorCode> {
    ErrorCode::from_text(&response.error_code)
}

#[tokio::test]
async fn an_attempt_that_fails_is_made_again_with_the_same_bytes() {
    let (coordinator, proposals) =
        coordinator(Duration::from_secs(20), Arc::default(), |before| match before {
            0 => refused(Refusal::Busy(BusyReason::UncommittedBytes)),
            1 => Err(RequestError::OutcomeUnknown),
            2 => refused(Refusal::NotLeader(None)),
            _ => applied(),
        });
    let response = coordinator.execute(create(5)).await;
    assert!(response.success, "{response:?}");
    assert_eq!((response.request_id, response.log_index), (5, 7));
    let proposals = proposals.lock().expect("no holder of this lock panics");
    assert_eq!(proposals.len(), 4);
    assert!(proposals.iter().all(|proposal| *proposal == proposals[0]));
}

#[tokio::test]
async fn a_deadline_tells_whether_an_attempt_may_still_take_effect() {
    let cases: [(fn() -> ProposalResult, ErrorCode); 3] = [
        (|| Err(RequestError::OutcomeUnknown), ErrorCode::UnknownOutcome),
        (|| refused(Refusal::NotLeader(None)), ErrorCode::NoLeader),
        (|| refused(Refusal::Busy(BusyReason::DiskFull)), ErrorCode::Busy),
    ];
    for (answer, expected) in cases {
        let (coordinator, _) = coordinator(Duration::from_millis(100), Arc::default(), move |_| answer());
        let response = coordinator.execute(create(1)).await;
        assert_eq!((response.success, code(&response)), (false, Some(expected)));
    }
}

#[tokio::test]
async fn every_write_of_a_pipeline_is_answered_once() {
    const WRITES: u64 = 500;
    let (coordinator, _) = coordinator(Duration::from_secs(20), Arc::default(), |before| {
        if before % 7 == 3 { Err(RequestError::OutcomeUnknown) } else { applied() }
    });
    let mut pipeline = Pipeline::new(coordinator);
    (1..=WRITES).for_each(|id| pipeline.submit(create(id)));
    let mut answered = Vec::new();
    while pipeline.in_flight() > 0 {
        let response = pipeline.next().await;
        assert!(response.success, "{response:?}");
        answered.push(response.request_id);
    }
    answered.sort_unstable();
    assert_eq!(answered, (1..=WRITES).collect::<Vec<_>>());
}

#[tokio::test]
async fn edges_carry_the_life_of_their_target_and_targets_are_asked_for_together() {
    const EDGES: u64 = 200;
    let (alive, dead) = (Cid::of(b"alive"), Cid::of(b"dead"));
    let reads = Arc::new(Living { dead: vec![dead], ..Living::default() });
    let (coordinator, proposals) = coordinator(Duration::from_secs(20), Arc::clone(&reads), |_| applied());
    let mut pipeline = Pipeline::new(coordinator);
    (1..=EDGES).for_each(|id| pipeline.submit(edge(id, if id == 9 { dead } else { alive })));
    while pipeline.in_flight() > 0 {
        pipeline.next().await;
    }
    let proposals = proposals.lock().expect("no holder of this lock panics");
    assert_eq!(proposals.len() as u64, EDGES);
    for (_, entry) in proposals.iter() {
        let Ok(GraphCommand::Execute(execute)) = GraphCommand::decode(entry) else {
            panic!("every proposal is an operation");
        };
        let GraphOperation::CreateEdge { target, target_generation, .. } = execute.operation else {
            panic!("every operation creates an edge");
        };
        assert_eq!(target_generation, if target == dead { Generation::NONE } else { Generation(3) });
    }
    let questions = reads.questions.load(Ordering::Relaxed);
    assert!(questions < EDGES / 10, "{questions} questions for {EDGES} edges");
}

#[tokio::test]
async fn requests_that_cannot_be_carried_out_are_refused_before_they_are_proposed() {
    let (coordinator, proposals) = coordinator(Duration::from_secs(20), Arc::default(), |_| applied());
    let cases = [
        (ClientRequest { client_id: String::new(), ..create(1) }, ErrorCode::MalformedValue),
        (ClientRequest { client_id: "x".repeat(300), ..create(1) }, ErrorCode::TooLarge),
        (create(0), ErrorCode::MalformedValue),
        (ClientRequest { operation: None, ..create(1) }, ErrorCode::MalformedValue),
        (ClientRequest { partition: Some(PARTITIONS), ..create(1) }, ErrorCode::NotFound),
        (
            request(1, operation::Kind::DeleteNode(v1::DeleteNode { cid: "nonsense".into() })),
            ErrorCode::MalformedCid,
        ),
    ];
    for (request, expected) in cases {
        let response = coordinator.execute(request.clone()).await;
        assert_eq!((response.success, code(&response)), (false, Some(expected)), "{request:?}");
    }
    assert_eq!(proposals.lock().expect("no holder of this lock panics").len(), 0);
}

#[tokio::test]
async fn an_edge_is_not_found_only_after_every_partition_said_so() {
    let (coordinator, proposals) = coordinator(Duration::from_secs(20), Arc::default(), |_| applied());
    let delete =
        request(1, operation::Kind::DeleteEdge(v1::DeleteEdge { cid: Cid::of(b"edge").to_string() }));
    let response = coordinator.execute(delete).await;
    assert_eq!(code(&response), Some(ErrorCode::NotFound));
    assert_eq!(proposals.lock().expect("no holder of this lock panics").len(), 0);
}

/// Takes a group's replica of this node out of service.
fn damage(handle: &NodeHandle, group: GroupId) {
    let fault = GroupFault::new(ErrorCode::DataDirDamaged, "entry 7 cannot be read");
    handle.hint(group).expect("every group is here").set_fault(fault);
}

#[tokio::test]
async fn nobody_waits_where_the_only_replica_is_out_of_service() {
    let hour = Duration::from_secs(3600);
    let (coordinator, proposals) = coordinator(hour, Arc::default(), |_| applied());
    (0..=PARTITIONS).for_each(|group| damage(&coordinator.handle, GroupId(group)));
    let at_once = Duration::from_secs(20);

    let delete = v1::DeleteEdge { cid: Cid::of(b"edge").to_string() };
    let writes = [create(1), edge(2, Cid::of(b"target")), request(3, operation::Kind::DeleteEdge(delete))];
    for write in writes {
        let response = tokio::time::timeout(at_once, coordinator.execute(write)).await.expect("an answer");
        assert_eq!((response.success, code(&response)), (false, Some(ErrorCode::DataDirDamaged)));
        assert!(response.error_message.contains("entry 7 cannot be read"), "{response:?}");
    }
    let read = coordinator.living(PartitionId(0), vec![Cid::of(b"node")]);
    let read = tokio::time::timeout(at_once, read).await.expect("an answer").expect_err("nobody has it");
    assert_eq!(read.code(), ErrorCode::DataDirDamaged);
    let round = coordinator.barriers.confirm(GroupId(1), hour);
    let round = tokio::time::timeout(at_once, round).await.expect("an answer").expect_err("nobody leads");
    assert_eq!(round.code(), ErrorCode::DataDirDamaged);
    assert_eq!(proposals.lock().expect("no holder of this lock panics").len(), 0);
}

#[test]
fn requests_for_a_replica_out_of_service_go_to_other_nodes() {
    let (commands, _arriving) = mpsc::channel(1);
    let routing = Routing::new(NodeHandle { commands, shared: shared(&["a", "b", "c"]) });
    let (damaged, sound) = (GroupId(1), GroupId(2));
    assert_eq!(routing.route(damaged, 0), Route::Here);
    damage(&routing.handle, damaged);
    assert!(!routing.is_here(damaged) && !routing.leads(damaged));
    let others: Vec<Route> = (0..4).map(|attempt| routing.route(damaged, attempt)).collect();
    assert!(others.contains(&Route::Peer(PeerId(2))) && others.contains(&Route::Peer(PeerId(3))));
    assert!(!others.contains(&Route::Here) && !others.contains(&Route::Nobody));
    assert_eq!(routing.dead_end(damaged), None, "others may answer");
    routing.learn(damaged, "127.0.0.1:3");
    assert_eq!(routing.route(damaged, 0), Route::Peer(PeerId(3)), "who leads is learnt from answers");
    assert_eq!(routing.route(sound, 0), Route::Here, "other groups are as before");
}
