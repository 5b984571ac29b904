//! A read is served at an index that covers everything committed before it was asked for, by
//! whichever leader (Raft thesis, section 6.4), whether or not a client has been told of it.

use kotoba_db_cluster::raft::{GroupId, Index};

use super::{Check, Verdict, Violation};

/// A read that was asked for when everything up to `committed` was committed is served at `index`.
///
/// # Errors
/// Where it misses some of it.
pub fn served(group: GroupId, host: u32, committed: Index, index: Index) -> Verdict {
    if index >= committed {
        return Ok(());
    }
    let message = format!(
        "{group}: host {host} serves a read at {index} that was asked for when {committed} was committed"
    );
    Err(Violation::new(Check::ReadIndex, message))
}
