//! Mutual TLS: every connection, of nodes and of clients, shows a certificate that one authority
//! signed, or is refused before a byte of gRPC is read.
//!
//! A node's certificate must name the host part of the address that others reach it at (as a DNS
//! name or an IP address), because whoever connects checks that.

use std::{io, path::PathBuf, time::Duration};

use thiserror::Error;
use tonic::{
    Status,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig},
};

use crate::{
    api::config::TlsConfig,
    error::{ClusterError, ErrorCode},
    runtime::{fs, net},
};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the three files cannot be used.
#[derive(Debug, Error)]
pub(crate) enum TlsError {
    /// One cannot be read.
    #[error("cannot read the {what} {}: {error}", path.display())]
    Unreadable { what: &'static str, path: PathBuf, error: io::Error },
    /// One holds no PEM block of the right kind.
    #[error("{} holds no {what} in PEM form", path.display())]
    NoPem { what: &'static str, path: PathBuf },
    /// Together they make no TLS side.
    #[error("the certificate {} and its key {} cannot be used: {problem}", cert.display(), key.display())]
    Unusable { cert: PathBuf, key: PathBuf, problem: String },
}

impl From<TlsError> for ClusterError {
    fn from(error: TlsError) -> Self {
        Self::new(ErrorCode::Tls, error.to_string())
    }
}

/// The loaded certificates of this side.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) cert: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) authority: Vec<u8>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads and tries the three files.
    ///
    /// # Errors
    /// Where one cannot be read or used.
    pub(crate) fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let cert = read_pem("certificate", &config.cert, "CERTIFICATE-----")?;
        let key = read_pem("private key", &config.key, "PRIVATE KEY-----")?;
        let authority = read_pem("authority's certificate", &config.ca, "CERTIFICATE-----")?;
        let tls = Self { cert, key, authority };
        let unusable = |error: tonic::transport::Error| TlsError::Unusable {
            cert: config.cert.clone(),
            key: config.key.clone(),
            problem: whole_story(&error),
        };
        tls.server(Server::builder()).map_err(unusable)?;
        tls.client(Endpoint::from_static("https://localhost:1")).map_err(unusable)?;
        Ok(tls)
    }

    /// A server that accepts only clients of the authority.
    ///
    /// # Errors
    /// Never for certificates that [`Tls::load`] tried.
    pub(crate) fn server<L: Clone>(&self, server: Server<L>) -> Result<Server<L>, tonic::transport::Error> {
        let config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert, &self.key))
            .client_ca_root(Certificate::from_pem(&self.authority))
            .client_auth_optional(false)
            .timeout(HANDSHAKE_TIMEOUT);
        server.tls_config(config)
    }

    /// A client that shows this side's certificate and accepts only servers of the authority.
    ///
    /// # Errors
    /// Never for certificates that [`Tls::load`] tried.
    pub(crate) fn client(&self, endpoint: Endpoint) -> Result<Endpoint, tonic::transport::Error> {
        let config = ClientTlsConfig::new()
            .identity(Identity::from_pem(&self.cert, &self.key))
            .ca_certificate(Certificate::from_pem(&self.authority));
        endpoint.tls_config(net::handshake_within(config, HANDSHAKE_TIMEOUT))
    }
}

/// An error and everything that caused it, in one line.
pub(crate) fn whole_story(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error)
}

/// The same of a refused or failed call, whose own text is one for machines.
pub(crate) fn status_story(status: &Status) -> String {
    let said = match status.message() {
        "" => status.code().description(),
        message => message,
    };
    with_causes(said.to_owned(), status)
}

fn with_causes(mut story: String, error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !story.contains(&text) {
            story.push_str(": ");
            story.push_str(&text);
        }
        source = cause.source();
    }
    story
}

fn read_pem(what: &'static str, path: &PathBuf, label: &str) -> Result<Vec<u8>, TlsError> {
    let bytes = fs::read(path).map_err(|error| TlsError::Unreadable { what, path: path.clone(), error })?;
    let holds_label = bytes.windows(label.len()).any(|window| window == label.as_bytes());
    if holds_label { Ok(bytes) } else { Err(TlsError::NoPem { what, path: path.clone() }) }
}

#[cfg(test)]
mod tests;
