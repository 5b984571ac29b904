//! One connection per node, opened when first needed and shared by all calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use kotoba_db_cluster_proto::v1::cluster_service_client::ClusterServiceClient;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{
    api::config::TlsConfig,
    error::{ClusterError, ErrorCode},
    limits::GRPC_MESSAGE_BYTES_MAX,
    runtime::{
        fs,
        net::{self, Dial, Timing},
    },
};

/// A connection that shows no sign of life is asked for one this often, and given up after the same time.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The first byte of a TLS record that says what is wrong.
const TLS_ALERT: u8 = 21;
const WINDOW_BYTES: u32 = 4 << 20;

/// The generated client over a shared connection.
pub(super) type Service = ClusterServiceClient<Channel>;

#[derive(Debug)]
pub(super) struct Channels {
    connect_timeout: Duration,
    tls: Option<ClientTlsConfig>,
    open: Mutex<BTreeMap<String, Channel>>,
    /// Who has answered anything: the TLS handshake with them is over.
    answered: Mutex<BTreeSet<String>>,
}

impl Channels {
    pub(super) fn new(connect_timeout: Duration, tls: Option<&TlsConfig>) -> Result<Self, ClusterError> {
        let tls = tls.map(client_tls).transpose()?;
        Ok(Self { connect_timeout, tls, open: Mutex::default(), answered: Mutex::default() })
    }

    /// The connection to this `HOST:PORT`; it is made in the background.
    pub(super) fn channel(&self, address: &str) -> Result<Channel, ClusterError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = open.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.endpoint(address)?.connect_lazy();
        open.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    pub(super) fn service(&self, address: &str) -> Result<Service, ClusterError> {
        let service = ClusterServiceClient::new(self.channel(address)?);
        Ok(service
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX))
    }

    /// Whether a connection to this node may still turn out to be refused: with TLS 1.3 this side hears of
    /// it only after it has begun to send.
    pub(super) fn may_be_refused(&self, address: &str) -> bool {
        self.is_secure() && !self.answered.lock().unwrap_or_else(PoisonError::into_inner).contains(address)
    }

    /// The node answered.
    pub(super) fn has_answered(&self, address: &str) {
        if self.is_secure() {
            self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned());
        }
    }

    /// Whether connections are secured.
    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Why a node that is there closes every connection at once, where TLS is the likely reason.
    pub(super) async fn why_closed(&self, address: &str) -> Option<&'static str> {
        if self.tls.is_some() {
            return Some("closes secure connections at once: it may not accept this side's certificate");
        }
        let answer = timeout(self.connect_timeout, first_byte(address)).await;
        let speaks_tls = matches!(answer, Ok(Ok(TLS_ALERT)));
        speaks_tls.then_some("speaks TLS, and this client was given no certificate")
    }

    fn endpoint(&self, address: &str) -> Result<Dial, ClusterError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| not_an_address(address))?
            .tcp_nodelay(true)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let endpoint = match &self.tls {
            None => endpoint,
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| {
                ClusterError::new(
                    ErrorCode::Tls,
                    format!("TLS for {address}: {}", super::failure::deepest(&error)),
                )
            })?,
        };
        let timing = Timing {
            connect: self.connect_timeout,
            keep_alive_interval: KEEP_ALIVE,
            keep_alive_timeout: KEEP_ALIVE,
        };
        Ok(net::dial(endpoint, timing))
    }
}

/// What a node answers to plain HTTP/2.
async fn first_byte(address: &str) -> io::Result<u8> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.read_u8().await
}

fn not_an_address(address: &str) -> ClusterError {
    ClusterError::new(ErrorCode::Usage, format!("{address:?} is no address of the form HOST:PORT"))
}

/// Checks that a text has the form `HOST:PORT`.
pub(super) fn check_address(address: &str) -> Result<(), ClusterError> {
    let well_formed = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '?' | '#'))
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    });
    if well_formed { Ok(()) } else { Err(not_an_address(address)) }
}

fn client_tls(files: &TlsConfig) -> Result<ClientTlsConfig, ClusterError> {
    let identity = Identity::from_pem(read(&files.cert)?, read(&files.key)?);
    Ok(ClientTlsConfig::new().identity(identity).ca_certificate(Certificate::from_pem(read(&files.ca)?)))
}

fn read(path: &Path) -> Result<Vec<u8>, ClusterError> {
    fs::read(path).map_err(|error| {
        ClusterError::new(ErrorCode::Tls, format!("cannot read {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for good in ["127.0.0.1:8080", "localhost:1", "[::1]:65535", "db-1.example.org:443"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["", "localhost", ":80", "host:", "host:0", "host:70000", "http://host:80", "a b:1"] {
            let error = check_address(bad).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Usage, "{bad}");
        }
    }
}
