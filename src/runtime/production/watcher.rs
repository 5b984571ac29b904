//! In production nobody watches.

use crate::{
    multiraft::{Node, NodeInput, NodeOutput},
    raft::{GroupId, Index, Now},
    storage::wal::{GroupWrite, LogIndex, Recovery, WriteError, WriteReceipt},
};

/// The log was read back.
pub(crate) const fn recovered(_: &Recovery) {}

/// The core is in this state, not by an input: it was restarted, or told of members.
pub(crate) const fn set(_: &Node) {}

/// The core is about to be given an input.
pub(crate) const fn given(_: Now, _: &NodeInput) {}

/// The core wants something; it is about to be carried out.
pub(crate) const fn wants(_: &NodeOutput, _: &Node, _: &LogIndex) {}

/// Everything was carried out that an input led to.
pub(crate) const fn done(_: &Node) {}

/// A write waits for the end of the turn; the index knows its entries.
pub(crate) const fn wrote(_: &GroupWrite, _: &LogIndex) {}

/// All writes that wait are handed to the log under this tag.
pub(crate) const fn submitted(_: u64) {}

/// Writes under these tags are durable, or failed.
pub(crate) const fn completed(_: &[u64], _: &Result<WriteReceipt, WriteError>) {}

/// A group's state includes its entries up to an index, and has this digest.
pub(crate) const fn applied(_: GroupId, _: Index, _: u128) {}
