//! Between the core's messages and the wire's.
//!
//! Outward, nothing is copied: payloads are shared [`Bytes`] from the log to the socket. Inward,
//! everything is checked before the core sees it, because a remote chose every bit: a message that
//! is not well formed becomes a [`WireError`], is counted and dropped, and changes nothing. What
//! the core may rely on afterwards: the entries of an append are as many as its range says, its
//! term runs ascend, the configurations among them are decoded, and a chunk's bytes match their
//! checksum and lie inside their snapshot.

use bytes::Bytes;
use kotoba_db_cluster_proto::v1;
use thiserror::Error;

use crate::{
    limits::{
        APPEND_ENTRIES_MAX, GRPC_MESSAGE_BYTES_MAX, MEMBERS_MAX, SNAPSHOT_CHUNK_BYTES,
        TERM_RUNS_PER_MESSAGE_MAX,
    },
    multiraft::GroupMessage,
    raft::{
        Append, AppendOutcome, AppendReply, Ballot, Beat, BeatReply, Body, Configuration, ConfigurationEntry,
        ConfigurationError, EntryRange, GroupId, Index, Message, Position, ReplicaId, Round, SnapshotChunk,
        SnapshotDescriptor, SnapshotId, SnapshotMeta, SnapshotReply, Term, TermRuns, VoteAsk, VoteReply,
        WallInterval,
    },
};

/// Payload bytes of one message, at most; half a gRPC message, so that a frame always has room for
/// one more.
pub(crate) const MESSAGE_BYTES_MAX: usize = GRPC_MESSAGE_BYTES_MAX / 2;

/// Indices, terms and rounds above this one are refused: no log reaches them, and below it no sum of
/// two can overflow.
const NUMBER_MAX: u64 = u64::MAX >> 1;

pub(crate) use crate::storage::wal::EntryKind;

/// One entry on its way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WireEntry {
    /// What it holds.
    pub(crate) kind: EntryKind,
    /// Its bytes, as the log holds them.
    pub(crate) payload: Bytes,
}

/// What arrived from a peer in one frame, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboundFrame {
    /// Everything but heartbeats and their answers, in the order it was sent.
    pub(crate) messages: Vec<InboundMessage>,
    /// Heartbeats and answers to heartbeats.
    pub(crate) beats: Vec<GroupMessage>,
}

/// One message that arrived, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InboundMessage {
    /// The message as the core understands it.
    pub(crate) message: GroupMessage,
    /// The bytes it is about.
    pub(crate) payload: InboundPayload,
}

/// The bytes a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InboundPayload {
    /// It carries none.
    None,
    /// The entries of an append, in order.
    Entries(Vec<WireEntry>),
    /// A part of a snapshot.
    Chunk(Bytes),
}

/// A group's committed members, as its leader knows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupMembers {
    /// The group.
    pub(crate) group: GroupId,
    /// Its voters and learners.
    pub(crate) members: Vec<ReplicaId>,
}

/// Why a message was dropped. Nothing was changed; the sender repeats what still matters.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum WireError {
    /// A required part is missing.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// An index or a term that no log reaches: sums with it could overflow.
    #[error("an index or a term is out of range")]
    Number,
    /// The payloads are not as many as the range has entries.
    #[error("{payloads} payloads for {entries} entries")]
    EntryCount { entries: u64, payloads: usize },
    /// More entries, or more bytes, than one message may have.
    #[error("larger than one message may be: {0}")]
    TooLarge(&'static str),
    /// Indices or terms of the runs do not ascend, or contradict the message around them.
    #[error("the term runs are not well formed")]
    Runs,
    /// The entries that are not normal do not ascend, lie outside the range, or have no known kind.
    #[error("the special entries are not well formed")]
    Special,
    /// An empty entry has a payload.
    #[error("an empty entry has a payload")]
    EmptyWithPayload,
    /// A configuration does not decode.
    #[error("a configuration does not decode: {0}")]
    Configuration(ConfigurationError),
    /// A chunk's bytes do not match their checksum.
    #[error("a snapshot chunk does not match its checksum")]
    Checksum,
    /// A chunk is empty, too large, or lies outside its snapshot.
    #[error("a snapshot chunk lies outside its snapshot")]
    ChunkRange,
}

