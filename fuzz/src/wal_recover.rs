//! Recovery of the log from a disk that broke.
//!
//! The real writer lives through what the input chooses ([`history`]), on a disk that crashes, fills up and
//! fails; each time the log is opened in that life, exactly what was acknowledged comes back. Then the
//! disk is broken ([`damage`]) or forged ([`forge`]), and the log is opened once more. It opens or refuses
//! with a typed error, and by how much was broken, [`check`] says what must hold of it. Whatever opened
//! goes on: it takes another group, and opens again as it was.

mod check;
mod damage;
mod disk;
mod forge;
mod history;
mod model;

use kotoba_db_cluster::{
    raft::{Configuration, HardState, Index, Position, ReplicaId, SnapshotMeta, Term},
    storage::wal::{GroupId, GroupWrite, OpenError, Recovery, WalWriter},
};

use self::{damage::Extent, history::History};
use crate::{Situations, choices::Choices};

/// What the seeds reach together.
pub const SITUATIONS: &[&str] = &[
    "a crash",
    "a damaged group",
    "a failed flush",
    "a forged disk opened",
    "a forged disk refused",
    "a full disk",
    "a lost sector that was harmless",
    "a lost sector that was noticed",
    "a missing segment",
    "a refused log",
    "a segment begun for want of room",
    "a sound log",
    "a torn tail cut",
    "entries that cannot be read",
];

/// Lets a log live, breaks its disk, and opens it.
pub fn run(bytes: &[u8]) -> Situations {
    let mut situations = Situations::default();
    let mut choices = Choices::new(bytes);
    let history = history::live(&mut choices, &mut situations);
    let mut broken = history.disk.clone();
    let extent = damage::break_disk(&mut choices, &mut broken);
    match WalWriter::open(broken, history.options) {
        Ok((writer, recovery)) => {
            check::damaged(writer.disk(), &recovery, &history, extent);
            note(&mut situations, &recovery, extent);
            goes_on(writer, &recovery, &history, extent);
        }
        Err(error) => {
            check_refusal(&error, extent);
            let forged = extent == Extent::Forged;
            situations.reach(if forged { "a forged disk refused" } else { "a refused log" });
        }
    }
    situations
}

fn note(situations: &mut Situations, recovery: &Recovery, extent: Extent) {
    use kotoba_db_cluster::storage::wal::DamageKind;
    let damaged = recovery.groups.values().any(|group| group.damage.is_some());
    situations.reach_if(damaged, "a damaged group");
    let gone = recovery.damage.iter().any(|damage| damage.kind == DamageKind::Segment);
    situations.reach_if(gone, "a missing segment");
    let unreadable = recovery.groups.values().any(|group| !group.unreadable.is_empty());
    situations.reach_if(unreadable, "entries that cannot be read");
    situations.reach(match extent {
        Extent::Nothing => "a sound log",
        Extent::One if damaged => "a lost sector that was noticed",
        Extent::One => "a lost sector that was harmless",
        Extent::Several => return,
        Extent::Forged => "a forged disk opened",
    });
}

/// One broken sector never keeps a log from being opened.
fn check_refusal(error: &OpenError, extent: Extent) {
    match extent {
        Extent::Nothing | Extent::One => panic!("one broken sector, and the log does not open: {error}"),
        Extent::Several | Extent::Forged => assert!(!error.to_string().is_empty()),
    }
}

/// Whatever could be opened can be written, and opened again.
fn goes_on(
    mut writer: WalWriter<kotoba_db_cluster::storage::wal::MemDisk>,
    recovery: &Recovery,
    history: &History,
    extent: Extent,
) {
    let group = GroupId(77);
    let position = Position::new(Index(1), Term(1));
    let configuration = Configuration::of_voters([ReplicaId(1)]).expect("a voter");
    let write = GroupWrite {
        hard_state: Some(HardState { term: Term(1), vote: None }),
        install: Some(SnapshotMeta { position, configuration }),
        ..GroupWrite::of(group)
    };
    let written = writer.write(&[write]);
    if extent == Extent::Forged {
        // A forged number may be the last there is.
        return;
    }
    written.expect("a log that opened takes another group");
    let (_, mut again) =
        WalWriter::open(writer.disk().crash(|_| 0), history.options).expect("a log that opened opens again");
    let added = again.groups.remove(&group).expect("what was acknowledged comes back");
    assert_eq!((added.last(), added.damage), (position, None));
    check::stable(recovery, &again);
}
