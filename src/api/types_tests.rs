use super::*;

fn stats(active: usize, suspected: usize, failed: usize, replication_factor: usize) -> ClusterStats {
    ClusterStats {
        total_nodes: active + suspected + failed,
        active_nodes: active,
        suspected_nodes: suspected,
        failed_nodes: failed,
        replication_factor,
        partition_count: 64,
    }
}

#[test]
fn health_is_the_share_of_the_living() {
    for (stats, score) in [
        (stats(3, 0, 0, 3), 1.0),
        (stats(1, 1, 0, 3), 0.75),
        (stats(0, 0, 3, 3), 0.0),
        (stats(0, 0, 0, 3), 0.0),
    ] {
        assert_eq!(stats.health_score(), score, "{stats:?}");
    }
}

#[test]
fn quorum_is_a_majority_of_all_members_and_never_of_none() {
    for (stats, quorum) in [
        (stats(0, 0, 0, 3), false),
        (stats(1, 0, 0, 3), true),
        (stats(1, 0, 1, 3), false),
        (stats(2, 0, 1, 3), true),
        (stats(1, 1, 1, 3), false),
        (stats(2, 0, 2, 3), false),
    ] {
        assert_eq!(stats.has_quorum(), quorum, "{stats:?}");
    }
}

#[test]
fn tolerance_looks_at_the_members_and_at_each_partition() {
    for (stats, failures, tolerated) in [
        (stats(3, 0, 0, 3), 0, true),
        (stats(3, 0, 0, 3), 1, true),
        (stats(3, 0, 0, 3), 2, false),
        (stats(2, 0, 1, 3), 0, true),
        (stats(2, 0, 1, 3), 1, false),
        (stats(1, 0, 0, 3), 0, true),
        (stats(1, 0, 0, 3), 1, false),
        // Five members survive two failures; a partition with three replicas may not.
        (stats(5, 0, 0, 3), 2, false),
        (stats(5, 0, 0, 5), 2, true),
        (stats(0, 0, 0, 3), 0, false),
        (stats(3, 0, 0, 3), usize::MAX, false),
    ] {
        assert_eq!(stats.can_tolerate_failures(failures), tolerated, "{stats:?} {failures}");
    }
}
