//! The signature base on its own, whatever it covers.

use super::super::error::VerifyError;
use super::super::request::SignedRequest;
use super::base::signature_base;
use super::reader::inner_lists;

/// What a signature covers.
#[derive(Debug, PartialEq, Eq)]
pub struct Covered {
    /// Its label.
    pub label: String,
    /// The components, each as the base names it.
    pub components: Vec<String>,
    /// The components and parameters, as the last line of the base has them.
    pub list: String,
    /// The base.
    pub base: Result<String, VerifyError>,
}

/// Reads a `Signature-Input`, and builds the base of each signature in it.
#[must_use]
pub fn bases(request: &SignedRequest<'_>, input: &str) -> Option<Vec<Covered>> {
    let covered = inner_lists(input)?.into_iter().map(|(label, list)| Covered {
        label: label.to_owned(),
        components: list.items.iter().map(ToString::to_string).collect(),
        list: list.to_string(),
        base: signature_base(request, &list),
    });
    Some(covered.collect())
}
