#![no_main]
//! Twilio: fields that cannot be read apart make the same signature, so a longer body may be the same form.

credence_fuzz::scheme!({"twilio": {}}, "0123456789abcdef0123456789abcdef", signs body: false);
