//! The one task behind a pipeline.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use kotoba_db_cluster_proto::v1;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Completion, PipelineOptions, Refusals, Submission,
    lane::{Event, Lane},
    window::{Flight, Stage, Window},
};
use crate::{
    client::{
        backoff::Backoff,
        codec::EncodedRequest,
        connection::{Client, outcome_of},
        failure::{self, RequestName, Trace},
    },
    error::{ClusterError, ErrorCode},
    limits::STREAM_IN_FLIGHT_MAX,
    placement::PartitionId,
};

/// Answers drained at a time.
const DRAIN: usize = 512;
/// How often the window is looked through while something waits to be sent again.
const TICK_BUSY: Duration = Duration::from_millis(10);
/// How often it is looked through for writes without an answer.
const TICK_CALM: Duration = Duration::from_millis(100);
/// How often the cluster is asked for its leaders, at most.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// How long a node that did not answer in time gets no new writes.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Engine {
    client: Client,
    options: PipelineOptions,
    on_completion: Box<dyn FnMut(Completion) + Send>,
    window: Window,
    pending: VecDeque<Submission>,
    lanes: Vec<Lane>,
    leaders: BTreeMap<PartitionId, usize>,
    preferred: usize,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    refreshed: Option<Instant>,
    stopped: bool,
    anything_waits: bool,
}

