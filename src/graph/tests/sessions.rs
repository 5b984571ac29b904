//! Exactly once, within bounds.

use super::*;
use crate::{graph::read::history, limits::SESSION_OUTCOMES_MAX};

fn versions(bench: &Bench, cid: Cid) -> usize {
    history(&bench.store, GROUP, cid).unwrap().expect("it exists").len()
}

fn acked(id: u64, acked_below: u64, operation: GraphOperation) -> Command {
    Command::execute("c", RequestId(id), RequestId(acked_below), operation).expect("short")
}

#[test]
fn a_repeat_gets_the_first_outcome_and_changes_nothing() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let update = request("c", 9, update_node(cid, "x", 1));
    let first = bench.command(&update);
    assert_eq!(bench.command(&update), first);
    assert_eq!(versions(&bench, cid), 2);
    // Another client with the same id is another request.
    assert_ne!(bench.command(&request("d", 9, update_node(cid, "x", 1))), first);
    // The same id for another operation is refused, and the first outcome stays.
    assert_eq!(bench.command(&request("c", 9, update_node(cid, "x", 2))), Err(GraphError::RequestReused));
    assert_eq!(bench.command(&update), first);
    // So does it over a restart.
    bench.machine = GraphMachine::open(&bench.store, GROUP).unwrap();
    assert_eq!(bench.command(&update), first);
    bench.check_digest();
}

#[test]
fn a_refusal_is_remembered_too() {
    let mut bench = Bench::new();
    let cid = node_cid("a");
    let early = request("c", 1, update_node(cid, "x", 1));
    assert_eq!(bench.command(&early), Err(GraphError::NotFound { cid }));
    bench.ok(create_node("a"));
    assert_eq!(bench.command(&early), Err(GraphError::NotFound { cid }));
    assert_eq!(versions(&bench, cid), 1);
}

#[test]
fn a_repeat_through_a_coordinator_that_read_a_later_target_is_the_same_request() {
    let mut bench = Bench::new();
    let (a, b) = (bench.ok(create_node("a")).cid, bench.ok(create_node("b")).cid);
    let first = bench.command(&request("c", 1, create_edge(a, "l", b, 1)));
    assert_eq!(bench.command(&request("c", 1, create_edge(a, "l", b, 2))), first);
    assert_eq!(bench.command(&request("c", 1, create_edge(a, "m", b, 1))), Err(GraphError::RequestReused));
}

#[test]
fn ids_may_arrive_in_any_order() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    for id in [50, 3, 40, 1, 49, 2] {
        assert!(bench.command(&request("c", id, update_node(cid, "x", id as i64))).is_ok());
    }
    assert_eq!(versions(&bench, cid), 7);
    for id in [1, 2, 3, 40, 49, 50] {
        assert!(bench.command(&request("c", id, update_node(cid, "x", id as i64))).is_ok());
    }
    assert_eq!(versions(&bench, cid), 7);
    bench.check_digest();
}

#[test]
fn acknowledged_outcomes_are_forgotten_and_never_executed_again() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    for id in 1..=5 {
        assert!(bench.command(&acked(id, 0, update_node(cid, "x", id as i64))).is_ok());
    }
    assert!(bench.command(&acked(6, 5, update_node(cid, "x", 6))).is_ok());
    for id in 1..=4 {
        let again = acked(id, 0, update_node(cid, "x", id as i64));
        assert_eq!(bench.command(&again), Err(GraphError::SessionExpired));
    }
    assert!(bench.command(&acked(5, 0, update_node(cid, "x", 5))).is_ok());
    assert_eq!(versions(&bench, cid), 7);
    bench.check_digest();
}

#[test]
fn the_window_is_bounded_and_what_fell_out_is_refused() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let command = |id: u64| request("c", id, update_node(cid, "x", id as i64)).encode();
    let ids = 10..10 + SESSION_OUTCOMES_MAX as u64 + 5;
    let commands: Vec<Bytes> = ids.clone().map(command).collect();
    let first = bench.machine.applied().index.0 + 1;
    for (chunk_at, chunk) in commands.chunks(512).enumerate() {
        let at = first + 512 * chunk_at as u64;
        let batch: Vec<(Index, Term, &[u8])> =
            chunk.iter().zip(at..).map(|(bytes, index)| (Index(index), Term(1), &bytes[..])).collect();
        assert!(bench.apply(&batch).iter().all(|(_, effect)| matches!(effect, Effect::Operation(Ok(_)))));
    }
    let before = versions(&bench, cid);
    let mut outcome = |id: u64| bench.command(&Command::decode(&command(id)).unwrap());
    // The five smallest fell out; an id below them that never came is refused as well.
    assert_eq!(outcome(14), Err(GraphError::SessionExpired));
    assert_eq!(outcome(3), Err(GraphError::SessionExpired));
    assert!(outcome(15).is_ok());
    assert!(outcome(ids.end - 1).is_ok());
    assert_eq!(versions(&bench, cid), before);
    let outcomes = rows_of(&bench.store).into_keys().filter(|key| key[4] == rows::OUTCOME).count();
    assert_eq!(outcomes, SESSION_OUTCOMES_MAX + 1);
    bench.check_digest();
}

#[test]
fn idle_sessions_end_and_their_ids_stay_refused() {
    let mut bench = Bench::new();
    let cid = bench.ok(create_node("a")).cid;
    let old = request("idle", 5, update_node(cid, "x", 1));
    assert!(bench.command(&old).is_ok());
    let later = Index(IDLE_ENTRIES + 100);
    // Another client's entry, long after, sweeps.
    assert!(bench.command_at(later, &request("busy", 1, update_node(cid, "y", 1))).is_ok());
    let outcomes = rows_of(&bench.store).into_keys().filter(|key| key[4] == rows::OUTCOME).count();
    assert_eq!(outcomes, 1, "only the new request's outcome is left");
    assert_eq!(bench.command(&old), Err(GraphError::SessionExpired));
    assert_eq!(bench.command(&request("idle", 4, create_node("b"))), Err(GraphError::SessionExpired));
    // The client goes on with new ids.
    assert!(bench.command(&request("idle", 6, update_node(cid, "x", 2))).is_ok());
    bench.check_digest();
    let reopened = GraphMachine::open(&bench.store, GROUP).unwrap();
    assert_eq!(reopened.digest(), bench.machine.digest());
}

#[test]
fn the_sweep_reaches_every_session_in_bounded_steps() {
    let mut bench = Bench::new();
    for client in 0..100 {
        let command = request(&format!("client-{client}"), 1, create_node("a"));
        assert!(bench.command(&command).is_ok());
    }
    let outcomes =
        |bench: &Bench| rows_of(&bench.store).into_keys().filter(|key| key[4] == rows::OUTCOME).count();
    let mut left = vec![outcomes(&bench)];
    for step in 0..5 {
        let at = Index(2 * IDLE_ENTRIES + 40 * step);
        assert!(bench.command_at(at, &request("busy", step, create_node("b"))).is_ok());
        left.push(outcomes(&bench));
    }
    // Each step ends at most 32 sessions and adds one outcome.
    assert!(left.windows(2).all(|pair| pair[0] <= pair[1] + 32), "{left:?}");
    assert_eq!(left.last(), Some(&5), "{left:?}");
    bench.check_digest();
}
