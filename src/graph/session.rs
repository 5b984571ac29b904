//! Exactly-once execution: what a partition remembers of each client's requests.
//!
//! A client numbers its requests; ids may arrive out of order and with gaps, because one client spreads
//! over many partitions. Per client the partition keeps the outcomes of the largest
//! [`SESSION_OUTCOMES_MAX`] ids; `open_from` is the first id that may still be executed. So an id is
//! either remembered (the first outcome is the answer), or not below `open_from` (it is new), or refused:
//! never executed twice (Raft thesis, section 6.3).
//!
//! Sessions end by log position, never by a clock: after [`IDLE_ENTRIES`] entries without a request the
//! outcomes go, and a stub stays that refuses every id up to the largest one seen. The work is done in
//! bounded steps by the entries that come later, so every replica does the same at the same entry.
//!
//! The rows are the truth; recently used sessions are cached in memory. A session that changed is written
//! once per batch, by [`Sessions::save`].

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
};

use bytes::Bytes;

use crate::{
    graph::{
        command::{Fingerprint, RequestId},
        digest::row_sum,
        outcome::{GraphError, Outcome, decode_outcome, encode_outcome},
        overlay::{Before, Overlay},
        rows::{self, COUNTERS, KEY_PREFIX, OUTCOME, SESSION, key},
    },
    limits::SESSION_OUTCOMES_MAX,
    raft::{GroupId, Index},
    storage::graph_store::{KeyRange, ReadView, StoreError},
};

/// Log entries of the partition without a request after which a client's outcomes are forgotten.
pub const IDLE_ENTRIES: u64 = 1 << 20;
pub use crate::limits::CLIENTS_MAX;
/// A sweep comes every so many entries, looks at so many sessions …
const SWEEP_SESSIONS: u64 = 32;
/// … and forgets at most so many outcomes.
const SWEEP_OUTCOMES: usize = 256;
/// Ids that the sessions in memory may hold together between two batches.
const CACHED_IDS_MAX: usize = 64 << 10;

/// Sixteen bytes of BLAKE3 of the client's id: keys of one length, whatever a client calls itself.
type ClientKey = [u8; 16];

fn client_key(client_id: &str) -> ClientKey {
    let mut key = ClientKey::default();
    key.copy_from_slice(&blake3::hash(client_id.as_bytes()).as_bytes()[..16]);
    key
}

/// Figures of all sessions of a group, in one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    sessions: u64,
    swept_at: u64,
    /// The sweep goes on behind this client.
    cursor: ClientKey,
}

impl Counters {
    pub(crate) fn key(group: GroupId) -> Vec<u8> {
        key(group, COUNTERS, &[])
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32);
        out.extend_from_slice(&self.sessions.to_le_bytes());
        out.extend_from_slice(&self.swept_at.to_le_bytes());
        out.extend_from_slice(&self.cursor);
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (sessions, rest) = bytes.split_first_chunk()?;
            let (swept_at, cursor) = rest.split_first_chunk()?;
            Some(Self {
                sessions: u64::from_le_bytes(*sessions),
                swept_at: u64::from_le_bytes(*swept_at),
                cursor: cursor.try_into().ok()?,
            })
        };
        parse().ok_or(StoreError::Damaged("a group's counters"))
    }
}

/// The row of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SessionRow {
    /// The first id that may still be executed.
    open_from: u64,
    last_used: Index,
    outcomes: u32,
    client_id: String,
}

impl SessionRow {
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(20 + self.client_id.len());
        out.extend_from_slice(&self.open_from.to_le_bytes());
        out.extend_from_slice(&self.last_used.0.to_le_bytes());
        out.extend_from_slice(&self.outcomes.to_le_bytes());
        out.extend_from_slice(self.client_id.as_bytes());
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let parse = || {
            let (open_from, rest) = bytes.split_first_chunk()?;
            let (last_used, rest) = rest.split_first_chunk()?;
            let (outcomes, client_id) = rest.split_first_chunk()?;
            Some(Self {
                open_from: u64::from_le_bytes(*open_from),
                last_used: Index(u64::from_le_bytes(*last_used)),
                outcomes: u32::from_le_bytes(*outcomes),
                client_id: std::str::from_utf8(client_id).ok()?.to_owned(),
            })
        };
        parse().ok_or(StoreError::Damaged("a session"))
    }
}

