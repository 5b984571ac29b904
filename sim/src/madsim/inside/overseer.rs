//! Looks over the shoulder of every driver loop, and checks at once what must always hold.
//!
//! The checks are those of the other engine. What they are told comes from the real driver: what it
//! gives its core, what the core wants, what the log's thread says is durable. A check that asks for
//! what a disk holds is told what was reported durable, which is no more than that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kotoba_db_cluster::{
    multiraft::{GroupMessage, Node, NodeOutput},
    raft::{
        Body, Configuration, ConfigurationEntry, GroupId, Index, Message, Output, Position, ReplicaId,
        RoleKind, RoleReport, Term,
    },
    runtime::Moment,
    storage::wal::{GroupWrite, LogIndex, Recovery, WriteError},
};
use madsim::task::NodeId;

use crate::{
    check::{
        Check, Verdict, Violation, commit_durability,
        election_safety::ElectionSafety,
        leader_completeness,
        log_matching::LogMatching,
        monotonicity::Marks,
        promise,
        quorum_intersection::QuorumIntersection,
        recovery::{self, Kept},
        replay::Tape,
    },
    madsim::outcome::Failure,
};

/// Watches all nodes of a run.
#[derive(Clone, Default)]
pub(super) struct Overseer(Arc<Mutex<Overseen>>);

#[derive(Default)]
struct Overseen {
    machines: BTreeMap<NodeId, Watched>,
    /// On which machine each replica is.
    places: BTreeMap<(GroupId, ReplicaId), NodeId>,
    /// What directories held that were lost.
    lost: BTreeMap<(GroupId, ReplicaId), Kept>,
    election_safety: ElectionSafety,
    log_matching: LogMatching,
    quorum_intersection: QuorumIntersection,
    /// What was committed first at each index, by whomever.
    committed: BTreeMap<GroupId, BTreeMap<Index, Term>>,
    /// What leaders have decided to be committed.
    decided: BTreeMap<GroupId, Index>,
    /// The state at each index, as the first replica had it that got there.
    digests: BTreeMap<(GroupId, Index), (u128, NodeId)>,
    counts: BTreeMap<&'static str, u64>,
    violation: Option<Violation>,
}

/// One machine's node, through all its lives.
#[derive(Default)]
struct Watched {
    /// What its log was told to keep, and said it did; none before its first life.
    kept: Option<Kept>,
    /// Writes of the present turn.
    waiting: Vec<GroupWrite>,
    /// Writes that were handed to the log, in order: they may be durable or not.
    in_doubt: BTreeMap<u64, Vec<GroupWrite>>,
    groups: BTreeMap<GroupId, Overlooked>,
    tape: Tape,
    tapes: Vec<Tape>,
    /// Its disk was damaged on purpose: it may have lost what it had.
    damaged: bool,
    /// The node found that some of its log is lost, or that it cannot go on with a group.
    harmed: bool,
}

/// What is known of one group of one life.
#[derive(Default)]
struct Overlooked {
    marks: Marks,
    applied: Index,
    start: Index,
    committed: Index,
    configuration: Option<ConfigurationEntry>,
}

impl Overseer {
    fn lock(&self) -> MutexGuard<'_, Overseen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node's driver loop did something.
    pub(super) fn watch(&self, machine: NodeId, moment: &Moment<'_>) {
        self.lock().watch(machine, moment);
    }

    /// A machine's data directory is lost.
    pub(super) fn wiped(&self, machine: NodeId) {
        let mut overseen = self.lock();
        let Overseen { machines, places, lost, .. } = &mut *overseen;
        let watched = machines.entry(machine).or_default();
        let kept = watched.kept.take().unwrap_or_default();
        places.retain(|&replica, &mut at| {
            if at == machine {
                lost.insert(replica, kept.clone());
            }
            at != machine
        });
        watched.forget_process();
        (watched.damaged, watched.harmed) = (false, false);
    }

    /// A machine's disk is damaged: what it held may be lost, and said to be.
    pub(super) fn damaged(&self, machine: NodeId) {
        self.lock().machines.entry(machine).or_default().damaged = true;
    }

    /// Whether a machine's disk was damaged and has not been replaced.
    pub(super) fn is_damaged(&self, machine: NodeId) -> bool {
        self.lock().of(machine).damaged
    }

