#![no_main]
//! Stripe.

credence_fuzz::scheme!({"stripe": {}}, "0123456789abcdef0123456789abcdef", signs body: true);
