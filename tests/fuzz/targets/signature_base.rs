#![no_main]
//! The signature base of RFC 9421 for any covered components: every component once on its own line, and the list of
//! components at the end, which parses to the same list.

use std::collections::BTreeSet;

use credence::edge::webhook::verify::SignedRequest;
use credence::edge::webhook::verify::fuzzing::{Covered, bases};
use credence_fuzz::Parts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(Parts { method, uri, headers, body }) = Parts::read(data) else { return };
    let text = |name: &str| headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    let Some(input) = text("signature-input") else { return };
    let request = SignedRequest {
        method: &method,
        uri: &uri,
        authority: text("host").unwrap_or("hooks.example.com"),
        external_url: text("x-external-url"),
        headers: &headers,
        body: &body,
    };
    let Some(covered) = bases(&request, input) else { return };
    assert_eq!(bases(&request, input).as_ref(), Some(&covered));
    for Covered { label, components, list, base } in covered {
        let again = bases(&request, &format!("{label}={list}")).unwrap();
        assert_eq!((&again[0].list, &again[0].components, &again[0].base), (&list, &components, &base));
        let Ok(base) = base else { continue };
        let lines: Vec<&str> = base.split('\n').collect();
        let (last, values) = lines.split_last().unwrap();
        assert_eq!(*last, format!("\"@signature-params\": {list}"));
        assert_eq!(values.len(), components.len());
        assert_eq!(components.iter().collect::<BTreeSet<_>>().len(), components.len(), "a component is repeated");
        assert!(base.bytes().all(|byte| byte == b'\n' || (32..127).contains(&byte)));
        for (line, component) in values.iter().zip(&components) {
            let value = line.strip_prefix(component.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap();
            let name = component.trim_matches('"');
            if !name.starts_with('@') {
                let values_of_header: Vec<&str> = headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect();
                assert_eq!(values_of_header, [value], "{component}");
            }
            assert!(name != "@method" || value == method.as_str());
            assert!(name != "@query" || value == format!("?{}", uri.query().unwrap_or_default()));
        }
    }
});
