use super::*;
use crate::{node::identity::Origin, raft::PeerId};

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";
const C: &str = "127.0.0.1:3";

fn own() -> Own {
    Own { node_id: NodeId::from("a"), incarnation: Incarnation([1; 16]) }
}

fn plan() -> Plan {
    Plan::new(A.into(), [B.into(), C.into()], 8, 3)
}

fn hello(name: &str, address: &str, incarnation: u8) -> PeerHello {
    PeerHello {
        node_id: NodeId::from(name),
        address: address.into(),
        incarnation: Incarnation([incarnation; 16]),
        addresses: vec![A.into(), B.into(), C.into()],
        partition_count: 8,
        replication_factor: 3,
        cluster: None,
    }
}

fn genesis(members: [(&str, &str, u8); 3]) -> Genesis {
    let member = |(name, address, incarnation): (&str, &str, u8)| GenesisMember {
        node_id: NodeId::from(name),
        address: address.into(),
        incarnation: Incarnation([incarnation; 16]),
    };
    Genesis { members: members.map(member).to_vec(), partition_count: 8, replication_factor: 3 }
}

fn whole() -> Genesis {
    genesis([("a", A, 1), ("b", B, 2), ("c", C, 3)])
}

fn in_cluster(mut hello: PeerHello, genesis: &Genesis) -> PeerHello {
    let state = genesis.state().expect("a state");
    let peer = state.active_peer(&hello.node_id).unwrap_or(PeerId(1));
    hello.cluster = Some(PeerCluster { cluster_id: state.cluster_id, peer, genesis: genesis.clone() });
    hello
}

fn answers(b: Answer, c: Answer) -> BTreeMap<String, Answer> {
    BTreeMap::from([(B.to_owned(), b), (C.to_owned(), c)])
}

fn said(hello: PeerHello) -> Answer {
    Answer::Hello(hello)
}

fn silent() -> Answer {
    Answer::Silent("connection refused".into())
}

fn b() -> PeerHello {
    hello("b", B, 2)
}

fn c() -> PeerHello {
    hello("c", C, 3)
}

fn codes(decision: Decision) -> Vec<ErrorCode> {
    match decision {
        Decision::Wait(reasons) => reasons.into_iter().map(|reason| reason.code).collect(),
        other => panic!("waits, not {other:?}"),
    }
}

#[test]
fn a_node_without_peers_begins_at_once() {
    for peers in [vec![], vec![A.to_owned()]] {
        let plan = Plan::new(A.into(), peers, 4, 3);
        let Decision::Found(genesis) = decide(&own(), &plan, &BTreeMap::new()) else {
            panic!("begins at once")
        };
        assert_eq!(genesis.members.len(), 1);
        assert_eq!((genesis.partition_count, genesis.replication_factor), (4, 3));
    }
}

#[test]
fn all_who_agree_begin_the_same_cluster() {
    let all = [("a", A, 1), ("b", B, 2), ("c", C, 3)];
    for (name, address, incarnation) in all {
        let own = Own { node_id: NodeId::from(name), incarnation: Incarnation([incarnation; 16]) };
        // Each was told the others in another order, and one of them also itself.
        let plan = Plan::new(address.into(), [C.into(), A.into(), B.into()], 8, 3);
        let others = all.into_iter().filter(|(other, _, _)| *other != name);
        let answers = others.map(|(n, a, i)| (a.to_owned(), said(hello(n, a, i)))).collect();
        assert_eq!(decide(&own, &plan, &answers), Decision::Found(whole()), "node {name}");
    }
}

#[test]
fn everybody_has_to_answer() {
    assert_eq!(codes(decide(&own(), &plan(), &answers(said(b()), silent()))), [ErrorCode::PeersDown]);
    assert_eq!(codes(decide(&own(), &plan(), &answers(silent(), silent()))).len(), 2);
    let unasked = BTreeMap::from([(B.to_owned(), said(b()))]);
    assert_eq!(codes(decide(&own(), &plan(), &unasked)), [ErrorCode::PeersDown]);
}

#[test]
fn a_peer_of_another_version_is_waited_for() {
    let old = Answer::NotUnderstood(HelloError::Version { theirs: 9 });
    assert_eq!(codes(decide(&own(), &plan(), &answers(said(b()), old))), [ErrorCode::ProtocolVersion]);
}

#[test]
fn everybody_has_to_be_told_the_same() {
    type Change = fn(&mut PeerHello);
    let cases: [(&str, Change); 5] = [
        ("addresses", |h| h.addresses = vec![A.into(), C.into()]),
        ("partitions", |h| h.partition_count = 9),
        ("replication factor", |h| h.replication_factor = 1),
        ("its own address", |h| h.address = "localhost:3".into()),
        ("this node by another name", |h| h.incarnation = Incarnation([1; 16])),
    ];
    for (name, change) in cases {
        let mut differs = c();
        change(&mut differs);
        let decision = decide(&own(), &plan(), &answers(said(b()), said(differs)));
        assert_eq!(codes(decision), [ErrorCode::BootstrapMismatch], "{name}");
    }
}

