//! Carrying out what the core wants.

use std::collections::VecDeque;

use super::{Driver, Event, Submitted, payloads::Payload};
use crate::{
    api::ClusterEvent,
    error::ErrorCode,
    multiraft::{GroupMessage, NodeOutput},
    node::{
        applier::{ApplyEvent, Committed, Job, ViewReceiver},
        snapshots::{SnapshotEvent, SnapshotJob, received_name},
        status::GroupFault,
        wire::{self, WireEntry},
    },
    placement::PartitionId,
    raft::{
        AppendPlan, Body, EntrySource, GroupId, Index, Input, Output, PeerId, RoleKind, RoleReport,
        SnapshotMeta, WriteFault, WritePlan,
    },
    runtime::watcher,
    storage::wal::{Entry, EntryKind, GatherError, GroupWrite, WalRequest, WriteError, WriteReceipt},
};

impl<V: Send + 'static> Driver<V> {
    pub(super) fn carry_out(&mut self, output: NodeOutput) {
        match output {
            NodeOutput::Group { group, output } => self.carry_out_for(group, output),
            NodeOutput::Send { peer, message } => self.send(peer, message),
            NodeOutput::Beats { peer, messages } => {
                let messages: Vec<GroupMessage> = messages
                    .into_iter()
                    .filter_map(|GroupMessage { group, message }| {
                        let message = self.unary.intercept(group, message)?;
                        Some(GroupMessage { group, message })
                    })
                    .collect();
                let (beats, replies) = wire::beats_to_wire(&messages);
                self.peers.send_beats(peer, beats, replies);
            }
        }
    }

    fn carry_out_for(&mut self, group: GroupId, output: Output) {
        match output {
            Output::Write(plan) => self.write(group, plan),
            Output::Send(_) => unreachable!("multiraft routes messages to peers"),
            Output::Commit(index) => self.dispatch(group, index),
            Output::Proposed { payload, first, last } => self.on_proposed(group, payload, first, last),
            Output::ProposalRefused { payload, reason } => self.on_proposal_refused(payload, reason),
            Output::ReadReady { read, index } => self.on_read_ready(read, index),
            Output::ReadRefused { read, reason } => self.on_read_refused(read, reason),
            Output::RoleChanged(report) => self.on_role(group, report),
            Output::Members(members) => tracing::debug!(%group, ?members, "members changed"),
            Output::Purge(meta) => self.purge(group, meta),
            Output::BuildSnapshot { .. } => self.build_snapshot(group),
            Output::StoreChunk { snapshot, offset, payload, .. } => {
                if let Some(Payload::Chunk(bytes)) = self.payloads.take(payload) {
                    self.snapshots.send(SnapshotJob::Store { group, snapshot, offset, bytes });
                }
            }
            Output::Faulted(fault) => self.on_fault(group, fault),
        }
    }

    /// Adds a plan to this turn's submission.
    fn write(&mut self, group: GroupId, plan: WritePlan) {
        let WritePlan { token, hard_state, install, truncate_from, append } = plan;
        let entries = append.map(|append| self.entries_of(append)).unwrap_or_default();
        let write = GroupWrite {
            hard_state,
            install: install.clone(),
            truncate_from,
            entries,
            ..GroupWrite::of(group)
        };
        // Bytes that are not yet durable can be read: they may already leave for the peers.
        self.log.submitted(&write);
        watcher::wrote(&write, &self.log);
        self.writes.push(write);
        self.submitting.push(Submitted { group, token, install });
    }

    fn entries_of(&mut self, append: AppendPlan) -> Vec<Entry> {
        let AppendPlan { range, source } = append;
        let term_of =
            |index| range.runs.term_at(index).expect("a range names the term of each of its entries");
        let entry = |index: u64, kind, payload| {
            let index = Index(index);
            Entry { index, term: term_of(index), kind, payload }
        };
        match source {
            EntrySource::Empty => vec![entry(range.first.0, EntryKind::Empty, bytes::Bytes::new())],
            EntrySource::Configuration(configuration) => {
                vec![entry(range.first.0, EntryKind::Configuration, configuration.encode().into())]
            }
            EntrySource::Payload(id) => match self.payloads.take(id) {
                Some(Payload::Proposal(entries)) => (range.first.0..)
                    .zip(entries)
                    .map(|(index, payload)| entry(index, EntryKind::Normal, payload))
                    .collect(),
                Some(Payload::Entries { first, entries }) => (first.0..)
                    .zip(entries)
                    .skip_while(|(index, _)| *index < range.first.0)
                    .map(|(index, WireEntry { kind, payload })| entry(index, kind, payload))
                    .collect(),
                Some(Payload::Chunk(_)) | None => unreachable!("the core names the payload it was given"),
            },
        }
    }

    /// Hands this turn's writes to the log writer, as one.
    pub(super) fn submit_writes(&mut self) {
        if self.writes.is_empty() {
            return;
        }
        self.next_submission += 1;
        let tag = self.next_submission;
        let writes = std::mem::take(&mut self.writes);
        let submitted = std::mem::take(&mut self.submitting);
        self.submitted.insert(tag, submitted);
        watcher::submitted(tag);
        if self.wal.submit(WalRequest { tag, writes }).is_err() {
            self.on_written(&[tag], &Err(WriteError::Fault(WriteFault::WriteFailed)));
            self.submit_writes();
        }
    }

    /// A submission is durable, or failed.
    pub(super) fn on_written(&mut self, tags: &[u64], result: &Result<WriteReceipt, WriteError>) {
        watcher::completed(tags, result);
        if let Ok(receipt) = result {
            self.log.written(receipt);
        }
        let result = result.as_ref().map(|_| ()).map_err(WriteError::as_fault);
        let submitted: Vec<_> = tags.iter().filter_map(|tag| self.submitted.remove(tag)).flatten().collect();
        for Submitted { group, token, install } in submitted {
            match (install, result) {
                // Durable in the log; the write is complete when the state is installed too.
                (Some(meta), Ok(())) => {
                    let file = self.settings.snapshots_dir.join(received_name(group, &meta));
                    self.applier.send(Job::Install { group, token, meta, file });
                }
                (_, result) => self.step_group(group, Input::Persisted { token, result }),
            }
        }
    }

    /// Hands committed entries to the applier.
    fn dispatch(&mut self, group: GroupId, index: Index) {
        let Some(state) = self.groups.get_mut(&group) else { return };
        let mut first = state.dispatched.next();
        if first > index {
            return;
        }
        state.dispatched = index;
        let log = &self.log;
        let mut waiters = VecDeque::from(state.take_committed(index, |at| log.term_at(group, at)));
        while first <= index {
            let (entries, last) = match self.log.entries(group, first, index, APPLY_BYTES_MAX) {
                Ok(entries) => {
                    let last = entries.last().map(|entry| entry.index);
                    (Committed::Entries(entries), last)
                }
                Err(GatherError::OnDisk(plan)) => {
                    let last = plan.tail.last().map(|entry| entry.index);
                    let last = last.or_else(|| plan.reads.last().map(|read| read.position.index));
                    (Committed::OnDisk(plan), last)
                }
                Err(error @ (GatherError::Gone | GatherError::Damaged)) => {
                    let problem = format!("committed entries {first} to {index} cannot be read: {error}");
                    let code = ErrorCode::DiskFailed;
                    return self.on_applied(ApplyEvent::Failed { group, code, problem });
                }
            };
            let last = last.expect("a range with entries gathers at least one");
            let mut answered = Vec::new();
            while let Some(waiter) = waiters.pop_front_if(|(at, _)| *at <= last) {
                answered.push(waiter);
            }
            self.applier.send(Job::Apply { group, entries, waiters: answered });
            first = last.next();
        }
    }

    /// The applier reports.
    pub(super) fn on_applied(&mut self, event: ApplyEvent) {
        match event {
            ApplyEvent::Applied { group, index, digest } => {
                watcher::applied(group, index, digest);
                if let Some(state) = self.groups.get_mut(&group) {
                    state.set_applied(index, digest);
                }
                self.log.applied(group, index);
                self.step_group(group, Input::Applied(index));
            }
            ApplyEvent::Installed { group, token, index, digest } => {
                watcher::applied(group, index, digest);
                if let Some(state) = self.groups.get_mut(&group) {
                    state.set_applied(index, digest);
                }
                self.step_group(group, Input::Persisted { token, result: Ok(()) });
                self.step_group(group, Input::Applied(index));
            }
            ApplyEvent::Meta(meta) => self.adopt_meta(&meta),
            ApplyEvent::Persisted(reached) => self.compact(&reached),
            ApplyEvent::Full(full) => {
                self.full.store = full;
                self.on_room_changed();
            }
            ApplyEvent::Failed { group, code, problem } => {
                self.fail(group, &GroupFault::new(code, problem));
                // One that cannot apply must not lead; its log is intact, so a restart may heal it.
                self.node.remove_group(group);
                watcher::set(&self.node);
            }
        }
    }

    fn send(&mut self, peer: PeerId, message: GroupMessage) {
        let GroupMessage { group, message } = message;
        let Some(message) = self.unary.intercept(group, message) else { return };
        match &message.body {
            Body::Append(append) if !append.entries.is_empty() => {
                let (first, to) = (append.entries.first, message.to);
                match self.log.gather(group, first, &append.entries.runs) {
                    Ok(entries) => {
                        let entries = wire_entries(entries);
                        self.peers.send(peer, wire::append_to_wire(group, &message, &entries));
                    }
                    Err(GatherError::OnDisk(plan)) => {
                        self.snapshots.send(SnapshotJob::Gather { group, peer, message, plan });
                    }
                    Err(GatherError::Gone | GatherError::Damaged) => {
                        // A driver that is gone needs no answer.
                        let _ = self.event_sender.send(Event::GatherFailed { group, to, index: first });
                    }
                }
            }
            Body::Append(_) => self.peers.send(peer, wire::append_to_wire(group, &message, &[])),
            Body::SnapshotChunk(_) => self.snapshots.send(SnapshotJob::Send { group, peer, message }),
            Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::AppendReply(_)
            | Body::SnapshotReply(_)
            | Body::Beat(_)
            | Body::BeatReply(_) => {
                if let Some(message) = wire::message_to_wire(group, &message) {
                    self.peers.send(peer, message);
                }
            }
        }
    }

    fn on_role(&mut self, group: GroupId, report: RoleReport) {
        let leader = report.leader.and_then(|leader| self.node.peer_of(group, leader));
        let Some(state) = self.groups.get_mut(&group) else { return };
        let before = state.hint.leader();
        state.hint.set_role(report.role, report.term, leader);
        if report.role != RoleKind::Leader {
            state.leadership_lost();
        }
        self.shared.changes.send_modify(|changes| *changes += 1);
        tracing::debug!(%group, role = ?report.role, term = %report.term, ?leader, "role changed");
        if let Some(leader) = leader
            && before != Some(leader)
            && let Some(member) = self.meta.members.get(&leader)
        {
            let node = member.node.clone();
            let event = match PartitionId::of_group(group) {
                None => ClusterEvent::LeaderElected(node),
                Some(partition) => ClusterEvent::PartitionLeaderElected(partition, node),
            };
            // Nobody has to listen.
            let _ = self.shared.events.send(event);
        }
    }

    fn on_fault(&mut self, group: GroupId, fault: WriteFault) {
        let what = format!("the log's disk failed ({fault:?})");
        self.fail(group, &GroupFault::new(ErrorCode::DiskFailed, what));
    }

    fn purge(&mut self, group: GroupId, meta: SnapshotMeta) {
        let write = GroupWrite { purge: Some(meta), ..GroupWrite::of(group) };
        self.log.submitted(&write);
        watcher::wrote(&write, &self.log);
        self.writes.push(write);
    }

    fn build_snapshot(&mut self, group: GroupId) {
        let jobs = self.snapshots.sender();
        let to = ViewReceiver(Box::new(move |view| {
            // A builder that is gone builds nothing.
            let _ = jobs.send(SnapshotJob::Build { group, view });
        }));
        self.applier.send(Job::View { group, to });
    }

    /// The snapshot worker reports.
    #[expect(clippy::needless_pass_by_value, reason = "an event is handled once")]
    pub(super) fn on_snapshot_event(&mut self, event: SnapshotEvent) {
        match event {
            SnapshotEvent::Built { group, built } => self.step_group(group, Input::SnapshotBuilt(built)),
            SnapshotEvent::Stored { group, position, next_offset } => {
                self.step_group(group, Input::ChunkStored { position, next_offset });
            }
            SnapshotEvent::Damaged { group, position } => {
                self.step_group(group, Input::SnapshotDamaged(position));
            }
            SnapshotEvent::Lost { group, to, index } => {
                self.step_group(group, Input::GatherFailed { to, index });
            }
        }
    }
}

/// Payload bytes of one job for the applier.
const APPLY_BYTES_MAX: u64 = 4 << 20;

/// Entries of the log as they travel.
pub(crate) fn wire_entries(entries: Vec<Entry>) -> Vec<WireEntry> {
    entries.into_iter().map(|Entry { kind, payload, .. }| WireEntry { kind, payload }).collect()
}