// ------------------------------------------------------------------ outward

/// A message without payload; `None` for one that has its own way: an append
/// ([`append_to_wire`]), a snapshot chunk ([`chunk_to_wire`]), heartbeats ([`beats_to_wire`]).
pub(crate) fn message_to_wire(group: GroupId, message: &Message) -> Option<v1::RaftMessage> {
    use v1::raft_message::Body as Out;
    let body = match &message.body {
        Body::VoteAsk(ask) => Out::VoteAsk(v1::VoteAsk {
            pre: ask.ballot == Ballot::Pre,
            campaign_term: ask.campaign_term.0,
            last: Some(position_to_wire(ask.last)),
        }),
        Body::VoteReply(reply) => Out::VoteReply(v1::VoteReply {
            pre: reply.ballot == Ballot::Pre,
            campaign_term: reply.campaign_term.0,
            granted: reply.granted,
        }),
        Body::AppendReply(reply) => Out::AppendReply(append_reply_to_wire(*reply)),
        Body::SnapshotReply(reply) => Out::SnapshotReply(v1::SnapshotReply {
            snapshot: 0,
            position: Some(position_to_wire(reply.position)),
            next_offset: reply.next_offset,
        }),
        Body::Append(_) | Body::SnapshotChunk(_) | Body::Beat(_) | Body::BeatReply(_) => return None,
    };
    Some(envelope(group, message, body))
}

/// An append with the entries of its range.
///
/// # Panics
/// Where the message is no append, or `entries` are not as many as its range has: both are this
/// node's own doing.
pub(crate) fn append_to_wire(group: GroupId, message: &Message, entries: &[WireEntry]) -> v1::RaftMessage {
    let Body::Append(append) = &message.body else {
        panic!("only an append has entries, not {:?}", message.body)
    };
    assert_eq!(append.entries.count(), entries.len() as u64, "one payload an entry");
    let numbered = (append.entries.first.0..).zip(entries);
    let special = numbered
        .filter(|(_, entry)| entry.kind != EntryKind::Normal)
        .map(|(index, entry)| v1::SpecialEntry { index, kind: kind_to_wire(entry.kind).into() })
        .collect();
    let body = v1::Append {
        prev: Some(position_to_wire(append.prev)),
        payloads: entries.iter().map(|entry| entry.payload.clone()).collect(),
        runs: append.entries.runs.as_slice().iter().copied().map(position_to_wire).collect(),
        special,
        commit: append.commit.0,
        round: append.round.0,
        clock: append.clock.map(|c| v1::ClockInterval { earliest: c.earliest, latest: c.latest }),
    };
    envelope(group, message, v1::raft_message::Body::Append(body))
}

/// A part of a snapshot with its bytes.
///
/// # Panics
/// Where the message is no chunk, or `data` is not as long as it says: both are this node's own
/// doing.
pub(crate) fn chunk_to_wire(group: GroupId, message: &Message, data: Bytes) -> v1::RaftMessage {
    let Body::SnapshotChunk(chunk) = &message.body else {
        panic!("only a snapshot chunk has these bytes, not {:?}", message.body)
    };
    assert_eq!(chunk.length, data.len() as u64, "a chunk is as long as its message says");
    let SnapshotDescriptor { id, meta, bytes } = &chunk.snapshot;
    let body = v1::SnapshotChunk {
        snapshot: id.0,
        position: Some(position_to_wire(meta.position)),
        configuration: meta.configuration.encode().into(),
        total_bytes: *bytes,
        offset: chunk.offset,
        checksum: crc32fast::hash(&data),
        data,
    };
    envelope(group, message, v1::raft_message::Body::SnapshotChunk(body))
}

