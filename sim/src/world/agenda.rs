//! What will happen, in the order of true time; what is due at the same moment, in the order it was
//! planned.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::history::TrueTime;

/// Events to come.
#[derive(Clone, Debug)]
pub(crate) struct Agenda<E> {
    /// Time, order of planning, and the event's slot.
    due: BinaryHeap<Reverse<(TrueTime, u64, usize)>>,
    slots: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), planned: 0 }
    }
}

impl<E> Agenda<E> {
    /// Plans an event.
    pub(crate) fn plan(&mut self, at: TrueTime, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() - 1
            }
        };
        self.planned += 1;
        self.due.push(Reverse((at, self.planned, slot)));
    }

    /// When the next event is due.
    pub(crate) fn next_at(&self) -> Option<TrueTime> {
        self.due.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Takes the next event.
    pub(crate) fn pop(&mut self) -> Option<(TrueTime, E)> {
        let Reverse((at, _, slot)) = self.due.pop()?;
        let event = self.slots[slot].take().expect("a slot is filled until its event is due");
        self.free.push(slot);
        Some((at, event))
    }

    /// Events to come.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_planning() {
        let mut agenda = Agenda::default();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (3, 'd')] {
            agenda.plan(at, event);
        }
        assert_eq!(agenda.next_at(), Some(3));
        let mut order = String::new();
        while let Some((at, event)) = agenda.pop() {
            order.push(event);
            if event == 'b' {
                agenda.plan(at, 'e');
            }
        }
        assert_eq!(order, "bdeac");
        assert_eq!(agenda.len(), 0);
    }
}
