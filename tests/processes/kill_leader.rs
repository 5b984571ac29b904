//! Whoever leads is killed, again and again, while clients write.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    harness::{Cluster, Draws, Group},
    load::Load,
};

const KILLS: usize = 10;
/// The longest the load runs undisturbed before a kill.
const CALM_MS_MAX: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_of_leaders_lose_and_repeat_nothing() {
    let mut draws = Draws::new();
    let mut cluster = Cluster::start(64).await;
    let imported = cluster.import_graph().await;
    let load = Load::start(&cluster, 6, 3).await;
    load.until_more(None, 50).await;

    for round in 0..KILLS {
        // The moment of the kill; it decides nothing about what must hold.
        sleep(Duration::from_millis(draws.below(CALM_MS_MAX) as u64)).await;
        let partition = load.counters[draws.below(load.counters.len())].partition;
        let group = if round % 4 == 3 { Group::Meta } else { Group::Partition(partition.0) };
        let leader = cluster.leader_of(group).await;
        cluster.kill(leader);
        let killed = Instant::now();
        load.until_more(Some(partition), 1).await;
        let gap = killed.elapsed();
        eprintln!("kill {round}: {}, which led {group:?}; {partition} wrote again after {gap:?}", cluster.nodes[leader].id);
        cluster.launch(leader);
        if draws.below(2) == 0 {
            cluster.until_caught_up(leader).await;
        } else {
            load.until_more(None, 20).await;
        }
    }

    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    let exported = cluster.export().await;
    let of_load = exported.iter().filter(|line| line.contains("\"load-")).count();
    assert_eq!(of_load, ledgers.len());
    assert!(imported.is_subset(&exported), "lost: {:?}", imported.difference(&exported).next());
    assert_eq!(exported.len(), imported.len() + of_load, "nothing is there twice");
    cluster.finish();
}
