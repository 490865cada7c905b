#![no_main]
//! Keys from Secrets: an invalid key is refused with a message that does not contain the key.

use credence::edge::webhook::verify::Scheme;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let verifications = [
        serde_json::json!({"standardWebhooks": {}}),
        serde_json::json!({"github": {}}),
        serde_json::json!({"gitlab": {}}),
        serde_json::json!({"httpMessageSignatures": {"algorithm": "Ed25519"}}),
        serde_json::json!({"httpMessageSignatures": {"algorithm": "EcdsaP256Sha256"}}),
        serde_json::json!({"httpMessageSignatures": {"algorithm": "RsaPssSha512"}}),
        serde_json::json!({"jwt": {"issuer": "a", "audience": "b"}}),
    ];
    let Some((which, key)) = data.split_first() else { return };
    let verification = verifications[usize::from(*which) % verifications.len()].clone();
    let scheme = Scheme::new(&serde_json::from_value(verification).unwrap()).unwrap();
    let Err(error) = scheme.parse_key(key) else { return };
    let message = error.to_string();
    let holds = std::str::from_utf8(key).is_ok_and(|key| key.len() >= 16 && message.contains(key));
    if let (true, Some((last, rest))) = (holds, key.split_last()) {
        // Then the text must be a constant part of the message, and another key must cause the same message.
        let other = [rest, &[last ^ 1]].concat();
        assert_eq!(scheme.parse_key(&other).err(), Some(error), "the message contains the key");
    }
});
