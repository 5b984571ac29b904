//! Clients: the product's own, each on a machine of its own.

use std::{
    collections::{BTreeMap, HashMap},
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
    registers::{Fate, Kind, Operation},
};
use crate::choice::Topic;

/// Nodes of the graph that clients write to and read from.
const REGISTERS: u64 = 6;
const PROPERTY: &str = "v";

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
    /// Per register.
    pub(super) operations: BTreeMap<usize, Vec<Operation>>,
    /// Nodes that were created, by key: whether the client was told so.
    pub(super) created: BTreeMap<String, Fate>,
    /// Reads and writes that were answered.
    pub(super) answered: u64,
    /// Those that were not, or were refused.
    pub(super) unanswered: u64,
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
        deadline: Duration::from_secs(8),
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
        let receipt = client.execute(create(&format!("register-{number}"), "first"), None).await?;
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
        (self.registers, std::mem::take(&mut *lock(&self.book)))
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
    profile: Profile,
    registers: Vec<Register>,
    book: Arc<Mutex<Book>>,
    stop: Arc<AtomicBool>,
    dice: Dice,
}

fn now() -> Duration {
    TimeHandle::current().elapsed()
}

impl One {
    async fn run(mut self, addresses: Vec<String>) {
        let name = Some(format!("client-{}", self.number));
        let options = ClientOptions { client_id: name, ..options(&self.profile) };
        let client = Client::connect(addresses, options).await.expect("addresses and certificates are good");
        while !self.stop.load(Ordering::Relaxed) {
            let think = self.below(u64::try_from(self.profile.think.as_millis()).expect("short"));
            sleep(Duration::from_millis(think)).await;
            self.serial += 1;
            match self.below(10) {
                0 => self.create(&client).await,
                1..6 => self.write(&client).await,
                _ => self.read(&client).await,
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
        let fate = fate_of(&client.execute(create(&key, &key), None).await.map(drop));
        let mut book = lock(&self.book);
        book.created.insert(key, fate);
        book.count(fate);
    }

    async fn write(&mut self, client: &Client) {
        let at = self.register();
        let Register { cid, partition } = self.registers[at].clone();
        let value = format!("c{}-{}", self.number, self.serial);
        let asked = now();
        let outcome = client.execute(update(&cid, &value), Some(partition)).await;
        let fate = fate_of(&outcome.map(drop));
        self.note(at, Kind::Write(value, fate), asked, fate);
    }

    async fn read(&mut self, client: &Client) {
        let at = self.register();
        let Register { cid, partition } = self.registers[at].clone();
        let from = ReadFrom { partition: Some(partition), ..ReadFrom::with(v1::Consistency::Strong) };
        let asked = now();
        match client.entity(&cid, from).await {
            Ok(found) => {
                let value = found.map_or_else(|| "nothing".into(), |entity| value_of(&entity.properties));
                self.note(at, Kind::Read(value), asked, Fate::Done);
            }
            Err(_) => lock(&self.book).unanswered += 1,
        }
    }

    fn note(&self, register: usize, kind: Kind, asked: Duration, fate: Fate) {
        let operation = Operation { client: self.number, kind, asked, answered: now() };
        let mut book = lock(&self.book);
        book.operations.entry(register).or_default().push(operation);
        book.count(fate);
    }
}

impl Book {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Done => self.answered += 1,
            Fate::Unknown | Fate::Refused => self.unanswered += 1,
        }
    }
}

fn fate_of(outcome: &Result<(), ClusterError>) -> Fate {
    match outcome {
        Ok(()) => Fate::Done,
        Err(error) if error.code().effect() == Effect::Unknown => Fate::Unknown,
        Err(_) => Fate::Refused,
    }
}
