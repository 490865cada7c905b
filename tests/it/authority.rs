//! Authorities that a test plays, and certificates of them.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::bed::Bed;
use crate::hooks;

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, in PEM.
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for clients and servers with these names, URIs or DNS names, for an hour.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, Duration::hours(1), |_| {})
    }

    /// A certificate that ends after this time, with something changed about it.
    pub fn leaf_with(&self, names: &[&str], lifetime: Duration, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new([]).unwrap();
        for name in names {
            let text = (*name).try_into().unwrap();
            let name = if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) };
            params.subject_alt_names.push(name);
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Leaf { certificate: self.certify(params, lifetime, &key), key: key.serialize_pem() }
    }

    /// A certificate for clients and servers, in PEM, that ends after this time.
    pub fn certify(&self, mut params: CertificateParams, lifetime: Duration, key: &KeyPair) -> String {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - Duration::minutes(1), now + lifetime);
        params.signed_by(key, &self.0).unwrap().pem()
    }
}

impl Leaf {
    /// TLS settings of a client of the edge that presents this certificate.
    pub fn tls(&self, bed: &Bed) -> ClientConfig {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        hooks::tls_builder(bed).with_client_auth_cert(chain, key).unwrap()
    }
}
