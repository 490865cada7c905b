#![no_main]
//! Standard Webhooks.

credence_fuzz::scheme!({"standardWebhooks": {}}, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", signs body: true);