    /// Whether a machine's disk was damaged, and its node cannot go on by itself.
    pub(super) fn is_harmed(&self, machine: NodeId) -> bool {
        let mut overseen = self.lock();
        let watched = overseen.of(machine);
        watched.damaged && watched.harmed
    }

    /// Who must be heard for every group to go on: the voters of each configuration that may be in
    /// force, and on which machines those are that still have what they had.
    pub(super) fn demands(&self) -> Vec<Vec<Option<NodeId>>> {
        let overseen = self.lock();
        let mut demands = BTreeSet::new();
        for watched in overseen.machines.values() {
            for (&group, overlooked) in watched.groups.iter().filter(|_| !watched.damaged) {
                let Some(entry) = &overlooked.configuration else { continue };
                for half in [&entry.configuration.voters, &entry.configuration.outgoing] {
                    let place = |voter: &ReplicaId| overseen.places.get(&(group, *voter)).copied();
                    demands.insert(half.iter().map(place).collect::<Vec<_>>());
                }
            }
        }
        demands.into_iter().filter(|half| !half.is_empty()).collect()
    }

    /// The first thing that did not hold.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.lock().violation.clone().map(Failure::from)
    }

    /// How often what was met.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    /// Gives every core its inputs once more, without the shell. Returns how many there were.
    ///
    /// # Errors
    /// Where one does something else than it did.
    pub(super) fn replay(&self) -> Result<u64, Failure> {
        let mut inputs = 0;
        for (&machine, watched) in &mut self.lock().machines {
            let last = std::mem::take(&mut watched.tape);
            for tape in watched.tapes.drain(..).chain([last]) {
                inputs += tape.inputs() as u64;
                tape.replay(host(machine))?;
            }
        }
        Ok(inputs)
    }
}

impl Watched {
    fn forget_process(&mut self) {
        self.waiting.clear();
        self.in_doubt.clear();
        self.groups.clear();
        let tape = std::mem::take(&mut self.tape);
        if tape.inputs() > 0 {
            self.tapes.push(tape);
        }
    }

    fn holds(&self, group: GroupId, position: Position) -> bool {
        // It held it before its disk was damaged, as far as anybody can tell.
        self.damaged || self.kept.as_ref().is_some_and(|kept| kept.holds(group, position))
    }
}

impl Overseen {
    fn watch(&mut self, machine: NodeId, moment: &Moment<'_>) {
        match *moment {
            Moment::Recovered(recovery) => self.recovered(machine, recovery),
            Moment::Set(node) => self.set(machine, node),
            Moment::Given { now, input } => self.of(machine).tape.given(now, input),
            Moment::Wants { output, node, log } => {
                self.of(machine).tape.wants(output);
                self.wants(machine, output, node, log);
            }
            Moment::Done(node) => self.done(machine, node),
            Moment::Wrote { write, log } => self.wrote(machine, write, log),
            Moment::Submitted(tag) => {
                let watched = self.of(machine);
                let writes = std::mem::take(&mut watched.waiting);
                watched.in_doubt.insert(tag, writes);
            }
            Moment::Completed { tags, result } => {
                let watched = self.of(machine);
                for tag in tags {
                    match result {
                        Ok(_) => {
                            let writes = watched.in_doubt.remove(tag).unwrap_or_default();
                            watched.kept.get_or_insert_default().carry_out(&writes);
                        }
                        Err(WriteError::Full | WriteError::Damaged(_) | WriteError::OutOfOrder { .. }) => {
                            watched.in_doubt.remove(tag);
                        }
                        // They may be on disk, and be found there.
                        Err(WriteError::Fault(_)) => {}
                    }
                }
            }
            Moment::Applied { group, index, digest } => self.applied(machine, group, index, digest),
        }
    }

