//! Names of nodes, partitions, clusters and data directories.

use alloc::string::String;
use core::fmt;

use serde::{Deserialize, Serialize};

use super::NODE_ID_BYTES_MAX;
use crate::raft::GroupId;

/// A node's name, chosen by its operator (`--node-id`). It outlives the node's disk and address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub String);

impl NodeId {
    /// Whether the name can be used: 1 to [`NODE_ID_BYTES_MAX`] bytes, none of them white space or
    /// a control character.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let printable = |c: char| !c.is_whitespace() && !c.is_control();
        !self.0.is_empty() && self.0.len() <= NODE_ID_BYTES_MAX && self.0.chars().all(printable)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for NodeId {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// A partition: 0 to the cluster's partition count, exclusive. The count never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The Raft group that replicates this partition.
    ///
    /// # Panics
    /// Where the number is `u32::MAX`, which no checked partition is (see
    /// [`PARTITIONS_MAX`](crate::limits::PARTITIONS_MAX)).
    #[must_use]
    pub const fn group(self) -> GroupId {
        GroupId(self.0 + 1)
    }

    /// The partition that `group` replicates; `None` for the meta group.
    #[must_use]
    pub const fn of_group(group: GroupId) -> Option<Self> {
        match group.0.checked_sub(1) {
            Some(partition) => Some(Self(partition)),
            None => None,
        }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// The value that 32 lower- or upper-case hexadecimal digits stand for.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

identity! {
    /// One cluster: follows from its first members, so that all of them compute the same.
    ClusterId
}
identity! {
    /// One data directory: random bytes drawn when it was created. A node whose directory was
    /// wiped comes back with the same [`NodeId`] and another incarnation, by which the others know
    /// that it forgot everything it promised.
    Incarnation
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn partitions_and_groups_map_to_each_other() {
        assert_eq!(PartitionId(0).group(), GroupId(1));
        assert_eq!(PartitionId::of_group(GroupId(64)), Some(PartitionId(63)));
        assert_eq!(PartitionId::of_group(GroupId::META), None);
    }

    #[test]
    fn node_names_are_bounded_and_printable() {
        for good in ["node-1", "a", "東京-3"] {
            assert!(NodeId::from(good).is_valid(), "{good}");
        }
        for bad in ["", "a b", "a\n", &"x".repeat(NODE_ID_BYTES_MAX + 1)] {
            assert!(!NodeId::from(bad).is_valid(), "{bad:?}");
        }
    }

    #[test]
    fn identities_survive_their_hexadecimal_form() {
        let id = ClusterId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);
        assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
        assert_eq!(ClusterId::from_hex(&id.to_string()), Some(id));
        for bad in ["", "0001", "+00102030405060708090a0b0c0d0eff", "g00102030405060708090a0b0c0d0eff"] {
            assert_eq!(ClusterId::from_hex(bad), None, "{bad}");
        }
    }
}
