//! When a certificate is renewed: `(rules, stored material, wanted material, now) -> decision`.

use jiff::{SignedDuration, Timestamp};

use super::altered::AlteredBy;
use super::invalid_field::InvalidField;
use super::schedule::{self, Window, duration};
use super::selector::{self, Labels};
use crate::api::{RotationPolicySpec, RotationTarget, RotationTargetKind};

/// How far certificates are back-dated, for clocks that run behind.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// The rotation rules that are in effect for one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// How long a certificate is valid.
    pub lifetime: SignedDuration,
    /// After which part of its lifetime a certificate is renewed, in percent.
    pub renew_after_percent: u32,
    /// When renewals may take place; without windows, at any time.
    pub windows: Vec<Window>,
    /// How many objects may be renewed at the same time.
    pub max_concurrent: usize,
    /// Certificates that were issued before one of these times are renewed, once that time has come.
    pub issued_before: Vec<Timestamp>,
    /// Only certificates that would expire are renewed, and those whose renewal another policy requests.
    pub suspend: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lifetime: SignedDuration::from_hours(24),
            renew_after_percent: 66,
            windows: Vec::new(),
            max_concurrent: 20,
            issued_before: Vec::new(),
            suspend: false,
        }
    }
}

impl Rules {
    /// Checks the rules that the schema cannot express.
    ///
    /// # Errors
    /// The field that is invalid.
    pub fn new(spec: &RotationPolicySpec) -> Result<Self, InvalidField> {
        let defaults = Self::default();
        let certificates = spec.certificates.clone().unwrap_or_default();
        Ok(Self {
            lifetime: duration("certificates.lifetime", certificates.lifetime.as_deref(), defaults.lifetime)?,
            renew_after_percent: certificates.renew_after_percent.unwrap_or(defaults.renew_after_percent),
            windows: spec.windows.iter().map(Window::new).collect::<Result<_, _>>()?,
            max_concurrent: spec.max_concurrent.map_or(defaults.max_concurrent, |limit| limit as usize),
            issued_before: spec.issued_before.iter().map(|time| time.0).collect(),
            suspend: spec.suspend.unwrap_or(false),
        })
    }
}

/// How specifically a policy applies to an object. The first one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attachment {
    /// The policy names the object.
    Name,
    /// The policy selects the object by labels.
    Selector,
    /// The policy applies to all objects of the kind.
    Kind,
}

/// How specifically a policy applies to an object; `None` if it does not.
#[must_use]
pub fn attachment(
    targets: &[RotationTarget],
    kind: RotationTargetKind,
    name: &str,
    labels: &Labels,
) -> Option<Attachment> {
    targets
        .iter()
        .filter(|target| target.kind == kind)
        .filter_map(|target| match (&target.name, &target.selector) {
            (Some(target_name), _) => (target_name == name).then_some(Attachment::Name),
            (None, Some(selector)) => selector::matches(selector, labels).then_some(Attachment::Selector),
            (None, None) => Some(Attachment::Kind),
        })
        .min()
}

/// Facts about a stored certificate, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
    /// Fingerprint of the authority that signed it.
    pub authority: String,
    /// Digest of the inputs of the certificate: names and key algorithm.
    pub inputs: String,
    /// Digest of the data that is stored with the certificate and changes without a new key: trust bundle and broker address.
    pub surroundings: String,
    /// The other writer that altered it. Then the other facts are not valid.
    pub altered_by: Option<AlteredBy>,
    /// Serial number of the certificate, in hexadecimal.
    pub serial_number: String,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

/// What the stored certificate should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// See [`Material::inputs`].
    pub inputs: &'a str,
    /// See [`Material::surroundings`].
    pub surroundings: &'a str,
    /// Fingerprints of the authorities whose certificates the trust bundle verifies.
    pub authorities: &'a [String],
    /// Whether a certificate existed before.
    pub existed: bool,
}

/// Why a certificate is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No certificate exists yet.
    Missing,
    /// Another writer deleted it.
    Deleted,
    /// Another writer changed it.
    Altered,
    /// It has expired.
    Expired,
    /// Its issue time lies in the future: the clock of its issuer was fast.
    NotYetValid,
    /// The spec asks for other names or another key algorithm.
    SpecChanged,
    /// It would expire before the next renewal is allowed.
    Expiring,
    /// Its authority is no longer trusted.
    AuthorityReplaced,
    /// It was issued before `issuedBefore`.
    Requested,
    /// Its renewal point has passed.
    Due,
}

