//! How a client behaves.

use std::time::Duration;

use crate::api::config::TlsConfig;

/// How a [`Client`](super::Client) behaves. The default suits a program that waits for its answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// The session's name. `None`: a random one. Two clients alive at the same time must not share one.
    pub client_id: Option<String>,
    /// How long one call goes on trying before it gives up (10 s).
    pub deadline: Duration,
    /// How long one node may take to answer before another one is asked (3 s).
    pub attempt_timeout: Duration,
    /// How long a connection may take to come about (1 s).
    pub connect_timeout: Duration,
    /// The client's certificate and whom it trusts. `None`: plain text.
    pub tls: Option<TlsConfig>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            client_id: None,
            deadline: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
            tls: None,
        }
    }
}
