//! Certificates for the machines of a run.
//!
//! Made outside the simulation, from real randomness: what is encrypted is not part of the trace,
//! and Ed25519 keys and signatures always have the same length.

use std::{net::IpAddr, path::Path};

use kotoba_db_cluster::TlsConfig;
use madsim::{plugin::simulator, task::NodeId};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519, SanType};

use super::disk::Disks;

/// A certificate that every machine shows, its key, and the authority's certificate, in PEM.
pub(super) struct Certificates {
    cert: String,
    key: String,
    authority: String,
}

impl Certificates {
    /// Certificates for machines at these addresses.
    ///
    /// # Errors
    /// Where the library refuses, in its words.
    pub(super) fn make(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, rcgen::Error> {
        let authority_key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut machine = CertificateParams::new(Vec::new())?;
        machine.subject_alt_names = addresses.into_iter().map(SanType::IpAddress).collect();
        let cert = machine.signed_by(&key, &issuer)?;
        Ok(Self { cert: cert.pem(), key: key.serialize_pem(), authority: authority_certificate.pem() })
    }

    /// Puts the files where [`tls_files`] says.
    pub(super) fn put_on(&self, machine: NodeId) {
        let TlsConfig { cert, key, ca } = tls_files();
        let files: [(&Path, &String); 3] = [(&cert, &self.cert), (&key, &self.key), (&ca, &self.authority)];
        for (path, pem) in files {
            simulator::<Disks>().put(machine, path, pem.as_bytes());
        }
    }
}

/// Where the files are, on every machine.
pub(super) fn tls_files() -> TlsConfig {
    TlsConfig { cert: "/tls/cert.pem".into(), key: "/tls/key.pem".into(), ca: "/tls/ca.pem".into() }
}
