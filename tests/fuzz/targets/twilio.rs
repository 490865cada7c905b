#![no_main]
//! Twilio: the signature does not separate the fields of a form, so a longer body can have the same signature.

credence_fuzz::scheme!({"twilio": {}}, "0123456789abcdef0123456789abcdef", signs body: false);
