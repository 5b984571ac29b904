//! What a simulator provides.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Instant,
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    multiraft::{Node, NodeInput, NodeOutput},
    raft::{GroupId, Index, Now},
    storage::wal::{GroupWrite, LogIndex, Recovery, WriteError, WriteReceipt},
};

/// Something that takes simulated time.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The simulator's side of a node. Every call comes from a task of the node it is about.
pub trait Host: Send + Sync + 'static {
    /// The node's disk.
    fn disk(&self) -> Arc<dyn Disk>;

    /// What the node's own monotonic clock shows. Never goes back.
    fn clock(&self) -> Instant;

    /// When, by the runtime's clock, the node's own clock will show `time`, as far as that is known.
    fn wake_at(&self, time: Instant) -> Instant;

    /// Fills `bytes` with random ones.
    fn random(&self, bytes: &mut [u8]);

    /// Begins to listen at an address of the node; port 0 takes any free one.
    ///
    /// # Errors
    /// Where the address is taken or not the node's.
    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>>;

    /// Connects to `HOST:PORT`. May never be done: the caller gives up.
    fn connect(&self, address: &str) -> Waiting<io::Result<Box<dyn Connection>>>;

    /// Takes as long as the thread `thread` of the node takes for the job it has just begun.
    fn job(&self, thread: &'static str) -> Waiting<()>;

    /// The node heard or said this over a connection, in plain text.
    fn overheard(&self, what: &'static str, bytes: &[u8]);

    /// The node's driver loop did something with its core.
    fn watch(&self, moment: &Moment<'_>);
}

/// What a driver loop does with its core, as it does it.
#[derive(Debug)]
pub enum Moment<'a> {
    /// The log was read back.
    Recovered(&'a Recovery),
    /// The core is in this state, not by an input: it was restarted, or told of members.
    Set(&'a Node),
    /// The core is about to be given an input.
    Given {
        /// What its clock shows.
        now: Now,
        /// The input.
        input: &'a NodeInput,
    },
    /// The core wants something; it is about to be carried out.
    Wants {
        /// What.
        output: &'a NodeOutput,
        /// The core.
        node: &'a Node,
        /// The node's logs.
        log: &'a LogIndex,
    },
    /// Everything was carried out that an input led to.
    Done(&'a Node),
    /// A write waits for the end of the turn.
    Wrote {
        /// Which.
        write: &'a GroupWrite,
        /// The node's logs, which hold its entries by now.
        log: &'a LogIndex,
    },
    /// All writes that wait are handed to the log under this tag.
    Submitted(u64),
    /// Writes are durable, or failed.
    Completed {
        /// The tags they were handed over under.
        tags: &'a [u64],
        /// Whether they are.
        result: &'a Result<WriteReceipt, WriteError>,
    },
    /// A group's state includes its entries up to an index.
    Applied {
        /// The group.
        group: GroupId,
        /// The index.
        index: Index,
        /// The state's digest.
        digest: u128,
    },
}

/// A disk with files and directories.
pub trait Disk: Send + Sync {
    /// Opens a file or, for reading, a directory.
    ///
    /// # Errors
    /// As the operating system would.
    fn open(&self, path: &Path, access: Access) -> io::Result<FileId>;

    /// Lets go of an open file, and of a lock on it.
    fn close(&self, file: FileId);

    /// Reads up to `into.len()` bytes; returns how many there were.
    ///
    /// # Errors
    /// Where they cannot be read.
    fn read_at(&self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize>;

    /// Writes all bytes. They may be lost until the file is synced.
    ///
    /// # Errors
    /// Where there is no room or the disk fails; some of them may be written then.
    fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The length of an open file.
    ///
    /// # Errors
    /// Where the disk fails.
    fn length(&self, file: FileId) -> io::Result<u64>;

    /// Cuts a file off, or extends it with zeros.
    ///
    /// # Errors
    /// Where the disk fails.
    fn set_length(&self, file: FileId, length: u64) -> io::Result<()>;

    /// Makes a file's contents, or a directory's names, durable.
    ///
    /// # Errors
    /// Where the disk fails: what was written since the last success is unknown then.
    fn sync(&self, file: FileId) -> io::Result<()>;

    /// Takes the lock of a file. Returns whether it was free.
    ///
    /// # Errors
    /// Where the disk fails.
    fn lock(&self, file: FileId) -> io::Result<bool>;

    /// Creates a directory and those above it, where they are missing.
    ///
    /// # Errors
    /// Where the disk fails.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in the place of whatever had it.
    ///
    /// # Errors
    /// Where there is no such file or the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    ///
    /// # Errors
    /// Where there is no such file or the disk fails.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// Where there is no such directory or the disk fails.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What is at a path, if anything.
    ///
    /// # Errors
    /// Where the disk fails.
    fn kind(&self, path: &Path) -> io::Result<Option<Kind>>;
}

/// An open file of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// To be written to.
    pub write: bool,
    /// Created where it is missing.
    pub create: bool,
    /// Emptied.
    pub truncate: bool,
}

/// Both directions of a connection.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<C: AsyncRead + AsyncWrite + Send + Unpin> Connection for C {}

/// Connections to an address, as they come.
pub trait Acceptor: Send + Sync {
    /// The address.
    fn address(&self) -> SocketAddr;

    /// The next connection.
    ///
    /// # Errors
    /// Where there will be no more.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Box<dyn Connection>>>;
}

impl fmt::Debug for dyn Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.address()).finish()
    }
}

static HOST: OnceLock<Arc<dyn Host>> = OnceLock::new();

/// Sets the host of every node of this process. Once only: one process simulates one world.
///
/// # Panics
/// At a second call.
pub fn install(host: Arc<dyn Host>) {
    assert!(HOST.set(host).is_ok(), "a process has one host");
}

pub(super) fn host() -> &'static dyn Host {
    HOST.get().expect("the simulator installs a host before it starts a node").as_ref()
}
