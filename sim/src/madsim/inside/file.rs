//! One file of a simulated disk: what is written, and what would survive a crash.

use std::collections::{BTreeMap, BTreeSet};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
const SECTORS: u64 = (PAGE / SECTOR) as u64;

type Sector = [u8; SECTOR];

/// What the disk holds of a sector whose last write it has not made durable.
#[derive(Clone, Debug)]
struct Unsynced {
    durable: Sector,
    /// A flush that covered it failed: no later one makes it durable, only writing it again.
    doomed: bool,
}

/// How a sector fares in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It holds what was written last.
    Kept,
    /// It holds what was durable.
    Lost,
}

/// A file. Pages that were never written are zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    length: u64,
    unsynced: BTreeMap<u64, Unsynced>,
    durable_length: u64,
    /// Sectors that cannot be read until they are written again.
    unreadable: BTreeSet<u64>,
}

impl Contents {
    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Fills as much of `into` as the file has; returns how much that is. `None`: some of it cannot be
    /// read.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Option<usize> {
        let sectors = offset / SECTOR as u64..(offset + into.len() as u64).div_ceil(SECTOR as u64);
        if self.unreadable.range(sectors).next().is_some() {
            return None;
        }
        let there = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = into.len().min(there);
        let mut done = 0;
        while done < count {
            let (page, at) = place(offset + done as u64);
            let piece = (PAGE - at).min(count - done);
            match self.pages.get(&page) {
                Some(bytes) => into[done..done + piece].copy_from_slice(&bytes[at..at + piece]),
                None => into[done..done + piece].fill(0),
            }
            done += piece;
        }
        Some(count)
    }

    /// Pages that hold something.
    pub(super) fn pages(&self) -> Vec<u64> {
        self.pages.keys().copied().collect()
    }

    /// Changes a bit of a page, durably and unnoticed.
    pub(super) fn flip(&mut self, page: u64, at: usize, bit: u32) {
        if let Some(bytes) = self.pages.get_mut(&page) {
            bytes[at % PAGE] ^= 1 << (bit % 8);
        }
    }

    /// Makes a sector of a page unreadable.
    pub(super) fn lose(&mut self, page: u64, at: usize) {
        self.unreadable.insert(page * SECTORS + (at % PAGE / SECTOR) as u64);
    }

    /// Whether everything written is durable.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Whether a write there needs room that the file does not have yet.
    pub(super) fn grows(&self, offset: u64, length: usize) -> bool {
        offset + length as u64 > self.length
    }

    /// Writes bytes, beyond the end too.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (page, at) = place(offset + done as u64);
            let piece = (PAGE - at).min(bytes.len() - done);
            let bytes = &bytes[done..done + piece];
            done += piece;
            if !self.pages.contains_key(&page) && bytes.iter().all(|&byte| byte == 0) {
                continue;
            }
            self.remember(page, at, piece);
            let contents = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            contents[at..at + piece].copy_from_slice(bytes);
        }
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    /// Keeps what is durable of the sectors that are about to change.
    fn remember(&mut self, page: u64, at: usize, length: usize) {
        for within in at / SECTOR..(at + length).div_ceil(SECTOR) {
            let durable = self.pages.get(&page).map_or([0; SECTOR], |bytes| {
                bytes[within * SECTOR..][..SECTOR].try_into().expect("a sector of a page")
            });
            let number = page * SECTORS + within as u64;
            self.unreadable.remove(&number);
            let sector = self.unsynced.entry(number);
            sector.or_insert(Unsynced { durable, doomed: false }).doomed = false;
        }
    }

    /// Cuts it off, or extends it with zeros.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            let (first, at) = place(length);
            let touched: Vec<u64> = self.pages.range(first..).map(|(&page, _)| page).collect();
            for page in touched {
                let from = if page == first { at } else { 0 };
                self.remember(page, from, PAGE - from);
                self.pages.get_mut(&page).expect("listed just now")[from..].fill(0);
            }
        }
        self.length = length;
    }

    /// Everything written so far is durable, but for what an earlier flush failed to make so.
    pub(super) fn sync(&mut self) {
        self.unsynced.retain(|_, sector| sector.doomed);
        self.durable_length = self.length;
    }

    /// A flush fails: the system forgets that there was something to flush.
    pub(super) fn fail_sync(&mut self) {
        for sector in self.unsynced.values_mut() {
            sector.doomed = true;
        }
    }

    /// A crash: each sector that is not durable fares as `fate` says.
    pub(super) fn crash(&mut self, mut fate: impl FnMut() -> Fate) {
        if self.length != self.durable_length && fate() == Fate::Lost {
            self.length = self.durable_length;
        }
        for (sector, Unsynced { durable, .. }) in std::mem::take(&mut self.unsynced) {
            if fate() == Fate::Lost {
                let at = usize::try_from(sector % SECTORS).expect("few") * SECTOR;
                let page = self.pages.entry(sector / SECTORS).or_insert_with(|| Box::new([0; PAGE]));
                page[at..at + SECTOR].copy_from_slice(&durable);
            }
        }
        let (first, at) = place(self.length);
        self.pages.retain(|&page, _| page <= first);
        if let Some(bytes) = self.pages.get_mut(&first) {
            bytes[at..].fill(0);
        }
        self.durable_length = self.length;
    }
}

fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, usize::try_from(offset % PAGE as u64).expect("below a page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &Contents, length: usize) -> Vec<u8> {
        let mut bytes = vec![9; length];
        let count = file.read(0, &mut bytes);
        bytes.truncate(count.expect("every sector can be read"));
        bytes
    }

    #[test]
    fn what_was_synced_survives_and_the_rest_fares_sector_by_sector() {
        let mut file = Contents::default();
        file.write(0, &[1; 1024]);
        file.sync();
        file.write(0, &[2; 1024]);
        let mut fates = [Fate::Lost, Fate::Kept].into_iter();
        file.crash(|| fates.next().expect("two sectors"));
        assert_eq!(read(&file, 2048), [[1; 512], [2; 512]].concat());
    }

    #[test]
    fn a_length_that_is_not_durable_may_be_lost() {
        let mut file = Contents::default();
        file.write(0, &[1; 100]);
        file.sync();
        file.write(100, &[2; 5000]);
        file.crash(|| Fate::Lost);
        assert_eq!(read(&file, 9000), [1; 100]);
    }

    #[test]
    fn a_failed_flush_dooms_what_it_covered_until_it_is_written_again() {
        let mut file = Contents::default();
        file.write(0, &[1; 1024]);
        file.fail_sync();
        file.write(0, &[2; 512]);
        file.sync();
        file.crash(|| Fate::Lost);
        assert_eq!(read(&file, 1024), [[2; 512], [0; 512]].concat());
    }

    #[test]
    fn damage_stays_until_it_is_written_over() {
        let mut file = Contents::default();
        file.write(0, &[1; 2048]);
        file.sync();
        file.flip(0, 3, 1);
        assert_eq!(read(&file, 5), [1, 1, 1, 3, 1]);
        file.lose(0, 600);
        assert_eq!(file.read(0, &mut [0; 512]), Some(512));
        assert_eq!(file.read(511, &mut [0; 2]), None);
        assert_eq!(file.read(1024, &mut [0; 512]), Some(512));
        file.write(512, &[2; 512]);
        assert_eq!(read(&file, 1024)[512..], [2; 512]);
    }

    #[test]
    fn what_is_cut_off_reads_as_zeros_when_it_grows_again() {
        let mut file = Contents::default();
        file.write(0, &[7; 9000]);
        file.set_length(10);
        file.set_length(9000);
        assert_eq!(read(&file, 9000)[10..], [0; 8990]);
    }
}
