//! The bytes of the meta group: its state in snapshots and answers to joining nodes, its commands
//! in the log.
//!
//! A version byte, then postcard. What is decoded is checked before anyone sees it: bytes that a
//! remote or a disk chose give an error, never a state that breaks its own promises.

use alloc::{collections::BTreeSet, vec::Vec};
use core::fmt;

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    MEMBERS_REMEMBERED_MAX, MemberStatus, MetaCommand, MetaState, NODES_MAX, PartitionMap,
    REPLICATION_FACTOR_MAX,
};
use crate::{
    limits::{MEMBERS_MAX, PARTITIONS_MAX},
    raft::GroupId,
};

const STATE_VERSION: u8 = 1;
const COMMAND_VERSION: u8 = 1;
/// Numbers that are given out one by one never get here: they leave room to count on.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Why bytes stand for no state or command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They begin with a version that is not known here.
    Version(Option<u8>),
    /// They are not what that version writes.
    Malformed,
    /// They say what cannot be: the text names what.
    Contradiction(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(Some(version)) => write!(f, "format version {version} is not known here"),
            Self::Version(None) => f.write_str("there are no bytes"),
            Self::Malformed => f.write_str("the bytes are not what the format says"),
            Self::Contradiction(what) => write!(f, "the bytes contradict themselves: {what}"),
        }
    }
}

impl core::error::Error for DecodeError {}

impl MetaState {
    /// The bytes that stand for this state. Equal states have equal bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(STATE_VERSION, self)
    }

    /// The state that `bytes` stand for.
    ///
    /// # Errors
    /// Where they stand for none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let state: Self = decode(STATE_VERSION, bytes)?;
        if [state.next_peer, state.next_replica, state.map.epoch]
            .into_iter()
            .any(|number| number > NUMBER_MAX)
        {
            return Err(DecodeError::Contradiction("a number is out of range"));
        }
        state.check().map_err(DecodeError::Contradiction)?;
        Ok(state)
    }

    /// A number that differs where states differ, to be compared between replicas.
    #[must_use]
    pub fn digest(&self) -> u128 {
        xxh3_128(&self.encode())
    }

    /// What every state promises; [`MetaState::apply`] keeps it.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        self.check_members()?;
        check_map_shape(&self.map, self.replication_factor)?;
        self.check_replicas()
    }

    fn check_members(&self) -> Result<(), &'static str> {
        let (mut names, mut incarnations) = (BTreeSet::new(), BTreeSet::new());
        if self.members.len() > MEMBERS_REMEMBERED_MAX {
            return Err("more members than are remembered");
        }
        for (peer, member) in &self.members {
            if peer.0 == 0 || peer.0 >= self.next_peer {
                return Err("a member has a number that was never given out");
            }
            if !member.node.is_valid() || super::meta::check_address(&member.address).is_err() {
                return Err("a member's name or address is not valid");
            }
            if !incarnations.insert(member.incarnation) {
                return Err("two members have the same data directory");
            }
            if member.status == MemberStatus::Active && !names.insert(&member.node) {
                return Err("two active members have the same name");
            }
        }
        if names.is_empty() || names.len() > NODES_MAX {
            return Err("no active member, or too many");
        }
        Ok(())
    }

    fn check_replicas(&self) -> Result<(), &'static str> {
        let mut replicas = BTreeSet::new();
        for group in &self.map.groups {
            let mut peers = BTreeSet::new();
            for place in group.replicas.iter().chain(&group.retired) {
                if place.replica.0 == 0 || place.replica.0 >= self.next_replica {
                    return Err("a replica has a number that was never given out");
                }
                if !replicas.insert(place.replica) {
                    return Err("two replicas have the same number");
                }
                if !self.members.contains_key(&place.peer) {
                    return Err("a replica lives in no member");
                }
            }
            for place in &group.replicas {
                if self.members[&place.peer].status != MemberStatus::Active || !peers.insert(place.peer) {
                    return Err("a replica lives in a replaced member, or two in one");
                }
            }
        }
        Ok(())
    }
}

fn check_map_shape(map: &PartitionMap, replication_factor: u32) -> Result<(), &'static str> {
    if !(1..=PARTITIONS_MAX).contains(&map.partition_count) || map.epoch == 0 {
        return Err("the partition count or the epoch is out of range");
    }
    if !(1..=REPLICATION_FACTOR_MAX).contains(&replication_factor) {
        return Err("the replication factor is out of range");
    }
    if map.groups.len() != map.partition_count as usize + 1 {
        return Err("there is not one group for each partition and the meta group");
    }
    for (number, group) in (0..).zip(&map.groups) {
        if group.group != GroupId(number) {
            return Err("the groups are not in order");
        }
        if group.replicas.is_empty() || group.replicas.len() > MEMBERS_MAX {
            return Err("a group has no replica, or too many");
        }
        if group.retired.len() > MEMBERS_REMEMBERED_MAX {
            return Err("a group remembers more retired replicas than there can be");
        }
    }
    Ok(())
}

impl MetaCommand {
    /// The bytes that stand for this command in the log.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(COMMAND_VERSION, self)
    }

    /// The command that `bytes` stand for.
    ///
    /// # Errors
    /// Where they stand for none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let command: Self = decode(COMMAND_VERSION, bytes)?;
        match &command {
            Self::GroupChanged { members, .. } if members.len() > MEMBERS_MAX => {
                Err(DecodeError::Contradiction("a group with more members than one may have"))
            }
            Self::GroupChanged { .. } | Self::ReplaceNode { .. } | Self::UpdateAddress { .. } => Ok(command),
        }
    }
}

fn encode(version: u8, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, alloc::vec![version]).expect("numbers, texts and lists always encode")
}

fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let Some((&found, body)) = bytes.split_first() else {
        return Err(DecodeError::Version(None));
    };
    if found != version {
        return Err(DecodeError::Version(Some(found)));
    }
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok(_) | Err(_) => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests;
