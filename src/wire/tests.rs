use proptest::{collection::vec, prelude::*};

use super::*;

fn sent(message: GroupMessage, entries: &[WireEntry], chunk: Option<Bytes>) -> v1::RaftMessage {
    let GroupMessage { group, message } = message;
    match (&message.body, chunk) {
        (Body::Append(_), _) => append_to_wire(group, &message, entries),
        (Body::SnapshotChunk(_), Some(data)) => chunk_to_wire(group, &message, data),
        (_, _) => message_to_wire(group, &message).expect("has no payload"),
    }
}

fn envelope_of(body: Body) -> GroupMessage {
    GroupMessage {
        group: GroupId(3),
        message: Message { from: ReplicaId(7), to: ReplicaId(9), term: Term(NUMBER_MAX), body },
    }
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_u64, 0..=NUMBER_MAX]
}

fn position() -> impl Strategy<Value = Position> {
    (number(), number()).prop_map(|(index, term)| Position::new(Index(index), Term(term)))
}

fn ballot() -> impl Strategy<Value = Ballot> {
    prop_oneof![Just(Ballot::Pre), Just(Ballot::Real)]
}

fn body_without_payload() -> impl Strategy<Value = Body> {
    prop_oneof![
        (ballot(), number(), position()).prop_map(|(ballot, term, last)| Body::VoteAsk(VoteAsk {
            ballot,
            campaign_term: Term(term),
            last
        })),
        (ballot(), number(), any::<bool>()).prop_map(|(ballot, term, granted)| {
            Body::VoteReply(VoteReply { ballot, campaign_term: Term(term), granted })
        }),
        (number(), number()).prop_map(|(index, round)| {
            let outcome = AppendOutcome::Accepted(Index(index));
            Body::AppendReply(AppendReply { outcome, round: Round(round) })
        }),
        (number(), position(), number()).prop_map(|(prev, hint, round)| {
            let outcome = AppendOutcome::Rejected { prev: Index(prev), hint };
            Body::AppendReply(AppendReply { outcome, round: Round(round) })
        }),
        (position(), any::<u64>()).prop_map(|(position, next_offset)| {
            Body::SnapshotReply(SnapshotReply { position, next_offset })
        }),
    ]
}

fn configuration() -> Configuration {
    Configuration::of_voters([ReplicaId(1), ReplicaId(4), ReplicaId(6)]).expect("three voters")
}

fn entry() -> impl Strategy<Value = WireEntry> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..40)
            .prop_map(|bytes| WireEntry { kind: EntryKind::Normal, payload: bytes.into() }),
        1 => Just(WireEntry { kind: EntryKind::Empty, payload: Bytes::new() }),
        1 => Just(WireEntry { kind: EntryKind::Configuration, payload: configuration().encode().into() }),
    ]
}

/// An append as it arrives: its configurations decoded, its bytes exact.
fn append() -> impl Strategy<Value = (Append, Vec<WireEntry>)> {
    let clock = proptest::option::of((any::<u64>(), any::<u64>()));
    (0..1000_u64, 0..1000_u64, vec((vec(entry(), 1..5), 1..3_u64), 0..4), number(), number(), clock).prop_map(
        |(prev, prev_term, parts, commit, round, clock)| {
            let prev = Position::new(Index(prev), Term(prev_term));
            let (mut last, mut runs, mut entries) = (prev, TermRuns::default(), Vec::new());
            for (part, term_step) in parts {
                last.index.0 += part.len() as u64;
                last.term.0 += term_step;
                assert!(runs.push(last));
                entries.extend(part);
            }
            let first = prev.index.next();
            let numbered = (first.0..).zip(&entries);
            let configurations = numbered
                .filter(|(_, entry)| entry.kind == EntryKind::Configuration)
                .map(|(index, _)| ConfigurationEntry { index: Index(index), configuration: configuration() })
                .collect();
            let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
            let append = Append {
                prev,
                entries: EntryRange { first, bytes, runs },
                configurations,
                commit: Index(commit),
                round: Round(round),
                clock: clock.map(|(earliest, latest)| WallInterval { earliest, latest }),
            };
            (append, entries)
        },
    )
}

