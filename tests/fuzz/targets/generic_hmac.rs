#![no_main]
//! A MAC over named parts.

credence_fuzz::scheme!({"hmac": {
    "hash": "Sha256",
    "encoding": "Hex",
    "header": "x-signature",
    "prefix": "sha256=",
    "parts": [
        {"id": {"header": "x-id"}},
        {"literal": "."},
        {"timestamp": {"header": "x-timestamp"}},
        {"literal": "."},
        {"body": {}},
    ],
}}, "0123456789abcdef0123456789abcdef", signs body: true);
