#![no_main]
//! The source policy: without a trusted proxy, the address of the connection counts, whatever the headers contain.

use credence::api::WebhookSource;
use credence::edge::http::Caller;
use credence::edge::http::source::{ProvenNames, SourcePolicy};
use credence::edge::webhook::source::compile;
use credence_fuzz::Parts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(parts) = Parts::read(data) else { return };
    let source = |proxies: &[&str]| WebhookSource {
        cidrs: vec!["192.0.2.0/24".to_owned()],
        trusted_proxies: proxies.iter().map(ToString::to_string).collect(),
        ..WebhookSource::default()
    };
    let caller = Caller { address: [203, 0, 113, 9].into(), certificate: None };
    let admits = |policy: &SourcePolicy| {
        policy.admits(policy.address(&caller, &parts.headers), &ProvenNames::default())
    };
    assert!(!admits(&compile(Some(&source(&[]))).unwrap()));
    let _ = admits(&compile(Some(&source(&["203.0.113.0/24"]))).unwrap());
    if let Ok(text) = std::str::from_utf8(&parts.body) {
        let _ = compile(Some(&WebhookSource { cidrs: vec![text.to_owned()], ..WebhookSource::default() }));
    }
});
