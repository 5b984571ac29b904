//! What is tried to go together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{Key, key};
use crate::choice::{Choice, Pace, Topic};

/// All choices of a topic; those with most choices first.
pub(super) fn topics(choices: &[Choice]) -> Vec<BTreeSet<Key>> {
    largest_first(group(choices, |choice| Some(choice.point.topic)))
}

/// All choices of a topic for one host, link or client.
pub(super) fn places(choices: &[Choice]) -> Vec<BTreeSet<Key>> {
    let place = |choice: &Choice| (choice.point.topic, choice.point.of);
    let by_topic = group(choices, |choice| (choice.point.topic != Topic::Profile).then(|| place(choice)));
    let mut cuts = largest_first(by_topic);
    // All that is about one client.
    let client = |choice: &Choice| (choice.point.topic.pace() == Pace::Clients).then_some(choice.point.of);
    cuts.extend(largest_first(group(choices, client)));
    cuts
}

/// All that belongs to one fault, or to one turn of a client; the last ones first.
pub(super) fn turns(choices: &[Choice]) -> Vec<BTreeSet<Key>> {
    // When it happens stays: what happens later hangs on that.
    let is_time = |choice: &Choice| matches!(choice.point.topic, Topic::FaultTime | Topic::ClientTime);
    let turn = |choice: &Choice| match choice.point.topic.pace() {
        _ if is_time(choice) => None,
        Pace::Once | Pace::Moments => None,
        Pace::Faults => Some((choice.point.turn, None)),
        Pace::Clients => Some((choice.point.turn, Some(choice.point.of))),
    };
    let turns = group(choices, turn);
    if turns.len() > TURNS_MAX { Vec::new() } else { turns.into_values().rev().collect() }
}

/// With more turns than this, pieces are the better way.
const TURNS_MAX: usize = 200;

/// The lesser half of the numbers of a topic: of delays, those that hardly are any.
pub(super) fn lesser_halves(choices: &[Choice]) -> Vec<BTreeSet<Key>> {
    let mut cuts = Vec::new();
    for topic in Topic::ALL {
        let mut own: Vec<_> = choices.iter().filter(|choice| choice.point.topic == *topic).collect();
        own.sort_by_key(|choice| choice.number);
        let mut length = own.len();
        while length >= HALVED_MIN && *topic != Topic::Profile {
            length /= 2;
            cuts.push(own[..length].iter().map(|choice| key(choice)).collect());
            if cuts.len() > 3 * Topic::ALL.len() {
                break;
            }
        }
    }
    cuts
}

const HALVED_MIN: usize = 32;

/// This many pieces of about the same size; the last ones first: what comes late matters least for
/// how the run got there.
pub(super) fn pieces(choices: &[Choice], pieces: usize) -> Vec<BTreeSet<Key>> {
    let size = choices.len().div_ceil(pieces.max(1)).max(1);
    choices.rchunks(size).map(|piece| piece.iter().map(key).collect()).collect()
}

/// Each choice of a topic by itself; the last ones first.
pub(super) fn singles_of(choices: &[Choice], topic: Topic) -> Vec<BTreeSet<Key>> {
    let own = choices.iter().rev().filter(|choice| choice.point.topic == topic);
    own.map(|choice| BTreeSet::from([key(choice)])).collect()
}

fn group<K: Ord>(choices: &[Choice], by: impl Fn(&Choice) -> Option<K>) -> BTreeMap<K, BTreeSet<Key>> {
    let mut groups: BTreeMap<K, BTreeSet<Key>> = BTreeMap::new();
    for choice in choices {
        if let Some(group) = by(choice) {
            groups.entry(group).or_default().insert(key(choice));
        }
    }
    groups
}

fn largest_first<K: Ord>(groups: BTreeMap<K, BTreeSet<Key>>) -> Vec<BTreeSet<Key>> {
    let mut cuts: Vec<_> = groups.into_values().collect();
    cuts.sort_by_key(|cut| Reverse(cut.len()));
    cuts
}
