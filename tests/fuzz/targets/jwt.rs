#![no_main]
//! A JWT that carries the digest of the body. The key is the example of RFC 7517, appendix A.1.

credence_fuzz::scheme!(
    {"jwt": {"issuer": "https://issuer.example", "audience": "hooks"}},
    r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "alg": "ES256",
        "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
        "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#,
    signs body: true
);