/// A remembered request: its id and what its outcome's row adds to the digest.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    id: u64,
    sum: u128,
}

/// A session in memory.
#[derive(Clone, Debug)]
struct Session {
    client: ClientKey,
    row: SessionRow,
    /// By id, ascending.
    window: VecDeque<Remembered>,
    /// What its row adds to the digest; `None` where there is no row yet.
    saved: Option<u128>,
    /// Whether the row is to be written.
    changed: bool,
}

/// A request without its operation.
pub(crate) struct Request {
    client: ClientKey,
    client_id: String,
    request_id: RequestId,
    acked_below: RequestId,
    print: Fingerprint,
}

impl Request {
    pub(crate) fn new(
        client_id: String,
        request_id: RequestId,
        acked_below: RequestId,
        print: Fingerprint,
    ) -> Self {
        Self { client: client_key(&client_id), client_id, request_id, acked_below, print }
    }
}

/// What the session says to a request.
pub(crate) enum Admission {
    /// Execute it, then [`Sessions::remember`] the outcome.
    New,
    /// Do not execute it; this is the answer.
    Answer(Outcome),
}

/// The sessions of a group.
#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    group: GroupId,
    counters: Counters,
    cache: BTreeMap<ClientKey, Session>,
    /// Sessions in the cache whose rows are to be written.
    changed: Vec<ClientKey>,
}

impl Sessions {
    pub(crate) fn load(view: &impl ReadView, group: GroupId) -> Result<Self, StoreError> {
        let row = view.get(&Counters::key(group))?;
        let counters = row.map(|row| Counters::decode(&row)).transpose()?.unwrap_or_default();
        Ok(Self { group, counters, cache: BTreeMap::new(), changed: Vec::new() })
    }

    /// Between two batches: keeps the memory bounded. The rows hold everything.
    pub(crate) fn trim(&mut self) {
        let cached: usize = self.cache.values().map(|session| 1 + session.window.len()).sum();
        if cached > CACHED_IDS_MAX {
            self.cache.clear();
        }
    }

