#![no_main]
//! Certificates and authorities of Secrets and of peers: errors say little, and nobody vouches for what was altered.

use std::sync::OnceLock;

use credence::certificates::certificates;
use credence::edge::front::{Authorities, ClientCertificate};
use credence_fuzz::edited;
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use rustls_pki_types::CertificateDer;

struct Seeds {
    pem: String,
    leaf: CertificateDer<'static>,
    authorities: Authorities,
}

fn seeds() -> Seeds {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(["hooks.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://demo/ns/shop/sa/orders".try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
    let seeds = Seeds {
        pem: format!("{}{}", leaf.pem(), authority.pem()),
        leaf: leaf.der().clone(),
        authorities: Authorities::parse(authority.pem().as_bytes(), 1).unwrap(),
    };
    let (unaltered, now) = (ClientCertificate::new(&[seeds.leaf.clone()]).unwrap(), Timestamp::now());
    assert!(unaltered.names_by(&seeds.authorities, now).is_some());
    seeds
}

static SEEDS: OnceLock<Seeds> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let seeds = SEEDS.get_or_init(seeds);
    let Some((how, rest)) = data.split_first() else { return };
    match how % 4 {
        0 | 1 => {
            let text = if how % 4 == 0 { rest.to_vec() } else { edited(seeds.pem.as_bytes(), rest) };
            match certificates(&text, "tls.crt") {
                Ok(found) => assert!((1..=64).contains(&found.len())),
                Err(error) => assert!(error.to_string().len() < 200, "the error repeats what was read: {error}"),
            }
            if let Err(error) = Authorities::parse(&text, 8) {
                assert!(error.to_string().len() < 200, "the error repeats what was read: {error}");
            }
        }
        _ => {
            let der = if how % 4 == 2 { rest.to_vec() } else { edited(&seeds.leaf, rest) };
            let is_altered = der != *seeds.leaf;
            let Some(certificate) = ClientCertificate::new(&[CertificateDer::from(der)]) else { return };
            if is_altered {
                assert!(certificate.names_by(&seeds.authorities, Timestamp::now()).is_none(), "an altered one is taken");
            }
        }
    }
});
