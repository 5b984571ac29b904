//! Links between hosts, and what they do to messages.
//!
//! Every ordered pair of hosts is a link of its own, so a partition can be one-way. A clogged link
//! holds what is sent over it, and lets go of it later, in another order.

use std::time::Duration;

use super::packet::Packet;
use crate::{
    choice::{Chooser, Topic},
    profile::NetworkFaults,
};

/// How long a message travels at least, and how much longer without any fault.
const TRAVEL_NANOS: u64 = 400_000;
const JITTER_NANOS: u64 = 200_000;
/// How much later a replayed message arrives, at most.
const REPLAY_NANOS: u64 = 5_000_000_000;

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum LinkState {
    #[default]
    Open,
    /// Loses everything.
    Cut,
    /// Holds everything.
    Clogged,
}

#[derive(Clone, Debug, Default)]
struct Link {
    state: LinkState,
    held: Vec<Packet>,
    /// Messages under way.
    under_way: u32,
}

/// All links.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    hosts: usize,
    links: Vec<Link>,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives after this many nanoseconds, and again after that many.
    Arrives(u64, Option<u64>),
    /// It is held until its link is unclogged.
    Held,
    /// It is lost.
    Lost,
}

impl Network {
    pub(crate) fn new(hosts: usize) -> Self {
        Self { hosts, links: vec![Link::default(); hosts * hosts] }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.hosts + to
    }

    /// The number of a link, for choices about it.
    pub(crate) fn number(&self, from: usize, to: usize) -> u32 {
        u32::try_from(self.at(from, to)).expect("few hosts")
    }

    /// Decides about a message that is sent now.
    pub(crate) fn send(
        &mut self,
        choices: &mut Chooser,
        faults: &NetworkFaults,
        (from, to): (usize, usize),
    ) -> Fate {
        let number = self.number(from, to);
        let at = self.at(from, to);
        let link = &mut self.links[at];
        match link.state {
            LinkState::Cut => return Fate::Lost,
            LinkState::Clogged if link.held.len() < faults.queue_max as usize => return Fate::Held,
            LinkState::Clogged => return Fate::Lost,
            LinkState::Open => {}
        }
        if link.under_way >= faults.queue_max || choices.chance(Topic::Message, number, faults.loss) {
            return Fate::Lost;
        }
        let travel = |choices: &mut Chooser| {
            let late = choices.chance(Topic::Late, number, faults.late.0);
            let spread = if late { nanos(faults.late.1) } else { JITTER_NANOS };
            TRAVEL_NANOS + choices.below(Topic::Delay, number, spread)
        };
        let first = travel(choices);
        let again = if choices.chance(Topic::Repeat, number, faults.duplication) {
            Some(travel(choices))
        } else if choices.chance(Topic::Replay, number, faults.replay) {
            Some(first + choices.below(Topic::Delay, number, REPLAY_NANOS))
        } else {
            None
        };
        link.under_way += 1 + u32::from(again.is_some());
        Fate::Arrives(first, again)
    }

    /// Holds a message on a clogged link.
    pub(crate) fn hold(&mut self, (from, to): (usize, usize), packet: Packet) {
        let at = self.at(from, to);
        self.links[at].held.push(packet);
    }

    /// A message arrives. Returns whether the link lets it through.
    pub(crate) fn arrives(&mut self, from: usize, to: usize) -> bool {
        let at = self.at(from, to);
        let link = &mut self.links[at];
        link.under_way -= 1;
        link.state != LinkState::Cut
    }

    /// A message that arrived waits for its receiver: it arrives once more.
    pub(crate) fn keep(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.links[at].under_way += 1;
    }

    /// Changes a link. Returns what it held.
    pub(crate) fn set(&mut self, from: usize, to: usize, state: LinkState) -> Vec<Packet> {
        let at = self.at(from, to);
        let link = &mut self.links[at];
        link.state = state;
        match state {
            LinkState::Open => {
                let held = std::mem::take(&mut link.held);
                link.under_way += u32::try_from(held.len()).expect("bounded");
                held
            }
            LinkState::Cut => {
                link.held.clear();
                Vec::new()
            }
            LinkState::Clogged => Vec::new(),
        }
    }

    /// What a link does.
    pub(crate) fn state(&self, from: usize, to: usize) -> LinkState {
        self.links[self.at(from, to)].state
    }

    /// Every link there is.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let hosts = self.hosts;
        (0..hosts).flat_map(move |from| (0..hosts).map(move |to| (from, to))).filter(|(from, to)| from != to)
    }
}

/// Nanoseconds of a duration of this simulation.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("simulated times are short")
}
