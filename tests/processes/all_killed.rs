//! The power fails for all at once.

use crate::{harness::Cluster, load::Load};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_under_load_come_back_with_everything() {
    let mut cluster = Cluster::start(16).await;
    let load = Load::start(&cluster, 6, 2).await;
    for _ in 0..2 {
        load.until_more(None, 100).await;
        for node in 0..3 {
            cluster.kill(node);
        }
        for node in 0..3 {
            cluster.launch(node);
        }
    }
    load.until_more(None, 100).await;
    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    cluster.finish();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_ends_with_success_and_loses_nothing() {
    let mut cluster = Cluster::start(16).await;
    let load = Load::start(&cluster, 3, 2).await;
    load.until_more(None, 50).await;
    for node in 0..3 {
        assert_eq!(cluster.terminate(node).await, 0, "{}", cluster.log_of(node));
        cluster.launch(node);
        load.until_more(None, 20).await;
        cluster.until_caught_up(node).await;
    }
    let ledgers = load.stop().await;
    cluster.check_all(&ledgers).await;
    cluster.finish();
}
