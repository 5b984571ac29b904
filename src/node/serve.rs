//! Listening and connecting: the settings every gRPC connection of a node shares.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tokio::net::TcpListener;
use tonic::{
    Status,
    codegen::http::Response,
    service::Routes,
    transport::{Endpoint, Server, server::TcpIncoming},
};
use tower::util::MapResponseLayer;

use super::{
    service::errors,
    tls::{Tls, whole_story},
};
use crate::{
    api::config::NetworkTuning,
    error::{ClusterError, ErrorCode},
};

/// Bytes one stream may send ahead of its reader.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes all streams of a connection may send ahead of their readers.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Why a node does not serve.
#[derive(Debug, Error)]
pub(crate) enum ServeError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The server ended by itself.
    #[error("the server at {address} ended: {problem}")]
    Ended { address: SocketAddr, problem: String },
}

impl From<ServeError> for ClusterError {
    fn from(error: ServeError) -> Self {
        let code = match error {
            ServeError::Bind { .. } => ErrorCode::AddressInUse,
            ServeError::Tls(_) => ErrorCode::Tls,
            ServeError::Ended { .. } => ErrorCode::Network,
        };
        Self::new(code, error.to_string())
    }
}

/// An address that is being listened at; connections wait until [`Listener::serve`].
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Begins to listen. Port 0 takes any free one.
    ///
    /// # Errors
    /// Where the address is taken or not this machine's.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let bind = |error| ServeError::Bind { address, error };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers calls until `shutdown` is done, then lets those under way finish.
    ///
    /// # Errors
    /// Where TLS cannot be set up or the listener fails.
    pub(crate) async fn serve(
        self,
        routes: Routes,
        tls: Option<&Tls>,
        network: &NetworkTuning,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let mut server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(network.keep_alive_interval))
            .http2_keepalive_timeout(Some(network.keep_alive_timeout));
        if let Some(tls) = tls {
            server = tls.server(server).map_err(|error| ServeError::Tls(whole_story(&error)))?;
        }
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let ended = |error: tonic::transport::Error| ServeError::Ended {
            address: self.address,
            problem: whole_story(&error),
        };
        let mut server = server.layer(MapResponseLayer::new(code_refusal));
        server.add_routes(routes).serve_with_incoming_shutdown(incoming, shutdown).await.map_err(ended)
    }
}

/// A call whose message the transport refused is answered without any service having seen it: the
/// answer gets the error's code and advice here.
fn code_refusal<B>(mut response: Response<B>) -> Response<B> {
    let refused = Status::from_header_map(response.headers());
    if let Some(coded) = refused.as_ref().and_then(errors::of_transport) {
        // Where the text were no header the answer would stay as it was.
        let _ = coded.add_header(response.headers_mut());
    }
    response
}

/// How to reach `address` (`HOST:PORT`).
///
/// # Errors
/// Where the address is none, or TLS cannot be set up.
pub(crate) fn endpoint(
    address: &str,
    tls: Option<&Tls>,
    network: &NetworkTuning,
) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .connect_timeout(network.connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(network.keep_alive_interval)
        .keep_alive_timeout(network.keep_alive_timeout)
        .keep_alive_while_idle(true);
    match tls {
        Some(tls) => tls.client(endpoint),
        None => Ok(endpoint),
    }
}
