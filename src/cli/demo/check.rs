//! Looks for every acknowledged write in the history of its entity.

use std::collections::{BTreeMap, BTreeSet};

use super::load::{SERIAL, Written};
use crate::{
    client::{Client, ReadFrom, v1},
    error::ClusterError,
};

/// What the histories say about what was acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) acknowledged: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) out_of_order: u64,
}

impl Findings {
    pub(super) fn are_clean(self) -> bool {
        self.acknowledged > 0 && self.lost == 0 && self.duplicated == 0 && self.out_of_order == 0
    }

    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
    }
}

pub(super) async fn check(client: &Client, written: &[Written]) -> Result<Findings, ClusterError> {
    let mut findings = Findings::default();
    for entity in written {
        let from = ReadFrom { partition: Some(entity.partition), ..ReadFrom::default() };
        let versions = client.history(&entity.cid.to_string(), from).await?.unwrap_or_default();
        findings.add(compare(&entity.acknowledged, &serials(&versions)));
    }
    Ok(findings)
}

/// The serial of each version that has one. The first version has none: it was imported.
fn serials(versions: &[v1::Version]) -> Vec<i64> {
    let serial = |version: &v1::Version| match version.properties.get(SERIAL)?.kind {
        Some(v1::value::Kind::IntValue(serial)) => Some(serial),
        _ => None,
    };
    versions.iter().filter_map(serial).collect()
}

fn compare(acknowledged: &[i64], history: &[i64]) -> Findings {
    let held: BTreeSet<i64> = history.iter().copied().collect();
    let mut times: BTreeMap<i64, u64> = BTreeMap::new();
    for serial in history {
        *times.entry(*serial).or_default() += 1;
    }
    Findings {
        acknowledged: acknowledged.len() as u64,
        lost: acknowledged.iter().filter(|serial| !held.contains(serial)).count() as u64,
        duplicated: times.values().map(|count| count - 1).sum(),
        out_of_order: history.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_repetitions_and_disorder_are_told_apart() {
        let clean = Findings { acknowledged: 3, ..Findings::default() };
        assert_eq!(compare(&[1, 2, 3], &[1, 2, 3]), clean);
        assert!(clean.are_clean());
        assert_eq!(compare(&[1, 2, 4], &[1, 2, 3, 4]), clean, "3 had an unknown outcome and took effect");
        assert_eq!(compare(&[1, 2, 3], &[1, 3]), Findings { lost: 1, ..clean });
        assert_eq!(compare(&[1, 2, 3], &[1, 2, 2, 3]), Findings { duplicated: 1, ..clean });
        assert_eq!(compare(&[1, 2, 3], &[2, 1, 3]), Findings { out_of_order: 1, ..clean });
        assert!(!Findings::default().are_clean(), "nothing acknowledged shows nothing");
    }
}
