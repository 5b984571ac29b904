//! Sockets, and tonic's own server and connector over them.

use std::{future::Future, time::Duration};

use tonic::{
    Request, Response, Status,
    service::Routes,
    transport::{ClientTlsConfig, Endpoint, Error, Server, server::TcpIncoming},
};

use tower::util::MapResponseLayer;

use crate::{
    api::config::NetworkTuning,
    node::{
        serve::{CONNECTION_WINDOW_BYTES, Listener, STREAM_WINDOW_BYTES, ServeError, code_refusal},
        tls::{Tls, whole_story},
    },
};

pub(crate) use tokio::net::TcpListener;

/// How to reach a node: connects at once, or when first used.
pub(crate) type Dial = Endpoint;

/// How long things may take on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Until it has come about.
    pub(crate) connect: Duration,
    /// Between two questions for a sign of life, where it is silent.
    pub(crate) keep_alive_interval: Duration,
    /// Until that sign.
    pub(crate) keep_alive_timeout: Duration,
}

/// An endpoint with its time-outs.
pub(crate) fn dial(endpoint: Endpoint, timing: Timing) -> Dial {
    endpoint
        .connect_timeout(timing.connect)
        .http2_keep_alive_interval(timing.keep_alive_interval)
        .keep_alive_timeout(timing.keep_alive_timeout)
}

/// The same with a time-out for the handshake.
pub(crate) fn handshake_within(config: ClientTlsConfig, timeout: Duration) -> ClientTlsConfig {
    config.timeout(timeout)
}

/// Answers calls until `shutdown` is done, then lets those under way finish.
///
/// # Errors
/// Where TLS cannot be set up or the listener fails.
pub(crate) async fn serve(
    Listener { listener, address }: Listener,
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
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let ended = |error: Error| ServeError::Ended { address, problem: whole_story(&error) };
    let mut server = server.layer(MapResponseLayer::new(code_refusal));
    server.add_routes(routes).serve_with_incoming_shutdown(incoming, shutdown).await.map_err(ended)
}

/// Makes a call that both sides give up after `deadline`.
///
/// # Errors
/// What the other side answered, or that it did not in time.
pub(crate) async fn within<M, A, F: Future<Output = Result<Response<A>, Status>>>(
    deadline: Duration,
    message: M,
    call: impl FnOnce(Request<M>) -> F,
) -> Result<Response<A>, Status> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    call(request).await
}