/// Heartbeats and answers, as `multiraft` batched them. Other messages are left out.
pub(crate) fn beats_to_wire(messages: &[GroupMessage]) -> (Vec<v1::Beat>, Vec<v1::BeatReply>) {
    let (mut beats, mut replies) = (Vec::new(), Vec::new());
    for GroupMessage { group, message } in messages {
        match &message.body {
            Body::Beat(beat) => beats.push(v1::Beat {
                group: group.0,
                from: message.from.0,
                to: message.to.0,
                term: message.term.0,
                commit: beat.commit.0,
                round: beat.round.0,
                sent: beat.sent.0,
            }),
            Body::BeatReply(reply) => replies.push(v1::BeatReply {
                group: group.0,
                from: message.from.0,
                to: message.to.0,
                term: message.term.0,
                round: reply.round.0,
                verified: reply.verified.map_or(0, |index| index.0),
            }),
            Body::VoteAsk(_)
            | Body::VoteReply(_)
            | Body::Append(_)
            | Body::AppendReply(_)
            | Body::SnapshotChunk(_)
            | Body::SnapshotReply(_) => {}
        }
    }
    (beats, replies)
}

/// Members of groups, for the node that leads the meta group.
pub(crate) fn members_to_wire(reports: &[GroupMembers]) -> Vec<v1::GroupMembers> {
    let report = |report: &GroupMembers| v1::GroupMembers {
        group: report.group.0,
        replicas: report.members.iter().map(|replica| replica.0).collect(),
    };
    reports.iter().map(report).collect()
}

fn envelope(group: GroupId, message: &Message, body: v1::raft_message::Body) -> v1::RaftMessage {
    v1::RaftMessage {
        group: group.0,
        from: message.from.0,
        to: message.to.0,
        term: message.term.0,
        body: Some(body),
    }
}

fn append_reply_to_wire(reply: AppendReply) -> v1::AppendReply {
    use v1::append_reply::Outcome;
    let outcome = match reply.outcome {
        AppendOutcome::Accepted(index) => Outcome::Accepted(index.0),
        AppendOutcome::Rejected { prev, hint } => {
            Outcome::Rejected(v1::AppendRejected { prev_index: prev.0, hint: Some(position_to_wire(hint)) })
        }
    };
    v1::AppendReply { outcome: Some(outcome), round: reply.round.0 }
}

fn position_to_wire(position: Position) -> v1::Position {
    v1::Position { index: position.index.0, term: position.term.0 }
}

fn kind_to_wire(kind: EntryKind) -> v1::EntryKind {
    match kind {
        EntryKind::Normal => v1::EntryKind::Normal,
        EntryKind::Empty => v1::EntryKind::Empty,
        EntryKind::Configuration => v1::EntryKind::Configuration,
    }
}

// ------------------------------------------------------------------ inward

/// Everything in a frame that the core is to see, and why the rest was dropped.
pub(crate) fn frame_from_wire(
    messages: Vec<v1::RaftMessage>,
    beats: &[v1::Beat],
    replies: &[v1::BeatReply],
) -> (InboundFrame, Vec<WireError>) {
    let mut frame = InboundFrame { messages: Vec::with_capacity(messages.len()), beats: Vec::new() };
    let mut errors = Vec::new();
    for message in messages {
        match message_from_wire(message) {
            Ok(message) => frame.messages.push(message),
            Err(error) => errors.push(error),
        }
    }
    for beat in beats.iter().map(beat_from_wire).chain(replies.iter().map(beat_reply_from_wire)) {
        match beat {
            Ok(beat) => frame.beats.push(beat),
            Err(error) => errors.push(error),
        }
    }
    (frame, errors)
}

/// Members that a group's leader tells of.
///
/// # Errors
/// Where they are more than a group may have.
pub(crate) fn members_from_wire(report: &v1::GroupMembers) -> Result<GroupMembers, WireError> {
    if report.replicas.len() > MEMBERS_MAX {
        return Err(WireError::TooLarge("members"));
    }
    let members = report.replicas.iter().copied().map(ReplicaId).collect();
    Ok(GroupMembers { group: GroupId(report.group), members })
}

/// Checks a message and takes it apart.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn message_from_wire(message: v1::RaftMessage) -> Result<InboundMessage, WireError> {
    use v1::raft_message::Body as In;
    let term = term(message.term)?;
    let (body, payload) = match message.body.ok_or(WireError::Missing("body"))? {
        In::VoteAsk(ask) => (vote_ask_from_wire(&ask)?, InboundPayload::None),
        In::VoteReply(reply) => (vote_reply_from_wire(&reply)?, InboundPayload::None),
        In::Append(append) => append_from_wire(term, append)?,
        In::AppendReply(reply) => (append_reply_from_wire(reply)?, InboundPayload::None),
        In::SnapshotChunk(chunk) => chunk_from_wire(chunk)?,
        In::SnapshotReply(reply) => (snapshot_reply_from_wire(&reply)?, InboundPayload::None),
    };
    let (from, to) = (ReplicaId(message.from), ReplicaId(message.to));
    let message = GroupMessage { group: GroupId(message.group), message: Message { from, to, term, body } };
    Ok(InboundMessage { message, payload })
}

