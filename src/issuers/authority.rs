//! A signing authority and the certificates that it issues (SPIFFE X509-SVID).

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use zeroize::Zeroizing;

use super::IssuerError;
use super::pem::{self, Certificate};
use crate::api::KeyAlgorithm;
use crate::domain::defect;
use crate::domain::identity::{SpiffeId, Subject, digest};
use crate::domain::rotation::BACKDATE;
use crate::domain::secret::SecretText;

/// An authority that can sign, with the roots that verify the certificates that it issues.
pub struct SigningAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
    chain_pem: String,
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<Certificate>,
    /// The trust bundle, in PEM.
    pub bundle_pem: String,
    /// Digest of the trust bundle.
    pub bundle_hash: String,
    /// Fingerprints of the authorities whose certificates the trust bundle verifies.
    pub trusted: Vec<String>,
}

/// The content of a certificate that is to be issued.
#[derive(Clone, Debug)]
pub struct LeafRequest {
    /// Its only URI name.
    pub spiffe_id: SpiffeId,
    /// Its subject.
    pub subject: Subject,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// Kind of its key.
    pub key_algorithm: KeyAlgorithm,
    /// How long it is valid.
    pub lifetime: SignedDuration,
}

/// An issued certificate with its private key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate, then the intermediates, in PEM.
    pub chain_pem: String,
    /// Its private key.
    pub key: SecretText,
    /// The certificate itself.
    pub certificate: Certificate,
    /// When it was issued. Its `notBefore` is [`BACKDATE`] earlier.
    pub issued_at: Timestamp,
}

impl SigningAuthority {
    /// Checks that an authority can sign: the key belongs to the certificate, the certificate is that of an authority, it is
    /// valid now, and it chains to one of the roots.
    ///
    /// # Errors
    /// The check that failed.
    pub fn new(
        chain: Vec<Certificate>,
        key: &SecretText,
        roots: Vec<Certificate>,
        now: Timestamp,
    ) -> Result<Self, IssuerError> {
        let key_pair = read_key(key)?;
        let invalid = IssuerError::Invalid;
        let certificate = chain.first().cloned().ok_or_else(|| invalid("tls.crt: holds no certificate".into()))?;
        if !certificate.is_authority {
            return Err(invalid(
                "tls.crt: the first certificate is not that of an authority (basicConstraints CA:TRUE and the key usage \
                 keyCertSign); issue an intermediate instead of a leaf"
                    .into(),
            ));
        }
        if public_key(&key_pair) != certificate.public_key {
            return Err(invalid("tls.key: the private key does not belong to the certificate in tls.crt; store a key and a certificate that match".into()));
        }
        check_validity(&certificate, "tls.crt", now)?;
        if let Some(wrong) = roots.iter().find(|root| !root.is_authority) {
            return Err(invalid(format!(
                "ca.crt: the certificate {} is not that of an authority",
                wrong.fingerprint()
            )));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate.der, key_pair)?;
        // A root that issues directly is part of the trust bundle; clients do not expect it in the chain.
        let sent = chain.iter().filter(|link| !link.is_self_issued);
        let intermediates: Vec<_> = sent.map(|link| link.der.clone()).collect();
        let bundle_pem: String = roots.iter().map(|root| pem::encode(&root.der)).collect();
        let authority = Self {
            issuer,
            chain_pem: intermediates.iter().map(pem::encode).collect(),
            intermediates,
            bundle_hash: digest([bundle_pem.as_str()]),
            bundle_pem,
            roots,
            trusted: vec![certificate.fingerprint()],
            certificate,
        };
        // A certificate is issued and discarded, to show that the authority can sign.
        authority.issue(
            &LeafRequest {
                spiffe_id: SpiffeId::new("probe.invalid", "probe", "probe")?,
                subject: Subject::new("probe.invalid", "probe", "probe"),
                dns_names: Vec::new(),
                key_algorithm: KeyAlgorithm::Ecdsa,
                lifetime: SignedDuration::from_mins(1),
            },
            now,
        )?;
        Ok(authority)
    }

