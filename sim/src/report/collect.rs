//! What the page shows, bounded, as the arrays its script reads. Times are microseconds.

use serde::Serialize;

use crate::{
    history::{End, TrueTime},
    machine::StateMachine,
    trace::{Detail, Kind, Line, LinkCondition, MessageKind, Role},
    world::World,
};

/// Messages on a page.
const MESSAGES_MAX: usize = 24_000;
/// Of them, votes and snapshots; lost ones; and any that arrive shortly before the end.
const IMPORTANT_MAX: usize = 9_000;
const LOST_MAX: usize = 4_000;
const NEAR_MAX: usize = 5_000;
const NEAR_NANOS: TrueTime = 2_000_000_000;
/// Messages that are told in words.
const WORDED_MAX: usize = 5_000;
const OPERATIONS_MAX: usize = 8_000;
const ROLES_MAX: usize = 12_000;
const MARKS_MAX: usize = 5_000;
const LINKS_MAX: usize = 10_000;
/// Characters of a text.
const TEXT_MAX: usize = 150;

/// Sent, arrived, from, to, kind, lost, group (0: several), term, words.
type Message = (u64, u64, u32, u32, u8, u8, u32, u64, String);
/// Client, serial, group, invoked, answered (-1: never), whether it reads, what, the answer.
type Operation = (u32, u64, u32, u64, i64, u8, String, String);

/// What the page shows.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    pub(super) end: u64,
    pub(super) hosts: usize,
    pub(super) clients: u32,
    groups: Vec<u32>,
    /// The failed check, when, and what it says.
    pub(super) check: Option<String>,
    pub(super) failed_at: u64,
    pub(super) message: String,
    /// How long a client waits at most.
    patience: u64,
    phases: Vec<(u64, String)>,
    /// For each host, from when on it is down (0), up (1), or stands still (2).
    states: Vec<Vec<(u64, u8)>>,
    /// From when on which host, group, role, term.
    roles: Vec<(u64, u32, u32, u8, u64)>,
    /// From, until, one host, the other, cut (1) or clogged (2).
    links: Vec<(u64, u64, u32, u32, u8)>,
    /// When, which host (-1: none), what kind, words.
    marks: Vec<(u64, i32, &'static str, String)>,
    messages: Vec<Message>,
    operations: Vec<Operation>,
    /// What did not fit, in words.
    #[serde(skip)]
    pub(super) omitted: Vec<String>,
}

pub(super) const fn micros(at: TrueTime) -> u64 {
    at / 1_000
}

impl Data {
    /// What a run shows that ended, with this violation if one.
    pub(super) fn of<M: StateMachine>(world: &World<M>, violation: Option<(String, String)>) -> Self {
        let lines = world.trace().lines();
        let end = micros(world.now());
        let profile = world.profile();
        let (check, message) = violation.unzip();
        let mut data = Self {
            end,
            hosts: world.hosts(),
            clients: profile.clients,
            groups: (1..=profile.groups).collect(),
            failed_at: end,
            check,
            message: message.unwrap_or_default(),
            patience: u64::try_from(profile.patience.0.as_micros()).unwrap_or(u64::MAX),
            phases: phases(lines),
            states: states(lines, world.hosts()),
            ..Self::default()
        };
        data.roles = data.bounded("changes of roles", roles(lines), ROLES_MAX);
        data.links = data.bounded("changes of links", links(lines, end), LINKS_MAX);
        data.marks = data.bounded("events of hosts", marks(lines), MARKS_MAX);
        data.choose_messages(lines, world.now());
        let operations = operations(world);
        data.operations = data.bounded("operations of clients", operations, OPERATIONS_MAX);
        data
    }

    /// Thins a list evenly, and keeps account of it.
    fn bounded<T>(&mut self, what: &str, list: Vec<T>, most: usize) -> Vec<T> {
        let all = list.len();
        let kept = thinned(list, most);
        if kept.len() < all {
            self.omitted.push(format!("{} of {all} {what}", all - kept.len()));
        }
        kept
    }

