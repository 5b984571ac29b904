//! The state digest of a group: equal states, equal digests, whatever the path.
//!
//! Each row counts as 128 bits of BLAKE3 over its key and value; the digest is their wrapping sum. A sum
//! does not depend on order, so a batch changes it by the rows it touches, and replicas that cut the same
//! log into different batches agree. It finds accidents (a wrong apply, a flipped bit), not forgery.

use std::ops::ControlFlow;

use crate::{
    graph::{
        overlay::{Before, Overlay},
        rows::{APPLIED, Applied, IMPORTING, OUTCOME, SESSION, applied, group_prefix},
    },
    raft::{GroupId, Position},
    storage::graph_store::{Batch, GraphStore, KeyRange, Order, ReadView, StoreError},
};

/// What one row adds to the digest. `key` is the whole key; its group does not count.
pub(crate) fn row_sum(key: &[u8], value: &[u8]) -> u128 {
    let key = &key[4..];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let mut sum = [0; 16];
    hasher.finalize_xof().fill(&mut sum);
    u128::from_le_bytes(sum)
}

/// Whether a row belongs to the state that replicas must agree on.
pub(crate) fn counts(key: &[u8]) -> bool {
    let forgotten = mutant!(M54) && matches!(key.get(4), Some(&(SESSION | OUTCOME)));
    !forgotten && !matches!(key.get(4), None | Some(&(APPLIED | IMPORTING)))
}

/// The digest of a group computed from all its rows, and how many they are: what the incremental one must
/// equal.
///
/// # Errors
/// Where the store fails.
pub fn full_digest(view: &impl ReadView, group: GroupId) -> Result<(u128, u64), StoreError> {
    let (mut digest, mut rows) = (0_u128, 0_u64);
    view.scan(&KeyRange::prefix(&group_prefix(group)), Order::Ascending, &mut |key, value| {
        if counts(key) {
            digest = digest.wrapping_add(row_sum(key, value));
            rows += 1;
        }
        ControlFlow::Continue(())
    })?;
    Ok((digest, rows))
}

/// Changes rows of a group together with its applied position, keeping the digest right: for state machines
/// with few rows, like the meta group's. Keys are whole keys of this group and of no table below `02`; what
/// is committed here can be shipped by [`crate::graph::snapshot`].
///
/// # Errors
/// Where the store fails: see [`GraphStore::commit`].
pub fn commit_rows<S: GraphStore>(
    store: &S,
    group: GroupId,
    position: Position,
    changes: Batch,
) -> Result<Applied, StoreError> {
    let before = applied(store, group)?.map_or(0, |applied| applied.digest);
    let mut overlay = Overlay::new(store);
    for (key, value) in changes {
        assert!(key.starts_with(&group_prefix(group)) && counts(&key), "a row of this group's own state");
        match value {
            Some(value) => overlay.replace(key, value)?,
            None => {
                let before = overlay.get(key.clone())?.map_or(Before::Absent, Before::Value);
                overlay.remove(key, before);
            }
        }
    }
    let (mut batch, delta) = overlay.finish();
    let applied = Applied { position, digest: before.wrapping_add(delta) };
    batch.put(Applied::key(group), applied.encode());
    store.commit(batch)?;
    Ok(applied)
}

/// One row as a comparison of replicas sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// The key within the group.
    pub key: Vec<u8>,
    /// BLAKE3-256 of the value.
    pub value_hash: [u8; 32],
}

/// Up to `limit` rows of a group's state behind `after_key` (a key within the group; `None`: from the
/// start), in key order. Fewer than `limit`: there are no more.
///
/// # Errors
/// Where the store fails.
pub fn state_rows(
    view: &impl ReadView,
    group: GroupId,
    after_key: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<StateRow>, StoreError> {
    let prefix = group_prefix(group);
    let mut range = KeyRange::prefix(&prefix);
    if let Some(key) = after_key {
        range = range.after(&[&prefix, key].concat());
    }
    let mut rows = Vec::new();
    if limit == 0 {
        return Ok(rows);
    }
    view.scan(&range, Order::Ascending, &mut |key, value| {
        if counts(key) {
            rows.push(StateRow { key: key[4..].to_vec(), value_hash: *blake3::hash(value).as_bytes() });
        }
        if rows.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(rows)
}