    /// Decides whether a request is to be executed.
    pub(crate) fn admit<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        request: &Request,
        index: Index,
    ) -> Result<Admission, StoreError> {
        let client = request.client;
        if !self.open(overlay, client)? {
            if self.counters.sessions >= CLIENTS_MAX {
                return Ok(Admission::Answer(Err(GraphError::TooManyClients)));
            }
            self.create(overlay, client, &request.client_id)?;
        }
        let group = self.group;
        let session = self.session(client);
        session.forget_below(group, overlay, request.acked_below);
        let id = request.request_id.0;
        let remembered = session.position(id).is_ok();
        if !remembered && id >= session.row.open_from {
            return Ok(Admission::New);
        }
        session.row.last_used = index;
        self.note_change(client);
        if remembered {
            let row = overlay.get(outcome_key(group, client, id))?;
            return recall(row.as_deref(), &request.print).map(Admission::Answer);
        }
        Ok(Admission::Answer(Err(GraphError::SessionExpired)))
    }

    /// Remembers the outcome of a request that was just executed.
    pub(crate) fn remember<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        request: &Request,
        index: Index,
        outcome: &Outcome,
    ) {
        let (group, client) = (self.group, request.client);
        let session = self.session(client);
        session.row.last_used = index;
        if !mutant!(M53) {
            session.insert(group, overlay, request, outcome);
        }
        let kept = if mutant!(M56) { 2 } else { SESSION_OUTCOMES_MAX };
        while session.window.len() > kept {
            session.forget_smallest(group, overlay);
        }
        self.note_change(client);
    }

    /// Writes the rows of sessions that changed. Must be called before a batch ends.
    pub(crate) fn save<S: ReadView>(&mut self, overlay: &mut Overlay<'_, S>) {
        for client in std::mem::take(&mut self.changed) {
            let group = self.group;
            self.session(client).save(group, overlay);
        }
    }

    fn note_change(&mut self, client: ClientKey) {
        let session = self.session(client);
        if !std::mem::replace(&mut session.changed, true) {
            self.changed.push(client);
        }
    }

    /// Ends sessions that have been idle for long, a bounded number at a time.
    pub(crate) fn sweep<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        index: Index,
    ) -> Result<(), StoreError> {
        if index.0 < self.counters.swept_at.saturating_add(SWEEP_SESSIONS) {
            return Ok(());
        }
        self.counters.swept_at = index.0;
        let sessions = self.behind_cursor(overlay)?;
        let ended = (sessions.len() as u64) < SWEEP_SESSIONS;
        let mut budget = SWEEP_OUTCOMES;
        for (client, last_used) in sessions {
            if last_used.is_some_and(|last_used| last_used.0.saturating_add(IDLE_ENTRIES) <= index.0) {
                budget = self.expire(overlay, client, budget)?;
                if budget == 0 {
                    // The same client is looked at again: the cursor stays before it.
                    return self.store_counters(overlay);
                }
            }
            self.counters.cursor = client;
        }
        if ended {
            self.counters.cursor = ClientKey::default();
        }
        self.store_counters(overlay)
    }

    /// The next sessions of the sweep, and when those that have outcomes were last used.
    fn behind_cursor<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
    ) -> Result<Vec<(ClientKey, Option<Index>)>, StoreError> {
        let cursor = self.counters.cursor;
        if self.cache.len() as u64 == self.counters.sessions {
            // All are in memory: few clients are the usual case, and a scan is dear.
            let behind = self.cache.range((Bound::Excluded(cursor), Bound::Unbounded));
            let used = |session: &Session| (!session.window.is_empty()).then_some(session.row.last_used);
            let sessions = behind.map(|(&client, session)| (client, used(session)));
            return Ok(sessions.take(SWEEP_SESSIONS as usize).collect());
        }
        self.save(overlay);
        let range = KeyRange::prefix(&key(self.group, SESSION, &[]));
        let range = range.after(&key(self.group, SESSION, &[&cursor]));
        let rows = overlay.scan(&range, SWEEP_SESSIONS as usize)?;
        let session = |(key, row): (Vec<u8>, Bytes)| {
            let row = SessionRow::decode(&row)?;
            let client = key[KEY_PREFIX..].try_into().map_err(|_| StoreError::Damaged("a session's key"))?;
            Ok((client, (row.outcomes > 0).then_some(row.last_used)))
        };
        rows.into_iter().map(session).collect()
    }

    /// Forgets up to `budget` outcomes of a session; returns what is left of the budget.
    fn expire<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        client: ClientKey,
        mut budget: usize,
    ) -> Result<usize, StoreError> {
        let group = self.group;
        if !self.open(overlay, client)? {
            return Err(StoreError::Damaged("a session"));
        }
        let session = self.session(client);
        while budget > 0 && !session.window.is_empty() {
            session.forget_smallest(group, overlay);
            budget -= 1;
        }
        self.note_change(client);
        Ok(budget)
    }

    /// Brings a session into memory; false where there is none.
    fn open<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        client: ClientKey,
    ) -> Result<bool, StoreError> {
        if self.cache.contains_key(&client) {
            return Ok(true);
        }
        let row_key = key(self.group, SESSION, &[&client]);
        let row = overlay.get(row_key.clone())?;
        let Some(row) = row.filter(|_| !mutant!(M55)) else {
            return Ok(false);
        };
        let saved = Some(row_sum(&row_key, &row));
        let row = SessionRow::decode(&row)?;
        let range = KeyRange::prefix(&key(self.group, OUTCOME, &[&client]));
        // One more than there may be, so that a disagreement shows.
        let outcomes = overlay.scan(&range, row.outcomes as usize + 1)?;
        if outcomes.len() != row.outcomes as usize {
            return Err(StoreError::Damaged("a session's outcomes"));
        }
        let mut window = VecDeque::with_capacity(outcomes.len());
        for (key, value) in outcomes {
            let (_, id) = key.split_last_chunk().ok_or(StoreError::Damaged("an outcome's key"))?;
            window.push_back(Remembered { id: u64::from_be_bytes(*id), sum: row_sum(&key, &value) });
        }
        self.cache.insert(client, Session { client, row, window, saved, changed: false });
        Ok(true)
    }

    fn create<S: ReadView>(
        &mut self,
        overlay: &mut Overlay<'_, S>,
        client: ClientKey,
        client_id: &str,
    ) -> Result<(), StoreError> {
        self.counters.sessions += 1;
        self.store_counters(overlay)?;
        let row =
            SessionRow { open_from: 0, last_used: Index::ZERO, outcomes: 0, client_id: client_id.to_owned() };
        let session = Session { client, row, window: VecDeque::new(), saved: None, changed: false };
        self.cache.insert(client, session);
        Ok(())
    }

    fn store_counters<S: ReadView>(&self, overlay: &mut Overlay<'_, S>) -> Result<(), StoreError> {
        overlay.replace(Counters::key(self.group), self.counters.encode())
    }

    fn session(&mut self, client: ClientKey) -> &mut Session {
        self.cache.get_mut(&client).expect("the session was opened for this request")
    }
}

