//! Partitions that one node alone holds: whichever node is asked passes the question on.

use std::collections::BTreeSet;

use kotoba_db_cluster_proto::v1::{self, operation::Kind};

use crate::{
    harness::{Cluster, service},
    refused_values::{Asker, code_in, edge, named, update_edge},
};

const SPOKES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_for_partitions_of_others() {
    let mut cluster = Cluster::prepare(3, 16);
    for node in 0..3 {
        let mut line = cluster.command_line(node);
        line.push("--replication-factor=1".to_owned());
        cluster.launch_with(node, &line);
    }
    cluster.until_serving().await;

    let addresses = cluster.addresses();
    let mut askers: Vec<Asker> = (1_u64..)
        .zip(&addresses)
        .map(|(number, address)| Asker { address: address.clone(), request_id: number * 10_000 })
        .collect();
    let hub = askers[0].done(named("hub")).await.result_cid;
    let (mut leaving, mut entering) = (BTreeSet::new(), BTreeSet::new());
    for spoke in 0..SPOKES {
        let asker = &mut askers[spoke % 3];
        let other = asker.done(named(&format!("spoke {spoke}"))).await.result_cid;
        leaving.insert(asker.done(edge(&hub, &other, "to")).await.result_cid);
        entering.insert(asker.done(edge(&other, &hub, "from")).await.result_cid);
    }
    for asker in &mut askers {
        for cid in leaving.iter().chain(&entering).take(3) {
            asker.done(update_edge(cid)).await;
        }
        let found = in_pages_of(7, &asker.address, &hub).await;
        let side = |incoming: bool| {
            let of = if incoming { v1::Direction::In } else { v1::Direction::Out };
            found.iter().filter(move |neighbor| neighbor.direction() == of).map(|found| found.edge.clone())
        };
        assert_eq!(found.len(), 2 * SPOKES, "each once");
        assert_eq!(
            (side(false).collect::<BTreeSet<_>>(), side(true).collect()),
            (leaving.clone(), entering.clone())
        );
    }

    // A receipt's index is of the partition of the edge's source, which the edge's CID does not tell.
    let receipt = askers[0].done(update_edge(entering.first().expect("some"))).await;
    for address in &addresses {
        let seen = entity_at(address, &receipt).await;
        assert_eq!(seen.version, receipt.version_cid);
    }

    let edge = leaving.first().expect("some").clone();
    let request = v1::NeighborsRequest { cid: edge.clone(), ..Default::default() };
    let refused = service(&addresses[0]).neighbors(request).await.expect_err("an edge has no edges");
    assert_eq!(code_in(&refused), "KDB-0010");
    for asker in &mut askers {
        asker.refused(Kind::DeleteNode(v1::DeleteNode { cid: edge.clone() }), "KDB-0010").await;
    }
    askers[1].done(Kind::DeleteNode(v1::DeleteNode { cid: hub.clone() })).await;
    for asker in &mut askers {
        asker.refused(update_edge(&edge), "KDB-0008").await;
        asker.refused(update_edge(entering.first().expect("some")), "KDB-0008").await;
    }
    askers[2].done(named("hub")).await;
    assert!(in_pages_of(7, &addresses[0], &hub).await.is_empty(), "edges are of the life before");
    askers[0].refused(update_edge(entering.first().expect("some")), "KDB-0008").await;
    cluster.finish();
}

/// An entity at the index of a receipt, as one node tells it.
async fn entity_at(address: &str, receipt: &v1::ClientResponse) -> v1::Entity {
    let options = v1::ReadOptions {
        consistency: v1::Consistency::Session.into(),
        min_index: receipt.log_index,
        ..Default::default()
    };
    let request = v1::GetEntityRequest { cid: receipt.result_cid.clone(), options: Some(options) };
    let answer = service(address).get_entity(request).await.expect("an answer").into_inner();
    answer.entity.expect("it exists")
}

/// All neighbours of a node, as one node tells them.
async fn in_pages_of(limit: u32, address: &str, cid: &str) -> Vec<v1::Neighbor> {
    let mut service = service(address);
    let mut request = v1::NeighborsRequest {
        cid: cid.to_owned(),
        direction: v1::Direction::Both.into(),
        limit,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = service.neighbors(request.clone()).await.expect("an answer").into_inner();
        assert!(page.neighbors.len() <= limit as usize);
        found.extend(page.neighbors);
        if page.resume.is_empty() {
            return found;
        }
        request.resume = page.resume;
    }
}
