//! Who the members of a group are.
//!
//! A configuration takes effect when it is appended and is rolled back if its entry is truncated
//! (Raft thesis, section 4.1). The joint half (`outgoing`) is part of the format from the first
//! version; while it is not empty, every decision needs a majority of both halves (section 4.3).

use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::types::{Index, ReplicaId};
use crate::limits::MEMBERS_MAX;

/// The members of a group, each list sorted and free of repetition.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Configuration {
    /// Replicas whose majority decides.
    pub voters: Vec<ReplicaId>,
    /// The voters being left, while a joint change is under way; their majority is needed too.
    pub outgoing: Vec<ReplicaId>,
    /// Replicas that receive the log and decide nothing.
    pub learners: Vec<ReplicaId>,
    /// Whether a leader leaves the joint configuration by itself as soon as it is committed.
    pub auto_leave: bool,
}

/// Why bytes or lists do not make a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// The bytes are not an encoded configuration.
    Malformed,
    /// There is no voter.
    NoVoter,
    /// A list is not sorted, or repeats a replica, or a learner also votes.
    NotCanonical,
    /// More than [`MEMBERS_MAX`] members.
    TooMany,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the bytes are not an encoded configuration",
            Self::NoVoter => "a configuration needs at least one voter",
            Self::NotCanonical => "members must be sorted, distinct, and either voter or learner",
            Self::TooMany => "a group has at most 64 members",
        })
    }
}

impl core::error::Error for ConfigurationError {}

impl Configuration {
    /// A configuration of these voters and nothing else.
    ///
    /// # Errors
    /// See [`Configuration::check`].
    pub fn of_voters(voters: impl IntoIterator<Item = ReplicaId>) -> Result<Self, ConfigurationError> {
        let mut voters: Vec<_> = voters.into_iter().collect();
        voters.sort_unstable();
        let configuration = Self { voters, ..Self::default() };
        configuration.check()?;
        Ok(configuration)
    }

    /// Every member once, in ascending order of its id.
    pub fn members(&self) -> Vec<ReplicaId> {
        let mut members: Vec<_> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Whether `replica` decides anything here.
    #[must_use]
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.binary_search(&replica).is_ok() || self.outgoing.binary_search(&replica).is_ok()
    }

    /// Whether `replica` receives the log.
    #[must_use]
    pub fn is_member(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.binary_search(&replica).is_ok()
    }

    /// Whether two halves decide together.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the lists are what they promise to be.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        let ascending = |list: &[ReplicaId]| list.windows(2).all(|pair| pair[0] < pair[1]);
        if self.voters.is_empty() {
            return Err(ConfigurationError::NoVoter);
        }
        if self.voters.len() + self.outgoing.len() + self.learners.len() > MEMBERS_MAX {
            return Err(ConfigurationError::TooMany);
        }
        let canonical =
            [&self.voters, &self.outgoing, &self.learners].into_iter().all(|list| ascending(list))
                && self.learners.iter().all(|&learner| !self.is_voter(learner));
        if canonical { Ok(()) } else { Err(ConfigurationError::NotCanonical) }
    }

    /// The bytes that stand for this configuration in the log and on the wire (postcard, a version
    /// byte first).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![FORMAT_VERSION];
        bytes.extend(postcard::to_allocvec(self).expect("lists of numbers always encode"));
        bytes
    }

    /// The configuration that `bytes` stand for.
    ///
    /// # Errors
    /// Where they stand for none.
    pub fn decode(bytes: &[u8]) -> Result<Self, ConfigurationError> {
        let Some((&FORMAT_VERSION, body)) = bytes.split_first() else {
            return Err(ConfigurationError::Malformed);
        };
        let (configuration, rest): (Self, _) =
            postcard::take_from_bytes(body).map_err(|_| ConfigurationError::Malformed)?;
        if !rest.is_empty() {
            return Err(ConfigurationError::Malformed);
        }
        configuration.check()?;
        Ok(configuration)
    }
}

const FORMAT_VERSION: u8 = 1;

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.voters)?;
        if self.is_joint() {
            write!(f, " leaving {:?}", self.outgoing)?;
        }
        if !self.learners.is_empty() {
            write!(f, " learners {:?}", self.learners)?;
        }
        Ok(())
    }
}

/// A configuration and the entry that brought it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConfigurationEntry {
    /// Where its entry stands in the log.
    pub index: Index,
    /// The members from that entry on.
    pub configuration: Configuration,
}

/// One step of a membership change: adds or removes at most one voter, so that any two majorities
/// of the old and the new configuration share a replica (Raft thesis, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigurationChange {
    /// Begin sending the log to a new replica.
    AddLearner(ReplicaId),
    /// Let a learner that has caught up decide.
    Promote(ReplicaId),
    /// Take a voter or learner out.
    Remove(ReplicaId),
}