#[test]
fn who_is_expected_has_to_be_there() {
    let expecting = |name: &str| plan().expecting([(C.to_owned(), NodeId::from(name))]);
    let all = answers(said(b()), said(c()));
    assert_eq!(decide(&own(), &expecting("c"), &all), Decision::Found(whole()));
    assert_eq!(codes(decide(&own(), &expecting("d"), &all)), [ErrorCode::NodeIdMismatch]);
}

#[test]
fn one_id_for_two_nodes_is_refused() {
    let twin_of_own = answers(said(hello("a", B, 2)), said(c()));
    let twins = answers(said(hello("c", B, 2)), said(c()));
    let copied = answers(said(b()), said(hello("c", C, 2)));
    for case in [twin_of_own, twins, copied] {
        match decide(&own(), &plan(), &case) {
            Decision::Refuse(reason) => assert_eq!(reason.code, ErrorCode::NodeIdMismatch),
            other => panic!("refuses, not {other:?}"),
        }
    }
}

#[test]
fn a_late_first_member_adopts_what_one_peer_has_begun() {
    let began = said(in_cluster(b(), &whole()));
    // The third one is down, or has not noticed yet; the first members are known all the same.
    for third in [silent(), said(c()), said(in_cluster(c(), &whole()))] {
        assert_eq!(decide(&own(), &plan(), &answers(began.clone(), third)), Decision::Adopt(whole()));
    }
    // What it was told by its own command line does not count any more.
    let otherwise = Plan::new(A.into(), [B.into(), C.into()], 99, 1);
    assert_eq!(decide(&own(), &otherwise, &answers(began, silent())), Decision::Adopt(whole()));
}

#[test]
fn a_wiped_node_rejoins_and_never_begins() {
    let wiped = Own { incarnation: Incarnation([99; 16]), ..own() };
    let began = said(in_cluster(b(), &whole()));
    for third in [silent(), said(c()), said(in_cluster(c(), &whole()))] {
        assert_eq!(decide(&wiped, &plan(), &answers(began.clone(), third)), Decision::Rejoin(whole()));
    }
    // While nobody who knows the cluster answers, it waits.
    assert_eq!(codes(decide(&wiped, &plan(), &answers(silent(), said(c())))), [ErrorCode::PeersDown]);
}

#[test]
fn a_stranger_waits() {
    let others = genesis([("b", B, 2), ("c", C, 3), ("d", "127.0.0.1:4", 4)]);
    let began = said(in_cluster(b(), &others));
    assert_eq!(codes(decide(&own(), &plan(), &answers(began, said(c())))), [ErrorCode::UnknownJoiner]);
}

#[test]
fn peers_in_two_clusters_are_waited_for() {
    let other = genesis([("a", A, 1), ("b", B, 77), ("c", C, 3)]);
    let both = answers(said(in_cluster(b(), &whole())), said(in_cluster(c(), &other)));
    assert_eq!(codes(decide(&own(), &plan(), &both)), [ErrorCode::PeerOfOtherCluster]);
}

/// Nodes decide one after the other, at any moment a node may be wiped (a new incarnation, as long
/// as it is in no cluster); whatever the order, no two clusters can both have a majority.
#[test]
fn two_racing_nodes_never_make_two_clusters_that_serve() {
    use proptest::{prelude::*, test_runner::TestRunner};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Look { who: usize, at: usize },
        Decide(usize),
        Wipe(usize),
    }
    let step = prop_oneof![
        6 => (0..3_usize, 0..3_usize).prop_map(|(who, at)| Step::Look { who, at }),
        3 => (0..3_usize).prop_map(Step::Decide),
        1 => (0..3_usize).prop_map(Step::Wipe),
    ];
    let nodes = [("a", A), ("b", B), ("c", C)];
    let mut runner = TestRunner::default();
    let result = runner.run(&proptest::collection::vec(step, 0..60), |steps| {
        let mut incarnations = [1_u8, 2, 3];
        let mut next_incarnation = 4;
        let mut clusters: [Option<Genesis>; 3] = [None, None, None];
        let mut seen: [BTreeMap<String, Answer>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Look { who, at } if who != at => {
                    let (name, address) = nodes[at];
                    let mut answer = hello(name, address, incarnations[at]);
                    if let Some(genesis) = &clusters[at] {
                        answer = in_cluster(answer, genesis);
                    }
                    seen[who].insert(address.to_owned(), said(answer));
                }
                Step::Look { .. } => {}
                Step::Decide(who) if clusters[who].is_none() => {
                    let (name, address) = nodes[who];
                    let own = Own {
                        node_id: NodeId::from(name),
                        incarnation: Incarnation([incarnations[who]; 16]),
                    };
                    let plan = Plan::new(address.into(), [A, B, C].map(String::from), 8, 3);
                    if let Decision::Found(genesis) | Decision::Adopt(genesis) =
                        decide(&own, &plan, &seen[who])
                    {
                        let of_own = genesis.members.iter().any(|m| m.incarnation == own.incarnation);
                        prop_assert!(of_own, "a node enters only a cluster it is a member of");
                        clusters[who] = Some(genesis);
                    }
                }
                Step::Decide(_) => {}
                Step::Wipe(who) => {
                    incarnations[who] = next_incarnation;
                    next_incarnation += 1;
                    clusters[who] = None;
                    seen[who].clear();
                }
            }
        }
        // A node counts for a cluster where it is in it under the incarnation the cluster knows.
        let mut backers: BTreeMap<ClusterId, usize> = BTreeMap::new();
        for (who, genesis) in clusters.iter().enumerate() {
            let Some(genesis) = genesis else { continue };
            let id = genesis.state().expect("a state").cluster_id;
            let known = genesis.members.iter().any(|m| m.incarnation == Incarnation([incarnations[who]; 16]));
            *backers.entry(id).or_default() += usize::from(known);
        }
        let serving = backers.values().filter(|&&count| count >= 2).count();
        prop_assert!(serving <= 1, "{backers:?}");
        Ok(())
    });
    result.expect("at most one cluster serves");
}

