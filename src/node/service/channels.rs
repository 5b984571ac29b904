//! One gRPC channel to each other node, shared by everything that asks it something.

use std::{collections::BTreeMap, sync::Mutex};

use kotoba_db_cluster_proto::v1::{
    cluster_service_client::ClusterServiceClient, read_service_client::ReadServiceClient,
};
use tonic::transport::Channel;

use crate::{
    api::config::NetworkTuning,
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    node::{
        serve::endpoint,
        tls::{Tls, whole_story},
    },
};

/// Addresses remembered at most. Members are few; more than that are stale ones.
const CHANNELS_MAX: usize = 1024;

/// A pool of channels by address. Channels connect when first used and reconnect by themselves.
#[derive(Debug)]
pub(crate) struct Channels {
    tls: Option<Tls>,
    network: NetworkTuning,
    pool: Mutex<BTreeMap<String, Channel>>,
}

impl Channels {
    pub(crate) fn new(tls: Option<Tls>, network: NetworkTuning) -> Self {
        Self { tls, network, pool: Mutex::default() }
    }

    /// A client of the services that applications use, at `HOST:PORT`.
    pub(crate) fn cluster(&self, address: &str) -> Result<ClusterServiceClient<Channel>, ClusterError> {
        let client = ClusterServiceClient::new(self.channel(address)?);
        let client = client.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(client.max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    /// A client of the service that nodes use for reads, at `HOST:PORT`.
    pub(crate) fn reads(&self, address: &str) -> Result<ReadServiceClient<Channel>, ClusterError> {
        let client = ReadServiceClient::new(self.channel(address)?);
        let client = client.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok(client.max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    fn channel(&self, address: &str) -> Result<Channel, ClusterError> {
        let mut pool = self.pool.lock().expect("no holder of this lock panics");
        if let Some(channel) = pool.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address, self.tls.as_ref(), &self.network).map_err(|error| {
            let what = format!("{address} is no address of a node: {}", whole_story(&error));
            ClusterError::new(ErrorCode::Network, what)
        })?;
        if pool.len() >= CHANNELS_MAX {
            pool.clear();
        }
        let channel = endpoint.connect_lazy();
        pool.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
