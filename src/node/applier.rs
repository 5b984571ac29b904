//! Applying committed entries beside the driver loop.
//!
//! One thread owns the state machines of all groups of a node. It gets committed entries in order,
//! gives each batch to its group's machine in one atomic store batch, answers those who proposed
//! them, and reports how far it came. It also installs snapshots, because that replaces a state
//! between two entries, and takes the views that snapshots are built from.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};

use super::{
    NodeLogReader,
    handle::{Applied, AppliedOutcome, RequestError, Responder, Shared},
    machine::Machine,
    views::KeptViews,
};
use crate::{
    error::{ClusterError, ErrorCode},
    graph::{VerifyId, snapshot::ImportError},
    placement::MetaState,
    raft::{GroupId, Index, SnapshotMeta, WriteToken},
    storage::{
        graph_store::{GraphStore, StoreError},
        wal::{Entry, ReadPlan},
    },
};

/// Something for the applier to do. Jobs are done in order.
#[derive(Debug)]
pub(crate) enum Job<V> {
    /// Apply committed entries of a group, in order and without a gap.
    Apply { group: GroupId, entries: Committed, waiters: Vec<(Index, Responder)> },
    /// Put a received snapshot in the place of a group's state.
    Install { group: GroupId, token: WriteToken, meta: SnapshotMeta, file: PathBuf },
    /// Hand a view of a group's state to the snapshot builder.
    View { group: GroupId, to: ViewReceiver<V> },
    /// Make everything applied so far durable.
    Persist,
    /// Make everything durable and end.
    Stop,
}

/// Where a view goes: a closure, so that the applier does not know who builds snapshots.
pub(crate) struct ViewReceiver<V>(pub(crate) Box<dyn FnOnce(V) + Send>);

impl<V> std::fmt::Debug for ViewReceiver<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ViewReceiver")
    }
}

/// Committed entries: in memory, or still to be read from the log.
#[derive(Debug)]
pub(crate) enum Committed {
    /// Here they are.
    Entries(Vec<Entry>),
    /// They are on disk only.
    OnDisk(ReadPlan),
}

/// What the applier reports to the driver.
#[derive(Debug)]
pub(crate) enum ApplyEvent {
    /// The state of a group includes entries up to `index`.
    Applied { group: GroupId, index: Index, digest: u128 },
    /// A snapshot is installed.
    Installed { group: GroupId, token: WriteToken, index: Index, digest: u128 },
    /// The meta group's state changed.
    Meta(Arc<MetaState>),
    /// Everything up to these indexes is durable in the store.
    Persisted(Vec<(GroupId, Index)>),
    /// There is no room on the disk, and nothing is applied (`true`); or there is again (`false`).
    Full(bool),
    /// The group's state machine failed: it applies nothing more.
    Failed { group: GroupId, code: ErrorCode, problem: String },
}

/// The state machines of a node.
pub(crate) struct Applier<S: GraphStore> {
    store: S,
    machines: BTreeMap<GroupId, Machine<S>>,
    applied: BTreeMap<GroupId, Index>,
    reader: NodeLogReader,
    views: Arc<KeptViews<S::View>>,
    shared: Arc<Shared>,
    report: Report,
}

/// Where events go.
pub(crate) type Report = Box<dyn Fn(ApplyEvent) + Send>;

impl<S: GraphStore> Applier<S> {
    pub(crate) fn new(
        store: S,
        reader: NodeLogReader,
        views: Arc<KeptViews<S::View>>,
        shared: Arc<Shared>,
        report: Report,
    ) -> Self {
        Self { store, machines: BTreeMap::new(), applied: BTreeMap::new(), reader, views, shared, report }
    }

    /// Does one job. Returns whether to go on.
    pub(crate) fn run(&mut self, job: Job<S::View>) -> bool {
        match job {
            Job::Apply { group, entries, waiters } => self.apply(group, entries, waiters),
            Job::Install { group, token, meta, file } => self.install(group, token, &meta, &file),
            Job::View { group, to } => (to.0)(self.store.group_view(group)),
            Job::Persist => {
                self.views.expire();
                self.persist();
            }
            Job::Stop => {
                self.persist();
                return false;
            }
        }
        true
    }

    fn report(&self, event: ApplyEvent) {
        (self.report)(event);
    }

    fn fail(&self, group: GroupId, waiters: Vec<(Index, Responder)>, error: &ClusterError) {
        for (_, responder) in waiters {
            responder.answer(Err(RequestError::OutcomeUnknown));
        }
        self.report(ApplyEvent::Failed { group, code: error.code(), problem: error.what() });
    }

