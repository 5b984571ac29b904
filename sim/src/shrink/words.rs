//! A schedule to be read: a line for each choice, and behind those of a moment what came of them.

use crate::{
    choice::{Choice, Chooser, Recorded, Schedule, Topic},
    history::TrueTime,
    profile::{Profile, Scale},
    trace::{Kind, Line},
    world::FIRST_WAY,
};

/// Lines for the choices of a run, with the moment each was made, among `hosts` hosts; `lines` are
/// those of its trace.
#[must_use]
pub fn in_words(noted: &[(TrueTime, Choice)], lines: &[Line], hosts: usize) -> Vec<String> {
    let hosts = u32::try_from(hosts).unwrap_or(u32::MAX).max(1);
    let mut words = Vec::new();
    for (place, (at, choice)) in noted.iter().enumerate() {
        let time = std::time::Duration::from_nanos(*at).as_secs_f64();
        words.push(format!("{time:>10.6} s  {}", choice_in_words(choice, hosts)));
        if noted.get(place + 1).is_none_or(|(next, _)| next != at) {
            let came = lines.iter().filter(|line| line.at == *at && is_telling(line.kind));
            words.extend(came.map(|line| match line.host {
                Some(host) => format!("{:>14}→ host {host} {}", "", line.text),
                None => format!("{:>14}→ {}", "", line.text),
            }));
        }
    }
    words
}

fn is_telling(kind: Kind) -> bool {
    match kind {
        Kind::Process | Kind::Fault | Kind::Disk | Kind::Members | Kind::Phase | Kind::Violation => true,
        Kind::Message
        | Kind::Lost
        | Kind::Link
        | Kind::Role
        | Kind::Commit
        | Kind::Snapshot
        | Kind::Client => false,
    }
}

fn choice_in_words(choice: &Choice, hosts: u32) -> String {
    let (of, turn, number) = (choice.point.of, choice.point.turn, choice.number);
    let time = || format!("{:?}", std::time::Duration::from_nanos(number));
    let way = || match of.checked_sub(FIRST_WAY) {
        Some(client) => format!("between client {client} and a host"),
        None => format!("from host {} to {}", of / hosts, of % hosts),
    };
    match choice.point.topic {
        Topic::Profile => profile_in_words(choice),
        Topic::Core => format!("core: another order of hosts ({number})"),
        Topic::Fault => format!("fault {turn}: of kind {number}"),
        Topic::FaultTime => format!("fault {turn}: the next one {} later", time()),
        Topic::Victim => format!("fault {turn}: its victim ({number})"),
        Topic::Link => format!("fault {turn}: links ({number})"),
        Topic::Process => format!("fault {turn}: host {of} ({number})"),
        Topic::Disk => format!("fault {turn}: disk of host {of} ({number})"),
        Topic::Clock => format!("fault {turn}: clock of host {of} ({number})"),
        Topic::Members => format!("fault {turn}: members ({number})"),
        Topic::Client => format!("client {of}, turn {turn}: what it asks for ({number})"),
        Topic::ClientTime => format!("client {of}, turn {turn}: when it wakes next ({number})"),
        Topic::Asks => format!("client {of}, turn {turn}: asks"),
        Topic::Burst => format!("client {of}, turn {turn}: asks for {number} more at once"),
        Topic::Stray => format!("client {of}, turn {turn}: not who answered last"),
        Topic::Asked => format!("client {of}, turn {turn}: asks host {}", number - 1),
        Topic::Seed => format!("host {of}: another random number ({number})"),
        Topic::Message => format!("a message {} is lost", way()),
        Topic::Late => format!("a message {} is late", way()),
        Topic::Repeat => format!("a message {} arrives twice", way()),
        Topic::Replay => format!("a message {} arrives once more, later", way()),
        Topic::Delay => format!("a message {} takes {} longer", way(), time()),
        Topic::Flap => format!("a link turns over after {}", time()),
        Topic::Crash => format!("host {of}: what a crash does to its disk ({number})"),
        Topic::Down => format!("host {of}: stays down for {} more", time()),
        Topic::Hearsay => format!("host {of}: hears of a closed connection ({number})"),
        Topic::Aim => format!("killed or silenced around a message {} ({number})", way()),
        Topic::AimAtWrite => format!("host {of}: killed around a write"),
        Topic::Elected => format!("host {of}: dies soon after its election ({number})"),
        Topic::Stale => format!("host {of}: hears of a write of an earlier life ({number})"),
        Topic::Build => format!("host {of}: cannot build a snapshot"),
        Topic::DiskTime => format!("host {of}: its disk takes {} longer", time()),
        Topic::Chunk => format!("host {of}: a chunk of a snapshot is spoilt"),
        Topic::Tardy => format!("host {of}: does something late"),
        Topic::Scheduling => format!("host {of}: by {}", time()),
        Topic::Compaction => format!("host {of}: compacts its log ({number})"),
        Topic::Padding => format!("host {of}: its snapshot is {number} bytes longer"),
        Topic::Operator => format!("operator: impatient, or asks twice ({number})"),
    }
}

/// What is different from the calmest run there is.
fn profile_in_words(choice: &Choice) -> String {
    let draw = |choices| {
        let mut chooser = Chooser::new(Recorded::new(&Schedule { choices }));
        format!("{:#?}", Profile::draw(&mut chooser, Scale::Drawn))
    };
    let (calm, other) = (draw(Vec::new()), draw(vec![*choice]));
    let changed = calm.lines().zip(other.lines()).filter(|(calm, other)| calm != other);
    let tidy = |line: &str| line.trim().trim_end_matches(',').replace('_', " ");
    let changed: Vec<_> = changed
        .map(|(calm, other)| {
            let calm = tidy(calm);
            format!("{} (calm: {})", tidy(other), calm.rsplit(": ").next().unwrap_or(&calm))
        })
        .collect();
    match changed.as_slice() {
        [] => format!("profile: choice {} is {}, for what other ones say", choice.nth, choice.number),
        changed => format!("profile: {}", changed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{choice::Point, trace::Detail};

    fn noted(topic: Topic, of: u32, nth: u32, number: u64) -> (TrueTime, Choice) {
        (1_500_000_000, Choice { point: Point { topic, of, turn: 4 }, nth, number })
    }

    #[test]
    fn every_topic_has_words() {
        for topic in Topic::ALL {
            let words = in_words(&[noted(*topic, 2, 0, 1)], &[], 3);
            assert_eq!(words.len(), 1);
            assert!(words[0].starts_with("  1.500000 s  ") && words[0].len() > 20, "{words:?}");
        }
    }

    #[test]
    fn a_choice_is_told_with_what_came_of_it() {
        let killed = Line {
            at: 1_500_000_000,
            kind: Kind::Process,
            host: Some(2),
            from: None,
            sent: None,
            detail: Detail::None,
            text: "is killed".to_owned(),
        };
        let words = in_words(&[noted(Topic::Fault, 0, 0, 3), noted(Topic::Message, 5, 0, 1)], &[killed], 3);
        assert_eq!(words[0], "  1.500000 s  fault 4: of kind 3");
        assert_eq!(words[1], "  1.500000 s  a message from host 1 to 2 is lost");
        assert_eq!(words[2].trim(), "→ host 2 is killed");
    }

    #[test]
    fn the_profile_is_told_by_what_it_changes() {
        let choice = Choice { point: Point { topic: Topic::Profile, of: 0, turn: 0 }, nth: 0, number: 2 };
        assert_eq!(choice_in_words(&choice, 3), "profile: hosts: 5 (calm: 3)");
    }
}
