//! Files of zeros for segments to come, prepared before they are needed.

use alloc::{format, string::String};

use super::{
    WalWriter,
    segment::{Begin, SEGMENT_UNIT},
};
use crate::{
    raft::WriteFault,
    storage::wal::{Disk, DiskError},
};

/// How the name of a file ends that is no segment yet.
pub(super) const SPARE_SUFFIX: &str = ".spare";

/// An empty segment file to be prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareOrder {
    pub(super) name: String,
    pub(super) length: u64,
}

/// An empty segment file that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpareReady(SpareOrder);

/// Prepares the file of a segment to come. May run on another thread than the writer.
///
/// # Errors
/// Where the disk fails or is full; the file is then removed again.
pub fn prepare_spare(disk: &mut impl Disk, order: SpareOrder) -> Result<SpareReady, DiskError> {
    match disk.create_zeroed(&order.name, order.length) {
        Ok(()) => Ok(SpareReady(order)),
        Err(error) => {
            // The first error is the one to tell; the file is removed at the next start at the latest.
            let _ = disk.remove(&order.name);
            Err(error)
        }
    }
}

impl<D: Disk> WalWriter<D> {
    /// The file the next segment will need, if none is ready. Each call names another file.
    #[must_use]
    pub fn order_spare(&mut self) -> Option<SpareOrder> {
        if self.spare.is_some() {
            return None;
        }
        Some(self.new_order(self.options.segment_bytes))
    }

    /// Takes a file that was prepared.
    pub fn offer_spare(&mut self, spare: SpareReady) {
        if let Some(unused) = self.spare.replace(spare) {
            // Left over at worst until the next start.
            let _ = self.disk.remove(&unused.0.name);
        }
    }

    fn new_order(&mut self, length: u64) -> SpareOrder {
        self.spares_ordered += 1;
        let name = format!("{:020}-{}{SPARE_SUFFIX}", self.segment.number.0, self.spares_ordered);
        SpareOrder { name, length: length.next_multiple_of(SEGMENT_UNIT) }
    }

    /// A file of zeros that is at least this long.
    pub(super) fn take_spare(&mut self, length: u64) -> Result<SpareOrder, Begin> {
        if let Some(SpareReady(spare)) = self.spare.take_if(|spare| spare.0.length >= length) {
            return Ok(spare);
        }
        let order = self.new_order(length);
        match prepare_spare(&mut self.disk, order) {
            Ok(SpareReady(spare)) => Ok(spare),
            Err(DiskError::Full) => Err(Begin::Full),
            Err(error) => Err(Begin::Failed(WriteFault::WriteFailed, error)),
        }
    }
}