proptest! {
    #[test]
    fn messages_without_payload_arrive_as_sent(body in body_without_payload()) {
        let message = envelope_of(body);
        let arrived = message_from_wire(sent(message.clone(), &[], None));
        prop_assert_eq!(arrived, Ok(InboundMessage { message, payload: InboundPayload::None }));
    }

    #[test]
    fn appends_arrive_as_sent((append, entries) in append()) {
        let message = envelope_of(Body::Append(append));
        let arrived = message_from_wire(sent(message.clone(), &entries, None));
        let payload =
            if entries.is_empty() { InboundPayload::None } else { InboundPayload::Entries(entries) };
        prop_assert_eq!(arrived, Ok(InboundMessage { message, payload }));
    }

    #[test]
    fn beats_arrive_as_sent(numbers in vec((number(), number(), number(), any::<bool>()), 0..20)) {
        let messages: Vec<_> = numbers
            .into_iter()
            .map(|(a, b, c, ask)| envelope_of(if ask {
                Body::Beat(Beat { commit: Index(a), round: Round(b), sent: Index(c) })
            } else {
                Body::BeatReply(BeatReply { round: Round(a), verified: (b > 0).then_some(Index(b)) })
            }))
            .collect();
        let (beats, replies) = beats_to_wire(&messages);
        let (mut frame, errors) = frame_from_wire(Vec::new(), &beats, &replies);
        prop_assert!(errors.is_empty());
        prop_assert_eq!(frame.beats.len(), messages.len());
        for message in &messages {
            let at = frame.beats.iter().position(|arrived| arrived == message);
            prop_assert!(at.is_some());
            frame.beats.remove(at.expect("just checked"));
        }
    }

    #[test]
    fn chunks_arrive_as_sent(
        data in vec(any::<u8>(), 1..200), offset in 0..10_000_u64, rest in 0..10_000_u64, at in position(),
    ) {
        let meta = SnapshotMeta { position: at, configuration: configuration() };
        let bytes = offset + data.len() as u64 + rest;
        let snapshot = SnapshotDescriptor { id: SnapshotId(5), meta, bytes };
        let length = data.len() as u64;
        let message = envelope_of(Body::SnapshotChunk(SnapshotChunk { snapshot, offset, length }));
        let data = Bytes::from(data);
        let arrived = message_from_wire(sent(message.clone(), &[], Some(data.clone())));
        prop_assert_eq!(arrived, Ok(InboundMessage { message, payload: InboundPayload::Chunk(data) }));
    }

    #[test]
    fn hostile_appends_never_panic_and_never_break_a_promise(
        term in number(),
        prev in proptest::option::of((any::<u64>(), any::<u64>())),
        runs in vec((0..12_u64, 0..6_u64), 0..6),
        payloads in vec(vec(any::<u8>(), 0..4), 0..12),
        special in vec((any::<u64>().prop_map(|n| n % 16), -1..4_i32), 0..6),
        commit in any::<u64>(),
    ) {
        let wire = v1::RaftMessage {
            term,
            body: Some(v1::raft_message::Body::Append(v1::Append {
                prev: prev.map(|(index, term)| v1::Position { index: index % 8, term: term % 4 }),
                payloads: payloads.into_iter().map(Bytes::from).collect(),
                runs: runs.into_iter().map(|(index, term)| v1::Position { index, term }).collect(),
                special: special.into_iter().map(|(index, kind)| v1::SpecialEntry { index, kind }).collect(),
                commit,
                ..v1::Append::default()
            })),
            ..v1::RaftMessage::default()
        };
        if let Ok(InboundMessage { message, payload }) = message_from_wire(wire) {
            let Body::Append(append) = message.message.body else { panic!("an append stays one") };
            let count = match payload {
                InboundPayload::None => 0,
                InboundPayload::Entries(entries) => entries.len() as u64,
                InboundPayload::Chunk(_) => panic!("an append has entries"),
            };
            prop_assert_eq!(append.entries.count(), count);
            prop_assert_eq!(append.entries.first, append.prev.index.next());
            prop_assert!(append.commit.0 <= NUMBER_MAX);
            let mut before = append.prev;
            for run in append.entries.runs.as_slice() {
                prop_assert!(run.index > before.index && run.term >= before.term);
                prop_assert!(run.term <= message.message.term);
                before = *run;
            }
        }
    }
}

fn wire_append(change: impl FnOnce(&mut v1::Append)) -> Result<InboundMessage, WireError> {
    let mut append = v1::Append {
        prev: Some(v1::Position { index: 4, term: 2 }),
        payloads: vec![Bytes::from_static(b"a"), Bytes::new(), configuration().encode().into()],
        runs: vec![v1::Position { index: 6, term: 2 }, v1::Position { index: 7, term: 3 }],
        special: vec![
            v1::SpecialEntry { index: 6, kind: v1::EntryKind::Empty.into() },
            v1::SpecialEntry { index: 7, kind: v1::EntryKind::Configuration.into() },
        ],
        ..v1::Append::default()
    };
    change(&mut append);
    let body = Some(v1::raft_message::Body::Append(append));
    message_from_wire(v1::RaftMessage { term: 3, body, ..v1::RaftMessage::default() })
}

