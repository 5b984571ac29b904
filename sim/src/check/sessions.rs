//! What a client may rely on from one of its operations to the next (Terry et al., "Session
//! guarantees for weakly consistent replicated data", 1994): it reads its own writes, its reads and
//! its writes do not go back, and its writes come behind what it read.
//!
//! Every answer names a place in the log of its group, so that one look at each operation is enough.
//! Linearizability implies all four; where one is broken, this says so in fewer words.

use std::{collections::BTreeMap, error, fmt};

use kotoba_db_cluster::raft::{GroupId, Index};

use super::linearizability::Model;
use crate::history::{End, History, TrueTime};

/// What one operation of a client owes to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A read sees the client's writes before it.
    ReadYourWrites,
    /// A read sees what the client's reads before it saw.
    MonotonicReads,
    /// A write comes behind the client's writes before it.
    MonotonicWrites,
    /// A write comes behind what the client's reads before it saw.
    WritesFollowReads,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadYourWrites => "read your writes",
            Self::MonotonicReads => "monotonic reads",
            Self::MonotonicWrites => "monotonic writes",
            Self::WritesFollowReads => "writes follow reads",
        })
    }
}

/// Two operations of a client that break a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// Which guarantee.
    pub guarantee: Guarantee,
    /// The client.
    pub client: u32,
    /// The group.
    pub group: GroupId,
    /// The operation that ended first: its count, and the place in the log it was told.
    pub earlier: (u64, Index),
    /// The one that was begun later.
    pub later: (u64, Index),
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { guarantee, client, group, earlier, later } = self;
        write!(
            f,
            "{guarantee}: client {client} was told {} for #{} of group {group}, and {} for #{} which it began later",
            earlier.1, earlier.0, later.1, later.0
        )
    }
}

impl error::Error for Anomaly {}

/// A client's operation that was answered.
#[derive(Clone, Copy)]
struct Told {
    serial: u64,
    index: Index,
    is_read: bool,
    invoked: TrueTime,
    ended: TrueTime,
}

/// Looks at each client's operations on each group.
///
/// # Errors
/// The first pair of operations that breaks a guarantee.
pub fn check<M: Model>(history: &History<M::Operation, M::Answer>) -> Result<(), Anomaly> {
    let mut sessions = BTreeMap::<(u32, GroupId), Vec<Told>>::new();
    for operation in &history.operations {
        if let End::Answered { at: ended, index, .. } = operation.end {
            let is_read = M::is_read(&operation.operation);
            let (serial, invoked) = (operation.serial, operation.invoked);
            let told = Told { serial, index, is_read, invoked, ended };
            sessions.entry((operation.client, operation.group)).or_default().push(told);
        }
    }
    sessions.into_iter().try_for_each(|((client, group), told)| {
        check_session(told).map_err(|(guarantee, earlier, later)| {
            let place = |told: Told| (told.serial, told.index);
            Anomaly { guarantee, client, group, earlier: place(earlier), later: place(later) }
        })
    })
}

fn check_session(told: Vec<Told>) -> Result<(), (Guarantee, Told, Told)> {
    let (mut begun, mut ended) = (told.clone(), told);
    begun.sort_by_key(|told| told.invoked);
    ended.sort_by_key(|told| told.ended);
    let mut ended = ended.into_iter().peekable();
    // Those with the largest index that ended before the next one began.
    let (mut write, mut read) = (None::<Told>, None::<Told>);
    for later in begun {
        while let Some(earlier) = ended.next_if(|earlier| earlier.ended < later.invoked) {
            let latest = if earlier.is_read { &mut read } else { &mut write };
            if latest.is_none_or(|latest| latest.index < earlier.index) {
                *latest = Some(earlier);
            }
        }
        let owed = if later.is_read {
            [(Guarantee::ReadYourWrites, write), (Guarantee::MonotonicReads, read)]
        } else {
            [(Guarantee::MonotonicWrites, write), (Guarantee::WritesFollowReads, read)]
        };
        for (guarantee, earlier) in owed {
            let Some(earlier) = earlier else {
                continue;
            };
            // A read may see the state that was seen before; a write has a place of its own.
            let is_kept =
                if later.is_read { later.index >= earlier.index } else { later.index > earlier.index };
            if !is_kept {
                return Err((guarantee, earlier, later));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::Operation,
        machine::{RegisterAnswer, RegisterOperation, Registers},
    };

    type Registered = Operation<RegisterOperation, RegisterAnswer>;

    const PUT: RegisterOperation = RegisterOperation::Put { key: 1, value: 1 };
    const GET: RegisterOperation = RegisterOperation::Get { key: 1 };

    /// An operation of client 1 that took from `invoked` to one moment later.
    fn told(serial: u64, operation: RegisterOperation, invoked: TrueTime, index: u64) -> Registered {
        let answer = RegisterAnswer::Written { writes: 1 };
        let end = End::Answered { at: invoked + 1, answer, index: Index(index) };
        Operation { client: 1, serial, group: GroupId(1), operation, invoked, end }
    }

    fn judge(operations: &[Registered]) -> Result<(), Anomaly> {
        check::<Registers>(&History { operations: operations.to_vec() })
    }

    #[test]
    fn a_client_that_never_goes_back_breaks_nothing() {
        let session = [told(1, PUT, 0, 5), told(2, GET, 10, 5), told(3, GET, 20, 7), told(4, PUT, 30, 8)];
        assert_eq!(judge(&session), Ok(()));
        assert_eq!(judge(&[]), Ok(()));
    }

    #[test]
    fn each_guarantee_is_found_broken() {
        let table = [
            (Guarantee::ReadYourWrites, [(PUT, 5), (GET, 4)]),
            (Guarantee::MonotonicReads, [(GET, 5), (GET, 4)]),
            (Guarantee::MonotonicWrites, [(PUT, 5), (PUT, 4)]),
            (Guarantee::MonotonicWrites, [(PUT, 5), (PUT, 5)]),
            (Guarantee::WritesFollowReads, [(GET, 5), (PUT, 5)]),
        ];
        for (guarantee, [(first, earlier), (second, later)]) in table {
            // What lies between changes nothing.
            let between = told(2, GET, 10, 3);
            let session = [told(1, first, 0, earlier), told(3, second, 20, later)];
            let anomaly = judge(&session).expect_err("the guarantee is broken");
            assert_eq!(anomaly.guarantee, guarantee);
            assert_eq!((anomaly.earlier, anomaly.later), ((1, Index(earlier)), (3, Index(later))));
            assert!(anomaly.to_string().starts_with(&guarantee.to_string()));
            assert!(judge(&[session[0].clone(), between, session[1].clone()]).is_err());
        }
    }

    #[test]
    fn operations_beside_each_other_owe_each_other_nothing() {
        let mut session = [told(1, PUT, 0, 5), told(2, GET, 1, 4)];
        assert_eq!(judge(&session), Ok(()), "the read began when the write ended");
        session[1].invoked = 2;
        assert!(judge(&session).is_err());
    }

    #[test]
    fn other_clients_groups_and_unknown_outcomes_do_not_count() {
        let session = [told(1, PUT, 0, 5), told(2, GET, 10, 4)];
        let change = |change: &dyn Fn(&mut Registered)| {
            let mut session = session.clone();
            change(&mut session[1]);
            judge(&session)
        };
        assert!(change(&|_| ()).is_err());
        assert_eq!(change(&|read| read.client = 2), Ok(()));
        assert_eq!(change(&|read| read.group = GroupId(2)), Ok(()));
        assert_eq!(change(&|read| read.end = End::Unknown), Ok(()));
    }
}
