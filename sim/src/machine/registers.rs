//! A handful of registers: the smallest machine that shows lost, repeated and reordered writes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::Machine;
use crate::choice::{Chooser, Topic};

/// Registers there are: few, so that clients meet.
const KEYS: u64 = 6;

/// A map from keys to numbers, each with a count of its writes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Registers {
    values: BTreeMap<u64, Written>,
    /// Sum of a hash of every register.
    digest: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Written {
    value: u64,
    writes: u64,
}

/// What can be asked of registers. Every value that is written differs from all others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterOperation {
    /// Read a register.
    Get {
        /// Which.
        key: u64,
    },
    /// Write a register.
    Put {
        /// Which.
        key: u64,
        /// Its new value.
        value: u64,
    },
    /// Write a register that was written this often.
    PutIf {
        /// Which.
        key: u64,
        /// How often it must have been written.
        writes: u64,
        /// Its new value.
        value: u64,
    },
}

/// What registers answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RegisterAnswer {
    /// The register's content: the value, and how often it was written.
    Found {
        /// The value; 0 where it was never written.
        value: u64,
        /// Writes so far.
        writes: u64,
    },
    /// It was written, and this often by now.
    Written {
        /// Writes so far, this one included.
        writes: u64,
    },
    /// It was not written: it had been written more or less often.
    Refused {
        /// Writes so far.
        writes: u64,
    },
}

impl Registers {
    fn write(&mut self, key: u64, value: u64) -> RegisterAnswer {
        let register = self.values.entry(key).or_default();
        let before = fingerprint(key, *register);
        *register = Written { value, writes: register.writes + 1 };
        self.digest = self.digest.wrapping_sub(before).wrapping_add(fingerprint(key, *register));
        RegisterAnswer::Written { writes: register.writes }
    }

    fn find(&self, key: u64) -> Written {
        self.values.get(&key).copied().unwrap_or_default()
    }
}

fn fingerprint(key: u64, Written { value, writes }: Written) -> u64 {
    if writes == 0 {
        return 0;
    }
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&key.to_le_bytes());
    bytes[8..16].copy_from_slice(&value.to_le_bytes());
    bytes[16..].copy_from_slice(&writes.to_le_bytes());
    xxh3_64(&bytes)
}

impl Machine for Registers {
    type Operation = RegisterOperation;
    type Answer = RegisterAnswer;

    fn draw(choices: &mut Chooser, client: u32, serial: u64) -> RegisterOperation {
        let key = choices.below(Topic::Client, client, KEYS);
        match choices.below(Topic::Client, client, 8) {
            0..4 => RegisterOperation::Put { key, value: serial },
            4 => {
                let writes = choices.below(Topic::Client, client, 8);
                RegisterOperation::PutIf { key, writes, value: serial }
            }
            _ => RegisterOperation::Get { key },
        }
    }

    fn is_read(operation: &RegisterOperation) -> bool {
        matches!(operation, RegisterOperation::Get { .. })
    }

    fn apply(&mut self, operation: &RegisterOperation) -> RegisterAnswer {
        match *operation {
            RegisterOperation::Put { key, value } => self.write(key, value),
            RegisterOperation::PutIf { key, writes, value } if self.find(key).writes == writes => {
                self.write(key, value)
            }
            RegisterOperation::PutIf { key, .. } => RegisterAnswer::Refused { writes: self.find(key).writes },
            RegisterOperation::Get { .. } => self.read(operation),
        }
    }

    fn read(&self, operation: &RegisterOperation) -> RegisterAnswer {
        let Written { value, writes } = self.find(Self::key(operation));
        RegisterAnswer::Found { value, writes }
    }

    fn key(operation: &RegisterOperation) -> u64 {
        let (RegisterOperation::Get { key }
        | RegisterOperation::Put { key, .. }
        | RegisterOperation::PutIf { key, .. }) = *operation;
        key
    }

    const DIGEST_EVERY: u64 = 1;

    fn digest(&self) -> u64 {
        self.digest
    }
}
