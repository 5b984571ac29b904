//! Clients: the product's own, each on a machine of its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kotoba_db_cluster::{
    client::{Client, ClientOptions, ReadFrom, v1},
    error::{ClusterError, Effect},
    placement::PartitionId,
    raft::{GroupId, Index},
};
use madsim::{
    task::{JoinHandle, NodeId},
    time::{TimeHandle, sleep},
};

use super::{
    certificates::{Certificates, tls_files},
    cluster::Cluster,
    dice::Dice,
    profile::Profile,
    registers::{Ask, FIRST, Told},
};
use crate::{
    check::{Verdict, Violation, real_time::RealTime},
    choice::Topic,
    history::{End, History, Operation, TrueTime},
};

/// Nodes of the graph that clients write to and read from.
const REGISTERS: u64 = 6;
const PROPERTY: &str = "v";
/// How long the client that only looks waits for an answer.
const DEADLINE: Duration = Duration::from_secs(8);

/// A node of the graph that holds one value.
#[derive(Clone, Debug)]
pub(super) struct Register {
    /// Its identity.
    pub(super) cid: String,
    /// Where it lives.
    pub(super) partition: PartitionId,
}

/// What clients did.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Writes, and reads that must be linearizable.
    pub(super) history: History<Ask, Told>,
    /// Those, and reads that need not see more than their client saw before.
    pub(super) sessions: History<Ask, Told>,
    /// Values whose writes were refused for good, by register.
    pub(super) refused: BTreeMap<u64, Vec<String>>,
    /// Nodes that were created, by key: whether the client was told so.
    pub(super) created: BTreeMap<String, Fate>,
    /// What is known of the order of all logs.
    real_time: RealTime,
    /// The first operation that does not fit into it.
    pub(super) violation: Option<Violation>,
    /// Reads and writes that were answered.
    pub(super) answered: u64,
    /// Writes and linearizable reads that were answered since this was last cleared, by group.
    recent: BTreeMap<GroupId, (u64, u64)>,
    /// Those that were not, or were refused.
    pub(super) unanswered: u64,
    /// Reads from any replica that is not behind its client.
    pub(super) session_reads: u64,
}

/// What became of a write, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It took effect.
    Done,
    /// It may have taken effect, or may still.
    Unknown,
    /// It did not and will not take effect.
    Refused,
}

/// All clients of a run.
pub(super) struct Clients {
    /// The registers, in order.
    pub(super) registers: Vec<Register>,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
    /// Their machines.
    pub(super) machines: Vec<NodeId>,
}

/// How a client of the product is set up here.
pub(super) fn options(profile: &Profile) -> ClientOptions {
    ClientOptions {
        deadline: DEADLINE,
        attempt_timeout: Duration::from_secs(2),
        tls: profile.tls.then(tls_files),
        ..ClientOptions::default()
    }
}

/// Everything is tried until it works: before there are faults, it must.
///
/// # Errors
/// What did not work within the client's deadline.
pub(super) async fn create_registers(client: &Client) -> Result<Vec<Register>, ClusterError> {
    let mut registers = Vec::new();
    for number in 0..REGISTERS {
        let receipt = client.execute(create(&format!("register-{number}"), FIRST), None).await?;
        registers.push(Register { cid: receipt.cid, partition: receipt.partition });
    }
    Ok(registers)
}

fn properties(value: &str) -> HashMap<String, v1::Value> {
    let kind = v1::value::Kind::StringValue(value.to_owned());
    HashMap::from([(PROPERTY.to_owned(), v1::Value { kind: Some(kind) })])
}

fn create(key: &str, value: &str) -> v1::Operation {
    let kind =
        v1::operation::Kind::CreateNode(v1::CreateNode { properties: properties(value), key: key.into() });
    v1::Operation { kind: Some(kind) }
}

fn update(cid: &str, value: &str) -> v1::Operation {
    let node = v1::UpdateNode { cid: cid.into(), properties: properties(value), ..v1::UpdateNode::default() };
    v1::Operation { kind: Some(v1::operation::Kind::UpdateNode(node)) }
}

/// The value among these properties.
pub(super) fn value_of(properties: &HashMap<String, v1::Value>) -> String {
    match properties.get(PROPERTY).and_then(|value| value.kind.as_ref()) {
        Some(v1::value::Kind::StringValue(value)) => value.clone(),
        other => format!("{other:?}"),
    }
}

