//! What a disk does to a log: one thing it promises to notice, or more than it can.

use kotoba_db_cluster::storage::wal::{Disk, MemDisk, ReadDisk};

use crate::choices::Choices;

/// How much was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing: what a crash left.
    Nothing,
    /// One bit or one sector: never silent.
    One,
    /// Several, or whole files: nothing is invented, and more is not promised.
    Several,
    /// Structures with right checksums that say what no writer would: nothing panics.
    Forged,
}

const SECTOR: usize = 512;

/// Breaks a disk.
pub(super) fn break_disk(choices: &mut Choices<'_>, disk: &mut MemDisk) -> Extent {
    match choices.below(8) {
        0 => Extent::Nothing,
        1..=3 => {
            break_sector(choices, disk);
            Extent::One
        }
        4 => {
            for _ in 0..2 + choices.below(6) {
                break_sector(choices, disk);
            }
            Extent::Several
        }
        5 | 6 => {
            for _ in 0..=choices.below(3) {
                break_file(choices, disk);
            }
            Extent::Several
        }
        _ => {
            for _ in 0..=choices.below(4) {
                super::forge::forge(choices, disk);
            }
            Extent::Forged
        }
    }
}

pub(super) fn pick_file(choices: &mut Choices<'_>, disk: &MemDisk) -> Option<(String, Vec<u8>)> {
    let names = disk.list().expect("a disk in memory lists its files");
    if names.is_empty() {
        return None;
    }
    let name = names[choices.place(names.len())].clone();
    let contents = disk.contents(&name).expect("it is listed").to_vec();
    Some((name, contents))
}

/// A place where something is written, mostly.
fn pick_offset(choices: &mut Choices<'_>, contents: &[u8]) -> usize {
    let at = choices.place(contents.len());
    if choices.once_in(8) {
        return at;
    }
    contents[at..].iter().position(|&byte| byte != 0).map_or(at, |further| at + further)
}

fn break_sector(choices: &mut Choices<'_>, disk: &mut MemDisk) {
    let Some((name, mut contents)) = pick_file(choices, disk) else { return };
    if contents.is_empty() {
        return;
    }
    let at = pick_offset(choices, &contents);
    let start = at - at % SECTOR;
    let sector = start..(start + SECTOR).min(contents.len());
    match choices.below(5) {
        0 | 1 => disk.flip_bit(&name, at, u32::try_from(choices.below(8)).expect("small")),
        2 => disk.lose_sector(&name, at),
        3 => {
            contents[sector].fill(0);
            disk.put(&name, contents);
        }
        _ => {
            // A write that went to the wrong place.
            let Some((_, other)) = pick_file(choices, disk) else { return };
            let from = pick_offset(choices, &other);
            let other = &other[from - from % SECTOR..];
            let length = sector.len().min(other.len());
            contents[start..start + length].copy_from_slice(&other[..length]);
            disk.put(&name, contents);
        }
    }
}

fn break_file(choices: &mut Choices<'_>, disk: &mut MemDisk) {
    let Some((name, mut contents)) = pick_file(choices, disk) else { return };
    match choices.below(6) {
        0 => {
            contents.truncate(choices.place(contents.len() + 1));
            disk.put(&name, contents);
        }
        1 => {
            contents.resize(contents.len() + choices.place(9_000), 0);
            disk.put(&name, contents);
        }
        2 => disk.remove(&name).expect("a disk in memory removes"),
        3 => {
            let Some((other, others)) = pick_file(choices, disk) else { return };
            disk.put(&name, others);
            disk.put(&other, contents);
        }
        4 => {
            let number = choices.below(12);
            disk.put(&format!("{number:020}.wal"), contents);
        }
        _ => {
            let number = if choices.once_in(4) { u64::from(u32::MAX) } else { choices.below(12) };
            let bytes = choices.bytes(300).to_vec();
            disk.put(&format!("{number:020}.wal"), bytes);
        }
    }
}