fn resumes(answers: &BTreeMap<String, Answer>) -> Resumption {
    let genesis = whole();
    let state = genesis.state().expect("a state");
    let membership = Membership {
        cluster_id: state.cluster_id,
        peer: state.active_peer(&own().node_id).expect("a member"),
        genesis,
        origin: Origin::Founder,
    };
    resume(&own(), &membership, &plan(), answers)
}

fn refusal(resumption: Resumption) -> ErrorCode {
    match resumption {
        Resumption::Refuse(reason) => reason.code,
        Resumption::Go(doubts) => panic!("refuses, not {doubts:?}"),
    }
}

#[test]
fn a_directory_with_a_cluster_waits_for_nobody() {
    let not_ready = Answer::Refused(Reason::new(ErrorCode::Unavailable, "not yet"));
    for other in [silent(), said(c()), not_ready, said(in_cluster(c(), &whole()))] {
        assert_eq!(resumes(&answers(silent(), other)), Resumption::Go(Vec::new()));
    }
}

#[test]
fn a_directory_of_another_cluster_than_the_peers_is_refused() {
    let other = genesis([("a", A, 1), ("b", B, 77), ("c", C, 3)]);
    let stranger = || said(in_cluster(c(), &other));
    assert_eq!(refusal(resumes(&answers(silent(), stranger()))), ErrorCode::DataDirOfOtherCluster);
    assert_eq!(refusal(resumes(&answers(said(b()), stranger()))), ErrorCode::DataDirOfOtherCluster);
    // One that is among its own may be told of strangers, too.
    let Resumption::Go(doubts) = resumes(&answers(said(in_cluster(b(), &whole())), stranger())) else {
        panic!("goes on");
    };
    assert_eq!(doubts.iter().map(|doubt| doubt.code).collect::<Vec<_>>(), [ErrorCode::PeerOfOtherCluster]);
    // Who answers where a member was long ago, and the operator does not say it is one, is nobody's matter.
    let elsewhere = BTreeMap::from([("127.0.0.1:9".to_owned(), stranger())]);
    assert_eq!(resumes(&elsewhere), Resumption::Go(Vec::new()));
}

#[test]
fn a_replaced_directory_is_refused() {
    let told = Answer::Refused(Reason::new(ErrorCode::Superseded, "it was replaced"));
    assert_eq!(refusal(resumes(&answers(silent(), told))), ErrorCode::Superseded);
    let mut newer = in_cluster(hello("a", C, 9), &whole());
    newer.cluster.as_mut().expect("a cluster").peer = PeerId(4);
    assert_eq!(refusal(resumes(&answers(silent(), said(newer.clone())))), ErrorCode::Superseded);
    // An older one that still runs will learn of it itself.
    newer.cluster.as_mut().expect("a cluster").peer = PeerId(0);
    assert_eq!(resumes(&answers(silent(), said(newer))), Resumption::Go(Vec::new()));
}

#[test]
fn a_copy_of_a_directory_that_runs_is_refused() {
    let copy = |address| said(in_cluster(hello("a", address, 1), &whole()));
    assert_eq!(refusal(resumes(&answers(silent(), copy(C)))), ErrorCode::NodeIdMismatch);
    // This node itself, by another name of its address.
    assert_eq!(resumes(&answers(silent(), copy(A))), Resumption::Go(Vec::new()));
}

#[test]
fn a_second_node_under_a_members_name_is_refused() {
    let second = Own { incarnation: Incarnation([99; 16]), ..own() };
    let first = said(in_cluster(hello("a", C, 1), &whole()));
    match decide(&second, &plan(), &answers(said(in_cluster(b(), &whole())), first)) {
        Decision::Refuse(reason) => assert_eq!(reason.code, ErrorCode::NodeIdMismatch),
        other => panic!("refuses, not {other:?}"),
    }
}
