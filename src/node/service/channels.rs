//! One gRPC channel to each other node, shared by everything that asks it something.

use std::{collections::BTreeMap, sync::Mutex};

use kotoba_db_cluster_proto::v1::{
    cluster_service_client::ClusterServiceClient, read_service_client::ReadServiceClient,
};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::{api::config::NetworkTuning, error::{ClusterError, ErrorCode}, limits::GRPC_MESSAGE_BYTES_MAX};

/// Addresses remembered at most. Members are few; more than that are stale ones.
const CHANNELS_MAX: usize = 1024;

/// A pool of channels by address. Channels connect when first used and reconnect by themselves.
pub(crate) struct Channels {
    tls: Option<ClientTlsConfig>,
    tuning: NetworkTuning,
    pool: Mutex<BTreeMap<String, Channel>>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Channels {
    pub(crate) fn new(tls: Option<ClientTlsConfig>, tuning: NetworkTuning) -> Self {
        Self { tls, tuning, pool: Mutex::default() }
    }

    /// A client of the services that applications use, at `HOST:PORT`.
    pub(crate) fn cluster(&self, address: &str) -> Result<ClusterServiceClient<Channel>, ClusterError> {
        let client = ClusterServiceClient::new(self.channel(address)?);
        Ok(client
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    /// A client of the service that nodes use for reads, at `HOST:PORT`.
    pub(crate) fn reads(&self, address: &str) -> Result<ReadServiceClient<Channel>, ClusterError> {
        let client = ReadServiceClient::new(self.channel(address)?);
        Ok(client
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    fn channel(&self, address: &str) -> Result<Channel, ClusterError> {
        let mut pool = self.pool.lock().expect("no holder of this lock panics");
        if let Some(channel) = pool.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.endpoint(address)?.connect_lazy();
        if pool.len() >= CHANNELS_MAX {
            pool.clear();
        }
        pool.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    fn endpoint(&self, address: &str) -> Result<Endpoint, ClusterError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let invalid = |reason: &dyn std::fmt::Display| {
            ClusterError::new(ErrorCode::Network, format!("{address} is no address of a node: {reason}"))
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|error| invalid(&error))?;
        let endpoint = endpoint
            .connect_timeout(self.tuning.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(self.tuning.keep_alive_interval)
            .keep_alive_timeout(self.tuning.keep_alive_timeout);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| invalid(&error)),
            None => Ok(endpoint),
        }
    }
}
