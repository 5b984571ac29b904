//! The simulator's connections, with the product's TLS, HTTP/2 and gRPC over them.
//!
//! tonic's own accept loop and connector spawn tasks and set timers on the operating system's
//! runtime; these do the same on the simulator's.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    rt::{Executor, Sleep, Timer},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tonic::{
    Request, Response, Status,
    codegen::Service,
    codegen::http::{self, Uri},
    service::Routes,
    transport::{Channel, ClientTlsConfig, Endpoint, Error},
};

use super::{
    host::{Acceptor, Connection, host},
    stream::Watched,
    tasks::JoinSet,
};
use crate::{
    api::config::NetworkTuning,
    node::{
        serve::{CONNECTION_WINDOW_BYTES, Listener, STREAM_WINDOW_BYTES, ServeError, code_refusal},
        tls::Tls,
    },
};

/// How to reach a node: connects at once, or when first used.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    endpoint: Endpoint,
    timing: Timing,
}

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
    Dial { endpoint: endpoint.executor(Tasks), timing }
}

impl Dial {
    pub(crate) async fn connect(&self) -> Result<Channel, Error> {
        self.endpoint.connect_with_connector(Connector(self.timing)).await
    }

    pub(crate) fn connect_lazy(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(Connector(self.timing))
    }
}

/// The handshake has no time-out of its own: a connection that hangs is given up as a silent one.
pub(crate) fn handshake_within(config: ClientTlsConfig, _timeout: Duration) -> ClientTlsConfig {
    config
}

/// Makes a call that this side gives up after `deadline`.
///
/// # Errors
/// What the other side answered, or that it did not in time.
pub(crate) async fn within<M, A, F: Future<Output = Result<Response<A>, Status>>>(
    deadline: Duration,
    message: M,
    call: impl FnOnce(Request<M>) -> F,
) -> Result<Response<A>, Status> {
    match timeout(deadline, call(Request::new(message))).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded("it takes too long")),
    }
}

/// Spawns what hyper and tonic want to run beside a connection.
#[derive(Clone, Copy, Debug)]
struct Tasks;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        tokio::spawn(task);
    }
}

/// hyper's timers by the simulator's clock.
#[derive(Clone, Copy, Debug)]
struct Timers;

struct Sleeping(tokio::time::Sleep);

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl Sleep for Sleeping {}

impl Timer for Timers {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(tokio::time::sleep(duration)))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Sleeping(tokio::time::sleep_until(deadline)))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now()
    }
}

#[derive(Clone, Copy, Debug)]
struct Connector(Timing);

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Watched>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Timing { connect, keep_alive_interval, keep_alive_timeout } = self.0;
        Box::pin(async move {
            let address = uri.authority().map_or("", |authority| authority.as_str());
            let connection = timeout(connect, host().connect(address)).await;
            let connection = connection.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(Watched::new(connection, Some(keep_alive_interval + keep_alive_timeout))))
        })
    }
}

/// Listens at an address of the node.
#[derive(Debug)]
pub(crate) struct TcpListener(Box<dyn Acceptor>);

impl TcpListener {
    #[expect(clippy::unused_async, reason = "as tokio's")]
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        host().listen(address).map(Self)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as tokio's")]
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.address())
    }

    async fn accept(&mut self) -> io::Result<Box<dyn Connection>> {
        poll_fn(|context| self.0.poll_accept(context)).await
    }
}

/// Answers calls until `shutdown` is done, then lets those under way finish.
///
/// # Errors
/// Where TLS cannot be set up.
pub(crate) async fn serve(
    Listener { mut listener, address }: Listener,
    routes: Routes,
    tls: Option<&Tls>,
    network: &NetworkTuning,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let tls = tls.map(Tls::acceptor).transpose().map_err(|error| ServeError::Tls(error.to_string()))?;
    let routes = routes.prepare();
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let accepted = accepted.map_err(|error| ServeError::Ended { address, problem: error.to_string() })?;
        let serving = serve_one(accepted, routes.clone(), tls.clone(), network.clone(), stopping.clone());
        connections.spawn(serving);
    }
    drop(listener);
    drop(stop);
    connections.join_all().await;
    Ok(())
}

async fn serve_one(
    accepted: Box<dyn Connection>,
    routes: Routes,
    tls: Option<TlsAcceptor>,
    network: NetworkTuning,
    stopping: watch::Receiver<()>,
) {
    let accepted = Watched::new(accepted, None);
    // A client that breaks off or speaks nonsense is its own problem.
    let _ = match tls {
        None => converse(accepted, routes, &network, stopping).await,
        Some(tls) => match timeout(network.connect_timeout * 5, tls.accept(accepted)).await {
            Ok(Ok(accepted)) => converse(accepted, routes, &network, stopping).await,
            Ok(Err(_)) | Err(_) => return,
        },
    };
}

async fn converse(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    routes: Routes,
    network: &NetworkTuning,
    mut stopping: watch::Receiver<()>,
) -> hyper::Result<()> {
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let mut routes = routes.clone();
        async move {
            host().overheard("call", request.uri().path().as_bytes());
            let request = request.map(|body| Overheard { body, what: "asked" });
            let response = code_refusal(routes.call(request).await?);
            Ok::<_, Infallible>(response.map(|body| Overheard { body, what: "answered" }))
        }
    });
    let mut settings = http2::Builder::new(Tasks);
    settings
        .timer(Timers)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(network.keep_alive_interval)
        .keep_alive_timeout(network.keep_alive_timeout);
    let mut connection = pin!(settings.serve_connection(TokioIo::new(io), answer));
    tokio::select! {
        biased;
        ended = &mut connection => return ended,
        // The sender is dropped when the node stops.
        _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// A body whose messages the host hears as they pass.
struct Overheard<B> {
    body: B,
    what: &'static str,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Overheard<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            host().overheard(self.what, data);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Tls {
    /// Accepts only clients of the authority.
    fn acceptor(&self) -> io::Result<TlsAcceptor> {
        use tokio_rustls::rustls::{
            RootCertStore, ServerConfig,
            pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
            server::WebPkiClientVerifier,
        };
        let Self { cert, key, authority } = self;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority) {
            roots.add(root.map_err(io::Error::other)?).map_err(io::Error::other)?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(io::Error::other)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.map_err(io::Error::other)?, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}
