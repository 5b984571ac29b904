//! Private decoders, opened to the fuzz targets in `fuzz/`. Hidden, and no part of the library's promise.

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;

use crate::{
    multiraft::GroupMessage,
    raft::{Body, GroupId, Message, ReplicaId},
    storage::wal::EntryKind,
    wire::{self, GroupMembers, InboundPayload, WireEntry},
};

/// A message of a peer as the core is given it, and the bytes it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// The group.
    pub group: GroupId,
    /// The message.
    pub message: Message,
    /// Kind and payload of each entry.
    pub entries: Vec<(EntryKind, Bytes)>,
    /// A part of a snapshot.
    pub chunk: Option<Bytes>,
}

/// What a peer's frame says, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFrame {
    /// Everything that the core would be given, heartbeats last.
    pub messages: Vec<PeerMessage>,
    /// Members of groups.
    pub members: Vec<(GroupId, Vec<ReplicaId>)>,
}

/// What a frame says, and how much of it was dropped.
#[must_use]
pub fn decode_frame(frame: v1::PeerFrame) -> (PeerFrame, usize) {
    let reports = frame.group_members.iter().map(wire::members_from_wire);
    let (reports, refused): (Vec<_>, Vec<_>) = reports.partition(Result::is_ok);
    let members = reports.into_iter().flatten().map(|report| (report.group, report.members)).collect();
    let (inbound, errors) = wire::frame_from_wire(frame.messages, &frame.beats, &frame.beat_replies);
    let messages = inbound.messages.into_iter().map(|inbound| {
        let GroupMessage { group, message } = inbound.message;
        let (entries, chunk) = match inbound.payload {
            InboundPayload::None => (Vec::new(), None),
            InboundPayload::Entries(entries) => (entries, None),
            InboundPayload::Chunk(bytes) => (Vec::new(), Some(bytes)),
        };
        let entries = entries.into_iter().map(|entry| (entry.kind, entry.payload)).collect();
        PeerMessage { group, message, entries, chunk }
    });
    let beats = inbound.beats.into_iter().map(|GroupMessage { group, message }| PeerMessage {
        group,
        message,
        entries: Vec::new(),
        chunk: None,
    });
    let frame = PeerFrame { messages: messages.chain(beats).collect(), members };
    (frame, errors.len() + refused.len())
}

/// The frame that a peer would send to say this.
#[must_use]
pub fn encode_frame(PeerFrame { messages, members }: &PeerFrame) -> v1::PeerFrame {
    let mut frame = v1::PeerFrame::default();
    let report = |(group, members): &(GroupId, Vec<ReplicaId>)| GroupMembers {
        group: *group,
        members: members.clone(),
    };
    frame.group_members = wire::members_to_wire(&members.iter().map(report).collect::<Vec<_>>());
    let mut beats = Vec::new();
    for PeerMessage { group, message, entries, chunk } in messages {
        match &message.body {
            Body::Append(_) => {
                let entry = |(kind, payload): &(EntryKind, Bytes)| WireEntry {
                    kind: *kind,
                    payload: payload.clone(),
                };
                let entries: Vec<_> = entries.iter().map(entry).collect();
                frame.messages.push(wire::append_to_wire(*group, message, &entries));
            }
            Body::SnapshotChunk(_) => {
                let data = chunk.clone().expect("a chunk has bytes");
                frame.messages.push(wire::chunk_to_wire(*group, message, data));
            }
            Body::Beat(_) | Body::BeatReply(_) => {
                beats.push(GroupMessage { group: *group, message: message.clone() });
            }
            Body::VoteAsk(_) | Body::VoteReply(_) | Body::AppendReply(_) | Body::SnapshotReply(_) => {
                frame.messages.extend(wire::message_to_wire(*group, message));
            }
        }
    }
    (frame.beats, frame.beat_replies) = wire::beats_to_wire(&beats);
    frame
}
