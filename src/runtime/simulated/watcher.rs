//! The simulator watches what the driver loop does with the core.

use super::host::{Moment, host};
use crate::{
    multiraft::{Node, NodeInput, NodeOutput},
    raft::{GroupId, Index, Now},
    storage::wal::{GroupWrite, LogIndex, Recovery, WriteError, WriteReceipt},
};

pub(crate) fn recovered(recovery: &Recovery) {
    host().watch(&Moment::Recovered(recovery));
}

pub(crate) fn set(node: &Node) {
    host().watch(&Moment::Set(node));
}

pub(crate) fn given(now: Now, input: &NodeInput) {
    host().watch(&Moment::Given { now, input });
}

pub(crate) fn wants(output: &NodeOutput, node: &Node, log: &LogIndex) {
    host().watch(&Moment::Wants { output, node, log });
}

pub(crate) fn done(node: &Node) {
    host().watch(&Moment::Done(node));
}

pub(crate) fn wrote(write: &GroupWrite, log: &LogIndex) {
    host().watch(&Moment::Wrote { write, log });
}

pub(crate) fn submitted(tag: u64) {
    host().watch(&Moment::Submitted(tag));
}

pub(crate) fn completed(tags: &[u64], result: &Result<WriteReceipt, WriteError>) {
    host().watch(&Moment::Completed { tags, result });
}

pub(crate) fn applied(group: GroupId, index: Index, digest: u128) {
    host().watch(&Moment::Applied { group, index, digest });
}
