//! The consensus core in a runtime of your own: `cargo run --example embed --no-default-features`.
//!
//! Three replicas count together. There is no thread, no socket, no file and no clock here: the
//! "network" is a queue, the "disk" is memory, and time is a number that this program moves. What
//! remains is exactly what the core asks of whoever embeds it.
#![allow(clippy::print_stdout, reason = "an example talks to its reader")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use kotoba_db_cluster::raft::{
    Append, AppendPlan, Body, BootEpoch, Configuration, EntrySource, HardState, Index, Input, Instant,
    Message, Now, Output, PayloadId, Position, Proposal, Replica, ReplicaId, Restored, RoleKind, Settings,
    SnapshotMeta, Term, Timing, WriteToken,
};

/// One member: the core's replica, and what the core leaves to us.
struct Member {
    replica: Replica,
    /// The log's payload bytes by index. The core itself only knows indexes and terms.
    log: BTreeMap<Index, Vec<u8>>,
    /// The payloads of the input being handled, until the core says where they belong.
    arriving: Vec<Vec<u8>>,
    /// Writes begun and not yet reported. Here the "disk" needs one turn of the loop.
    writing: Vec<WriteToken>,
    /// The state machine: a counter, and how far it has applied the log.
    counter: u64,
    applied: Index,
}

/// A message together with the payload bytes it refers to.
struct Packet(Message, Vec<Vec<u8>>);

struct Cluster {
    members: BTreeMap<ReplicaId, Member>,
    network: VecDeque<Packet>,
    now: Now,
}

impl Member {
    /// Step 1: start from what the disk holds. A new group begins as if a snapshot at 1/t1 had
    /// been installed: all its members agree on the configuration there.
    fn new(id: ReplicaId, voters: Configuration) -> Self {
        let settings =
            Settings { id, boot: BootEpoch(1), seed: 42, timing: Timing::default(), retained_bytes: 0 };
        let start = SnapshotMeta { position: Position::new(Index(1), Term(1)), configuration: voters };
        let hard_state = HardState { term: Term(1), vote: None };
        let restored = Restored { hard_state, start, applied: Index(1), ..Restored::default() };
        let replica = Replica::recover(settings, restored, Now::default()).expect("a sound beginning");
        Self {
            replica,
            log: BTreeMap::new(),
            arriving: Vec::new(),
            writing: Vec::new(),
            counter: 0,
            applied: Index(1),
        }
    }

    /// Steps 3 and 4: handle one input, then drain the outputs, all of them, in order.
    fn handle(&mut self, now: Now, input: Input, network: &mut VecDeque<Packet>) {
        self.replica.handle(now, input);
        while let Some(output) = self.replica.poll_output() {
            match output {
                // Begin the write. It is reported later: nobody waits for the disk in here.
                Output::Write(plan) => {
                    if let Some(from) = plan.truncate_from {
                        self.log.split_off(&from);
                    }
                    plan.append.iter().for_each(|append| self.store(append));
                    self.writing.push(plan.token);
                }
                // Attach the bytes of the entries that a message names, and send it.
                Output::Send(message) => {
                    let bytes = match &message.body {
                        Body::Append(Append { entries, .. }) if !entries.is_empty() => self
                            .log
                            .range(entries.first..)
                            .take(entries.count() as usize)
                            .map(|(_, bytes)| bytes.clone())
                            .collect(),
                        _ => Vec::new(),
                    };
                    network.push_back(Packet(message, bytes));
                }
                // Apply what is committed.
                Output::Commit(upto) => {
                    for (_, bytes) in self.log.range(self.applied.next()..=upto) {
                        self.counter += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
                    }
                    self.applied = upto;
                }
                Output::RoleChanged(report) => println!("  {}: {report:?}", self.replica.id()),
                Output::Proposed { last, .. } => println!("  {}: appended at {last}", self.replica.id()),
                // A whole embedder also serves reads, builds snapshots and purges its log.
                other => println!("  {}: {other:?}", self.replica.id()),
            }
        }
    }

    fn store(&mut self, append: &AppendPlan) {
        let payloads = match &append.source {
            EntrySource::Payload(_) => std::mem::take(&mut self.arriving),
            EntrySource::Configuration(_) | EntrySource::Empty => vec![Vec::new()],
        };
        // A message may begin before the range with entries we hold already; it ends where the range ends.
        let skipped = payloads.len() - append.range.count() as usize;
        let indexes = (append.range.first.0..).map(Index);
        self.log.extend(indexes.zip(payloads.into_iter().skip(skipped)));
    }
}

impl Cluster {
    /// Steps 2, 5 and 6: wait for something, feed it, go on. Time jumps to the next deadline when
    /// nothing else is left to do.
    fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            for member in self.members.values_mut() {
                for token in std::mem::take(&mut member.writing) {
                    member.handle(self.now, Input::Persisted { token, result: Ok(()) }, &mut self.network);
                    member.handle(self.now, Input::Applied(member.applied), &mut self.network);
                }
            }
            if let Some(Packet(message, bytes)) = self.network.pop_front() {
                // To a member that is gone: lost, as on a real network.
                let Some(member) = self.members.get_mut(&message.to) else { continue };
                member.arriving = bytes;
                let payload = Some(PayloadId(0));
                member.handle(self.now, Input::Message { message, payload }, &mut self.network);
            } else if self.members.values().all(|member| member.writing.is_empty()) {
                let next = self.members.values().filter_map(|member| member.replica.deadline()).min();
                self.now.monotonic =
                    next.expect("a group always waits for something").max(self.now.monotonic);
                for member in self.members.values_mut() {
                    member.handle(self.now, Input::Tick, &mut self.network);
                }
            }
            assert!(self.now.monotonic < Instant(0) + Duration::from_secs(60), "a minute is plenty");
        }
    }

    fn leader(&self) -> Option<ReplicaId> {
        let leads = |member: &&Member| member.replica.status().role.role == RoleKind::Leader;
        self.members.values().find(leads).map(|member| member.replica.id())
    }

    fn add(&mut self, amount: u8) {
        self.run_until(|cluster| cluster.leader().is_some());
        let leader = self.leader().expect("there is one now");
        let member = self.members.get_mut(&leader).expect("it leads");
        member.arriving = vec![vec![amount]];
        let proposal = Proposal { count: 1, bytes: 1, payload: PayloadId(0) };
        member.handle(self.now, Input::Propose(proposal), &mut self.network);
    }

    fn all_count(&self, expected: u64) -> bool {
        self.members.values().all(|member| member.counter == expected)
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
    cluster.run_until(|cluster| cluster.all_count(7));

    let leader = cluster.leader().expect("somebody appended");
    println!("{leader} is gone; the others go on:");
    cluster.members.remove(&leader);
    cluster.add(5);
    cluster.run_until(|cluster| cluster.all_count(12));

    assert_ne!(cluster.leader(), Some(leader));
    println!("both count 12, at {:?} of their own time", cluster.now.monotonic);
}
