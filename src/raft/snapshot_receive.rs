//! Receiving the state instead of the log.
//!
//! Chunks are stored in order by the embedder; when all are, one write installs the snapshot, and
//! only after it is durable the leader is told. Only a follower ever gets here: what a snapshot
//! replaces must not be a leader's log.

use super::{
    configuration::ConfigurationEntry,
    contract::Output,
    durability::Change,
    log::LogMeta,
    message::{AppendOutcome, AppendReply, Body, SnapshotChunk, SnapshotReply},
    replica::Replica,
    role::{Follower, Incoming, Role},
    types::{Index, Now, PayloadId, Position},
};

impl Replica {
    /// A part of a snapshot arrived from the leader.
    pub(super) fn on_snapshot_chunk(&mut self, chunk: SnapshotChunk, payload: Option<PayloadId>) {
        let position = chunk.snapshot.meta.position;
        let Some(payload) = payload else {
            self.counters.hostile += 1;
            return;
        };
        if position.index <= self.commit {
            self.already_past();
            return;
        }
        let following = self.following_mut();
        let same = following.incoming.as_ref().is_some_and(|incoming| {
            incoming.snapshot.meta.position == position && incoming.snapshot.bytes == chunk.snapshot.bytes
        });
        if !same {
            let busy = following.incoming.as_ref().is_some_and(|incoming| incoming.installing);
            if busy || chunk.offset != 0 {
                return self.tell_progress(position, 0);
            }
            following.incoming =
                Some(Incoming { snapshot: chunk.snapshot.clone(), next_offset: 0, installing: false });
        }
        let incoming = following.incoming.as_mut().expect("it is the same, or was set just now");
        if incoming.installing {
            return;
        }
        if chunk.offset != incoming.next_offset {
            let next_offset = incoming.next_offset;
            return self.tell_progress(position, next_offset);
        }
        incoming.next_offset += chunk.length;
        let SnapshotChunk { snapshot, offset, length } = chunk;
        self.outputs.push_back(Output::StoreChunk { snapshot, offset, length, payload });
    }

    /// Committed entries equal the leader's: acknowledge them instead of a state we are past.
    fn already_past(&mut self) {
        self.following_mut().incoming = None;
        self.acknowledge_committed(self.commit.min(self.durability.durable()));
    }

    fn acknowledge_committed(&mut self, reached: Index) {
        let following = self.following_mut();
        let (leader, round) = (following.leader, following.round);
        self.send_in_term(
            leader,
            Body::AppendReply(AppendReply { outcome: AppendOutcome::Accepted(reached), round }),
        );
    }

    fn tell_progress(&mut self, position: Position, next_offset: u64) {
        let leader = self.following_mut().leader;
        self.send_in_term(leader, Body::SnapshotReply(SnapshotReply { position, next_offset }));
    }

    fn incoming_mut(&mut self) -> Option<&mut Incoming> {
        match &mut self.role {
            Role::Follower(Follower { leader: Some(following), .. }) => following.incoming.as_mut(),
            Role::Follower(_)
            | Role::PreCandidate(_)
            | Role::Candidate(_)
            | Role::Leader(_)
            | Role::Faulted(_) => None,
        }
    }

    /// The embedder stored a chunk.
    pub(super) fn chunk_stored(&mut self, now: Now, position: Position, next_offset: u64) {
        let Some(incoming) = self.incoming_mut() else { return };
        let meta = &incoming.snapshot.meta;
        if meta.position != position || incoming.installing || next_offset > incoming.next_offset {
            return;
        }
        if next_offset < incoming.snapshot.bytes {
            self.tell_progress(position, next_offset);
            return;
        }
        incoming.installing = true;
        self.install(now);
    }

    fn install(&mut self, now: Now) {
        let incoming = self.incoming_mut().expect("called while one is installing");
        let meta = incoming.snapshot.meta.clone();
        let position = meta.position;
        if position.index <= self.commit {
            self.already_past();
            return;
        }
        if position.index <= self.verified() && !self.log.holds(position) {
            // No leader takes back what it sent in its own term.
            self.counters.hostile += 1;
            self.following_mut().incoming = None;
            return;
        }
        let truncate_from = if self.log.holds(position) && !mutant!(M29) {
            self.log.purge_to(position);
            None
        } else {
            let replaces = self.log.last().index > position.index;
            self.log = LogMeta::starting_at(position);
            self.durability.cut(Index(1));
            self.configurations.clear();
            replaces.then_some(position.index.next())
        };
        self.configurations.retain(|entry| entry.index > position.index);
        let base = ConfigurationEntry { index: position.index, configuration: meta.configuration.clone() };
        self.configurations.insert(0, base);
        self.commit = position.index;
        // The snapshot's state is installed with the write itself: there is nothing to apply.
        self.announced = position.index;
        self.outputs.push_back(Output::Members(self.configuration().clone()));
        let verified = self.following_mut().verified.max(Some(position.index));
        self.following_mut().verified = verified;
        self.write(now, Change { install: Some(meta), truncate_from, ..Change::default() });
        if mutant!(M30) {
            self.acknowledge_committed(position.index);
        }
    }

    /// The snapshot is installed once every write is durable that was asked for up to then.
    pub(super) fn finish_install(&mut self) {
        let start = self.log.start().index;
        let durable = self.durability.durable();
        if let Some(incoming) = self.incoming_mut()
            && incoming.installing
            && incoming.snapshot.meta.position.index <= start.min(durable)
        {
            self.following_mut().incoming = None;
        }
    }

    /// What was received cannot be used: it is fetched again from the beginning.
    pub(super) fn snapshot_damaged(&mut self, position: Position) {
        let Some(incoming) = self.incoming_mut() else { return };
        if incoming.snapshot.meta.position == position && !incoming.installing {
            self.following_mut().incoming = None;
            self.tell_progress(position, 0);
        }
    }
}
