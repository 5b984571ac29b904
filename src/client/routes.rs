//! Where to send what: the nodes known, and who is believed to lead each partition.
//!
//! Everything here is a hint. A wrong one costs a hop, for any node passes on what it does not lead.

use std::collections::BTreeMap;

use kotoba_db_cluster_proto::v1;

use crate::placement::PartitionId;

#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    /// `HOST:PORT` of every node, those the client was given first.
    addresses: Vec<String>,
    leaders: BTreeMap<u32, usize>,
    partition_count: u32,
    epoch: u64,
}

impl Routes {
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        let mut routes = Self::default();
        for endpoint in endpoints {
            routes.index_of(endpoint);
        }
        routes
    }

    pub(super) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Partitions of the cluster; 0 while no node has told.
    pub(super) fn partition_count(&self) -> u32 {
        self.partition_count
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn leader_of(&self, partition: PartitionId) -> Option<&str> {
        self.leaders.get(&partition.0).map(|&node| self.addresses[node].as_str())
    }

    /// Takes over what a node said of the cluster.
    pub(super) fn learn(&mut self, config: &v1::ClusterConfig) {
        if config.version < self.epoch {
            return;
        }
        self.epoch = config.version;
        self.partition_count = config.partition_count;
        let mut by_id = BTreeMap::new();
        for node in &config.nodes {
            if let Some(address) = address_of(node) {
                by_id.insert(node.id.as_str(), self.index_of(address));
            }
        }
        for partition in &config.partitions {
            if let Some(&node) = by_id.get(partition.leader.as_str()) {
                self.leaders.insert(partition.partition, node);
            }
        }
    }

    /// Takes over the hint of one answer.
    pub(super) fn learn_leader(&mut self, partition: PartitionId, address: &str) {
        if !address.is_empty() {
            let node = self.index_of(address.to_owned());
            self.leaders.insert(partition.0, node);
        }
    }

    /// Forgets that this node leads anything: it did not answer.
    pub(super) fn distrust(&mut self, address: &str) {
        let addresses = &self.addresses;
        self.leaders.retain(|_, node| addresses[*node] != address);
    }

    fn index_of(&mut self, address: String) -> usize {
        self.addresses.iter().position(|known| *known == address).unwrap_or_else(|| {
            self.addresses.push(address);
            self.addresses.len() - 1
        })
    }
}

/// `HOST:PORT` of a node, where the message holds both.
pub(crate) fn address_of(node: &v1::NodeId) -> Option<String> {
    let has_port = |text: &str| text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (node.address.as_str(), node.port) {
        ("", _) => None,
        (address, _) if has_port(address) && !address.ends_with(']') => Some(address.to_owned()),
        (_, 0) => None,
        (host, port) => Some(format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(version: u64, leader: &str) -> v1::ClusterConfig {
        let node = |id: &str, address: &str, port| v1::NodeId {
            id: id.into(),
            address: address.into(),
            port,
            ..Default::default()
        };
        v1::ClusterConfig {
            nodes: vec![node("a", "h", 1), node("b", "h:2", 2), node("c", "", 3)],
            version,
            partition_count: 8,
            partitions: vec![v1::PartitionReplicas { partition: 5, nodes: vec![], leader: leader.into() }],
            ..Default::default()
        }
    }

    #[test]
    fn leaders_are_learnt_from_the_cluster_and_from_answers() {
        let mut routes = Routes::new(vec!["h:2".into(), "h:2".into()]);
        routes.learn(&config(3, "a"));
        assert_eq!(routes.addresses(), ["h:2", "h:1"]);
        assert_eq!(routes.leader_of(PartitionId(5)), Some("h:1"));
        assert_eq!(routes.leader_of(PartitionId(6)), None);
        routes.learn_leader(PartitionId(5), "h:2");
        assert_eq!(routes.leader_of(PartitionId(5)), Some("h:2"));
        routes.learn(&config(2, "a"));
        assert_eq!(routes.leader_of(PartitionId(5)), Some("h:2"), "an older map changes nothing");
        routes.distrust("h:2");
        assert_eq!(routes.leader_of(PartitionId(5)), None);
        assert_eq!((routes.partition_count(), routes.epoch()), (8, 3));
    }
}
