#![no_main]
//! GitHub.

credence_fuzz::scheme!({"github": {}}, "0123456789abcdef0123456789abcdef", signs body: true);
