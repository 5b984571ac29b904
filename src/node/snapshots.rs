//! Snapshots on disk: built from views of the state, sent and stored in chunks, installed.
//!
//! One worker thread per node does all of it in order, apart from the driver loop and the applier.
//! A snapshot being received is one file under the name of its group and position; its last chunk
//! is reported stored only after the file is on disk, so that an installation that a crash
//! interrupts can be done again from it.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    NodeLogReader,
    driver::{Event, wire_entries},
    peers::Peers,
    wire,
};
use crate::{
    graph::snapshot::{self, ImportError},
    raft::{
        Body, BuiltSnapshot, GroupId, Index, Message, PeerId, Position, ReplicaId, SnapshotDescriptor,
        SnapshotId, SnapshotMeta,
    },
    runtime::fs::{self, File, OpenOptions},
    storage::{
        graph_store::{GraphStore, ReadView, StoreError},
        wal::ReadPlan,
    },
};

/// Something for the snapshot worker to do.
#[derive(Debug)]
pub(crate) enum SnapshotJob<V> {
    /// Build a snapshot of a group from a view.
    Build { group: GroupId, view: V },
    /// Read a chunk and send it.
    Send { group: GroupId, peer: PeerId, message: Message },
    /// Store a chunk that arrived.
    Store { group: GroupId, snapshot: SnapshotDescriptor, offset: u64, bytes: Bytes },
    /// Read entries back from the log and send the message they belong to.
    Gather { group: GroupId, peer: PeerId, message: Message, plan: ReadPlan },
}

/// What the snapshot worker reports to the driver.
#[derive(Debug)]
pub(crate) enum SnapshotEvent {
    /// A snapshot is ready, or could not be built.
    Built { group: GroupId, built: Option<BuiltSnapshot> },
    /// A chunk is stored; behind the last one, all of it is on disk.
    Stored { group: GroupId, position: Position, next_offset: u64 },
    /// A chunk could not be stored.
    Damaged { group: GroupId, position: Position },
    /// What a message needs is gone: it was not sent.
    Lost { group: GroupId, to: ReplicaId, index: Index },
}

/// The name of the file a snapshot is received into.
pub(crate) fn received_name(group: GroupId, meta: &SnapshotMeta) -> String {
    format!("received-{}-{}-{}.snapshot", group.0, meta.position.index.0, meta.position.term.0)
}

fn built_name(group: GroupId, id: SnapshotId) -> String {
    format!("built-{}-{}.snapshot", group.0, id.0)
}

/// Does the snapshot jobs of a node.
pub(crate) struct SnapshotWorker {
    dir: PathBuf,
    built: BTreeMap<GroupId, SnapshotId>,
    next_id: u64,
    reader: NodeLogReader,
    peers: Peers,
    events: mpsc::UnboundedSender<Event>,
}

