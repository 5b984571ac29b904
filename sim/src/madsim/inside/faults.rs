//! What goes wrong, one fault after the other.

use std::{sync::Arc, time::Duration};

use madsim::{
    plugin::simulator,
    task::NodeId,
    time::{TimeHandle, sleep},
};

use super::{
    clock::Clocks,
    cluster::{Cluster, Machine},
    dice::Dice,
    disk::{Disks, End, Full},
    profile::{Profile, Weights},
    wire::Wires,
};
use crate::choice::Topic;

/// A class of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Crash,
    DiskCrash,
    Outage,
    Pause,
    Partition,
    Link,
    Stall,
    FailedFlush,
    FullDisk,
    Clock,
    Wipe,
    Damage,
}

/// Causes faults. Each ends by itself; what is left when all is over is healed by the cluster.
pub(super) struct Chaos {
    cluster: Arc<Cluster>,
    dice: Dice,
    profile: Profile,
    clients: Vec<NodeId>,
    /// A disk was lost or damaged: a second one before the first is made good may lose what was
    /// acknowledged.
    harmed: bool,
}

impl Chaos {
    /// Faults of this profile.
    pub(super) fn new(cluster: Arc<Cluster>, dice: Dice, profile: Profile, clients: Vec<NodeId>) -> Self {
        Self { cluster, dice, profile, clients, harmed: false }
    }

    /// Causes faults for as long as the profile says.
    pub(super) async fn run(mut self) {
        let end = TimeHandle::current().elapsed() + self.profile.chaos;
        while TimeHandle::current().elapsed() < end {
            let pause = self.millis(Topic::Process, 50, self.profile.fault_every);
            sleep(pause).await;
            if let Some(class) = self.class() {
                self.strike(class);
            }
        }
    }

    /// A time between `min` milliseconds and `max`.
    fn millis(&self, topic: Topic, min: u64, max: Duration) -> Duration {
        let max = u64::try_from(max.as_millis()).expect("short");
        Duration::from_millis(min + self.dice.below(topic, 0, max.saturating_sub(min).max(1)))
    }

    fn class(&self) -> Option<Class> {
        let Weights {
            crashes,
            disk_crashes,
            outages,
            pauses,
            partitions,
            links,
            stalls,
            failed_flushes,
            full_disks,
            clocks,
            wipes,
            damages,
        } = self.profile.weights;
        let classes = [
            (Class::Crash, crashes),
            (Class::DiskCrash, disk_crashes),
            (Class::Outage, outages),
            (Class::Pause, pauses),
            (Class::Partition, partitions),
            (Class::Link, links),
            (Class::Stall, stalls),
            (Class::FailedFlush, failed_flushes),
            (Class::FullDisk, full_disks),
            (Class::Clock, clocks),
            (Class::Wipe, wipes),
            (Class::Damage, damages),
        ];
        let all: u64 = classes.iter().map(|(_, weight)| weight).sum();
        let mut at = self.dice.below(Topic::Process, 0, all.max(1));
        classes.into_iter().find_map(|(class, weight)| {
            if at < weight {
                return Some(class);
            }
            at -= weight;
            None
        })
    }

    fn node(&self) -> Machine {
        let nodes = self.cluster.nodes();
        let at = self.dice.below(Topic::Process, 0, nodes.len() as u64);
        nodes[usize::try_from(at).expect("few")].clone()
    }

    fn strike(&mut self, class: Class) {
        match class {
            Class::Crash => {
                let end = self.end();
                self.crash(&self.node(), end);
            }
            Class::Outage => {
                for machine in self.cluster.nodes() {
                    let end = self.end();
                    self.crash(machine, end);
                }
                self.cluster.note("outage", "all nodes");
            }
            Class::DiskCrash => {
                let (node, operations) = (self.node(), self.dice.below(Topic::Crash, 0, 60));
                self.cluster.note("crash-in-disk-operation", &format!("n{} in {operations}", node.number));
                simulator::<Disks>().crash_in(node.id, operations);
            }
            Class::Pause => self.pause(),
            Class::Partition => self.partition(),
            Class::Link => self.link(),
            Class::Stall => {
                let (node, time) = (self.node(), self.millis(Topic::DiskTime, 200, Duration::from_secs(5)));
                self.cluster.note("disk-stall", &format!("n{} for {time:?}", node.number));
                simulator::<Disks>().stall(node.id, TimeHandle::current().now_instant() + time);
            }
            Class::FailedFlush => self.fail_flush(),
            Class::FullDisk => self.fill(),
            Class::Clock => self.clock(),
            Class::Wipe => self.wipe(),
            Class::Damage => self.damage(),
        }
    }

    fn end(&self) -> End {
        match self.dice.below(Topic::Crash, 0, 2) {
            0 => End::Killed,
            _ => End::PowerLost,
        }
    }

