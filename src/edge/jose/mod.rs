//! JSON Web Signatures, tokens and keys (RFC 7515, 7517 and 7519): written in one way, and read strictly. Pure.

mod key_set;
mod members;
mod signer;
#[cfg(test)]
pub(crate) mod testing;
mod token;

pub use key_set::{InvalidKeySet, KeySet};
pub use members::Members;
pub use signer::Signer;
pub use token::{Audience, Times, TokenError, UnverifiedToken};
