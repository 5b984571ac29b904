//! What a client says where the two sides do not accept each other: at once, and that nothing was sent.

use std::{fs, path::Path};

use kotoba_db_cluster::{
    TlsConfig,
    client::{Client, ClientOptions},
    error::ErrorCode,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{
    LONG, PARTITION,
    fake::{Act, Cluster},
    operation,
};

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// The files of a client with a certificate of this authority that trusts `trusted`.
    fn client(&self, dir: &Path, trusted: &Self) -> TlsConfig {
        let (cert, key) = self.issue();
        let files = TlsConfig { cert: dir.join("cert"), key: dir.join("key"), ca: dir.join("ca") };
        fs::write(&files.cert, cert).unwrap();
        fs::write(&files.key, key).unwrap();
        fs::write(&files.ca, &trusted.pem).unwrap();
        files
    }
}

async fn secure_cluster(authority: &Authority) -> Cluster {
    let (cert, key) = authority.issue();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(&authority.pem));
    Cluster::start_secure(tls).await
}

/// What a write comes to.
async fn write(cluster: &Cluster, tls: Option<TlsConfig>) -> Result<(), ErrorCode> {
    let options = ClientOptions { tls, deadline: LONG, ..ClientOptions::default() };
    let client = Client::connect(cluster.endpoints.clone(), options).await.unwrap();
    let read = client.partitions().await.map(|_| ()).map_err(|error| error.code());
    let written = client.execute(operation(), PARTITION).await.map(|_| ()).map_err(|error| error.code());
    assert_eq!(read, written, "a read and a write fail alike");
    written
}

#[tokio::test]
async fn sides_that_do_not_accept_each_other_say_so_at_once() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let cluster = secure_cluster(&ours).await;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(write(&cluster, Some(ours.client(dir.path(), &ours))).await, Ok(()), "the right files");
    assert_eq!(write(&cluster, None).await, Err(ErrorCode::Tls), "no files");
    assert_eq!(
        write(&cluster, Some(ours.client(dir.path(), &theirs))).await,
        Err(ErrorCode::Tls),
        "another authority"
    );
    assert_eq!(
        write(&cluster, Some(theirs.client(dir.path(), &ours))).await,
        Err(ErrorCode::Tls),
        "a foreign certificate"
    );
    assert_eq!(cluster.memory().effects.len(), 1);

    let plain = Cluster::start(1, Box::new(|_, _, _| Act::Answer)).await;
    assert_eq!(
        write(&plain, Some(ours.client(dir.path(), &ours))).await,
        Err(ErrorCode::Tls),
        "a plain node"
    );
    assert_eq!(plain.memory().effects.len(), 0);
}