    /// Votes and snapshots first, then what was lost, then what came last, then some of the rest.
    fn choose_messages(&mut self, lines: &[Line], end: TrueTime) {
        let all: Vec<&Line> = lines.iter().filter(|line| message_kind(line).is_some()).collect();
        let near = |line: &Line| line.at + NEAR_NANOS >= end;
        let class = |line: &Line| match message_kind(line) {
            Some(kind) if is_important(kind) => 0,
            _ if line.kind == Kind::Lost => 1,
            _ if near(line) => 2,
            _ => 3,
        };
        let mut kept: Vec<(usize, &Line)> = Vec::new();
        for (of, most) in [(0, IMPORTANT_MAX), (1, LOST_MAX), (2, NEAR_MAX), (3, MESSAGES_MAX)] {
            let own: Vec<_> = all.iter().copied().enumerate().filter(|(_, line)| class(line) == of).collect();
            kept.extend(thinned(own, most.min(MESSAGES_MAX - kept.len())));
        }
        if kept.len() < all.len() {
            let text = format!(
                "{} of {} messages, none of them the last before the end",
                all.len() - kept.len(),
                all.len()
            );
            self.omitted.push(text);
        }
        let mut worded = WORDED_MAX;
        kept.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        self.messages = kept
            .into_iter()
            .filter_map(|(_, line)| {
                let words = worded > 0 && (is_important(message_kind(line)?) || near(line));
                worded -= usize::from(words);
                message(line, words)
            })
            .collect();
        self.messages.reverse();
    }
}

pub(super) fn thinned<T>(list: Vec<T>, most: usize) -> Vec<T> {
    let all = list.len();
    if all <= most {
        return list;
    }
    // The last one of each stretch is kept, so the last of all is.
    let keep = move |place: usize| (place + 1) * most / all > place * most / all;
    list.into_iter().enumerate().filter(|(place, _)| keep(*place)).map(|(_, item)| item).collect()
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    text.chars().take(TEXT_MAX - 1).chain(['…']).collect()
}

fn message_kind(line: &Line) -> Option<MessageKind> {
    match line.detail {
        Detail::Message { of, .. } => Some(of),
        Detail::None
        | Detail::Role { .. }
        | Detail::Started
        | Detail::Killed
        | Detail::Paused(_)
        | Detail::Wiped
        | Detail::Link(..) => None,
    }
}

const fn is_important(kind: MessageKind) -> bool {
    match kind {
        MessageKind::VoteAsk
        | MessageKind::VoteReply
        | MessageKind::SnapshotChunk
        | MessageKind::SnapshotReply => true,
        MessageKind::Append
        | MessageKind::AppendReply
        | MessageKind::Beat
        | MessageKind::BeatReply
        | MessageKind::Beats => false,
    }
}

fn message(line: &Line, words: bool) -> Option<Message> {
    let Detail::Message { group, term, of } = line.detail else { return None };
    let text = if words { shortened(&line.text) } else { String::new() };
    let lost = u8::from(line.kind == Kind::Lost);
    let sent = micros(line.sent.unwrap_or(line.at));
    Some((
        sent,
        micros(line.at),
        line.from?,
        line.host?,
        of as u8,
        lost,
        group.map_or(0, |group| group.0),
        term.0,
        text,
    ))
}

fn phases(lines: &[Line]) -> Vec<(u64, String)> {
    let begin = (0, "faults".to_owned());
    let later = lines.iter().filter(|line| line.kind == Kind::Phase);
    std::iter::once(begin).chain(later.map(|line| (micros(line.at), line.text.clone()))).collect()
}