    fn crash(&self, machine: &Machine, end: End) {
        if !self.cluster.is_up(machine) {
            return;
        }
        let class = match end {
            End::Killed => "process-killed",
            End::PowerLost => "power-lost",
        };
        let time = self.millis(Topic::Process, 20, Duration::from_secs(4));
        self.cluster.note(class, &format!("n{} for {time:?}", machine.number));
        self.cluster.kill(machine, end);
        self.after(time, machine, |cluster, machine| cluster.restart(machine));
    }

    fn after(
        &self,
        time: Duration,
        machine: &Machine,
        act: impl FnOnce(&Cluster, &Machine) + Send + 'static,
    ) {
        let (cluster, machine) = (Arc::clone(&self.cluster), machine.clone());
        madsim::task::spawn(async move {
            sleep(time).await;
            act(&cluster, &machine);
        });
    }

    fn pause(&self) {
        let node = self.node();
        if !self.cluster.is_up(&node) {
            return;
        }
        let time = self.millis(Topic::Process, 50, Duration::from_secs(6));
        self.cluster.note("pause", &format!("n{} for {time:?}", node.number));
        self.cluster.pause(&node);
        self.after(time, &node, |cluster, machine| cluster.resume(machine));
    }

    /// All machines, clients' too.
    fn everybody(&self) -> Vec<NodeId> {
        self.cluster.nodes().iter().map(|node| node.id).chain(self.clients.iter().copied()).collect()
    }

    fn partition(&self) {
        let (node, everybody) = (self.node(), self.everybody());
        let nodes: Vec<NodeId> = self.cluster.nodes().iter().map(|node| node.id).collect();
        let others = || everybody.iter().copied().filter(|other| *other != node.id);
        let place = |id: NodeId| nodes.iter().position(|node| *node == id);
        let (kind, cut): (&str, Vec<(NodeId, NodeId)>) = match self.dice.below(Topic::Link, 0, 5) {
            0 => ("isolated", others().flat_map(|other| [(other, node.id), (node.id, other)]).collect()),
            1 => ("cannot-hear", others().map(|other| (other, node.id)).collect()),
            2 => ("cannot-speak", others().map(|other| (node.id, other)).collect()),
            3 => {
                // Each node hears its neighbours only.
                let far = |one: usize, other: usize| {
                    let apart = one.abs_diff(other);
                    apart > 1 && apart < nodes.len() - 1
                };
                let pairs = nodes.iter().flat_map(|&one| nodes.iter().map(move |&other| (one, other)));
                let apart = pairs.filter(|&(one, other)| {
                    place(one).zip(place(other)).is_some_and(|(one, other)| far(one, other))
                });
                ("ring", apart.collect())
            }
            _ => {
                let side = |id: NodeId| self.dice.below(Topic::Link, place(id).map_or(9, |_| 1), 2);
                let sides: Vec<(NodeId, u64)> = everybody.iter().map(|&id| (id, side(id))).collect();
                let pairs = sides.iter().flat_map(|one| sides.iter().map(move |other| (one, other)));
                (
                    "split",
                    pairs
                        .filter(|(one, other)| one.1 != other.1)
                        .map(|(one, other)| (one.0, other.0))
                        .collect(),
                )
            }
        };
        let time = self.millis(Topic::Link, 100, Duration::from_secs(7));
        let flaps = self.dice.below(Topic::Link, 0, 4) == 1;
        let how = if flaps { "flapping" } else { "for good" };
        self.cluster.note("partition", &format!("{kind} n{}, {how}, for {time:?}", node.number));
        let dice = self.dice.clone();
        let pieces = move || {
            let millis = if flaps { 20 + dice.below(Topic::Link, 0, 600) } else { u64::MAX };
            Duration::from_millis(millis)
        };
        madsim::task::spawn(cut_for(cut, time, pieces));
    }

    fn link(&self) {
        let (one, other) = (self.node(), self.node());
        let wires = simulator::<Wires>();
        match self.dice.below(Topic::Link, 0, 3) {
            0 => {
                let broken = wires.break_between(one.id, other.id);
                let what = format!("{broken} n{}-n{}", one.number, other.number);
                return self.cluster.note("connections-broken", &what);
            }
            1 => return self.lossy(&one, &other),
            _ => {}
        }
        let by = self.millis(Topic::Delay, 1, Duration::from_millis(400));
        self.cluster.note("slow-link", &format!("n{}-n{} {by:?}", one.number, other.number));
        wires.slow(one.id, other.id, by);
        let time = self.millis(Topic::Link, 200, Duration::from_secs(6));
        self.after(time, &one, move |_, machine| {
            simulator::<Wires>().slow(machine.id, other.id, Duration::ZERO);
        });
    }