    fn machine(&mut self, group: GroupId) -> Result<&mut Machine<S>, StoreError> {
        if !self.machines.contains_key(&group) {
            let machine = Machine::open(group, self.store.clone())?;
            self.machines.insert(group, machine);
        }
        Ok(self.machines.get_mut(&group).expect("inserted just now"))
    }

    fn apply(&mut self, group: GroupId, entries: Committed, waiters: Vec<(Index, Responder)>) {
        let entries = match entries {
            Committed::Entries(entries) => entries,
            Committed::OnDisk(plan) => match self.reader.read(&plan) {
                Ok(entries) => entries,
                Err(error) => {
                    let error = ClusterError::new(ErrorCode::DiskFailed, error.to_string());
                    return self.fail(group, waiters, &error);
                }
            },
        };
        let mut rest = entries.as_slice();
        let mut waiters = VecDeque::from(waiters);
        while !rest.is_empty() {
            let (done, batch) = match self.machine(group).and_then(|machine| machine.apply(rest)) {
                Ok(applied) => applied,
                Err(error) => return self.fail(group, waiters.into(), &error.into()),
            };
            let (applied, behind) = rest.split_at(done);
            rest = behind;
            let Some(last) = applied.last().map(|entry| entry.index) else { return };
            self.finish(group, last, &mut waiters, batch);
        }
    }

    fn finish(
        &mut self,
        group: GroupId,
        last: Index,
        waiters: &mut VecDeque<(Index, Responder)>,
        batch: Batch,
    ) {
        self.applied.insert(group, last);
        if let Some((index, _)) = batch.verify {
            self.views.keep(group, index, self.store.group_view(group));
        }
        answer(last, waiters, batch.outcomes);
        if let Some(meta) = batch.meta {
            self.publish_meta(meta);
        }
        self.report(ApplyEvent::Applied { group, index: last, digest: batch.digest });
    }

    fn publish_meta(&self, meta: MetaState) {
        let meta = Arc::new(meta);
        *self.shared.meta.write().expect("no holder of this lock panics") = Arc::clone(&meta);
        self.report(ApplyEvent::Meta(meta));
    }

    fn install(&mut self, group: GroupId, token: WriteToken, meta: &SnapshotMeta, file: &std::path::Path) {
        self.machines.remove(&group);
        let installed = super::snapshots::import(&self.store, group, meta, file);
        let opened = installed.and_then(|()| Ok(self.machine(group)?));
        match opened {
            Ok(machine) => {
                let (index, digest, state) = (meta.position.index, machine.digest(), machine.meta().cloned());
                self.applied.insert(group, index);
                if let Some(state) = state {
                    self.publish_meta(state);
                }
                self.report(ApplyEvent::Installed { group, token, index, digest });
            }
            Err(ImportError::Store(error)) => self.fail(group, Vec::new(), &error.into()),
            Err(error) => {
                let error = ClusterError::new(ErrorCode::DiskFailed, error.to_string());
                self.fail(group, Vec::new(), &error);
            }
        }
    }

    fn persist(&self) {
        let reached = self.applied.iter().map(|(&group, &index)| (group, index)).collect();
        match self.store.persist() {
            Ok(()) => self.report(ApplyEvent::Persisted(reached)),
            Err(error) => {
                let error = error.into();
                for group in self.machines.keys() {
                    self.fail(*group, Vec::new(), &error);
                }
            }
        }
    }
}

/// Answers those who wait for entries up to `last`. Both lists are in order of the index; not
/// everything that was applied was proposed here.
fn answer(last: Index, waiters: &mut VecDeque<(Index, Responder)>, outcomes: Vec<(Index, AppliedOutcome)>) {
    let mut outcomes = outcomes.into_iter().peekable();
    while let Some((index, responder)) = waiters.pop_front_if(|(index, _)| *index <= last) {
        while outcomes.next_if(|(at, _)| *at < index).is_some() {}
        match outcomes.next_if(|(at, _)| *at == index) {
            Some((_, outcome)) => responder.answer(Ok(Applied { index, outcome })),
            // An entry without an outcome: nobody proposes those through here.
            None => responder.answer(Err(RequestError::OutcomeUnknown)),
        }
    }
}

/// What came of a batch of entries.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// One outcome for each entry that has one, in order.
    pub(crate) outcomes: Vec<(Index, AppliedOutcome)>,
    /// The verification marker the batch ends with.
    pub(crate) verify: Option<(Index, VerifyId)>,
    /// The meta group's state, where it changed.
    pub(crate) meta: Option<MetaState>,
    /// State digest behind the batch.
    pub(crate) digest: u128,
}
