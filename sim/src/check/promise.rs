//! No message leaves before the write it rests on: a vote, an acknowledgement, a term that others
//! may count on. What the sender's disk holds is compared with what its message says.

use kotoba_db_cluster::{
    raft::{AppendOutcome, Ballot, Body, GroupId, HardState, Message, SnapshotMeta},
    storage::wal::EntryIndex,
};

use super::{Check, Verdict, Violation};

/// A replica sends a message while its disk holds this of the group.
///
/// # Errors
/// Where a crash could take back what the message says.
pub fn sent(
    group: GroupId,
    message: &Message,
    (hard_state, start, entries): (HardState, &SnapshotMeta, &EntryIndex),
) -> Verdict {
    let broken = match &message.body {
        Body::VoteReply(reply) if reply.ballot == Ballot::Real && reply.granted => {
            let durable = hard_state.term == message.term && hard_state.vote == Some(message.to);
            (!durable).then(|| format!("its vote for {} in {}", message.to, message.term))
        }
        Body::VoteAsk(ask) if ask.ballot == Ballot::Real => {
            let durable = hard_state.term == message.term && hard_state.vote == Some(message.from);
            (!durable).then(|| format!("its vote for itself in {}", message.term))
        }
        Body::AppendReply(reply) => match reply.outcome {
            _ if hard_state.term < message.term => Some(format!("{}", message.term)),
            AppendOutcome::Accepted(index) => {
                let held = index <= start.position.index || index <= entries.last().index;
                (!held).then(|| format!("entry {index}"))
            }
            AppendOutcome::Rejected { .. } => None,
        },
        Body::VoteReply(_)
        | Body::VoteAsk(_)
        | Body::Append(_)
        | Body::Beat(_)
        | Body::BeatReply(_)
        | Body::SnapshotChunk(_)
        | Body::SnapshotReply(_) => None,
    };
    broken.map_or(Ok(()), |what| {
        let message = format!("{group}: {} promises {what}, which its disk may forget", message.from);
        Err(Violation::new(Check::Promise, message))
    })
}
