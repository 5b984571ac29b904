//! Sending the state to a follower that is behind the purged log.

use super::{
    configuration::Configuration,
    contract::{BuiltSnapshot, Output},
    limits::Limits,
    message::{Body, SnapshotChunk, SnapshotReply},
    progress::{Sending, Stage},
    replica::Replica,
    role::Leader,
    snapshot::{SnapshotDescriptor, SnapshotMeta},
    types::{Index, Now, Position, ReplicaId},
};

impl Replica {
    /// The log no longer holds what a follower needs.
    pub(super) fn begin_snapshot(&mut self, now: Now, to: ReplicaId) {
        let Some(progress) = self.leader_mut().and_then(|leader| leader.progress_mut(to)) else { return };
        progress.stage =
            Stage::Snapshot(Sending { snapshot: None, acknowledged: 0, sent: 0, moved: now.monotonic });
        self.send_chunks(now, to);
    }

    /// Sends what the chunk window allows; first asks for a snapshot where there is none that the
    /// log continues.
    pub(super) fn send_chunks(&mut self, now: Now, to: ReplicaId) {
        let start = self.log.start().index;
        let Limits { snapshot_chunk_bytes, snapshot_chunks_in_flight, .. } = self.settings.limits;
        let Some(leader) = self.leader_mut() else { return };
        let latest = leader.snapshots.latest.clone().filter(|latest| latest.meta.position.index >= start);
        let Some(sending) = sending_to(leader, to) else { return };
        if sending.snapshot.is_none() {
            let Some(latest) = latest else { return self.ask_for_snapshot(start) };
            *sending = Sending { snapshot: Some(latest), acknowledged: 0, sent: 0, moved: now.monotonic };
        }
        let snapshot = sending.snapshot.clone().expect("set just above");
        let ahead = snapshot_chunk_bytes.saturating_mul(snapshot_chunks_in_flight);
        let window = sending.acknowledged.saturating_add(ahead);
        let from = sending.sent;
        let mut offset = from;
        while offset < snapshot.bytes && offset < window {
            offset = (offset + snapshot_chunk_bytes).min(snapshot.bytes);
        }
        sending.sent = offset;
        let mut offset = from;
        while offset < snapshot.bytes && offset < window {
            let length = snapshot_chunk_bytes.min(snapshot.bytes - offset);
            self.send(to, Body::SnapshotChunk(SnapshotChunk { snapshot: snapshot.clone(), offset, length }));
            offset += length;
        }
    }

    fn ask_for_snapshot(&mut self, at_least: Index) {
        let Some(leader) = self.leader_mut() else { return };
        if !core::mem::replace(&mut leader.snapshots.building, true) {
            self.outputs.push_back(Output::BuildSnapshot { at_least });
        }
    }

    /// The embedder built a snapshot, or could not.
    pub(super) fn snapshot_built(&mut self, now: Now, built: Option<BuiltSnapshot>) {
        let described = built.and_then(|built| self.describe(built));
        let Some(leader) = self.leader_mut() else { return };
        leader.snapshots.building = mutant!(M33) && described.is_none();
        // Where it failed, the next beat's answer asks again.
        let Some(described) = described else { return };
        leader.snapshots.latest = Some(described);
        self.replicate_to_all(now);
    }

    fn describe(&self, built: BuiltSnapshot) -> Option<SnapshotDescriptor> {
        let term = self.log.term_at(built.index)?;
        let members_at = if mutant!(M28) { self.log.start().index } else { built.index };
        let usable = built.index <= self.commit && built.bytes > 0;
        let meta = SnapshotMeta {
            position: Position::new(built.index, term),
            configuration: self.configuration_at(members_at).clone(),
        };
        usable.then_some(SnapshotDescriptor { id: built.id, meta, bytes: built.bytes })
    }

    /// The members in force at `index`, which the log still knows.
    pub(super) fn configuration_at(&self, index: Index) -> &Configuration {
        let behind = self.configurations.partition_point(|entry| entry.index <= index);
        let at = behind.checked_sub(1).expect("the base configuration stands at the log's start");
        &self.configurations[at].configuration
    }

    /// A follower says how much it has.
    pub(super) fn on_snapshot_reply(&mut self, now: Now, from: ReplicaId, reply: SnapshotReply) {
        let again = now.monotonic;
        let heartbeat = self.settings.timing.heartbeat;
        let Some(leader) = self.leader_mut() else { return };
        if let Some(progress) = leader.progress_mut(from) {
            progress.heard = now.monotonic;
        }
        let Some(sending) = sending_to(leader, from) else { return };
        let Some(snapshot) = &sending.snapshot else { return };
        if snapshot.meta.position != reply.position || reply.next_offset > snapshot.bytes {
            return;
        }
        if reply.next_offset > sending.acknowledged {
            sending.acknowledged = reply.next_offset;
            sending.sent = sending.sent.max(reply.next_offset);
            sending.moved = again;
        } else if reply.next_offset < sending.acknowledged || again.since(sending.moved) >= heartbeat {
            // It forgot what it had, or misses a chunk: begin again where it stands. What it misses
            // several chunks will tell, so that is done at a pace.
            sending.acknowledged = reply.next_offset;
            sending.sent = reply.next_offset;
            sending.moved = again;
        }
        self.send_chunks(now, from);
    }

    /// Nothing moved for a while: send again what was not acknowledged.
    pub(super) fn resume_snapshot(&mut self, now: Now, to: ReplicaId) {
        let patience = self.settings.timing.election;
        let chunk = self.settings.limits.snapshot_chunk_bytes;
        let Some(sending) = self.leader_mut().and_then(|leader| sending_to(leader, to)) else { return };
        if now.monotonic.since(sending.moved) >= patience && !mutant!(M32) {
            // A whole snapshot that was sent may still be installing; its last chunk is enough of a reminder.
            let last = sending.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes - 1);
            sending.sent = sending.acknowledged.min(last - last % chunk);
            sending.moved = now.monotonic;
        }
    }
}

fn sending_to(leader: &mut Leader, to: ReplicaId) -> Option<&mut Sending> {
    match &mut leader.progress_mut(to)?.stage {
        Stage::Snapshot(sending) => Some(sending),
        Stage::Probe { .. } | Stage::Replicate { .. } => None,
    }
}