impl Clients {
    /// Starts them.
    pub(super) fn start(
        cluster: &Arc<Cluster>,
        profile: &Profile,
        registers: &[Register],
        certificates: &Certificates,
        dice: &Dice,
    ) -> Self {
        let (book, stop) = (Arc::<Mutex<Book>>::default(), Arc::<AtomicBool>::default());
        let start = |number: u8| {
            let one = One {
                number,
                serial: 0,
                seen: BTreeMap::new(),
                profile: profile.clone(),
                registers: registers.to_vec(),
                book: Arc::clone(&book),
                stop: Arc::clone(&stop),
                dice: dice.clone(),
            };
            let addresses = cluster.nodes().iter().map(|node| node.address.to_string()).collect();
            let machine = cluster.client_machine(number, certificates);
            (machine.spawn(one.run(addresses)), machine.id())
        };
        let (tasks, machines) = (1..=profile.clients).map(start).unzip();
        Self { registers: registers.to_vec(), book, stop, tasks, machines }
    }

    /// Lets each end what it is at. Returns what all of them did.
    pub(super) async fn stop(self) -> (Vec<Register>, Book) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("nobody kills a client's machine");
        }
        let mut book = std::mem::take(&mut *lock(&self.book));
        book.sort();
        (self.registers, book)
    }

    /// Counts anew which groups serve.
    pub(super) fn forget_who_serves(&self) {
        lock(&self.book).recent.clear();
    }

    /// The first group of a register that has not written and read since it was counted anew.
    pub(super) fn first_idle(&self) -> Option<GroupId> {
        let book = lock(&self.book);
        let groups: BTreeSet<_> = self.registers.iter().map(|register| register.partition.group()).collect();
        let serves =
            |group: &GroupId| book.recent.get(group).is_some_and(|&(writes, reads)| writes > 1 && reads > 1);
        groups.into_iter().find(|group| !serves(group))
    }

    /// How many operations were answered so far.
    pub(super) fn answered(&self) -> u64 {
        lock(&self.book).answered
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client.
struct One {
    number: u8,
    serial: u64,
    /// The latest place in each partition's log that it was told of.
    seen: BTreeMap<PartitionId, u64>,
    profile: Profile,
    registers: Vec<Register>,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    dice: Dice,
}

fn now() -> TrueTime {
    u64::try_from(TimeHandle::current().elapsed().as_nanos()).expect("a run is shorter than 500 years")
}

impl One {
    async fn run(mut self, addresses: Vec<String>) {
        let name = Some(format!("client-{}", self.number));
        let deadline = self.profile.patience;
        let options = ClientOptions { client_id: name, deadline, ..options(&self.profile) };
        let client = Client::connect(addresses, options).await.expect("addresses and certificates are good");
        while !self.stop.load(Ordering::Relaxed) {
            let think = self.below(u64::try_from(self.profile.think.as_millis()).expect("short"));
            sleep(Duration::from_millis(think)).await;
            self.serial += 1;
            match self.below(10) {
                0 => self.create(&client).await,
                1..6 => self.write(&client).await,
                6 => self.read(&client, v1::Consistency::Session).await,
                _ => self.read(&client, v1::Consistency::Strong).await,
            }
        }
    }

    fn below(&mut self, below: u64) -> u64 {
        self.dice.below(Topic::Client, u32::from(self.number), below)
    }

    fn register(&mut self) -> usize {
        let count = self.registers.len() as u64;
        usize::try_from(self.below(count)).expect("few")
    }

    async fn create(&mut self, client: &Client) {
        let key = format!("c{}-{}", self.number, self.serial);
        let fate = fate_of(&client.execute(create(&key, &key), None).await);
        let mut book = lock(&self.book);
        book.created.insert(key, fate);
        book.count(fate);
    }

    async fn write(&mut self, client: &Client) {
        let at = self.register();
        let Register { cid, partition } = self.registers[at].clone();
        let value = format!("c{}-{}", self.number, self.serial);
        let begun = self.begin(partition);
        let outcome = client.execute(update(&cid, &value), Some(partition)).await;
        let ask = Ask::Write { register: at as u64, value };
        match (fate_of(&outcome), outcome) {
            (Fate::Done, Ok(receipt)) => self.answered(begun, ask, Told::Written, receipt.index),
            (Fate::Refused, _) => self.refused(ask),
            (Fate::Done | Fate::Unknown, _) => self.unanswered(begun, ask),
        }
    }

    async fn read(&mut self, client: &Client, consistency: v1::Consistency) {
        let at = self.register();
        let Register { cid, partition } = self.registers[at].clone();
        let min_index = match consistency {
            v1::Consistency::Session => self.seen.get(&partition).copied().unwrap_or_default(),
            v1::Consistency::Strong | v1::Consistency::Eventual => 0,
        };
        let from = ReadFrom { partition: Some(partition), min_index, ..ReadFrom::with(consistency) };
        let begun = self.begin(partition);
        let ask = Ask::Read { register: at as u64 };
        match client.entity_at(&cid, from).await {
            Ok((found, index)) => {
                let value = found.map_or_else(|| "nothing".into(), |entity| value_of(&entity.properties));
                if consistency == v1::Consistency::Strong {
                    self.answered(begun, ask, Told::Found(value), index);
                } else {
                    self.answered_in_session(begun, ask, Told::Found(value), index);
                }
            }
            Err(_) => lock(&self.book).unanswered += 1,
        }
    }

    fn begin(&self, partition: PartitionId) -> Begun {
        let group = partition.group();
        let after = lock(&self.book).real_time.invoked(group);
        Begun { partition, after, invoked: now() }
    }

    fn operation(&self, begun: Begun, ask: Ask, end: End<Told>) -> Operation<Ask, Told> {
        Operation {
            client: self.number.into(),
            serial: self.serial,
            group: begun.partition.group(),
            operation: ask,
            invoked: begun.invoked,
            end,
        }
    }

    fn answered(&mut self, begun: Begun, ask: Ask, answer: Told, index: u64) {
        self.seen.insert(begun.partition, index);
        let (group, index) = (begun.partition.group(), Index(index));
        let mut book = lock(&self.book);
        let verdict = match ask {
            Ask::Write { .. } => book.real_time.wrote(group, begun.after, index),
            Ask::Read { .. } => book.real_time.read(group, begun.after, index),
        };
        book.judge(verdict);
        let recent = book.recent.entry(group).or_default();
        match ask {
            Ask::Write { .. } => recent.0 += 1,
            Ask::Read { .. } => recent.1 += 1,
        }
        let operation = self.operation(begun, ask, End::Answered { at: now(), answer, index });
        book.sessions.operations.push(operation.clone());
        book.history.operations.push(operation);
        book.answered += 1;
    }

    fn answered_in_session(&mut self, begun: Begun, ask: Ask, answer: Told, index: u64) {
        self.seen.insert(begun.partition, index);
        let end = End::Answered { at: now(), answer, index: Index(index) };
        let operation = self.operation(begun, ask, end);
        let mut book = lock(&self.book);
        book.sessions.operations.push(operation);
        book.answered += 1;
        book.session_reads += 1;
    }

    fn unanswered(&self, begun: Begun, ask: Ask) {
        let operation = self.operation(begun, ask, End::Unknown);
        let mut book = lock(&self.book);
        book.history.operations.push(operation);
        book.unanswered += 1;
    }

    fn refused(&self, ask: Ask) {
        let mut book = lock(&self.book);
        book.unanswered += 1;
        if let Ask::Write { register, value } = ask {
            book.refused.entry(register).or_default().push(value);
        }
    }
}

/// An operation under way.
#[derive(Clone, Copy, Debug)]
struct Begun {
    partition: PartitionId,
    /// What was known of the partition's log.
    after: Index,
    invoked: TrueTime,
}

impl Book {
    fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict {
            self.violation.get_or_insert(violation);
        }
    }

    /// Sorts everything as it was asked.
    fn sort(&mut self) {
        for history in [&mut self.history, &mut self.sessions] {
            history.operations.sort_by_key(|operation| (operation.invoked, operation.client));
        }
    }

    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Done => self.answered += 1,
            Fate::Unknown | Fate::Refused => self.unanswered += 1,
        }
    }
}

fn fate_of<T>(outcome: &Result<T, ClusterError>) -> Fate {
    match outcome {
        Ok(_) => Fate::Done,
        Err(error) if error.code().effect() == Effect::Unknown => Fate::Unknown,
        Err(_) => Fate::Refused,
    }
}
