//! States kept at verification markers, for comparing the members.
//!
//! A view pins old data in the store, so they are few and live a bounded time.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use super::service::verify::{HashedRow, VerifyView, VerifyViews};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::digest,
    limits::{VERIFY_VIEW_LIFETIME, VIEWS_MAX},
    raft::{GroupId, Index},
    storage::graph_store::{ReadView, StoreError},
};

/// The views of a node.
pub(crate) struct KeptViews<V>(Mutex<Vec<Kept<V>>>);

struct Kept<V> {
    group: GroupId,
    index: Index,
    since: Instant,
    view: Arc<View<V>>,
}

struct View<V> {
    group: GroupId,
    view: V,
}

impl<V> Default for KeptViews<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<V> KeptViews<V> {
    /// Keeps the state of a group at `index`.
    pub(crate) fn keep(&self, group: GroupId, index: Index, view: V) {
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        kept.retain(|kept| now.duration_since(kept.since) < VERIFY_VIEW_LIFETIME);
        if kept.len() >= VIEWS_MAX {
            kept.remove(0);
        }
        kept.push(Kept { group, index, since: now, view: Arc::new(View { group, view }) });
    }

    /// Lets go of what is too old, also while nobody verifies.
    pub(crate) fn expire(&self) {
        let now = Instant::now();
        let mut kept = self.0.lock().expect("no holder of this lock panics");
        kept.retain(|kept| now.duration_since(kept.since) < VERIFY_VIEW_LIFETIME);
    }
}

impl<V: ReadView + Send + Sync + 'static> VerifyViews for KeptViews<V> {
    fn view(&self, group: GroupId, index: Index) -> Option<Arc<dyn VerifyView>> {
        let kept = self.0.lock().expect("no holder of this lock panics");
        let found = kept.iter().find(|kept| kept.group == group && kept.index == index)?;
        Some(Arc::clone(&found.view) as Arc<dyn VerifyView>)
    }
}

impl<V: ReadView + Send + Sync + 'static> VerifyView for View<V> {
    fn digest(&self) -> Result<(String, u64), ClusterError> {
        let (digest, rows) = digest::full_digest(&self.view, self.group).map_err(failed)?;
        Ok((format!("{digest:032x}"), rows))
    }

    fn rows(&self, after_key: &[u8], limit: usize) -> Result<Vec<HashedRow>, ClusterError> {
        let after = (!after_key.is_empty()).then_some(after_key);
        let rows = digest::state_rows(&self.view, self.group, after, limit).map_err(failed)?;
        Ok(rows.into_iter().map(|row| (row.key, row.value_hash.to_vec())).collect())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: StoreError) -> ClusterError {
    ClusterError::new(ErrorCode::Internal, error.to_string())
}

impl<V> fmt::Debug for KeptViews<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptViews")
    }
}

impl<V> fmt::Debug for View<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View of {}", self.group)
    }
}
