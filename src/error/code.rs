//! The table of all error codes. A code, once published, keeps its number and its meaning.

use std::fmt;

/// What a program that met the error ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// 1: it failed.
    Error,
    /// 2: it was called wrongly.
    Usage,
    /// 3: the cluster cannot answer now; later it may.
    Unavailable,
}

impl ExitStatus {
    /// The number for the operating system.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::Usage => 2,
            Self::Unavailable => 3,
        }
    }
}

/// The status codes of gRPC that errors map to, by their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcCode {
    /// The request itself is wrong.
    InvalidArgument = 3,
    /// Time ran out; the outcome is unknown.
    DeadlineExceeded = 4,
    /// There is no such thing.
    NotFound = 5,
    /// Whoever asks may not.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// The state of the system does not allow it.
    FailedPrecondition = 9,
    /// Something is broken.
    Internal = 13,
    /// Not now.
    Unavailable = 14,
    /// Data is lost or damaged.
    DataLoss = 15,
    /// Whoever asks did not show who it is.
    Unauthenticated = 16,
}

/// Whether the failed request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing changed.
    Nothing,
    /// It may have taken effect, or may still.
    Unknown,
}

/// Whether repeating the request helps. Repeating with the same request id is always safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// As it is, after a pause.
    Same,
    /// Only after something was changed.
    AfterChange,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $exit:ident, $grpc:ident, $effect:ident, $retry:ident,
        $title:literal, next $next:literal;)*) => {
        /// An error a person can meet. Each has a page of its own, `docs/errors/KDB-00NN.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The error in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do next, as the end of a sentence.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $(Self::$name => $next,)* }
            }

            /// What a program ends with that met it.
            #[must_use]
            pub const fn exit_status(self) -> ExitStatus {
                match self { $(Self::$name => ExitStatus::$exit,)* }
            }

            /// The gRPC status it travels as, where it fails a whole call.
            #[must_use]
            pub const fn grpc_code(self) -> GrpcCode {
                match self { $(Self::$name => GrpcCode::$grpc,)* }
            }

            /// Whether anything changed.
            #[must_use]
            pub const fn effect(self) -> Effect {
                match self { $(Self::$name => Effect::$effect,)* }
            }

            /// Whether repeating helps.
            #[must_use]
            pub const fn retry(self) -> Retry {
                match self { $(Self::$name => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    /// A command or flag is wrong.
    Usage = 1, Usage, InvalidArgument, Nothing, AfterChange,
        "wrong command line", next "run the command with --help to see what it takes";
    /// A setting cannot work.
    Configuration = 2, Usage, InvalidArgument, Nothing, AfterChange,
        "a setting cannot work", next "correct the setting and start again";
    /// A text is no CID of this database.
    MalformedCid = 3, Usage, InvalidArgument, Nothing, AfterChange,
        "malformed CID", next "copy the whole CID as it was printed, beginning with b";
    /// JSON or another value cannot be read as what it should be.
    MalformedValue = 4, Usage, InvalidArgument, Nothing, AfterChange,
        "malformed value", next "correct the value; docs/cli.md shows the forms";
    /// Something is larger than its limit.
    TooLarge = 5, Error, InvalidArgument, Nothing, AfterChange,
        "a limit is exceeded", next "make it smaller; docs/limits.md lists all limits";
    /// A floating-point value is not a number or is infinite.
    NotANumber = 6, Usage, InvalidArgument, Nothing, AfterChange,
        "not a finite number", next "store a finite number, a text or null instead";
    /// An edge names a node that does not exist or was deleted.
    EndpointMissing = 7, Error, FailedPrecondition, Nothing, AfterChange,
        "an edge's node does not exist", next "create the node first, or correct the CID";
    /// The entity was deleted.
    Deleted = 8, Error, FailedPrecondition, Nothing, AfterChange,
        "the entity was deleted", next "create it again, or read its history";
    /// There is no such entity, block or member.
    NotFound = 9, Error, NotFound, Nothing, AfterChange,
        "not found", next "check the CID and the cluster you asked";
    /// An operation for nodes met an edge, or the other way round.
    WrongKind = 10, Error, FailedPrecondition, Nothing, AfterChange,
        "a node where an edge is needed, or the reverse", next "use the command for the other kind";
    /// The request is older than what the cluster remembers of this client.
    SessionExpired = 11, Error, FailedPrecondition, Unknown, AfterChange,
        "the session has expired", next "read the entity to see whether the request took effect, then send a new one";
    /// The request id was used for another operation.
    RequestReused = 12, Error, InvalidArgument, Nothing, AfterChange,
        "a request id was used twice", next "give every operation an id of its own";
    /// The request was taken, its outcome is not known.
    UnknownOutcome = 13, Unavailable, DeadlineExceeded, Unknown, Same,
        "unknown outcome", next "repeat it with the same client and request id (an import: with the same command): you get the first outcome";
    /// Another node leads.
    NotLeader = 14, Unavailable, Unavailable, Nothing, Same,
        "not the leader", next "ask the leader, or any node: it passes the request on";
    /// Nobody leads.
    NoLeader = 15, Unavailable, Unavailable, Nothing, Same,
        "no leader", next "try again in a second; if it stays so, look at `kotoba-cluster status`";
    /// The cluster cannot answer now.
    Unavailable = 16, Unavailable, Unavailable, Nothing, Same,
        "unavailable", next "look at `kotoba-cluster status` and start the nodes that are missing";
    /// A limit on work under way was reached.
    Busy = 17, Unavailable, ResourceExhausted, Nothing, Same,
        "busy", next "try again after a pause, with fewer operations in flight";
    /// A node could not be reached.
    Network = 18, Unavailable, Unavailable, Unknown, Same,
        "network error", next "check the address and that the node runs, then repeat the same request";
    /// Another process uses the data directory.
    DataDirInUse = 19, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory is in use", next "stop the other process, or choose another --data-dir";
    /// The data directory is another node's.
    DataDirOfOtherNode = 20, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory is another node's", next "start with the node id it belongs to, or choose another --data-dir";
    /// The data directory is another cluster's.
    DataDirOfOtherCluster = 21, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory is another cluster's", next "correct --peers, or choose another --data-dir";
    /// The data directory cannot be created or written.
    DataDirUnwritable = 22, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory cannot be written", next "give this user the right to write there, or choose another --data-dir";
    /// What the data directory holds is damaged.
    DataDirDamaged = 23, Error, DataLoss, Nothing, AfterChange,
        "the data directory is damaged", next "keep a copy of it, then follow docs/errors/KDB-0023.md";
    /// The data directory was written by another version.
    DataDirVersion = 24, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory has another format version", next "start the version of the program that wrote it";
    /// The disk has no room.
    DiskFull = 25, Unavailable, ResourceExhausted, Nothing, Same,
        "the disk is full", next "make room on the node's disk; it goes on by itself";
    /// The disk reported an error.
    DiskFailed = 26, Error, Internal, Unknown, AfterChange,
        "the disk failed", next "check the disk, then restart the node; replace the disk if it happens again";
    /// The address cannot be listened at.
    AddressInUse = 27, Error, FailedPrecondition, Nothing, AfterChange,
        "the address cannot be used", next "stop what listens there, or choose another --address";
    /// Peers that are needed do not answer.
    PeersDown = 28, Unavailable, Unavailable, Nothing, Same,
        "peers do not answer", next "start them, or correct --peers; this node goes on waiting";
    /// A peer is in another cluster.
    PeerOfOtherCluster = 29, Error, FailedPrecondition, Nothing, AfterChange,
        "a peer is in another cluster", next "correct --peers so that it names one cluster only";
    /// A peer speaks another version of the protocol.
    ProtocolVersion = 30, Error, FailedPrecondition, Nothing, AfterChange,
        "another protocol version", next "run the same version of the program on all nodes and clients";
    /// Nodes that begin a cluster together do not agree on what it is.
    BootstrapMismatch = 31, Error, FailedPrecondition, Nothing, AfterChange,
        "the nodes were started differently", next "start all nodes with the same set of addresses, partitions and replication factor";
    /// A node id is used by two nodes, or a directory under another one.
    NodeIdMismatch = 32, Error, FailedPrecondition, Nothing, AfterChange,
        "a node id is not what it should be", next "give every node its own --node-id and its own data directory";
    /// A node that is no member wants to join a running cluster.
    UnknownJoiner = 33, Error, FailedPrecondition, Nothing, AfterChange,
        "joining a running cluster is not possible yet", next "start the node under the id of a member, or begin a new cluster with it";
    /// A member wants to leave.
    LeaveUnavailable = 34, Error, FailedPrecondition, Nothing, AfterChange,
        "leaving a running cluster is not possible yet", next "stop the node; the others go on without it while a majority is left";
    /// The data directory was replaced by a newer one of the same node.
    Superseded = 35, Error, FailedPrecondition, Nothing, AfterChange,
        "the data directory was replaced", next "start the node with its newer data directory, or with an empty one";
    /// A group of this node was stopped to protect the data.
    Quarantined = 36, Error, Internal, Unknown, Same,
        "a replica was stopped to protect the data", next "keep the node's log output, then restart the node";
    /// A mistake of the program.
    Internal = 37, Error, Internal, Unknown, Same,
        "internal error", next "report it with the log output of the node";
    /// A certificate or key cannot be used, or a peer showed none that is trusted.
    Tls = 38, Error, Unauthenticated, Nothing, AfterChange,
        "TLS failed", next "check the three files and that one authority signed both sides' certificates";
    /// A file cannot be read or written.
    File = 39, Error, FailedPrecondition, Nothing, AfterChange,
        "a file cannot be read or written", next "check that it exists and who may use it";
    /// Replicas hold different states at the same log position.
    StatesDiffer = 40, Error, DataLoss, Nothing, AfterChange,
        "replicas differ", next "keep all data directories and follow docs/errors/KDB-0040.md";
    /// The cluster object is not started, or was stopped.
    NotRunning = 41, Error, FailedPrecondition, Nothing, AfterChange,
        "the node is not running", next "start it first";
}

impl ErrorCode {
    /// The number: 12 in `KDB-0012`.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// The code with this number.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == number)
    }

    /// The code that `KDB-0012` stands for.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("KDB-").filter(|digits| digits.len() == 4)?;
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        Self::from_number(number)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KDB-{:04}", self.number())
    }
}