impl SnapshotWorker {
    /// A worker over `dir`, which is created where it is missing. Snapshots that were built in an
    /// earlier life are of no use and removed; received ones stay until they are installed.
    ///
    /// # Errors
    /// Where the directory cannot be used.
    pub(crate) fn open(
        dir: PathBuf,
        reader: NodeLogReader,
        peers: Peers,
        events: mpsc::UnboundedSender<Event>,
    ) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        // Its name too: the log will count on what was received here.
        if let Some(parent) = dir.parent() {
            File::open(parent)?.sync_all()?;
        }
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("built-")) {
                fs::remove_file(path)?;
            }
        }
        Ok(Self { dir, built: BTreeMap::new(), next_id: 0, reader, peers, events })
    }

    /// Does one job.
    pub(crate) fn run<V: ReadView>(&mut self, job: SnapshotJob<V>) {
        match job {
            SnapshotJob::Build { group, view } => self.build(group, view),
            SnapshotJob::Send { group, peer, message } => self.send(group, peer, &message),
            SnapshotJob::Store { group, snapshot, offset, bytes } => {
                self.store(group, &snapshot, offset, &bytes);
            }
            SnapshotJob::Gather { group, peer, message, plan } => self.gather(group, peer, &message, &plan),
        }
    }

    fn report(&self, event: SnapshotEvent) {
        // A driver that is gone needs no reports.
        let _ = self.events.send(Event::Snapshot(event));
    }

    fn build<V: ReadView>(&mut self, group: GroupId, view: V) {
        self.next_id += 1;
        let id = SnapshotId(self.next_id);
        let path = self.dir.join(built_name(group, id));
        let built = match write_snapshot(view, group, &path) {
            Ok((index, bytes)) => {
                let before = self.built.insert(group, id);
                // Chunks of the one before may still be asked for; they count as lost.
                before.map(|id| fs::remove_file(self.dir.join(built_name(group, id))));
                tracing::info!(%group, %index, bytes, "built a snapshot");
                Some(BuiltSnapshot { id, index, bytes })
            }
            Err(problem) => {
                tracing::warn!(%group, "cannot build a snapshot: {problem}");
                None
            }
        };
        self.report(SnapshotEvent::Built { group, built });
    }

    fn send(&self, group: GroupId, peer: PeerId, message: &Message) {
        let Body::SnapshotChunk(chunk) = &message.body else { return };
        let path = self.dir.join(built_name(group, chunk.snapshot.id));
        match read_at(&path, chunk.offset, chunk.length) {
            Ok(bytes) => self.peers.send_bulk(peer, wire::chunk_to_wire(group, message, bytes)),
            Err(error) => {
                tracing::warn!(%group, path = %path.display(), "a snapshot cannot be read: {error}");
                let index = chunk.snapshot.meta.position.index;
                self.report(SnapshotEvent::Lost { group, to: message.to, index });
            }
        }
    }

    fn store(&self, group: GroupId, snapshot: &SnapshotDescriptor, offset: u64, bytes: &Bytes) {
        let position = snapshot.meta.position;
        let path = self.dir.join(received_name(group, &snapshot.meta));
        let next_offset = offset + bytes.len() as u64;
        let part = if next_offset == snapshot.bytes { Part::Last } else { Part::MoreToCome };
        match write_at(&path, offset, bytes, part) {
            Ok(()) => self.report(SnapshotEvent::Stored { group, position, next_offset }),
            Err(error) => {
                tracing::warn!(%group, path = %path.display(), "a snapshot cannot be stored: {error}");
                self.report(SnapshotEvent::Damaged { group, position });
            }
        }
    }

    fn gather(&self, group: GroupId, peer: PeerId, message: &Message, plan: &ReadPlan) {
        match self.reader.read(plan) {
            Ok(entries) => {
                let entries = wire_entries(entries);
                self.peers.send(peer, wire::append_to_wire(group, message, &entries));
            }
            Err(error) => {
                tracing::warn!(%group, "entries for a peer cannot be read: {error}");
                let Body::Append(append) = &message.body else { return };
                self.report(SnapshotEvent::Lost { group, to: message.to, index: append.entries.first });
            }
        }
    }
}

fn graph_applied(view: &impl ReadView, group: GroupId) -> Result<Index, StoreError> {
    Ok(crate::graph::applied(view, group)?.ok_or(StoreError::NoState(group.0))?.position.index)
}

fn write_snapshot<V: ReadView>(view: V, group: GroupId, path: &Path) -> Result<(Index, u64), String> {
    let index = graph_applied(&view, group).map_err(|error| error.to_string())?;
    let mut file = io::BufWriter::new(File::create(path).map_err(|error| error.to_string())?);
    let mut bytes = 0;
    for frame in snapshot::export(view, group).map_err(|error| error.to_string())? {
        let frame = frame.map_err(|error| error.to_string())?;
        file.write_all(&frame).map_err(|error| error.to_string())?;
        bytes += frame.len() as u64;
    }
    file.flush().map_err(|error| error.to_string())?;
    Ok((index, bytes))
}

fn read_at(path: &Path, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// Whether a part of a file completes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    MoreToCome,
    /// After it the file is durable.
    Last,
}

fn write_at(path: &Path, offset: u64, bytes: &[u8], part: Part) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(offset == 0).open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    file.write_all(bytes)?;
    if part == Part::Last {
        file.sync_all()?;
        if let Some(dir) = path.parent() {
            File::open(dir)?.sync_all()?;
        }
    }
    Ok(())
}

/// Puts a received snapshot in the place of a group's state, durably, and removes its file.
///
/// # Errors
/// Where the file or the store cannot be used. The file stays, so that it can be done again.
pub(crate) fn import<S: GraphStore>(
    store: &S,
    group: GroupId,
    meta: &SnapshotMeta,
    path: &Path,
) -> Result<(), ImportError> {
    let file = File::open(path)?;
    let header = snapshot::import(store, group, &mut io::BufReader::new(file))?;
    if header.position != meta.position {
        return Err(ImportError::Damaged("it is of another position than the leader said"));
    }
    store.persist()?;
    fs::remove_file(path)?;
    Ok(())
}
