//! The consensus core in a runtime of your own: `cargo run --example embed --no-default-features`.
//!
//! Three replicas count together. No thread, socket, file or clock: the network is a queue, the disk is
//! memory, time is a number. What remains is what the core asks for: the six steps of `raft`.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{collections::BTreeMap, collections::VecDeque, mem::take};

use kotoba_db_cluster::raft::{
    Append, AppendPlan, Body, BootEpoch, Configuration, EntrySource, HardState, Index, Input, Limits,
    Message, Now, Output, PayloadId, Position, Proposal, Replica, ReplicaId, Restored, RoleKind, Settings,
    SnapshotMeta, Term, Timing, WriteToken,
};

/// A message together with the payload bytes it refers to: the core itself never sees a byte.
type Packet = (Message, Vec<Vec<u8>>);

/// One member: the core's replica, and what the core leaves to us.
struct Member {
    replica: Replica,
    log: BTreeMap<Index, Vec<u8>>, // the payload bytes
    arriving: Vec<Vec<u8>>,        // of the input being handled, until the core says where they belong
    writing: Vec<WriteToken>,      // begun and not yet reported: this disk needs one turn of the loop
    counter: u64,                  // the state machine,
    applied: Index,                // and how far it has applied the log
}

impl Member {
    /// Step 1: start from what the disk holds. A new group begins as if with a snapshot at 1/t1.
    fn new(id: ReplicaId, voters: Configuration) -> Self {
        let (boot, timing) = (BootEpoch(1), Timing::default());
        let settings = Settings { id, boot, seed: 42, timing, retained_bytes: 0, limits: Limits::default() };
        let start = SnapshotMeta { position: Position::new(Index(1), Term(1)), configuration: voters };
        let hard_state = HardState { term: Term(1), vote: None };
        let restored = Restored { hard_state, start, applied: Index(1), ..Restored::default() };
        let replica = Replica::recover(settings, restored, Now::default()).expect("a sound beginning");
        let log = BTreeMap::new();
        Self { replica, log, arriving: vec![], writing: vec![], counter: 0, applied: Index(1) }
    }

    /// Steps 3 and 4: handle one input, then drain the outputs, all of them, in order.
    fn handle(&mut self, now: Now, input: Input, network: &mut VecDeque<Packet>) {
        self.replica.handle(now, input);
        while let Some(output) = self.replica.poll_output() {
            match output {
                // Begin the write; it is reported later.
                Output::Write(plan) => {
                    let from = plan.truncate_from.unwrap_or(Index(u64::MAX));
                    self.log.retain(|&index, _| index < from);
                    plan.append.iter().for_each(|append| self.store(append));
                    self.writing.push(plan.token);
                }
                // Send it with the bytes of the entries it names.
                Output::Send(message) => {
                    let mut bytes = Vec::new();
                    if let Body::Append(Append { entries, .. }) = &message.body {
                        let held = self.log.range(entries.first..).map(|(_, bytes)| bytes.clone());
                        bytes.extend(held.take(entries.count() as usize));
                    }
                    network.push_back((message, bytes));
                }
                // Apply what is committed.
                Output::Commit(upto) => {
                    let entries = self.log.range(self.applied.next()..=upto).flat_map(|(_, bytes)| bytes);
                    self.counter += entries.map(|&byte| u64::from(byte)).sum::<u64>();
                    self.applied = upto;
                }
                other => println!("  {}: {other:?}", self.replica.id()),
            }
        }
    }

    fn store(&mut self, append: &AppendPlan) {
        let mut payloads = match &append.source {
            EntrySource::Payload(_) => take(&mut self.arriving),
            EntrySource::Configuration(_) | EntrySource::Empty => vec![Vec::new()],
        };
        // A message may begin with entries the log already has.
        let new = payloads.split_off(payloads.len() - append.range.count() as usize);
        self.log.extend((append.range.first.0..).map(Index).zip(new));
    }
}

struct Cluster {
    members: BTreeMap<ReplicaId, Member>,
    network: VecDeque<Packet>,
    now: Now,
}

impl Cluster {
    /// Steps 2, 5 and 6: wait for something, feed it, go on.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            for member in self.members.values_mut() {
                for token in take(&mut member.writing) {
                    member.handle(self.now, Input::Persisted { token, result: Ok(()) }, &mut self.network);
                    member.handle(self.now, Input::Applied(member.applied), &mut self.network);
                }
            }
            if let Some((message, bytes)) = self.network.pop_front() {
                // To one who is gone: lost, as on a real network.
                let Some(member) = self.members.get_mut(&message.to) else { continue };
                member.arriving = bytes;
                let input = Input::Message { message, payload: Some(PayloadId(0)) };
                member.handle(self.now, input, &mut self.network);
            } else if self.members.values().all(|member| member.writing.is_empty()) {
                // Nothing is left to do: time jumps.
                let next = self.members.values().filter_map(|member| member.replica.deadline()).min();
                self.now.monotonic = next.expect("a group waits for something").max(self.now.monotonic);
                for member in self.members.values_mut() {
                    member.handle(self.now, Input::Tick, &mut self.network);
                }
            }
        }
    }

    fn leader(&self) -> Option<ReplicaId> {
        let mut all = self.members.values().map(|member| member.replica.status());
        all.find(|status| status.role.role == RoleKind::Leader).map(|status| status.id)
    }

    fn add(&mut self, amount: u8) {
        self.run_until(|cluster| cluster.leader().is_some());
        let member = self.leader().and_then(|leader| self.members.get_mut(&leader)).expect("just elected");
        member.arriving = vec![vec![amount]];
        let proposal = Proposal { count: 1, bytes: 1, payload: PayloadId(0) };
        member.handle(self.now, Input::Propose(proposal), &mut self.network);
    }
}

fn main() {
    let ids = [1, 2, 3].map(ReplicaId);
    let voters = Configuration::of_voters(ids).expect("three distinct replicas");
    let members = ids.map(|id| (id, Member::new(id, voters.clone()))).into();
    let mut cluster = Cluster { members, network: VecDeque::new(), now: Now::default() };

    println!("three replicas elect a leader and count to 7:");
    cluster.add(3);
    cluster.add(4);
    cluster.run_until(|cluster| cluster.members.values().all(|member| member.counter == 7));

    let leader = cluster.leader().expect("somebody appended");
    println!("{leader} is gone; the others elect another and count to 12:");
    cluster.members.remove(&leader);
    cluster.add(5);
    cluster.run_until(|cluster| cluster.members.values().all(|member| member.counter == 12));
    assert!(cluster.members.len() == 2 && cluster.leader() != Some(leader));
    println!("done at {:?} of their own time", cluster.now.monotonic);
}
