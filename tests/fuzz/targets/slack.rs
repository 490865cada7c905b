#![no_main]
//! Slack.

credence_fuzz::scheme!({"slack": {}}, "0123456789abcdef0123456789abcdef", signs body: true);
