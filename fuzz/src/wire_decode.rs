//! Every decoder of bytes that a remote or a disk chose.
//!
//! The first byte of an input picks the decoder, the rest is what it is given; where a checksum would keep
//! the fuzzer out, the input says what is behind it and the right one is put there. Whatever decodes must
//! survive being encoded again, in the formats that promise it to the same bytes, and what follows in the
//! product (the core, an import, a command applied) must bear with it.

mod log;
mod meta;
mod peer;
mod snapshot;

use kotoba_db_cluster::{
    graph::{Block, Cid, Command, NodeBlock},
    raft::Configuration,
};

pub(crate) use self::snapshot::{commands as sample_commands, sample_stream};
use crate::{Situations, choices::Choices};

/// What the seeds reach together.
pub const SITUATIONS: &[&str] = &[
    "a block",
    "a cid",
    "a client's message",
    "a command",
    "a configuration",
    "a heartbeat",
    "a meta command carried out",
    "a meta state",
    "a peer's message",
    "a peer's message dropped",
    "a snapshot imported",
    "a snapshot of damaged rows imported",
    "a structure of the log",
    "bytes refused",
    "entries of a peer",
    "members of a group",
];

/// The decoders, in the order of the bytes that pick them.
pub const DECODERS: [Decoder; 10] = [
    Decoder::Peer,
    Decoder::Client,
    Decoder::Command,
    Decoder::Block,
    Decoder::Configuration,
    Decoder::Log,
    Decoder::Snapshot,
    Decoder::Rows,
    Decoder::Meta,
    Decoder::Cid,
];

/// What an input is given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// A frame of a peer's stream, and the core behind it.
    Peer,
    /// Another protobuf message; the next byte says which.
    Client,
    /// A partition's log entry.
    Command,
    /// A block.
    Block,
    /// A group's members.
    Configuration,
    /// A structure of the write-ahead log, with a right checksum.
    Log,
    /// A snapshot as it is.
    Snapshot,
    /// A snapshot of changed rows, with right checksums.
    Rows,
    /// A command of the meta group behind its length, and the group's state.
    Meta,
    /// A CID's text or bytes.
    Cid,
}

/// Decodes what follows the first byte.
pub fn run(bytes: &[u8]) -> Situations {
    let mut situations = Situations::default();
    let Some((&first, rest)) = bytes.split_first() else { return situations };
    let known = match DECODERS[usize::from(first) % DECODERS.len()] {
        Decoder::Peer => peer::frame(rest, &mut situations),
        Decoder::Client => peer::client(rest, &mut situations),
        Decoder::Command => command(rest, &mut situations),
        Decoder::Block => block(rest, &mut situations),
        Decoder::Configuration => configuration(rest, &mut situations),
        Decoder::Log => log::structure(Choices::new(rest), &mut situations),
        Decoder::Snapshot => snapshot::stream(rest, &mut situations),
        Decoder::Rows => snapshot::rows(Choices::new(rest), &mut situations),
        Decoder::Meta => meta::state_and_command(rest, &mut situations),
        Decoder::Cid => cid(rest, &mut situations),
    };
    situations.reach_if(known.is_none(), "bytes refused");
    situations
}

/// Strict: whatever decodes encodes to the same bytes.
fn command(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let command = Command::decode(bytes).ok()?;
    assert_eq!(&command.encode()[..], bytes, "a command has one encoding");
    situations.reach("a command");
    Some(())
}

/// Canonical: whatever decodes encodes to the same bytes, and the check without building agrees.
fn block(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let (decoded, checked) = (Block::decode(bytes), NodeBlock::check(bytes));
    match &decoded {
        Ok(Block::Node(node)) => assert_eq!(checked, Ok(node.key.as_deref()), "the check agrees"),
        Ok(Block::Edge(_) | Block::Version(_)) | Err(_) => assert!(checked.is_err(), "the check agrees"),
    }
    let again = match decoded.ok()? {
        Block::Node(node) => node.encode(),
        Block::Edge(edge) => edge.encode(),
        Block::Version(version) => version.encode(),
    };
    assert_eq!(&again.expect("what was decoded can be encoded")[..], bytes, "a block has one encoding");
    situations.reach("a block");
    Some(())
}

fn configuration(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    let configuration = Configuration::decode(bytes).ok()?;
    assert_eq!(configuration.check(), Ok(()), "what decodes keeps its promises");
    assert_eq!(Configuration::decode(&configuration.encode()), Ok(configuration));
    situations.reach("a configuration");
    Some(())
}

fn cid(bytes: &[u8], situations: &mut Situations) -> Option<()> {
    if let Ok(cid) = Cid::from_bytes(bytes) {
        assert_eq!(cid.to_bytes(), bytes);
    }
    let text = std::str::from_utf8(bytes).ok()?;
    let cid: Cid = text.parse().ok()?;
    assert_eq!(cid.to_string(), text, "a CID has one text");
    situations.reach("a cid");
    Some(())
}