fn vote_ask_from_wire(ask: &v1::VoteAsk) -> Result<Body, WireError> {
    let last = required(ask.last, "last entry")?;
    Ok(Body::VoteAsk(VoteAsk {
        ballot: if ask.pre { Ballot::Pre } else { Ballot::Real },
        campaign_term: term(ask.campaign_term)?,
        last,
    }))
}

fn vote_reply_from_wire(reply: &v1::VoteReply) -> Result<Body, WireError> {
    Ok(Body::VoteReply(VoteReply {
        ballot: if reply.pre { Ballot::Pre } else { Ballot::Real },
        campaign_term: term(reply.campaign_term)?,
        granted: reply.granted,
    }))
}

fn append_reply_from_wire(reply: v1::AppendReply) -> Result<Body, WireError> {
    use v1::append_reply::Outcome;
    let outcome = match reply.outcome.ok_or(WireError::Missing("outcome"))? {
        Outcome::Accepted(accepted) => AppendOutcome::Accepted(index(accepted)?),
        Outcome::Rejected(rejected) => AppendOutcome::Rejected {
            prev: index(rejected.prev_index)?,
            hint: required(rejected.hint, "hint")?,
        },
    };
    Ok(Body::AppendReply(AppendReply { outcome, round: round(reply.round)? }))
}

fn snapshot_reply_from_wire(reply: &v1::SnapshotReply) -> Result<Body, WireError> {
    let position = required(reply.position, "position")?;
    Ok(Body::SnapshotReply(SnapshotReply { position, next_offset: reply.next_offset }))
}

fn append_from_wire(term: Term, append: v1::Append) -> Result<(Body, InboundPayload), WireError> {
    let prev = required(append.prev, "previous entry")?;
    let runs = runs_from_wire(term, prev, &append.runs)?;
    let first = prev.index.next();
    let count = runs.last().map_or(0, |last| last.index.0 - prev.index.0);
    if count > APPEND_ENTRIES_MAX {
        return Err(WireError::TooLarge("entries"));
    }
    if count != append.payloads.len() as u64 {
        return Err(WireError::EntryCount { entries: count, payloads: append.payloads.len() });
    }
    let bytes: usize = append.payloads.iter().map(Bytes::len).sum();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge("bytes"));
    }
    let mut entries: Vec<_> =
        append.payloads.into_iter().map(|payload| WireEntry { kind: EntryKind::Normal, payload }).collect();
    let configurations = mark_special(first, &mut entries, &append.special)?;
    let body = Body::Append(Append {
        prev,
        entries: EntryRange { first, bytes: bytes as u64, runs },
        configurations,
        commit: index(append.commit)?,
        round: round(append.round)?,
        clock: append.clock.map(|clock| WallInterval { earliest: clock.earliest, latest: clock.latest }),
    });
    let payload = if entries.is_empty() { InboundPayload::None } else { InboundPayload::Entries(entries) };
    Ok((body, payload))
}

/// Indices ascend from `prev`; terms ascend from that of `prev` to that of the message.
fn runs_from_wire(term: Term, prev: Position, wire: &[v1::Position]) -> Result<TermRuns, WireError> {
    if wire.len() > TERM_RUNS_PER_MESSAGE_MAX {
        return Err(WireError::Runs);
    }
    let mut runs = TermRuns::default();
    let mut before = prev;
    for &run in wire {
        let run = position_from_wire(run)?;
        let new_term = runs.is_empty() || run.term > before.term;
        let ascends = run.index > before.index && run.term >= before.term && run.term <= term;
        if !ascends || !new_term || !runs.push(run) {
            return Err(WireError::Runs);
        }
        before = run;
    }
    Ok(runs)
}

