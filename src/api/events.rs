//! What happens in the cluster, as it happens.

use std::fmt;

use tokio::sync::broadcast::{self, error::RecvError};

use super::types::ClusterEvent;

/// A subscription to the cluster's events, from the moment it was taken.
#[derive(Debug)]
pub struct ClusterEvents(broadcast::Receiver<ClusterEvent>);

/// There will be no more events: the node was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsEnded;

impl fmt::Display for EventsEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the node was stopped, there will be no more events")
    }
}

impl std::error::Error for EventsEnded {}

impl ClusterEvents {
    pub(super) fn new(receiver: broadcast::Receiver<ClusterEvent>) -> Self {
        Self(receiver)
    }

    /// The next event. A subscriber that is far behind misses the oldest ones.
    ///
    /// # Errors
    /// Once the node was stopped.
    pub async fn recv(&mut self) -> Result<ClusterEvent, EventsEnded> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Ok(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Err(EventsEnded),
            }
        }
    }
}
