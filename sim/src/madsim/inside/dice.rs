//! The choices of a run, for everybody in it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::choice::{Chooser, Topic};

/// Shared choices.
#[derive(Clone, Debug)]
pub(super) struct Dice(Arc<Mutex<Chooser>>);

impl Dice {
    /// The choices of this chooser.
    pub(super) fn new(chooser: Chooser) -> Self {
        Self(Arc::new(Mutex::new(chooser)))
    }

    /// Chooses.
    pub(super) fn with<T>(&self, choose: impl FnOnce(&mut Chooser) -> T) -> T {
        choose(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A number below `below`.
    pub(super) fn below(&self, topic: Topic, of: u32, below: u64) -> u64 {
        self.with(|chooser| chooser.below(topic, of, below))
    }
}
