use std::{fs, net::SocketAddr, path::Path};

use kotoba_db_cluster_proto::v1::{self, peer_service_client::PeerServiceClient};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tonic::service::Routes;

use super::*;
use crate::{
    api::config::NetworkTuning,
    node::{
        identity::Identity as NodeIdentity,
        peers::{LocalHello, PeerServer},
        serve::{Listener, endpoint},
    },
    placement::NodeId,
};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("signs itself").pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

/// The three files of a side whose certificate `by` signed, and who trusts `trusts`.
fn files(dir: &Path, by: &Authority, trusts: &Authority) -> TlsConfig {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
    let cert = params.signed_by(&key, &by.issuer).expect("signs").pem();
    let config = TlsConfig { cert: dir.join("cert"), key: dir.join("key"), ca: dir.join("ca") };
    fs::create_dir_all(dir).expect("creates");
    fs::write(&config.cert, cert).expect("writes");
    fs::write(&config.key, key.serialize_pem()).expect("writes");
    fs::write(&config.ca, &trusts.pem).expect("writes");
    config
}

/// A node that answers introductions behind TLS.
async fn server(dir: &Path, tls: Tls) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(any).await.expect("binds");
    let address = listener.address();
    let identity = NodeIdentity::open(dir, &NodeId::from("n1")).expect("begins");
    let hello = LocalHello::new(&identity, address.to_string(), vec![address.to_string()], 1, 1);
    let routes = Routes::new(PeerServer::new(hello).into_service());
    tokio::spawn(async move {
        let network = NetworkTuning::default();
        listener.serve(routes, Some(&tls), &network, std::future::pending()).await
    });
    address
}

async fn greet(address: SocketAddr, tls: Option<&Tls>) -> Result<String, String> {
    let endpoint = endpoint(&address.to_string(), tls, &NetworkTuning::default()).expect("an endpoint");
    let channel = endpoint.connect().await.map_err(|error| whole_story(&error))?;
    let answer = PeerServiceClient::new(channel).handshake(v1::Hello::default()).await;
    answer.map(|hello| hello.into_inner().node_id).map_err(|status| status.to_string())
}

#[tokio::test]
async fn only_who_shows_a_certificate_of_the_authority_is_answered() {
    let dir = TempDir::new().expect("a temporary directory");
    let (ours, others) = (authority(), authority());
    let load = |config: &TlsConfig| Tls::load(config).expect("loads");
    let node = load(&files(&dir.path().join("node"), &ours, &ours));
    let member = load(&files(&dir.path().join("member"), &ours, &ours));
    let stranger = load(&files(&dir.path().join("stranger"), &others, &ours));
    let suspicious = load(&files(&dir.path().join("suspicious"), &ours, &others));
    let address = server(&dir.path().join("data"), node).await;

    assert_eq!(greet(address, Some(&member)).await, Ok("n1".to_owned()));
    assert!(greet(address, Some(&stranger)).await.is_err(), "its certificate is of another authority");
    assert!(greet(address, Some(&suspicious)).await.is_err(), "the node's is of another authority");
    assert!(greet(address, None).await.is_err(), "it does not encrypt");
    let bare = Endpoint::from_shared(format!("https://{address}")).expect("an endpoint");
    let bare = bare
        .tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ours.pem)))
        .expect("a client without a certificate");
    let refused = match bare.connect().await {
        Ok(channel) => PeerServiceClient::new(channel).handshake(v1::Hello::default()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "it shows no certificate");
}

fn problem(config: &TlsConfig) -> String {
    let error = Tls::load(config).expect_err("cannot be used");
    let text = error.to_string();
    assert_eq!(ClusterError::from(error).code(), ErrorCode::Tls);
    text
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = TempDir::new().expect("a temporary directory");
    let authority = authority();
    let good = files(&dir.path().join("good"), &authority, &authority);
    let other = files(&dir.path().join("other"), &authority, &authority);

    let missing = TlsConfig { key: dir.path().join("nothing"), ..good.clone() };
    assert!(problem(&missing).starts_with("cannot read the private key"), "{}", problem(&missing));
    let swapped = TlsConfig { cert: good.key.clone(), ..good.clone() };
    assert!(problem(&swapped).ends_with("holds no certificate in PEM form"), "{}", problem(&swapped));
    let mismatched = TlsConfig { key: other.key, ..good };
    assert!(problem(&mismatched).contains("cannot be used"), "{}", problem(&mismatched));
}
