//! Drawing a run again: the same profile, the same kinds of choices, other luck.

use std::collections::{BTreeMap, BTreeSet};

use crate::choice::{Choice, Pace, Point, Seeded, Source, Topic};

/// The choices that are made once are those of another run; those of its topics are drawn; the rest
/// is calm.
#[derive(Clone, Debug)]
pub struct Redraw {
    once: BTreeMap<(Point, u32), u64>,
    asked: BTreeMap<Point, u32>,
    topics: BTreeSet<Topic>,
    luck: Seeded,
    thin: u64,
}

impl Redraw {
    /// A run like the one with these choices. Of its choices, one in `thin` is drawn, the others are
    /// calm.
    #[must_use]
    pub fn like(choices: &[Choice], salt: u64, thin: u64) -> Self {
        let is_once = |choice: &&Choice| choice.point.topic.pace() == Pace::Once;
        Self {
            once: choices
                .iter()
                .filter(is_once)
                .map(|choice| ((choice.point, choice.nth), choice.number))
                .collect(),
            asked: BTreeMap::new(),
            topics: choices.iter().map(|choice| choice.point.topic).collect(),
            luck: Seeded::new(salt),
            thin,
        }
    }

    fn is_drawn(&mut self, point: Point) -> bool {
        self.topics.contains(&point.topic) && self.luck.number(point, self.thin) == 0
    }
}

impl Source for Redraw {
    fn number(&mut self, point: Point, below: u64) -> u64 {
        if point.topic.pace() == Pace::Once {
            let asked = self.asked.entry(point).or_default();
            let number = self.once.get(&(point, *asked)).copied().unwrap_or(0);
            *asked += 1;
            return number.min(below - 1);
        }
        if self.is_drawn(point) { self.luck.number(point, below) } else { 0 }
    }

    fn boxed(&self) -> Box<dyn Source> {
        Box::new(self.clone())
    }
}
