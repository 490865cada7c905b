#![no_main]
//! HTTP Message Signatures (RFC 9421): the dictionaries, the signature base, and the digest of the content.

credence_fuzz::scheme!(
    {"httpMessageSignatures": {"algorithm": "HmacSha256", "components": ["date"]}},
    "0123456789abcdef0123456789abcdef",
    signs body: true
);
