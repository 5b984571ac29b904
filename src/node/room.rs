//! Room on the disk.
//!
//! The log can wait on a full disk and go on; the graph store below the state machines cannot, and stops
//! for good. So the last bytes of a disk are not used: with less than a reserve free, the log begins no
//! segment, and the applier does nothing until there is room again. Meanwhile the node leads nothing.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use crate::runtime::{fs, thread};

/// Jobs between two looks at a disk that had room.
const JOBS_PER_LOOK: u32 = 16;

/// Watches the room on the disk of a directory.
#[derive(Debug)]
pub(crate) struct Room {
    directory: PathBuf,
    reserve_bytes: u64,
    poll_interval: Duration,
    /// Nobody waits for room any more.
    given_up: AtomicBool,
}

impl Room {
    pub(crate) fn new(directory: PathBuf, reserve_bytes: u64, poll_interval: Duration) -> Self {
        Self { directory, reserve_bytes, poll_interval, given_up: AtomicBool::new(false) }
    }

    /// Bytes to keep free.
    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    /// Lets everything pass: the node stops, whatever the disk says.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// Where it cannot be told, there is room: using it will tell.
    fn is_there(&self) -> bool {
        self.given_up.load(Relaxed)
            || fs::free_bytes(&self.directory).map_or(true, |free| free >= self.reserve_bytes)
    }
}

/// Stands before a thread's jobs and waits for room.
pub(crate) struct Gate<F> {
    room: std::sync::Arc<Room>,
    /// Hears that there is no room (`true`), and that there is again (`false`).
    full: F,
    jobs: u32,
}

impl<F: Fn(bool)> Gate<F> {
    pub(crate) fn new(room: std::sync::Arc<Room>, full: F) -> Self {
        Self { room, full, jobs: 0 }
    }

    /// Returns when the next job may be done.
    pub(crate) async fn pass(&mut self) {
        self.jobs = (self.jobs + 1) % JOBS_PER_LOOK;
        if self.jobs != 1 || self.room.is_there() {
            return;
        }
        (self.full)(true);
        while !self.room.is_there() {
            thread::sleep(self.room.poll_interval).await;
        }
        (self.full)(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    #[tokio::test]
    async fn jobs_wait_for_room_and_whoever_cares_is_told() {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let poll = Duration::from_millis(1);
        let room = Arc::new(Room::new(directory.path().to_owned(), u64::MAX, poll));
        let (told, hears) = mpsc::channel();
        let gives_up = Arc::clone(&room);
        let mut gate = Gate::new(room, move |full| {
            gives_up.give_up();
            told.send(full).expect("it is heard");
        });
        gate.pass().await;
        assert_eq!(hears.try_iter().collect::<Vec<_>>(), [true, false]);

        let room = Arc::new(Room::new(directory.path().to_owned(), 1, poll));
        let mut open = Gate::new(room, |_| panic!("there is room"));
        for _ in 0..100 {
            open.pass().await;
        }
    }
}