impl Engine {
    pub(super) fn new(
        client: Client,
        mut options: PipelineOptions,
        on_completion: Box<dyn FnMut(Completion) + Send>,
    ) -> Self {
        options.in_flight = options.in_flight.clamp(1, STREAM_IN_FLIGHT_MAX);
        let (events, inbox) = mpsc::channel(2 * DRAIN);
        let mut engine = Self {
            client,
            options,
            on_completion,
            window: Window::new(STREAM_IN_FLIGHT_MAX),
            pending: VecDeque::new(),
            lanes: Vec::new(),
            leaders: BTreeMap::new(),
            preferred: 0,
            events,
            inbox,
            refreshed: None,
            stopped: false,
            anything_waits: false,
        };
        engine.take_routes();
        engine
    }

    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Submission>) {
        let mut events = Vec::with_capacity(DRAIN);
        let mut taken = Vec::with_capacity(self.options.in_flight);
        let mut more = true;
        let mut tick = Instant::now() + TICK_CALM;
        while more || self.window.open() > 0 || !self.pending.is_empty() {
            let room = self.room();
            tokio::select! {
                biased;
                _ = self.inbox.recv_many(&mut events, DRAIN) => {}
                count = jobs.recv_many(&mut taken, room), if more && room > 0 => more = count > 0,
                () = sleep_until(tick) => {
                    self.sweep(Instant::now());
                    tick = Instant::now() + if self.anything_waits { TICK_BUSY } else { TICK_CALM };
                }
            }
            let now = Instant::now();
            for event in events.drain(..) {
                self.handle(event, now);
            }
            self.pending.extend(taken.drain(..));
            self.admit(now);
            if self.stopped {
                jobs.close();
                more = false;
                self.pending.clear();
            }
            if self.anything_waits {
                tick = tick.min(now + TICK_BUSY);
            }
        }
    }

    fn room(&self) -> usize {
        if self.pending.is_empty() { self.options.in_flight.saturating_sub(self.window.open()) } else { 0 }
    }

    fn admit(&mut self, now: Instant) {
        while let Some(next) = self.pending.front() {
            if self.stopped || !self.window.admits(next.request_id) {
                return;
            }
            let Some(next) = self.pending.pop_front() else { return };
            let flight = Flight {
                message: next.message,
                partition: next.partition,
                began: now,
                stage: Stage::Waiting { until: now },
                backoff: Backoff::default(),
                trace: Trace::default(),
            };
            self.window.insert(next.request_id, flight);
            self.send(next.request_id, now);
        }
    }

    fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Answer { lane, response } => self.answer(lane, response, now),
            Event::Broken { lane, generation, error } => self.broken(lane, generation, &error, now),
            Event::Refreshed => self.take_routes(),
        }
    }

    fn answer(&mut self, lane: usize, response: v1::ClientResponse, now: Instant) {
        let id = response.request_id;
        if id == 0 {
            return; // speaks of no write
        }
        if !response.leader_address.is_empty() {
            self.learn_leader(PartitionId(response.partition), &response.leader_address);
        }
        self.lanes[lane].backoff = Backoff::default();
        match outcome_of(response) {
            Err(error) if failure::is_retryable(&error) => self.postpone(id, lane, error, now),
            Err(error)
                if self.options.refusals == Refusals::Stop && error.code() != ErrorCode::SessionExpired =>
            {
                self.stopped = true;
                if let Some(began) = self.window.hold(id) {
                    self.complete(id, Err(error), now - began);
                }
            }
            outcome => {
                if let Some(flight) = self.window.remove(id) {
                    self.complete(id, outcome, now - flight.began);
                }
            }
        }
    }

    /// *Not now*: another attempt after a pause. An answer of a lane that was already given up is old.
    fn postpone(&mut self, id: u64, lane: usize, error: ClusterError, now: Instant) {
        let Some(flight) = self.window.flight(id) else { return };
        if !matches!(flight.stage, Stage::Sent { lane: current, .. } if current == lane) {
            return;
        }
        flight.trace.note(error);
        flight.stage = Stage::Waiting { until: now + flight.backoff.next() };
        self.anything_waits = true;
        self.refresh(now);
    }

    fn broken(&mut self, lane: usize, generation: u64, error: &ClusterError, now: Instant) {
        if self.lanes[lane].generation != generation {
            return;
        }
        let pause = self.lanes[lane].backoff.next();
        self.lanes[lane].close(now + pause);
        self.leaders.retain(|_, leader| *leader != lane);
        self.client.avoid(&self.lanes[lane].address);
        self.refresh(now);
        let is_lost = |flight: &Flight| matches!(flight.stage, Stage::Sent { lane: on, .. } if on == lane);
        let lost: Vec<u64> =
            self.window.iter().filter(|(_, flight)| is_lost(flight)).map(|(id, _)| id).collect();
        for id in lost {
            if let Some(flight) = self.window.flight(id) {
                flight.trace.note(error.clone());
                flight.stage = Stage::Waiting { until: now };
            }
            self.send(id, now);
        }
    }

    /// Sends what is due, sends elsewhere what got no answer, gives up what is too old.
    fn sweep(&mut self, now: Instant) {
        let attempt_timeout = self.client.shared.options.attempt_timeout;
        let (mut due, mut silent, mut dead) = (Vec::new(), Vec::new(), Vec::new());
        self.anything_waits = false;
        for (id, flight) in self.window.iter() {
            if now - flight.began >= self.options.deadline {
                dead.push(id);
                continue;
            }
            match flight.stage {
                Stage::Waiting { until } if until <= now => due.push(id),
                Stage::Waiting { .. } => self.anything_waits = true,
                Stage::Sent { lane, at } if now - at >= attempt_timeout => silent.push((id, lane)),
                Stage::Sent { .. } | Stage::Held => {}
            }
        }
        for id in dead {
            if let Some(flight) = self.window.remove(id) {
                let request = RequestName { client_id: self.client.client_id(), request_id: id };
                let error = flight.trace.give_up(now - flight.began, &request);
                self.complete(id, Err(error), now - flight.began);
            }
        }
        for (id, lane) in silent {
            self.resend_elsewhere(id, lane, now);
        }
        for id in due {
            self.send(id, now);
        }
    }

    fn resend_elsewhere(&mut self, id: u64, lane: usize, now: Instant) {
        self.lanes[lane].rests_until = Some(now + REST);
        self.refresh(now);
        let what = format!("node {} did not answer in time", self.lanes[lane].address);
        if let Some(flight) = self.window.flight(id) {
            flight.trace.note(ClusterError::new(ErrorCode::UnknownOutcome, what));
            flight.stage = Stage::Waiting { until: now };
        }
        self.send(id, now);
    }

    fn complete(
        &mut self,
        request_id: u64,
        outcome: Result<crate::client::Receipt, ClusterError>,
        elapsed: Duration,
    ) {
        (self.on_completion)(Completion { request_id, outcome, elapsed });
    }

    fn send(&mut self, id: u64, now: Instant) {
        let acked_below = self.window.acked_below();
        let Some(flight) = self.window.flight(id) else { return };
        let (message, partition) = (flight.message.clone(), flight.partition);
        let sent = self.lane_for(partition, now).filter(|&lane| {
            self.open(lane);
            self.lanes[lane].send(EncodedRequest { message, acked_below })
        });
        self.anything_waits |= sent.is_none();
        let Some(flight) = self.window.flight(id) else { return };
        flight.stage = match sent {
            Some(lane) => Stage::Sent { lane, at: now },
            None => Stage::Waiting { until: now + TICK_BUSY },
        };
    }

    /// The lane of the partition's leader, else any that can be used.
    fn lane_for(&self, partition: Option<PartitionId>, now: Instant) -> Option<usize> {
        let leader = partition.and_then(|partition| self.leaders.get(&partition).copied());
        let count = self.lanes.len();
        let others = (0..count).map(|step| (self.preferred + step) % count);
        leader.into_iter().chain(others).find(|&lane| self.lanes[lane].is_usable(now))
    }

    fn open(&mut self, lane: usize) {
        if self.lanes[lane].is_open() {
            return;
        }
        // An address that cannot be dialled at all never becomes a lane: see `take_routes`.
        if let Ok(channel) = self.client.shared.channels.channel(&self.lanes[lane].address) {
            self.lanes[lane].open(lane, channel, self.events.clone());
        }
    }

    fn learn_leader(&mut self, partition: PartitionId, address: &str) {
        let known = self.leaders.get(&partition).map(|&lane| self.lanes[lane].address.as_str());
        if known == Some(address) {
            return;
        }
        self.client.routes().learn_leader(partition, address);
        if let Some(lane) = self.lane_of(address) {
            self.leaders.insert(partition, lane);
        }
    }

    fn lane_of(&mut self, address: &str) -> Option<usize> {
        if let Some(lane) = self.lanes.iter().position(|lane| lane.address == address) {
            return Some(lane);
        }
        self.client.shared.channels.channel(address).ok()?;
        self.lanes.push(Lane::new(address.to_owned()));
        Some(self.lanes.len() - 1)
    }

    /// Takes over the nodes and leaders that the client knows.
    fn take_routes(&mut self) {
        let routes = self.client.routes().clone();
        for address in routes.addresses() {
            self.lane_of(address);
        }
        for partition in (0..routes.partition_count()).map(PartitionId) {
            let leader = routes.leader_of(partition).and_then(|address| self.lane_of(address));
            if let Some(lane) = leader {
                self.leaders.insert(partition, lane);
            }
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.refreshed.is_some_and(|last| now - last < REFRESH_PAUSE) {
            return;
        }
        self.refreshed = Some(now);
        let (client, events) = (self.client.clone(), self.events.clone());
        tokio::spawn(async move {
            // Where no node answers, what is known stays; the engine may be gone by then.
            let _ = client.refresh().await;
            let _ = events.send(Event::Refreshed).await;
        });
    }
}