impl Session {
    fn position(&self, id: u64) -> Result<usize, usize> {
        // Ids mostly come in order: look at the end first.
        match self.window.back() {
            None => Err(0),
            Some(last) if last.id < id => Err(self.window.len()),
            Some(_) => self.window.binary_search_by_key(&id, |remembered| remembered.id),
        }
    }

    fn insert<S: ReadView>(
        &mut self,
        group: GroupId,
        overlay: &mut Overlay<'_, S>,
        request: &Request,
        outcome: &Outcome,
    ) {
        let id = request.request_id.0;
        let at = self.position(id).expect_err("a request is executed only while it is not remembered");
        let key = outcome_key(group, self.client, id);
        let mut value = Vec::with_capacity(16 + 73);
        value.extend_from_slice(&request.print);
        encode_outcome(outcome, &mut value);
        let sum = row_sum(&key, &value);
        self.window.insert(at, Remembered { id, sum });
        overlay.put_summed(key, value.into(), sum, Before::Absent);
    }

    fn forget_below<S: ReadView>(&mut self, group: GroupId, overlay: &mut Overlay<'_, S>, bound: RequestId) {
        while self.window.front().is_some_and(|first| first.id < bound.0) {
            self.forget_smallest(group, overlay);
        }
        self.close_below(bound.0);
    }

    /// Ids below `bound` are never executed from now on.
    fn close_below(&mut self, bound: u64) {
        if !mutant!(M57) {
            self.row.open_from = self.row.open_from.max(bound);
        }
    }

    fn forget_smallest<S: ReadView>(&mut self, group: GroupId, overlay: &mut Overlay<'_, S>) {
        if let Some(Remembered { id, sum }) = self.window.pop_front() {
            self.close_below(id.saturating_add(1));
            overlay.remove(outcome_key(group, self.client, id), Before::Sum(sum));
        }
    }

    fn save<S: ReadView>(&mut self, group: GroupId, overlay: &mut Overlay<'_, S>) {
        self.row.outcomes = u32::try_from(self.window.len()).expect("a window is bounded");
        let (key, value) = (key(group, SESSION, &[&self.client]), self.row.encode());
        let sum = row_sum(&key, &value);
        let before = self.saved.map_or(Before::Absent, Before::Sum);
        overlay.put_summed(key, value, sum, before);
        (self.saved, self.changed) = (Some(sum), false);
    }
}

fn outcome_key(group: GroupId, client: ClientKey, id: u64) -> Vec<u8> {
    rows::key(group, OUTCOME, &[&client, &id.to_be_bytes()])
}

fn recall(row: Option<&[u8]>, print: &Fingerprint) -> Result<Outcome, StoreError> {
    let damaged = StoreError::Damaged("an outcome");
    let (first, outcome) = row.and_then(|row| row.split_first_chunk()).ok_or(damaged.clone())?;
    if first != print && !mutant!(M58) {
        return Ok(Err(GraphError::RequestReused));
    }
    decode_outcome(outcome).ok_or(damaged)
}
