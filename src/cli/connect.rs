//! From flags and environment to a client.

use std::{env, path::PathBuf, time::Duration};

use super::args::{ConnectArgs, RequestArgs, TlsArgs};
use crate::{
    api::config::TlsConfig,
    client::{Client, ClientOptions},
    error::{ClusterError, ErrorCode},
    graph::Cid,
    placement::PartitionId,
};

const ENDPOINTS: &str = "KOTOBA_ENDPOINTS";
pub(super) const DEFAULT_ADDRESS: &str = "127.0.0.1:8080";

/// A client for one command.
pub(super) async fn connect(args: ConnectArgs) -> Result<Client, ClusterError> {
    connect_with(args, ClientOptions::default()).await
}

/// A client for one write, under the name of the request that it repeats, where it does.
pub(super) async fn connect_to_write(
    args: ConnectArgs,
    request: &RequestArgs,
) -> Result<Client, ClusterError> {
    let options = ClientOptions { client_id: request.client_id.clone(), ..ClientOptions::default() };
    connect_with(args, options).await
}

/// A client that does not wait long: for commands that tell how the cluster is.
pub(super) async fn connect_briefly(args: ConnectArgs) -> Result<Client, ClusterError> {
    let options = ClientOptions { deadline: Duration::from_secs(3), ..ClientOptions::default() };
    connect_with(args, options).await
}

async fn connect_with(args: ConnectArgs, mut options: ClientOptions) -> Result<Client, ClusterError> {
    options.tls = tls(args.tls)?;
    let endpoints = args.endpoints.unwrap_or_else(|| endpoints_from(env::var(ENDPOINTS).ok()));
    Client::connect(endpoints, options).await
}

fn endpoints_from(environment: Option<String>) -> Vec<String> {
    let listed = environment.unwrap_or_default();
    let endpoints: Vec<String> =
        listed.split(',').map(str::trim).filter(|endpoint| !endpoint.is_empty()).map(str::to_owned).collect();
    if endpoints.is_empty() { vec![DEFAULT_ADDRESS.to_owned()] } else { endpoints }
}

/// All three files or none.
pub(super) fn tls(args: TlsArgs) -> Result<Option<TlsConfig>, ClusterError> {
    let file = |flag: Option<PathBuf>, name: &str| flag.or_else(|| env::var_os(name).map(Into::into));
    let tls = TlsConfig::from_parts(
        file(args.tls_cert, "KOTOBA_TLS_CERT"),
        file(args.tls_key, "KOTOBA_TLS_KEY"),
        file(args.tls_ca, "KOTOBA_TLS_CA"),
    );
    Ok(tls?)
}

/// Reads a CID before anything is asked of the cluster.
pub(super) fn cid(text: &str) -> Result<Cid, ClusterError> {
    text.parse()
        .map_err(|error| ClusterError::new(ErrorCode::MalformedCid, format!("{text:?} is no CID: {error}")))
}

pub(super) fn partition(number: Option<u32>) -> Option<PartitionId> {
    number.map(PartitionId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_come_from_the_environment_or_are_the_default() {
        assert_eq!(endpoints_from(Some("a:1, b:2,".into())), ["a:1", "b:2"]);
        assert_eq!(endpoints_from(Some(" ".into())), [DEFAULT_ADDRESS]);
        assert_eq!(endpoints_from(None), [DEFAULT_ADDRESS]);
    }
}