    /// Fingerprint of the signing certificate.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.certificate.fingerprint()
    }

    /// Fingerprint of the first root of the bundle.
    #[must_use]
    pub fn root_fingerprint(&self) -> String {
        self.roots.first().map(Certificate::fingerprint).unwrap_or_default()
    }

    /// When the signing certificate expires.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificate.not_after
    }

    /// How many roots the trust bundle has.
    #[must_use]
    pub fn root_count(&self) -> usize {
        self.roots.len()
    }

    /// Issues a certificate, and verifies it.
    ///
    /// # Errors
    /// When the authority expires within 30 seconds, or the certificate does not verify.
    pub fn issue(&self, request: &LeafRequest, now: Timestamp) -> Result<Leaf, IssuerError> {
        // A chain is valid until its first certificate expires, so a leaf expires no later than its authority.
        let ends = now.saturating_add(request.lifetime).unwrap_or(now).min(self.certificate.not_after);
        if ends <= now.saturating_add(SignedDuration::from_secs(30)).unwrap_or(now) {
            return Err(IssuerError::Expiring(self.certificate.not_after));
        }
        let key_pair = generate_key(request.key_algorithm)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = distinguished_name(&request.subject);
        params.not_before = offset(now.saturating_sub(BACKDATE).unwrap_or(now))?;
        params.not_after = offset(ends)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        if request.key_algorithm == KeyAlgorithm::Rsa {
            params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.subject_alt_names = vec![SanType::URI(request.spiffe_id.as_str().try_into()?)];
        for name in &request.dns_names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        let signed = params.signed_by(&key_pair, &self.issuer)?;
        let certificate = Certificate::parse(signed.der().clone())?;
        self.verify(&certificate, &key_pair, now)?;
        Ok(Leaf {
            chain_pem: format!("{}{}", pem::encode(signed.der()), self.chain_pem),
            key: SecretText::new(key_pair.serialize_pem()),
            certificate,
            issued_at: now,
        })
    }

    /// Verifies key, chain and validity as a TLS server does.
    fn verify(&self, leaf: &Certificate, key: &KeyPair, now: Timestamp) -> Result<(), IssuerError> {
        let failed = |cause: String| IssuerError::Invalid(format!("the issued certificate does not verify: {cause}"));
        if public_key(key) != leaf.public_key {
            return Err(failed("the key does not belong to the certificate".into()));
        }
        let mut store = RootCertStore::empty();
        for root in &self.roots {
            store.add(root.der.clone()).map_err(|error| failed(format!("ca.crt: {}", defect::of_tls(&error))))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(
            store.into(),
            rustls::crypto::aws_lc_rs::default_provider().into(),
        )
        .build()
        .map_err(|_| failed("ca.crt holds no root".into()))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier.verify_client_cert(&leaf.der, &self.intermediates, time).map_err(|error| {
            failed(format!(
                "{}; ca.crt must hold the root that tls.crt chains to, and tls.crt every intermediate between them",
                defect::of_tls(&error)
            ))
        })?;
        Ok(())
    }
}

/// Checks that a certificate is valid now.
pub(super) fn check_validity(certificate: &Certificate, what: &str, now: Timestamp) -> Result<(), IssuerError> {
    if certificate.not_after <= now {
        return Err(IssuerError::Invalid(format!(
            "{what}: the certificate expired at {}; replace it",
            certificate.not_after
        )));
    }
    if certificate.not_before > now {
        return Err(IssuerError::Invalid(format!(
            "{what}: the certificate is not valid before {}; check the clocks",
            certificate.not_before
        )));
    }
    Ok(())
}

/// Reads a private key in PKCS#8, SEC 1 or PKCS#1 PEM.
fn read_key(key: &SecretText) -> Result<KeyPair, IssuerError> {
    // The message of the library may quote the key.
    KeyPair::from_pem(key.expose()).map_err(|_| {
        IssuerError::Invalid(
            "tls.key: not a private key in PEM (PKCS#8) of a supported algorithm (ECDSA, Ed25519, RSA)".into(),
        )
    })
}

fn public_key(key: &KeyPair) -> Vec<u8> {
    use rcgen::PublicKeyData;
    key.subject_public_key_info()
}

/// Generates a key pair.
pub(super) fn generate_key(algorithm: KeyAlgorithm) -> Result<KeyPair, IssuerError> {
    Ok(match algorithm {
        KeyAlgorithm::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyAlgorithm::Ed25519 => plain_ed25519(&KeyPair::generate_for(&PKCS_ED25519)?)?,
        KeyAlgorithm::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
    })
}

/// The same key in version 1 of PKCS#8 (RFC 8410 section 7). The library writes version 2, which includes the public key and
/// which OpenSSL does not read.
fn plain_ed25519(key: &KeyPair) -> Result<KeyPair, IssuerError> {
    const BEFORE_KEY: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
    let der = Zeroizing::new(key.serialize_der());
    let private = der.get(16..48).filter(|_| der[5..16] == BEFORE_KEY[5..]);
    let private =
        private.ok_or_else(|| IssuerError::Invalid("the generated Ed25519 key has an unknown form".into()))?;
    let plain = Zeroizing::new([&BEFORE_KEY[..], private].concat());
    Ok(KeyPair::try_from(plain.as_slice())?)
}

/// Parameters of an authority's certificate (X509-SVID section 4.3: `keyCertSign`, and a SPIFFE ID without a path).
pub(super) fn authority_params(
    domain: &str,
    name: &str,
    path_length: u8,
    validity: (Timestamp, Timestamp),
) -> Result<CertificateParams, IssuerError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, Subject::new(domain, "", "").organization);
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.not_before = offset(validity.0)?;
    params.not_after = offset(validity.1)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://{domain}").as_str().try_into()?)];
    Ok(params)
}

fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, subject.organization.as_str());
    name.push(DnType::OrganizationalUnitName, subject.unit.as_str());
    name.push(DnType::CommonName, subject.common_name.as_str());
    name
}

fn offset(time: Timestamp) -> Result<time::OffsetDateTime, IssuerError> {
    time::OffsetDateTime::from_unix_timestamp(time.as_second())
        .map_err(|_| IssuerError::Invalid(format!("the time {time} is out of range for a certificate")))
}
