//! The certificate that a peer has presented. The handshake proves that the peer has its key, and nothing else: who vouches for
//! it is asked for each use, with the authorities of that use.

use jiff::Timestamp;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

use super::authorities::Authorities;
use super::names::{CertificateNames, not_after};

/// For how long a verdict about a chain is used again, in seconds: intermediates and authorities expire as well.
const VERDICT_LIFETIME: i64 = 60;
/// With how many sets of authorities the chain of one connection is verified within [`VERDICT_LIFETIME`]. Each costs signature
/// verifications, before the rate limits.
const MAX_VERDICTS: usize = 32;

/// A certificate that the peer of a connection has presented, with its chain.
pub struct ClientCertificate {
    /// The chain, the peer's own certificate first.
    chain: Vec<CertificateDer<'static>>,
    names: CertificateNames,
    /// The last second in which the peer's own certificate is valid, since 1970.
    not_after: i64,
    verdicts: Mutex<Vec<Verdict>>,
}

/// What a set of authorities says about the chain.
struct Verdict {
    authorities: [u8; 32],
    at: i64,
    is_verified: bool,
}

impl Verdict {
    /// A clock that was set back makes it stale as well.
    fn is_fresh(&self, now: i64) -> bool {
        (0..VERDICT_LIFETIME).contains(&(now - self.at))
    }
}

impl ClientCertificate {
    /// The certificate of a chain, the peer's own first; `None` for an empty chain, and for a certificate that cannot be read.
    #[must_use]
    pub fn new(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        Some(Self {
            names: CertificateNames::of(leaf),
            not_after: not_after(leaf)?,
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            verdicts: Mutex::default(),
        })
    }

    /// Its thumbprint: the SHA-256 of its DER.
    pub fn thumbprint(&self) -> [u8; 32] {
        Sha256::digest(&self.chain[0]).into()
    }

    /// The last second in which it is valid, since 1970.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Its names, if one of these authorities vouches for it now.
    pub fn names_by(&self, authorities: &Authorities, now: Timestamp) -> Option<&CertificateNames> {
        let is_valid = now.as_second() <= self.not_after;
        (is_valid && self.is_verified_by(authorities, now)).then_some(&self.names)
    }

    fn is_verified_by(&self, authorities: &Authorities, now: Timestamp) -> bool {
        let (id, second) = (authorities.digest(), now.as_second());
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|verdict| verdict.is_fresh(second));
        if let Some(verdict) = verdicts.iter().find(|verdict| verdict.authorities == id) {
            return verdict.is_verified;
        }
        if verdicts.len() >= MAX_VERDICTS {
            tracing::debug!("too many sets of authorities on one connection; not verifying its certificate with more");
            return false;
        }
        let is_verified = authorities.vouch_for(&self.chain, now);
        verdicts.push(Verdict { authorities: id, at: second, is_verified });
        is_verified
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    };

    use super::*;

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(issuer: &CertifiedIssuer<'_, KeyPair>, usage: ExtendedKeyUsagePurpose, hours: i64) -> ClientCertificate {
        let mut params = CertificateParams::new(["hooks.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://demo/ns/shop/sa/orders".try_into().unwrap()));
        params.extended_key_usages = vec![usage];
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::hours(hours);
        let der = params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone();
        ClientCertificate::new(&[der]).unwrap()
    }

    fn set(issuer: &CertifiedIssuer<'_, KeyPair>) -> Authorities {
        Authorities::parse(issuer.pem().as_bytes(), 1).unwrap()
    }

    #[test]
    fn each_set_of_authorities_vouches_for_its_own_certificates_only() {
        let (one, other) = (authority(), authority());
        let certificate = leaf(&one, ExtendedKeyUsagePurpose::ClientAuth, 1);
        let now = Timestamp::now();
        assert_eq!(certificate.names_by(&set(&one), now).unwrap().dns_names, ["hooks.example"]);
        assert!(certificate.names_by(&set(&other), now).is_none());
        assert!(certificate.names_by(&set(&one), now).is_some(), "the other verdict changes nothing");
        let for_servers = leaf(&one, ExtendedKeyUsagePurpose::ServerAuth, 1);
        assert!(for_servers.names_by(&set(&one), now).is_none());
    }

    #[test]
    fn a_verdict_is_used_again_for_a_minute_and_never_past_the_end() {
        let authority = authority();
        let (certificate, set) = (leaf(&authority, ExtendedKeyUsagePurpose::ClientAuth, 1), set(&authority));
        let (now, second) = (Timestamp::now(), SignedDuration::from_secs(1));
        assert!(certificate.names_by(&set, now).is_some());
        // A verdict that is wrong shows that it is used.
        certificate.verdicts.lock()[0].is_verified = false;
        assert!(certificate.names_by(&set, now + second * 59).is_none());
        assert!(certificate.names_by(&set, now + second * 60).is_some(), "it is verified anew");
        certificate.verdicts.lock()[0].is_verified = false;
        assert!(certificate.names_by(&set, now).is_some(), "the clock was set back");
        let end = Timestamp::from_second(certificate.not_after).unwrap();
        assert!(certificate.names_by(&set, end).is_some());
        assert!(certificate.names_by(&set, end + second).is_none());
    }

    #[test]
    fn one_connection_is_verified_with_a_limited_number_of_sets() {
        let issuer = authority();
        let certificate = leaf(&issuer, ExtendedKeyUsagePurpose::ClientAuth, 1);
        let now = Timestamp::now();
        for _ in 0..MAX_VERDICTS {
            assert!(certificate.names_by(&set(&authority()), now).is_none());
        }
        assert!(certificate.names_by(&set(&issuer), now).is_none());
        let later = now + SignedDuration::from_secs(VERDICT_LIFETIME);
        assert!(certificate.names_by(&set(&issuer), later).is_some());
    }
}
