//! How much of the edge's namespace the routes of one namespace may take. Pure.

use crate::api::Reason;
use crate::domain::refusal::Refusal;

/// How long the document of one route may be, in bytes: the API server takes a Secret of 1 MiB.
const MAX_DOCUMENT: usize = 512 << 10;
/// How many bytes the routes of one namespace may have together.
const MAX_BYTES: usize = 8 << 20;

/// Why a route is not written whose document grows from the first to the second of these lengths, of a namespace whose routes have
/// `taken` bytes. The first is 0 for a new route. One that is there and does not grow goes on, whatever the others take.
pub fn refuse(taken: usize, namespace: &str, (before, after): (usize, usize)) -> Option<Refusal> {
    let refusal = |message: String| Some(Refusal::new(Reason::LimitExceeded, message));
    if after <= before {
        return None;
    }
    if after > MAX_DOCUMENT {
        return refusal(format!(
            "the webhook with its keys takes {} KiB, and {} KiB are the limit; shorten its template, or use fewer keys",
            after.div_ceil(1 << 10),
            MAX_DOCUMENT >> 10
        ));
    }
    if taken.saturating_sub(before) + after > MAX_BYTES {
        return refusal(format!(
            "the webhooks of the namespace {namespace} would take more than {} MiB at the edge; delete others, or shorten their \
             templates and keys",
            MAX_BYTES >> 20
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_refused_beyond_its_limits_and_only_what_grows() {
        let refused = |taken, sizes| refuse(taken, "shop", sizes).map(|refusal| refusal.message);
        let says =
            |taken, sizes, text: &str| assert!(refused(taken, sizes).is_some_and(|it| it.contains(text)), "{text}");
        assert_eq!(refused(0, (0, MAX_DOCUMENT)), None);
        says(0, (0, MAX_DOCUMENT + 1), "513 KiB");
        says(MAX_BYTES, (0, 1), "8 MiB");
        says(MAX_BYTES, (10, 11), "8 MiB");
        assert_eq!(refused(MAX_BYTES - 1, (0, 1)), None);
        // What is there before an upgrade goes on, and may become smaller.
        for before in [MAX_DOCUMENT, 3 * MAX_DOCUMENT] {
            assert_eq!(refused(9 * MAX_BYTES, (before, before)), None);
            assert_eq!(refused(9 * MAX_BYTES, (before, before - 1)), None);
        }
    }
}
