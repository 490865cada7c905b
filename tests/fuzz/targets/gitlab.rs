#![no_main]
//! GitLab: nothing but the token is checked.

credence_fuzz::scheme!({"gitlab": {}}, "0123456789abcdef0123456789abcdef", signs body: false);
