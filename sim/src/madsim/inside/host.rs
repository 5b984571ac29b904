//! What a node asks of the world, answered by the simulators of its clock, disk and network.

use std::{
    hash::Hasher as _,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kotoba_db_cluster::runtime::{Acceptor, Connection, Disk, Host, Moment, Waiting};
use madsim::{
    plugin::{node, simulator},
    rand::{Rng as _, RngCore as _, thread_rng},
    time::{TimeHandle, sleep},
};
use xxhash_rust::xxh3::Xxh3;

use super::{clock::Clocks, disk::Disks, overseer::Overseer, wire::Wires};

/// Where everything that a run says goes: into one number that two runs can be compared by.
#[derive(Clone, Default)]
pub(super) struct Ears(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    hasher: Xxh3,
    events: u64,
}

impl Ears {
    /// Something was said, by or to a node; 0: by the run itself.
    pub(super) fn hear(&self, at: Duration, node: &str, what: &str, bytes: &[u8]) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.events += 1;
        let nanos = u64::try_from(at.as_nanos()).expect("a run is shorter than 500 years");
        heard.hasher.write_u64(nanos);
        for part in [node.as_bytes(), what.as_bytes(), bytes] {
            heard.hasher.write_u64(part.len() as u64);
            heard.hasher.write(part);
        }
    }

    /// The hash of everything so far, and how much it was.
    pub(super) fn digest(&self) -> (u64, u64) {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.hasher.digest(), heard.events)
    }
}

/// Answers every node of the run.
pub(super) struct World {
    pub(super) ears: Ears,
    pub(super) overseer: Overseer,
    /// The longest that a job of a thread takes.
    pub(super) slowest_job: Duration,
}

impl Host for World {
    fn disk(&self) -> Arc<dyn Disk> {
        simulator::<Disks>().disk(node())
    }

    fn clock(&self) -> Instant {
        simulator::<Clocks>().show(node())
    }

    fn wake_at(&self, time: Instant) -> Instant {
        simulator::<Clocks>().wake_at(node(), time)
    }

    fn random(&self, bytes: &mut [u8]) {
        thread_rng().fill_bytes(bytes);
    }

    fn listen(&self, address: SocketAddr) -> io::Result<Box<dyn Acceptor>> {
        simulator::<Wires>().listen(node(), address)
    }

    fn connect(&self, address: &str) -> Waiting<io::Result<Box<dyn Connection>>> {
        let Ok(address) = address.parse() else {
            return Box::pin(async { Err(io::ErrorKind::InvalidInput.into()) });
        };
        let wires = Wires::clone(&simulator::<Wires>());
        Box::pin(wires.connect(node(), address))
    }

    fn job(&self, _thread: &'static str) -> Waiting<()> {
        let (node, slowest) = (node(), self.slowest_job);
        let mut rng = thread_rng();
        // Half of the jobs are done at once.
        let time = if rng.gen_bool(0.5) { Duration::ZERO } else { rng.gen_range(Duration::ZERO..=slowest) };
        Box::pin(async move {
            if time >= Duration::from_millis(1) {
                sleep(time).await;
            }
            loop {
                let stalled = simulator::<Disks>().stalled_for(node, TimeHandle::current().now_instant());
                if stalled.is_zero() {
                    return;
                }
                sleep(stalled).await;
            }
        })
    }

    fn overheard(&self, what: &'static str, bytes: &[u8]) {
        self.ears.hear(TimeHandle::current().elapsed(), &node().to_string(), what, bytes);
    }

    fn watch(&self, moment: &Moment<'_>) {
        self.overseer.watch(node(), moment);
    }
}
