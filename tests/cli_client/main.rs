//! The client against scripted nodes over real connections: it repeats what got lost with the ids it had,
//! goes where it is told, and tells a refusal from an unknown outcome and both from no outcome.

mod fake;
mod tls;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use fake::{Act, Arrival, Cluster};
use kotoba_db_cluster::{
    client::{Client, ClientOptions, Job, Pipeline, PipelineOptions, ReadFrom, Refusals, v1},
    error::{ClusterError, ErrorCode},
    limits::STREAM_IN_FLIGHT_MAX,
    placement::PartitionId,
};

const PARTITION: Option<PartitionId> = Some(PartitionId(0));

async fn client(cluster: &Cluster, deadline: Duration) -> Client {
    let options =
        ClientOptions { deadline, attempt_timeout: Duration::from_secs(2), ..ClientOptions::default() };
    Client::connect(cluster.endpoints.clone(), options).await.unwrap()
}

fn operation() -> v1::Operation {
    let delete = v1::DeleteNode { cid: "b".into() };
    v1::Operation { kind: Some(v1::operation::Kind::DeleteNode(delete)) }
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_elsewhere_with_the_same_ids() {
    let lose_twice =
        |_: usize, _: &v1::ClientRequest, before| if before < 2 { Act::LoseAnswer } else { Act::Answer };
    let cluster = Cluster::start(2, Box::new(lose_twice)).await;
    let client = client(&cluster, LONG).await;
    let receipt = client.execute(operation(), PARTITION).await.unwrap();
    assert_eq!((receipt.cid.as_str(), receipt.index), ("cid-1", 1));
    let memory = cluster.memory();
    let arrivals: Vec<_> =
        memory.arrivals.iter().map(|a| (a.client_id.as_str(), a.request_id, a.node)).collect();
    let id = client.client_id();
    assert_eq!(arrivals[..2], [(id, 1, 0), (id, 1, 1)], "the leader first, then another");
    assert_eq!(arrivals.len(), 3);
    assert_eq!(memory.effects.len(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_and_remembered() {
    let only_second =
        |node: usize, _: &v1::ClientRequest, _| if node == 0 { Act::Redirect } else { Act::Answer };
    let cluster = Cluster::start(2, Box::new(only_second)).await;
    let client = client(&cluster, LONG).await;
    for _ in 0..3 {
        client.execute(operation(), PARTITION).await.unwrap();
    }
    let nodes: Vec<_> = cluster.memory().arrivals.iter().map(|arrival| arrival.node).collect();
    assert_eq!(nodes, [0, 1, 1, 1]);
    assert_eq!(client.leader_of(PartitionId(0)).as_ref(), Some(&cluster.endpoints[1]));
}

#[tokio::test]
async fn a_refusal_is_definite() {
    let cluster = Cluster::start(2, Box::new(|_, _, _| Act::Refuse)).await;
    let error = client(&cluster, LONG).await.execute(operation(), PARTITION).await.unwrap_err();
    assert_eq!(error, ClusterError::new(ErrorCode::EndpointMissing, "scripted, here"));
    assert_eq!(cluster.memory().arrivals.len(), 1);
}

#[tokio::test]
async fn only_what_may_have_taken_effect_is_unknown() {
    let lost = Cluster::start(2, Box::new(|_, _, _| Act::LoseAnswer)).await;
    let error = client(&lost, SHORT).await.execute(operation(), PARTITION).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownOutcome, "{error}");
    let idle = Cluster::start(2, Box::new(|_, _, _| Act::NotNow)).await;
    let error = client(&idle, SHORT).await.execute(operation(), PARTITION).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert!(lost.memory().arrivals.len() > 1 && idle.memory().arrivals.len() > 1, "both were repeated");
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let options = ClientOptions { deadline: SHORT, ..ClientOptions::default() };
    let client = Client::connect(vec![address], options).await.unwrap();
    let error = client.entity("b", ReadFrom::default()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
    assert_eq!(client.status_now().await.unwrap_err().code().exit_status().number(), 3);
    let error = client.execute(operation(), PARTITION).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unavailable, "nothing can have been sent: {error}");
    let outcomes = Outcomes::default();
    let options = PipelineOptions { deadline: SHORT, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::start(&client, options, collect(&outcomes));
    pipeline.submit(Job::new(1, operation(), PARTITION)).await.unwrap();
    pipeline.finish().await.unwrap();
    assert_eq!(outcomes.lock().unwrap()[&1], [Err(ErrorCode::Unavailable)]);
}

#[tokio::test]
async fn an_unknown_outcome_is_learnt_by_repeating_the_request() {
    let first_lost = |_: usize, request: &v1::ClientRequest, _| {
        if request.request_id == 1 { Act::LoseAnswer } else { Act::Answer }
    };
    let cluster = Cluster::start(1, Box::new(first_lost)).await;
    let client = client(&cluster, SHORT).await;
    let error = client.execute(operation(), PARTITION).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownOutcome);
    let name = format!("request 1 of client {}", client.client_id());
    assert!(error.what().contains(&name), "{error}");
    client.execute(operation(), PARTITION).await.unwrap();
    assert!(cluster.memory().arrivals.iter().all(|arrival| arrival.acked_below <= 1), "1 is not answered");

    cluster.answer_from_now_on();
    // As another process would: it knows the two ids only.
    let options =
        ClientOptions { client_id: Some(client.client_id().to_owned()), ..ClientOptions::default() };
    let other = Client::connect(cluster.endpoints.clone(), options).await.unwrap();
    let receipt = other.execute_as(1, operation(), PARTITION).await.unwrap();
    assert_eq!(receipt.cid, "cid-1");
    let receipt = client.execute_as(1, operation(), PARTITION).await.unwrap();
    assert_eq!(receipt.cid, "cid-1");
    client.execute(operation(), PARTITION).await.unwrap();
    {
        let memory = cluster.memory();
        assert_eq!(memory.arrivals.last().unwrap().acked_below, 3, "all are answered now");
        assert_eq!(memory.effects.len(), 3);
    }
    assert_eq!(
        client.execute_as(0, operation(), PARTITION).await.unwrap_err().code(),
        ErrorCode::MalformedValue
    );
}

#[tokio::test]
async fn a_read_goes_on_to_the_next_node() {
    let cluster = Cluster::start(2, Box::new(|_, _, _| Act::Answer)).await;
    let entity = client(&cluster, LONG).await.entity("b7", ReadFrom::default()).await.unwrap();
    assert_eq!(entity.unwrap().cid, "b7");
}

/// Every id's outcomes, in the order of the answers.
type Outcomes = Arc<Mutex<BTreeMap<u64, Vec<Result<String, ErrorCode>>>>>;

fn collect(outcomes: &Outcomes) -> impl FnMut(kotoba_db_cluster::client::Completion) + Send + 'static {
    let outcomes = Arc::clone(outcomes);
    move |completion| {
        let outcome = completion.outcome.map(|receipt| receipt.cid).map_err(|error| error.code());
        outcomes.lock().unwrap().entry(completion.request_id).or_default().push(outcome);
    }
}

/// At every arrival: what the client calls answered must have taken effect, and nothing may be in flight
/// that is further than a window behind.
fn check_floor(arrivals: &[Arrival], last_id: u64) {
    for arrival in arrivals {
        assert!(arrival.acked_below <= arrival.request_id, "{arrival:?} is called answered while it is sent");
        assert!(
            arrival.request_id < arrival.acked_below + STREAM_IN_FLIGHT_MAX as u64,
            "{arrival:?}: the span rule"
        );
        assert!(arrival.request_id <= last_id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_gets_every_write_through_broken_streams_once() {
    const WRITES: u64 = 20_000;
    // A fixed pattern of trouble: lost answers break streams, leaders move, nodes are busy.
    let trouble = |node: usize, request: &v1::ClientRequest, before: usize| match (request.request_id * 31
        + node as u64)
        % 997
    {
        0 if before < 2 => Act::LoseAnswer,
        1..=5 if before < 3 => Act::NotNow,
        6..=9 if before < 1 => Act::Redirect,
        _ => Act::Answer,
    };
    let cluster = Cluster::start(3, Box::new(trouble)).await;
    let client = client(&cluster, LONG).await;
    let outcomes = Outcomes::default();
    let mut pipeline = Pipeline::start(&client, PipelineOptions::default(), collect(&outcomes));
    for number in 1..=WRITES {
        // Ids have gaps, as line numbers do.
        pipeline.submit(Job::new(number * 3, operation(), PARTITION)).await.unwrap();
    }
    pipeline.finish().await.unwrap();

    let outcomes = outcomes.lock().unwrap();
    assert_eq!(outcomes.len() as u64, WRITES);
    for (id, answers) in outcomes.iter() {
        assert_eq!(*answers, [Ok(format!("cid-{id}"))], "exactly one answer, and its own");
    }
    let memory = cluster.memory();
    assert_eq!(memory.effects.len() as u64, WRITES);
    assert!(memory.effects.iter().all(|(id, _)| id == client.client_id()));
    check_floor(&memory.arrivals, WRITES * 3);
    let nodes: BTreeSet<_> = memory.arrivals.iter().map(|arrival| arrival.node).collect();
    assert!(nodes.len() > 1 && memory.arrivals.len() as u64 > WRITES, "there was trouble");
}

#[tokio::test]
async fn a_pipeline_that_stops_never_calls_the_refused_write_answered() {
    let script = |_: usize, request: &v1::ClientRequest, _| {
        if request.request_id == 50 { Act::Refuse } else { Act::Answer }
    };
    let cluster = Cluster::start(1, Box::new(script)).await;
    let client = client(&cluster, LONG).await;
    let outcomes = Outcomes::default();
    let options = PipelineOptions { refusals: Refusals::Stop, in_flight: 16, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::start(&client, options, collect(&outcomes));
    let mut submitted = 0;
    for number in 1..=10_000 {
        match pipeline.submit(Job::new(number, operation(), PARTITION)).await {
            Ok(()) => submitted = number,
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::NotRunning);
                break;
            }
        }
    }
    pipeline.finish().await.unwrap();
    assert!(submitted < 10_000, "it stopped");
    assert_eq!(outcomes.lock().unwrap()[&50], [Err(ErrorCode::EndpointMissing)]);
    assert!(cluster.memory().arrivals.iter().all(|arrival| arrival.acked_below <= 50));
}

#[tokio::test]
async fn a_pipeline_gives_up_what_nobody_takes() {
    let cluster = Cluster::start(2, Box::new(|_, _, _| Act::NotNow)).await;
    let client = client(&cluster, LONG).await;
    let outcomes = Outcomes::default();
    let options = PipelineOptions { deadline: SHORT, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::start(&client, options, collect(&outcomes));
    pipeline.submit(Job::new(1, operation(), PARTITION)).await.unwrap();
    let error = pipeline.submit(Job::new(1, operation(), PARTITION)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RequestReused, "ids rise");
    pipeline.finish().await.unwrap();
    assert_eq!(outcomes.lock().unwrap()[&1], [Err(ErrorCode::Unavailable)]);
}