    fn of(&mut self, machine: NodeId) -> &mut Watched {
        self.machines.entry(machine).or_default()
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            tracing::info!(target: "kotoba_sim", "violation: {violation}");
            self.violation.get_or_insert(violation);
        }
    }

    fn recovered(&mut self, machine: NodeId, recovery: &Recovery) {
        let host = host(machine);
        let watched = self.of(machine);
        let verdict = watched.kept.as_ref().map_or(Ok(()), |kept| {
            // The log's thread makes of what waits one batch or several, in order.
            let mut after = kept.clone();
            let mut verdict = recovery::recovered(host, kept, &after, recovery);
            for writes in watched.in_doubt.values() {
                if verdict.is_ok() {
                    break;
                }
                after.carry_out(writes);
                verdict = recovery::recovered(host, kept, &after, recovery);
            }
            verdict
        });
        watched.kept.get_or_insert_default().read_back(recovery);
        watched.forget_process();
        let damaged = watched.damaged;
        self.count("logs-read-back");
        if recovery.torn.is_some() {
            self.count("torn-tails-cut");
        }
        let harmed = recovery.groups.iter().find_map(|(group, found)| Some((*group, found.damage?)));
        if let Some((group, damage)) = harmed {
            self.count("damages-found");
            self.of(machine).harmed = true;
            if !damaged {
                let what = format!("host {host}: {group}: {damage}, yet nothing was damaged");
                self.judge(Err(Violation::new(Check::Recovery, what)));
            }
        }
        self.judge(verdict);
    }

    fn set(&mut self, machine: NodeId, node: &Node) {
        for (group, replica) in node.groups() {
            self.places.insert((group, replica.id()), machine);
            let status = replica.status();
            let (index, configuration) = (status.configuration_index, status.configuration);
            let overlooked = self.of(machine).groups.entry(group).or_default();
            overlooked.configuration.get_or_insert(ConfigurationEntry { index, configuration });
        }
        let watched = self.of(machine);
        watched.harmed |= watched.groups.keys().any(|group| node.replica(*group).is_none());
        watched.tape.set(node);
    }

    fn done(&mut self, machine: NodeId, node: &Node) {
        let watched = self.machines.entry(machine).or_default();
        watched.tape.done(node);
        let mut verdict = Ok(());
        for (group, replica) in node.groups() {
            let Overlooked { marks, applied, start, .. } = watched.groups.entry(group).or_default();
            verdict = verdict.and(marks.look(group, replica, *applied, *start));
        }
        self.judge(verdict);
    }

    fn wants(&mut self, machine: NodeId, output: &NodeOutput, node: &Node, log: &LogIndex) {
        match output {
            NodeOutput::Group { group, output } => self.wants_for(machine, *group, output, node, log),
            NodeOutput::Send { message: GroupMessage { group, message }, .. } => {
                self.sends(machine, *group, message);
            }
            NodeOutput::Beats { messages, .. } => {
                for GroupMessage { group, message } in messages {
                    self.sends(machine, *group, message);
                }
            }
        }
    }

    fn wants_for(&mut self, machine: NodeId, group: GroupId, output: &Output, node: &Node, log: &LogIndex) {
        match output {
            Output::Commit(index) => self.commits(machine, group, *index, node, log),
            Output::RoleChanged(report) => self.changes_role(group, *report, node, log),
            Output::Members(members) => self.changes_members(machine, group, members, node),
            Output::BuildSnapshot { .. } => self.count("snapshots-built"),
            Output::ReadReady { .. } => self.count("reads-confirmed"),
            Output::ReadRefused { .. } => self.count("reads-refused"),
            Output::ProposalRefused { .. } => self.count("proposals-refused"),
            Output::Faulted(_) => self.count("replicas-faulted"),
            Output::Write(_)
            | Output::Send(_)
            | Output::Proposed { .. }
            | Output::Purge(_)
            | Output::StoreChunk { .. } => {}
        }
    }

    /// No promise leaves before the disk holds it, and only leaders speak as such.
    fn sends(&mut self, machine: NodeId, group: GroupId, message: &Message) {
        let kept = self.machines.get(&machine).and_then(|watched| watched.kept.as_ref());
        let verdict = kept.and_then(|kept| kept.durable(group));
        let verdict = verdict.map_or(Ok(()), |durable| promise::sent(group, message, durable));
        self.judge(verdict);
        if matches!(message.body, Body::Append(_) | Body::Beat(_)) {
            let verdict = self.election_safety.leads(group, message.term, message.from);
            self.judge(verdict);
        }
    }

    fn commits(&mut self, machine: NodeId, group: GroupId, index: Index, node: &Node, log: &LogIndex) {
        let overlooked = self.of(machine).groups.entry(group).or_default();
        let first = overlooked.committed.next();
        overlooked.committed = index;
        let mut fresh = 0;
        let mut differs = None;
        let ledger = self.committed.entry(group).or_default();
        for at in (first.0..=index.0).map(Index) {
            // What lies before the log's start is part of a state, and states are compared.
            let Some(term) = log.term_at(group, at) else { continue };
            let known = *ledger.entry(at).or_insert_with(|| {
                fresh += 1;
                term
            });
            if known != term {
                differs.get_or_insert((at, known, term));
            }
        }
        *self.counts.entry("entries-committed").or_default() += fresh;
        if let Some((at, known, term)) = differs {
            let message = format!(
                "{group}: host {} commits {at} of {term}, where that of {known} is committed",
                host(machine)
            );
            self.judge(Err(Violation::new(Check::StateMachineSafety, message)));
        }
        self.check_durability(group, index, node, log);
    }

    /// What a leader decides to be committed is on the disks of a quorum.
    fn check_durability(&mut self, group: GroupId, index: Index, node: &Node, log: &LogIndex) {
        let decided = self.decided.entry(group).or_default();
        let Some(replica) = node.replica(group) else { return };
        let Some(term) = log.term_at(group, index) else { return };
        if replica.role().role != RoleKind::Leader || index <= *decided {
            return;
        }
        *decided = index;
        let position = Position::new(index, term);
        let holds = |voter| match self.places.get(&(group, voter)) {
            Some(machine) => self.machines[machine].holds(group, position),
            // It held it when it was counted.
            None => self.lost.get(&(group, voter)).is_some_and(|kept| kept.holds(group, position)),
        };
        let members = replica.configuration();
        let verdict = commit_durability::committed(group, replica.id(), members, position, holds);
        self.judge(verdict);
    }

    fn changes_role(&mut self, group: GroupId, report: RoleReport, node: &Node, log: &LogIndex) {
        if report.role != RoleKind::Leader {
            return;
        }
        let Some(replica) = node.replica(group) else { return };
        self.count("elections");
        let last = self.committed.get(&group).and_then(|ledger| ledger.last_key_value());
        let last = last.map_or(Position::ZERO, |(&index, &term)| Position::new(index, term));
        let verdict = leader_completeness::elected(group, replica.id(), report.term, log, last);
        self.judge(verdict);
        let verdict = self.election_safety.leads(group, report.term, replica.id());
        self.judge(verdict);
    }

    fn changes_members(&mut self, machine: NodeId, group: GroupId, members: &Configuration, node: &Node) {
        let Some(replica) = node.replica(group) else { return };
        let place = (replica.last().index, replica.role().term);
        let index = replica.status().configuration_index;
        let leads = replica.role().role == RoleKind::Leader;
        let new = ConfigurationEntry { index, configuration: members.clone() };
        let overlooked = self.of(machine).groups.entry(group).or_default();
        let Some(before) = overlooked.configuration.replace(new) else { return };
        if leads && before.configuration != *members {
            self.count("member-changes");
            let verdict = self.quorum_intersection.follows(group, place, &before.configuration, members);
            self.judge(verdict);
        }
    }

    fn wrote(&mut self, machine: NodeId, write: &GroupWrite, log: &LogIndex) {
        let watched = self.of(machine);
        watched.waiting.push(write.clone());
        if let Some(meta) = &write.purge {
            watched.groups.entry(write.group).or_default().start = meta.position.index;
            self.count("purges");
        }
        if write.truncate_from.is_some() {
            self.count("truncations");
        }
        if write.install.is_some() {
            self.count("snapshots-installed");
        }
        if let Some(first) = write.entries.first() {
            let verdict = match log.term_at(write.group, first.index.previous()) {
                Some(before) => self.log_matching.appended(write.group, before, &write.entries),
                None => {
                    let message = format!("{}: a gap before {}", write.group, first.index);
                    Err(Violation::new(Check::LogMatching, message))
                }
            };
            self.judge(verdict);
        }
    }

    fn applied(&mut self, machine: NodeId, group: GroupId, index: Index, digest: u128) {
        self.of(machine).groups.entry(group).or_default().applied = index;
        let (known, other) = *self.digests.entry((group, index)).or_insert((digest, machine));
        if known != digest {
            let message = format!(
                "{group}: the state of host {} at {index} has digest {digest:032x}, that of host {} {known:032x}",
                host(machine),
                host(other)
            );
            self.judge(Err(Violation::new(Check::StateMachineSafety, message)));
        }
    }
}

/// A machine's number, for messages.
fn host(machine: NodeId) -> u32 {
    machine.to_string().parse().unwrap_or_default()
}