    /// A link loses segments in one direction; what is lost is sent again later, and holds up the rest.
    fn lossy(&self, one: &Machine, other: &Machine) {
        let permille = u32::try_from(1 + self.dice.below(Topic::Message, 0, 300)).expect("small");
        let what = format!("n{}-n{} {permille} permille", one.number, other.number);
        self.cluster.note("lossy-link", &what);
        simulator::<Wires>().lose(one.id, other.id, permille);
        let (time, other) = (self.millis(Topic::Link, 200, Duration::from_secs(6)), other.id);
        self.after(time, one, move |_, machine| simulator::<Wires>().lose(machine.id, other, 0));
    }

    /// A flush fails; whatever the node makes of that, somebody starts it again.
    fn fail_flush(&self) {
        let node = self.node();
        self.cluster.note("failed-flush", &format!("n{}", node.number));
        simulator::<Disks>().fail_syncs(node.id, 1);
        let time = self.millis(Topic::Disk, 200, Duration::from_secs(4));
        let end = self.end();
        self.after(time, &node, move |cluster, machine| {
            simulator::<Disks>().fail_syncs(machine.id, 0);
            // A node that stands still is started again too: its replicas are out of service until then.
            cluster.resume(machine);
            if cluster.is_up(machine) {
                cluster.kill(machine, end);
                cluster.restart(machine);
            }
        });
    }

    /// A log without room waits for some; a store without room needs a new start.
    fn fill(&self) {
        let node = self.node();
        let full = match self.dice.below(Topic::Disk, 0, 2) {
            0 => Full::Log,
            _ => Full::Everything,
        };
        self.cluster.note("full-disk", &format!("n{} {full:?}", node.number));
        simulator::<Disks>().set_full(node.id, Some(full));
        let time = self.millis(Topic::Disk, 200, Duration::from_secs(5));
        self.after(time, &node, move |cluster, machine| {
            simulator::<Disks>().set_full(machine.id, None);
            cluster.resume(machine);
            if full == Full::Everything && cluster.is_up(machine) {
                cluster.kill(machine, End::Killed);
                cluster.restart(machine);
            }
        });
    }

    fn clock(&self) {
        let (node, clocks) = (self.node(), simulator::<Clocks>());
        if self.dice.below(Topic::Clock, 0, 2) == 0 {
            let drift = i64::try_from(self.dice.below(Topic::Clock, 0, 200_001)).expect("small") - 100_000;
            self.cluster.note("clock-drift", &format!("n{} {drift} ppm", node.number));
            clocks.drift(node.id, drift);
        } else {
            let by = self.millis(Topic::Clock, 10, Duration::from_secs(3));
            self.cluster.note("clock-jump", &format!("n{} {by:?}", node.number));
            clocks.jump(node.id, by);
        }
    }

    /// Once in a run, a wipe or a damage.
    fn wipe(&mut self) {
        let node = self.node();
        if self.harmed || !self.cluster.is_up(&node) {
            return;
        }
        self.harmed = true;
        self.cluster.note("directory-wiped", &format!("n{}", node.number));
        self.cluster.kill(&node, End::PowerLost);
        self.cluster.wipe(&node);
        self.after(Duration::from_millis(500), &node, |cluster, machine| cluster.restart(machine));
    }

    /// A disk is damaged; later its node starts again and may find that. Whoever looks after the
    /// machines then replaces the disk.
    fn damage(&mut self) {
        let node = self.node();
        let pick = |below| self.dice.below(Topic::Disk, u32::from(node.number), below);
        if self.harmed || !self.cluster.is_up(&node) || !self.cluster.damage(&node, pick) {
            return;
        }
        self.harmed = true;
        let (time, end) = (self.millis(Topic::Disk, 200, Duration::from_secs(4)), self.end());
        self.after(time, &node, move |cluster, machine| {
            if cluster.is_up(machine) {
                cluster.kill(machine, end);
                cluster.restart(machine);
            }
        });
    }
}

/// Cuts links, and mends them when the time is over; in between, now and then, for as long as `pieces`
/// says.
async fn cut_for(cut: Vec<(NodeId, NodeId)>, time: Duration, pieces: impl Fn() -> Duration) {
    let end = TimeHandle::current().elapsed() + time;
    let mut is_cut = false;
    loop {
        let left = end.saturating_sub(TimeHandle::current().elapsed());
        is_cut = !is_cut && !left.is_zero();
        for &(from, to) in &cut {
            if is_cut {
                simulator::<Wires>().cut(from, to);
            } else {
                simulator::<Wires>().mend(from, to);
            }
        }
        if left.is_zero() {
            return;
        }
        sleep(pieces().min(left)).await;
    }
}