fn states(lines: &[Line], hosts: usize) -> Vec<Vec<(u64, u8)>> {
    let mut states = vec![vec![(0, 0)]; hosts];
    for line in lines {
        let Some(own) = line.host.and_then(|host| states.get_mut(host as usize)) else { continue };
        let at = micros(line.at);
        // A pause ends by itself.
        if let Some(&(until, 1)) = own.last()
            && until > at
        {
            own.pop();
        }
        match line.detail {
            Detail::Started => own.push((at, 1)),
            Detail::Killed | Detail::Wiped => own.push((at, 0)),
            Detail::Paused(until) => own.extend([(at, 2), (micros(until), 1)]),
            Detail::None | Detail::Role { .. } | Detail::Message { .. } | Detail::Link(..) => {
                // Not about the process: the end of a pause stays.
            }
        }
    }
    states
}

fn roles(lines: &[Line]) -> Vec<(u64, u32, u32, u8, u64)> {
    let role = |line: &Line| {
        let Detail::Role { group, role, term } = line.detail else { return None };
        let role = match role {
            Role::Follower => 0,
            Role::Trial => 1,
            Role::Candidate => 2,
            Role::Leader => 3,
            Role::Faulted => 4,
            Role::Learner => 5,
        };
        Some((micros(line.at), line.host?, group.0, role, term.0))
    };
    lines.iter().filter_map(role).collect()
}

fn links(lines: &[Line], end: u64) -> Vec<(u64, u64, u32, u32, u8)> {
    let mut open: std::collections::BTreeMap<(u32, u32), (u64, u8)> = std::collections::BTreeMap::new();
    let mut links = Vec::new();
    for line in lines {
        let Detail::Link(one, other, condition) = line.detail else { continue };
        let at = micros(line.at);
        if let Some((since, state)) = open.remove(&(one, other)) {
            links.push((since, at, one, other, state));
        }
        match condition {
            LinkCondition::Open => {}
            LinkCondition::Cut => drop(open.insert((one, other), (at, 1))),
            LinkCondition::Clogged => drop(open.insert((one, other), (at, 2))),
        }
    }
    links.extend(open.into_iter().map(|((one, other), (since, state))| (since, end, one, other, state)));
    links
}

fn marks(lines: &[Line]) -> Vec<(u64, i32, &'static str, String)> {
    let kind = |line: &Line| match (line.kind, &line.detail) {
        (Kind::Process, Detail::Started) => Some("start"),
        (Kind::Process, Detail::Paused(_)) => Some("pause"),
        (Kind::Process, _) => Some("process"),
        (Kind::Disk, _) => Some("disk"),
        (Kind::Fault, _) => Some("fault"),
        (Kind::Members, _) => Some("members"),
        (Kind::Snapshot, _) => Some("snapshot"),
        (
            Kind::Message
            | Kind::Lost
            | Kind::Link
            | Kind::Role
            | Kind::Commit
            | Kind::Client
            | Kind::Phase
            | Kind::Violation,
            _,
        ) => None,
    };
    let mark = |line: &Line| {
        let host = line.host.and_then(|host| i32::try_from(host).ok()).unwrap_or(-1);
        Some((micros(line.at), host, kind(line)?, shortened(&line.text)))
    };
    lines.iter().filter_map(mark).collect()
}

fn operations<M: StateMachine>(world: &World<M>) -> Vec<Operation> {
    let operation = |operation: &crate::history::Operation<M::Operation, M::Answer>| {
        let (answered, answer) = match &operation.end {
            End::Answered { at, answer, .. } => {
                (i64::try_from(micros(*at)).unwrap_or(i64::MAX), shortened(&format!("{answer:?}")))
            }
            End::Unknown => (-1, String::new()),
        };
        let reads = u8::from(M::is_read(&operation.operation));
        let what = shortened(&format!("{:?}", operation.operation));
        let (client, serial, group) = (operation.client, operation.serial, operation.group.0);
        (client, serial, group, micros(operation.invoked), answered, reads, what, answer)
    };
    world.history().operations.iter().map(operation).collect()
}
