//! Private decoders, opened to the fuzz targets in `fuzz/`. Hidden, and no part of the library's promise.

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;

use crate::{
    multiraft::GroupMessage,
    raft::{Body, GroupId, Message},
    storage::wal::EntryKind,
    wire::{self, InboundPayload, WireEntry},
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

/// Everything of a peer's frame that the core would be given, heartbeats last, and how many messages
/// were dropped.
#[must_use]
pub fn decode_frame(frame: v1::PeerFrame) -> (Vec<PeerMessage>, usize) {
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
    (messages.chain(beats).collect(), errors.len())
}

/// The frame that a peer would send to say this.
#[must_use]
pub fn encode_frame(messages: &[PeerMessage]) -> v1::PeerFrame {
    let mut frame = v1::PeerFrame::default();
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