impl Cause {
    /// Whether `maxConcurrent` limits this renewal. Repairs and the renewal of expiring certificates are not limited.
    #[must_use]
    pub fn is_paced(self) -> bool {
        matches!(self, Self::AuthorityReplaced | Self::Requested | Self::Due)
    }

    /// Whether another writer made it necessary.
    #[must_use]
    pub fn is_repair(self) -> bool {
        matches!(self, Self::Deleted | Self::Altered)
    }

    /// The name in metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::Deleted => "Deleted",
            Self::Altered => "Altered",
            Self::Expired => "Expired",
            Self::NotYetValid => "NotYetValid",
            Self::SpecChanged => "SpecChanged",
            Self::Expiring => "Expiring",
            Self::AuthorityReplaced => "AuthorityReplaced",
            Self::Requested => "Requested",
            Self::Due => "Due",
        }
    }

    /// The cause as a clause, after "because".
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Missing => "no certificate existed",
            Self::Deleted => "another writer deleted the Secret",
            Self::Altered => "another writer changed the Secret",
            Self::Expired => "it had expired",
            Self::NotYetValid => "its issue time lies in the future",
            Self::SpecChanged => "the spec asks for other names or another key algorithm",
            Self::Expiring => "it would have expired before the next renewal was allowed",
            Self::AuthorityReplaced => "its authority was replaced",
            Self::Requested => "it was issued before the time in issuedBefore",
            Self::Due => "it was due for renewal",
        }
    }
}

/// Why a renewal that is due is on hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The policy is suspended.
    Suspended,
    /// No window is open.
    OutsideWindows,
}

/// What to do with a certificate now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Issue a new certificate.
    Issue(Cause),
    /// Store the same certificate and key again, with the current trust bundle or broker address.
    Refresh,
    /// Keep it, and decide again at this time.
    Keep {
        /// When to decide again.
        until: Timestamp,
        /// Why a renewal that is due is on hold.
        hold: Option<HoldReason>,
    },
}

/// When a certificate is due for renewal, without regard to windows. `seed` moves the time earlier by up to a tenth of the
/// lifetime, always by the same amount for one object.
#[must_use]
pub fn renewal_point(rules: &Rules, issued_at: Timestamp, not_after: Timestamp, seed: u64) -> Timestamp {
    // A shorter lifetime in the policy also applies to certificates that were issued with a longer one.
    let lifetime = seconds(not_after.duration_since(issued_at)).min(seconds(rules.lifetime));
    let shift = lifetime / 10 * i64::try_from(seed % 1000).unwrap_or(0) / 1000;
    add(issued_at, lifetime * i64::from(rules.renew_after_percent) / 100 - shift)
}

/// Decides about one certificate. `material` is `None` when there is none.
#[must_use]
pub fn decide(rules: &Rules, material: Option<&Material>, wanted: &Wanted<'_>, seed: u64, now: Timestamp) -> Decision {
    let Some(material) = material else {
        return Decision::Issue(if wanted.existed { Cause::Deleted } else { Cause::Missing });
    };
    if material.altered_by.is_some() {
        return Decision::Issue(Cause::Altered);
    }
    if material.not_after <= now {
        return Decision::Issue(Cause::Expired);
    }
    if material.issued_at.duration_since(now) > BACKDATE {
        return Decision::Issue(Cause::NotYetValid);
    }
    if material.inputs != wanted.inputs {
        return Decision::Issue(Cause::SpecChanged);
    }
    let point = renewal_point(rules, material.issued_at, material.not_after, seed);
    let margin = add(point, (material.not_after.as_second() - point.as_second()) / 2);
    if margin <= now {
        return Decision::Issue(Cause::Expiring);
    }
    let requested = rules.issued_before.iter().any(|before| *before <= now && material.issued_at < *before);
    let due = if !wanted.authorities.contains(&material.authority) {
        Some(Cause::AuthorityReplaced)
    } else if requested {
        Some(Cause::Requested)
    } else if point <= now {
        Some(Cause::Due)
    } else {
        None
    };
    let opening = schedule::next_opening(&rules.windows, now);
    let hold = match due {
        None => None,
        Some(Cause::AuthorityReplaced | Cause::Due) if rules.suspend => Some(HoldReason::Suspended),
        Some(Cause::Due) if opening > now => Some(HoldReason::OutsideWindows),
        Some(cause) => return Decision::Issue(cause),
    };
    if material.surroundings != wanted.surroundings {
        return Decision::Refresh;
    }
    let until = match hold {
        None => point,
        Some(HoldReason::Suspended) => margin,
        Some(HoldReason::OutsideWindows) => opening.min(margin),
    };
    let requests = rules.issued_before.iter().copied().filter(|before| *before > now);
    Decision::Keep { until: requests.chain([until]).min().unwrap_or(until), hold }
}

