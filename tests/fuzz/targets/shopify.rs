#![no_main]
//! Shopify.

credence_fuzz::scheme!({"shopify": {}}, "0123456789abcdef0123456789abcdef", signs body: true);