#[test]
fn each_broken_promise_of_an_append_has_its_error() {
    type Change = fn(&mut v1::Append);
    assert!(wire_append(|_| {}).is_ok());
    let cases: [(Change, WireError); 12] = [
        (|a| a.prev = None, WireError::Missing("previous entry")),
        (|a| a.payloads.truncate(2), WireError::EntryCount { entries: 3, payloads: 2 }),
        (|a| a.runs.clear(), WireError::EntryCount { entries: 0, payloads: 3 }),
        (|a| a.runs[1].index = 6, WireError::Runs),
        (|a| a.runs[1].term = 2, WireError::Runs),
        (|a| a.runs[0].term = 1, WireError::Runs),
        (|a| a.runs[1].term = 4, WireError::Runs),
        (|a| a.special.swap(0, 1), WireError::Special),
        (|a| a.special[1].index = 8, WireError::Special),
        (|a| a.special[0].kind = 0, WireError::Special),
        (|a| a.payloads[1] = Bytes::from_static(b"x"), WireError::EmptyWithPayload),
        (
            |a| a.payloads[2] = Bytes::from_static(b"x"),
            WireError::Configuration(ConfigurationError::Malformed),
        ),
    ];
    for (change, error) in cases {
        assert_eq!(wire_append(change), Err(error));
    }
}

#[test]
fn sizes_are_bounded() {
    let many = wire_append(|append| {
        append.runs = vec![v1::Position { index: 4 + APPEND_ENTRIES_MAX + 1, term: 3 }];
    });
    assert_eq!(many, Err(WireError::TooLarge("entries")));
    let large = wire_append(|append| append.payloads[0] = Bytes::from(vec![0; MESSAGE_BYTES_MAX]));
    assert_eq!(large, Err(WireError::TooLarge("bytes")));
}

#[test]
fn numbers_that_could_overflow_are_refused() {
    let huge = wire_append(|append| append.prev = Some(v1::Position { index: u64::MAX, term: 2 }));
    assert_eq!(huge, Err(WireError::Number));
    let beat = v1::Beat { sent: u64::MAX, ..v1::Beat::default() };
    let (frame, errors) = frame_from_wire(Vec::new(), &[beat], &[]);
    assert_eq!((frame.beats.len(), errors), (0, vec![WireError::Number]));
}

fn wire_chunk(change: impl FnOnce(&mut v1::SnapshotChunk)) -> Result<InboundMessage, WireError> {
    let data = Bytes::from_static(b"part of a snapshot");
    let mut chunk = v1::SnapshotChunk {
        snapshot: 1,
        position: Some(v1::Position { index: 9, term: 2 }),
        configuration: configuration().encode().into(),
        total_bytes: 100,
        offset: 82,
        checksum: crc32fast::hash(&data),
        data,
    };
    change(&mut chunk);
    let body = Some(v1::raft_message::Body::SnapshotChunk(chunk));
    message_from_wire(v1::RaftMessage { term: 3, body, ..v1::RaftMessage::default() })
}

#[test]
fn each_broken_promise_of_a_chunk_has_its_error() {
    type Change = fn(&mut v1::SnapshotChunk);
    assert!(wire_chunk(|_| {}).is_ok());
    let cases: [(Change, WireError); 6] = [
        (|c| c.position = None, WireError::Missing("position")),
        (|c| c.configuration = Bytes::new(), WireError::Configuration(ConfigurationError::Malformed)),
        (|c| c.offset = 83, WireError::ChunkRange),
        (|c| c.offset = u64::MAX, WireError::ChunkRange),
        (|c| c.data = Bytes::new(), WireError::ChunkRange),
        (|c| c.checksum ^= 1, WireError::Checksum),
    ];
    for (change, error) in cases {
        assert_eq!(wire_chunk(change), Err(error));
    }
}

#[test]
fn what_is_malformed_does_not_take_the_rest_of_its_frame_along() {
    let good = message_to_wire(
        GroupId(1),
        &Message {
            from: ReplicaId(1),
            to: ReplicaId(2),
            term: Term(1),
            body: Body::SnapshotReply(SnapshotReply { position: Position::ZERO, next_offset: 5 }),
        },
    )
    .expect("has no payload");
    let bad = v1::RaftMessage { body: None, ..good.clone() };
    let (frame, errors) = frame_from_wire(vec![bad, good], &[], &[]);
    assert_eq!(frame.messages.len(), 1);
    assert_eq!(errors, [WireError::Missing("body")]);
}