fn seconds(duration: SignedDuration) -> i64 {
    duration.as_secs()
}

fn add(time: Timestamp, seconds: i64) -> Timestamp {
    time.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RotationWindow;

    const DAY: i64 = 86_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn material() -> Material {
        Material {
            issued_at: at(0),
            not_after: at(DAY),
            authority: "a1".into(),
            inputs: "names".into(),
            surroundings: "bundle".into(),
            altered_by: None,
            serial_number: "01".into(),
            fingerprint: "f".into(),
        }
    }

    fn decide_at(rules: &Rules, material: &Material, now: i64) -> Decision {
        let authorities = ["a1".to_owned()];
        let wanted = Wanted { inputs: "names", surroundings: "bundle", authorities: &authorities, existed: true };
        decide(rules, Some(material), &wanted, 0, at(now))
    }

    #[test]
    fn a_fresh_certificate_is_kept_until_its_renewal_point() {
        let kept = Decision::Keep { until: at(DAY * 66 / 100), hold: None };
        assert_eq!(decide_at(&Rules::default(), &material(), 60), kept);
        assert_eq!(decide_at(&Rules::default(), &material(), DAY * 66 / 100), Decision::Issue(Cause::Due));
    }

    #[test]
    fn a_broken_certificate_is_replaced_despite_suspension() {
        let rules = Rules { suspend: true, ..Rules::default() };
        for (spoilt, cause) in [
            (Material { altered_by: Some(AlteredBy::Manager("kubectl-edit".into())), ..material() }, Cause::Altered),
            (Material { inputs: "other".into(), ..material() }, Cause::SpecChanged),
            (Material { not_after: at(30), ..material() }, Cause::Expired),
            (Material { issued_at: at(3600), ..material() }, Cause::NotYetValid),
        ] {
            assert_eq!(decide_at(&rules, &spoilt, 60), Decision::Issue(cause));
            assert!(!cause.is_paced());
        }
    }

    #[test]
    fn what_was_there_before_and_is_gone_was_deleted() {
        for (existed, cause) in [(false, Cause::Missing), (true, Cause::Deleted)] {
            let wanted = Wanted { inputs: "", surroundings: "", authorities: &[], existed };
            assert_eq!(decide(&Rules::default(), None, &wanted, 0, at(0)), Decision::Issue(cause));
        }
    }

    #[test]
    fn issued_before_renews_an_older_certificate_once() {
        let rules = |before| Rules { issued_before: vec![at(before)], ..Rules::default() };
        assert_eq!(decide_at(&rules(100), &material(), 200), Decision::Issue(Cause::Requested));
        let renewed = Material { issued_at: at(200), not_after: at(200 + DAY), ..material() };
        assert!(matches!(decide_at(&rules(100), &renewed, 201), Decision::Keep { hold: None, .. }));
    }

    #[test]
    fn issued_before_in_the_future_waits_for_its_time() {
        let rules = Rules { issued_before: vec![at(300)], ..Rules::default() };
        assert_eq!(decide_at(&rules, &material(), 200), Decision::Keep { until: at(300), hold: None });
    }

    #[test]
    fn suspension_holds_renewals_until_the_safety_margin() {
        let rules = Rules { suspend: true, ..Rules::default() };
        let margin = DAY * 66 / 100 + DAY * 34 / 100 / 2;
        let held = Decision::Keep { until: at(margin), hold: Some(HoldReason::Suspended) };
        assert_eq!(decide_at(&rules, &material(), DAY * 66 / 100), held);
        assert_eq!(decide_at(&rules, &material(), margin), Decision::Issue(Cause::Expiring));
        let requested = Rules { issued_before: vec![at(10)], ..rules };
        assert_eq!(decide_at(&requested, &material(), 100), Decision::Issue(Cause::Requested), "by another policy");
    }

    fn window(start: &str) -> Vec<Window> {
        let spec = RotationWindow { days: vec![], start: start.into(), duration: "1h".into(), time_zone: None };
        vec![Window::new(&spec).unwrap()]
    }

    #[test]
    fn a_window_delays_a_renewal_until_the_safety_margin() {
        let due = DAY * 66 / 100;
        let rules = Rules { windows: window("17:00"), ..Rules::default() };
        let held = Decision::Keep { until: at(17 * 3600), hold: Some(HoldReason::OutsideWindows) };
        assert_eq!(decide_at(&rules, &material(), due), held);
        assert_eq!(decide_at(&rules, &material(), 17 * 3600), Decision::Issue(Cause::Due));
        let far = Rules { windows: window("23:00"), ..Rules::default() };
        let margin = due + (DAY - due) / 2;
        let held = Decision::Keep { until: at(margin), hold: Some(HoldReason::OutsideWindows) };
        assert_eq!(decide_at(&far, &material(), due), held);
        assert_eq!(decide_at(&far, &material(), margin), Decision::Issue(Cause::Expiring));
    }

    #[test]
    fn a_window_does_not_delay_a_requested_renewal() {
        let rules = Rules { windows: window("23:00"), issued_before: vec![at(10)], ..Rules::default() };
        assert_eq!(decide_at(&rules, &material(), 60), Decision::Issue(Cause::Requested));
    }

    #[test]
    fn a_shorter_lifetime_applies_to_issued_certificates() {
        let rules = Rules { lifetime: SignedDuration::from_hours(1), ..Rules::default() };
        assert_eq!(decide_at(&rules, &material(), 3600), Decision::Issue(Cause::Due));
    }

    #[test]
    fn a_replaced_authority_renews_its_certificates() {
        let foreign = Material { authority: "gone".into(), ..material() };
        assert_eq!(decide_at(&Rules::default(), &foreign, 60), Decision::Issue(Cause::AuthorityReplaced));
    }

    #[test]
    fn a_changed_bundle_refreshes_without_a_new_certificate() {
        let stale = Material { surroundings: "old".into(), ..material() };
        assert_eq!(decide_at(&Rules::default(), &stale, 60), Decision::Refresh);
    }

    #[test]
    fn renewals_spread_over_a_tenth_of_the_lifetime() {
        let rules = Rules::default();
        let points: Vec<i64> =
            (0..1000).map(|seed| renewal_point(&rules, at(0), at(DAY), seed * 7919).as_second()).collect();
        let (first, last) = (points.iter().min().unwrap(), points.iter().max().unwrap());
        assert!(*last <= DAY * 66 / 100);
        assert!(last - first > DAY / 11, "spread over {} s only", last - first);
    }

    /// Ten years in steps of ten minutes: there is always a valid certificate, and no more renewals than the lifetime asks for.
    #[test]
    fn ten_years_pass_without_a_gap() {
        let rules = Rules {
            windows: vec![
                Window::new(&RotationWindow {
                    days: vec![crate::api::Day::Sat],
                    start: "02:00".into(),
                    duration: "2h".into(),
                    time_zone: Some("America/New_York".into()),
                })
                .unwrap(),
            ],
            lifetime: SignedDuration::from_hours(24 * 30),
            ..Rules::default()
        };
        let mut held = Material { not_after: at(30 * DAY), ..material() };
        let mut renewals = 0;
        for now in (0..3650 * DAY).step_by(600) {
            assert!(held.not_after > at(now), "expired at {now}");
            if let Decision::Issue(cause) = decide_at(&rules, &held, now) {
                assert_eq!(cause, Cause::Due, "the window comes before the margin");
                held = Material { issued_at: at(now), not_after: at(now + 30 * DAY), ..held };
                renewals += 1;
            }
        }
        assert!((140..=190).contains(&renewals), "{renewals} renewals");
    }

    #[test]
    fn the_most_specific_attachment_is_found() {
        let targets: Vec<RotationTarget> = serde_json::from_value(serde_json::json!([
            {"kind": "ServiceIdentity", "selector": {"matchLabels": {"tier": "edge"}}},
            {"kind": "ServiceIdentity", "name": "orders"},
        ]))
        .unwrap();
        let edge = Labels::from([("tier".into(), "edge".into())]);
        assert_eq!(attachment(&targets, RotationTargetKind::ServiceIdentity, "orders", &edge), Some(Attachment::Name));
        assert_eq!(
            attachment(&targets, RotationTargetKind::ServiceIdentity, "other", &edge),
            Some(Attachment::Selector)
        );
        assert_eq!(attachment(&targets, RotationTargetKind::ServiceIdentity, "other", &Labels::new()), None);
    }
}
