//! A leader's process sleeps for longer than an election, and wakes up believing it still leads.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kotoba_db_cluster::client::v1;
use tokio::{task::JoinHandle, time::timeout};

use crate::{
    harness::{Cluster, Group, PATIENCE, eventually, leader_in, rows, service},
    load::{Counter, Load, seq_of},
};

const PAUSES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_steps_down_and_nobody_reads_the_past() {
    let mut cluster = Cluster::start(16).await;
    let load = Load::start(&cluster, 4, 2).await;
    let readers = Readers::start(&cluster, &load.counters);
    load.until_more(None, 50).await;

    for round in 0..PAUSES {
        let partition = load.counters[round % load.counters.len()].partition;
        let group = Group::Partition(partition.0);
        let paused = cluster.leader_of(group).await;
        cluster.pause(paused);
        load.until_more(Some(partition), 3).await;
        let successor = cluster.leader_of(group).await;
        assert_ne!(successor, paused, "it sleeps");
        cluster.resume(paused);
        until_it_follows(&cluster, paused, group).await;
        load.until_more(Some(partition), 3).await;
    }

    let answered = readers.stop().await;
    assert!(answered > 20, "the readers were answered {answered} times");
    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    cluster.finish();
}

/// The paused node knows another leader of the group, and does not claim to lead it.
async fn until_it_follows(cluster: &Cluster, paused: usize, group: Group) {
    let id = &cluster.nodes[paused].id;
    eventually("end of a paused leader's office", PATIENCE, async || {
        let status = cluster.status_of(paused).await?;
        let leader = leader_in(&status, group).ok_or("nobody leads")?;
        let Group::Partition(partition) = group else { return Ok(()) };
        let own = status.nodes.iter().find(|node| node.id == *id).ok_or("it does not list itself")?;
        let row = rows(own).find(|(its, _)| *its == Some(partition)).ok_or("it has no such group")?.1;
        // It may be elected again, fairly; what it must not do is to go on as if nothing had happened.
        let follows = row.role == "follower" && !row.leader.is_empty();
        if follows || (row.role == "leader" && leader == *id) { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
}

/// Strong reads of all counters, each from one certain node, the paused one included.
struct Readers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    fn start(cluster: &Cluster, counters: &[Arc<Counter>]) -> Self {
        let mut readers = Self { stop: Arc::default(), answered: Arc::default(), tasks: Vec::new() };
        for address in cluster.addresses() {
            let (stop, answered) = (Arc::clone(&readers.stop), Arc::clone(&readers.answered));
            readers.tasks.push(tokio::spawn(read(address, counters.to_vec(), stop, answered)));
        }
        readers
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        for task in self.tasks {
            task.await.expect("a reader read the past");
        }
        self.answered.load(Ordering::Acquire)
    }
}

async fn read(address: String, counters: Vec<Arc<Counter>>, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) {
    let mut service = service(&address);
    for counter in counters.iter().cycle() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let options = v1::ReadOptions { partition: Some(counter.partition.0), ..Default::default() };
        let request = v1::GetEntityRequest { cid: counter.cid.clone(), options: Some(options) };
        // Whatever was acknowledged before the question was asked must be in the answer.
        let floor = counter.acknowledged.load(Ordering::Acquire);
        let answer = timeout(Duration::from_secs(8), service.get_entity(request)).await;
        let Ok(Ok(answer)) = answer else { continue };
        let entity = answer.into_inner().entity.expect("it was created before");
        let seq = seq_of(&entity.properties).expect("every version counts");
        assert!(seq >= floor, "{address} answered {seq} after {floor} was acknowledged");
        answered.fetch_add(1, Ordering::AcqRel);
    }
}
