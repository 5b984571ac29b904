//! Linearizable reads without log entries (thesis, section 6.4).
//!
//! A read is served at the commit index of the moment it joined a *round*, once a majority has
//! answered that round. Rounds are numbered by the leader itself, so that no late answer can
//! confirm a read that came after it was sent; reads that arrive while a round is under way share
//! the next one.

use alloc::vec::Vec;

use super::{
    contract::{BusyReason, Output, Refusal},
    quorum,
    replica::Replica,
    role::Role,
    types::{Index, Now, ReadId, Round},
};

impl Replica {
    /// A client wants to read.
    pub(super) fn read(&mut self, now: Now, read: ReadId) {
        let refused = match &self.role {
            Role::Leader(leader) => (leader.reads.count >= self.settings.limits.reads_waiting)
                .then_some(Refusal::Busy(BusyReason::ReadsWaiting)),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Faulted(_) => {
                Some(self.not_leader())
            }
        };
        if let Some(reason) = refused {
            self.outputs.push_back(Output::ReadRefused { read, reason });
            return;
        }
        if mutant!(M34) {
            self.outputs.push_back(Output::ReadReady { read, index: self.commit });
            return;
        }
        if let Some(leader) = self.leader_mut() {
            match leader.reads.confirming.back_mut() {
                Some((_, _, reads)) if mutant!(M35) => reads.push(read),
                Some(_) | None => leader.reads.queued.push(read),
            }
            leader.reads.count += 1;
        }
        self.start_waiting_reads(now);
    }

    /// Starts a round for the reads that wait, unless one is under way. Before the leader has
    /// committed in its own term it does not know what is committed, and no read may be served.
    pub(super) fn start_waiting_reads(&mut self, now: Now) {
        let commit = self.commit;
        let Role::Leader(leader) = &self.role else { return };
        if leader.reads.queued.is_empty()
            || !leader.reads.confirming.is_empty()
            || commit < leader.first_of_term && !mutant!(B18)
        {
            return;
        }
        self.start_round(now);
        if let Some(leader) = self.leader_mut() {
            let reads = core::mem::take(&mut leader.reads.queued);
            leader.reads.confirming.push_back((leader.round, commit, reads));
        }
        self.confirm_reads(now);
    }

    /// Serves the reads of every round that a majority has answered.
    pub(super) fn confirm_reads(&mut self, now: Now) {
        let Role::Leader(leader) = &self.role else { return };
        if leader.reads.confirming.is_empty() {
            return;
        }
        let confirmed = quorum::agreed(self.configuration(), |voter| {
            if voter == self.settings.id {
                leader.round
            } else {
                leader.progress(voter).map_or(Round(0), |progress| progress.round)
            }
        });
        let mut served: Vec<(Index, Vec<ReadId>)> = Vec::new();
        if let Some(leader) = self.leader_mut() {
            while let Some((round, _, _)) = leader.reads.confirming.front()
                && *round <= confirmed
            {
                let (_, index, reads) = leader.reads.confirming.pop_front().expect("looked at just now");
                leader.reads.count -= reads.len();
                served.push((index, reads));
            }
        }
        for (index, reads) in served {
            self.outputs.extend(reads.into_iter().map(|read| Output::ReadReady { read, index }));
        }
        self.start_waiting_reads(now);
    }
}
