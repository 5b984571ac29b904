//! Protobuf: what peers and clients send.

use kotoba_db_cluster::{
    fuzzing::{PeerMessage, decode_frame, encode_frame},
    limits::MEMBERS_MAX,
    raft::{
        Body, BootEpoch, Configuration, HardState, Index, Input, Limits, Now, PayloadId, Position, Replica,
        ReplicaId, Restored, Settings, SnapshotMeta, Term, Timing,
    },
};
use kotoba_db_cluster_proto::v1;
use prost::Message as _;

use crate::Situations;

/// A frame of a peer's stream: decoded, converted, and given to the core.
pub(super) fn frame(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let frame = v1::PeerFrame::decode(bytes).ok()?;
    survives(&frame);
    let (frame, dropped) = decode_frame(frame);
    situations.reach_if(dropped > 0, "a peer's message dropped");
    for message in &frame.messages {
        check(message, situations);
    }
    assert!(frame.members.iter().all(|(_, members)| members.len() <= MEMBERS_MAX));
    situations.reach_if(!frame.members.is_empty(), "members of a group");
    let again = decode_frame(encode_frame(&frame));
    assert_eq!(again, (frame.clone(), 0), "what was accepted can be sent on");
    let mut replica = replica();
    for (number, PeerMessage { message, entries, chunk, .. }) in (0..).zip(frame.messages) {
        let payload = (!entries.is_empty() || chunk.is_some()).then_some(PayloadId(number));
        replica.handle(Now::default(), Input::Message { message, payload });
        while replica.poll_output().is_some() {}
    }
    Some(())
}

/// What the core may rely on.
fn check(PeerMessage { message, entries, chunk, .. }: &PeerMessage, situations: &mut Situations) {
    situations.reach(match &message.body {
        Body::Beat(_) | Body::BeatReply(_) => "a heartbeat",
        _ => "a peer's message",
    });
    match &message.body {
        Body::Append(append) => {
            assert_eq!(append.entries.count(), entries.len() as u64, "one payload an entry");
            let bytes: usize = entries.iter().map(|(_, payload)| payload.len()).sum();
            assert!(entries.is_empty() || append.entries.bytes == bytes as u64, "the bytes are counted");
            for entry in &append.configurations {
                assert_eq!(entry.configuration.check(), Ok(()));
                assert!(append.entries.runs.term_at(entry.index).is_some(), "inside the range");
            }
            situations.reach_if(!entries.is_empty(), "entries of a peer");
        }
        Body::SnapshotChunk(part) => {
            let bytes = chunk.as_ref().expect("a chunk has bytes");
            assert_eq!(part.length, bytes.len() as u64);
            assert!(part.offset + part.length <= part.snapshot.bytes, "inside its snapshot");
        }
        Body::VoteAsk(_)
        | Body::VoteReply(_)
        | Body::AppendReply(_)
        | Body::Beat(_)
        | Body::BeatReply(_)
        | Body::SnapshotReply(_) => assert!(entries.is_empty() && chunk.is_none()),
    }
}

fn replica() -> Replica {
    let configuration = Configuration::of_voters((1..=3).map(ReplicaId)).expect("some voters");
    let restored = Restored {
        hard_state: HardState { term: Term(1), vote: None },
        start: SnapshotMeta { position: Position::new(Index(1), Term(1)), configuration },
        applied: Index(1),
        ..Restored::default()
    };
    let settings = Settings {
        id: ReplicaId(1),
        boot: BootEpoch(1),
        seed: 1,
        timing: Timing::default(),
        retained_bytes: 0,
        limits: Limits::default(),
    };
    Replica::recover(settings, restored, Now::default()).expect("a new group's member starts")
}

/// Encoding and decoding again gives the same. Floats may be NaN, and maps have no order, so lengths are
/// compared.
fn survives<M: prost::Message + Default>(message: &M) {
    let again = M::decode(message.encode_to_vec().as_slice()).expect("what was encoded decodes");
    assert_eq!(again.encoded_len(), message.encoded_len());
}

/// What clients and members send outside the peers' streams.
pub(super) fn client(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let (first, bytes) = bytes.split_first()?;
    macro_rules! decoders {
        ($($message:ident),+ $(,)?) => {{
            let decoders: &[fn(&[u8]) -> bool] =
                &[$(|bytes| v1::$message::decode(bytes).inspect(survives).is_ok()),+];
            decoders[usize::from(*first) % decoders.len()](bytes)
        }};
    }
    let decoded = decoders![
        ClientRequest,
        ClientResponse,
        Hello,
        VoteRequest,
        AppendEntriesRequest,
        HeartbeatRequest,
        JoinRequest,
        ClusterConfig,
        GetEntityRequest,
        Entity,
        QueryRequest,
        ScanRequest,
        LookupRequest,
        ConfirmRequest,
        VerifyScanRequest,
        StatusResponse,
    ];
    situations.reach_if(decoded, "a client's message");
    decoded.then_some(())
}
