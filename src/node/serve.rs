//! Listening and connecting: the settings every gRPC connection of a node shares.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use thiserror::Error;
use tonic::{Status, codegen::http::Response, service::Routes, transport::Endpoint};

use super::{service::errors, tls::Tls};
use crate::{
    api::config::NetworkTuning,
    error::{ClusterError, ErrorCode},
    runtime::net::{self, Dial, TcpListener, Timing},
};

/// Bytes one stream may send ahead of its reader.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes all streams of a connection may send ahead of their readers.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

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
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
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
        net::serve(self, routes, tls, network, shutdown).await
    }
}

/// A call whose message the transport refused is answered without any service having seen it: the
/// answer gets the error's code and advice here.
pub(crate) fn code_refusal<B>(mut response: Response<B>) -> Response<B> {
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
) -> Result<Dial, tonic::transport::Error> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))?
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_while_idle(true);
    let endpoint = match tls {
        Some(tls) => tls.client(endpoint)?,
        None => endpoint,
    };
    let timing = Timing {
        connect: network.connect_timeout,
        keep_alive_interval: network.keep_alive_interval,
        keep_alive_timeout: network.keep_alive_timeout,
    };
    Ok(net::dial(endpoint, timing))
}