/// Gives the entries that are not normal their kinds. Returns the configurations among them.
fn mark_special(
    first: Index,
    entries: &mut [WireEntry],
    special: &[v1::SpecialEntry],
) -> Result<Vec<ConfigurationEntry>, WireError> {
    let mut configurations = Vec::new();
    let mut next = first.0;
    for entry in special {
        let offset =
            entry.index.checked_sub(next).map(|_| entry.index - first.0).ok_or(WireError::Special)?;
        let place = usize::try_from(offset).ok().and_then(|offset| entries.get_mut(offset));
        let place = place.ok_or(WireError::Special)?;
        match v1::EntryKind::try_from(entry.kind) {
            Ok(v1::EntryKind::Empty) if !place.payload.is_empty() => return Err(WireError::EmptyWithPayload),
            Ok(v1::EntryKind::Empty) => place.kind = EntryKind::Empty,
            Ok(v1::EntryKind::Configuration) => {
                place.kind = EntryKind::Configuration;
                let configuration =
                    Configuration::decode(&place.payload).map_err(WireError::Configuration)?;
                configurations.push(ConfigurationEntry { index: Index(entry.index), configuration });
            }
            Ok(v1::EntryKind::Normal) | Err(_) => return Err(WireError::Special),
        }
        // Cannot overflow: the entry is inside the range, whose indices were checked.
        next = entry.index + 1;
    }
    Ok(configurations)
}

fn chunk_from_wire(chunk: v1::SnapshotChunk) -> Result<(Body, InboundPayload), WireError> {
    let position = required(chunk.position, "position")?;
    let configuration = Configuration::decode(&chunk.configuration).map_err(WireError::Configuration)?;
    let length = chunk.data.len() as u64;
    if length == 0 || length > SNAPSHOT_CHUNK_BYTES {
        return Err(WireError::ChunkRange);
    }
    if chunk.offset.checked_add(length).is_none_or(|end| end > chunk.total_bytes) {
        return Err(WireError::ChunkRange);
    }
    if crc32fast::hash(&chunk.data) != chunk.checksum {
        return Err(WireError::Checksum);
    }
    let meta = SnapshotMeta { position, configuration };
    let snapshot = SnapshotDescriptor { id: SnapshotId(chunk.snapshot), meta, bytes: chunk.total_bytes };
    let body = Body::SnapshotChunk(SnapshotChunk { snapshot, offset: chunk.offset, length });
    Ok((body, InboundPayload::Chunk(chunk.data)))
}

fn beat_from_wire(beat: &v1::Beat) -> Result<GroupMessage, WireError> {
    let body =
        Body::Beat(Beat { commit: index(beat.commit)?, round: round(beat.round)?, sent: index(beat.sent)? });
    let (from, to, term) = (ReplicaId(beat.from), ReplicaId(beat.to), term(beat.term)?);
    Ok(GroupMessage { group: GroupId(beat.group), message: Message { from, to, term, body } })
}

fn beat_reply_from_wire(reply: &v1::BeatReply) -> Result<GroupMessage, WireError> {
    let verified = (reply.verified > 0).then_some(index(reply.verified)?);
    let body = Body::BeatReply(BeatReply { round: round(reply.round)?, verified });
    let (from, to, term) = (ReplicaId(reply.from), ReplicaId(reply.to), term(reply.term)?);
    Ok(GroupMessage { group: GroupId(reply.group), message: Message { from, to, term, body } })
}

fn required(position: Option<v1::Position>, what: &'static str) -> Result<Position, WireError> {
    position_from_wire(position.ok_or(WireError::Missing(what))?)
}

fn position_from_wire(position: v1::Position) -> Result<Position, WireError> {
    Ok(Position::new(index(position.index)?, term(position.term)?))
}

fn index(number: u64) -> Result<Index, WireError> {
    in_range(number).map(Index)
}

fn term(number: u64) -> Result<Term, WireError> {
    in_range(number).map(Term)
}

fn round(number: u64) -> Result<Round, WireError> {
    in_range(number).map(Round)
}

fn in_range(number: u64) -> Result<u64, WireError> {
    if number <= NUMBER_MAX { Ok(number) } else { Err(WireError::Number) }
}

#[cfg(test)]
mod tests;
