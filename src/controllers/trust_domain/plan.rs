//! Decides what a trust domain needs. No client here.

use crate::api::Reason;
use crate::domain::rotation::Material;
use crate::issuers::self_signed::successor_due;

use super::observe::Observed;

/// Component label of the Secret of a root.
pub const ROOT: &str = "root";
/// Component label of the Secret of an intermediate.
pub const INTERMEDIATE: &str = "intermediate";
/// Component label of a trust bundle.
pub const BUNDLE: &str = "trust-bundle";

/// Where the authority comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityPlan {
    /// Make root and first intermediate.
    Create,
    /// Make the intermediate of this generation, under the root that exists.
    Succeed(u32),
    /// Load the intermediate of this generation.
    Load(u32),
    /// Somebody else wrote the Secret of this intermediate: take it back if it holds what it held before.
    Restore(u32),
    /// Load the Secret that the platform team brought; the text tells its versions apart.
    Bring {
        /// Name of the Secret.
        secret: String,
        /// Changes with the Secret and with the spec.
        source: String,
    },
    /// There is none to be had.
    Refuse(Reason, String),
}

/// What a trust domain needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub authority: AuthorityPlan,
    /// Intermediates that have expired.
    pub retire: Vec<u32>,
    /// Whether the object has to wait for its identities to go.
    pub in_use: bool,
}

pub fn plan(observed: &Observed) -> Plan {
    let expired = |material: &Option<Material>| material.as_ref().is_some_and(|known| known.not_after <= observed.now);
    Plan {
        authority: authority(observed),
        retire: observed.intermediates.iter().filter(|(_, it)| expired(it)).map(|(number, _)| *number).collect(),
        in_use: observed.identities > 0,
    }
}

fn authority(observed: &Observed) -> AuthorityPlan {
    let issuer = &observed.domain.spec.issuer;
    if let Some(ca) = &issuer.ca {
        let secret = ca.secret_ref.name.clone();
        return match &observed.ca_version {
            None => AuthorityPlan::Refuse(
                Reason::IssuerSecretNotFound,
                format!(
                    "the Secret {secret} does not exist in the operator's namespace; create it with tls.crt, tls.key \
                     and ca.crt"
                ),
            ),
            Some(version) => AuthorityPlan::Bring {
                source: format!("{secret}@{version}/{}", observed.domain.metadata.generation.unwrap_or(0)),
                secret,
            },
        };
    }
    let name = observed.domain.metadata.name.as_deref().unwrap_or_default();
    let newest = observed.intermediates.last_key_value();
    match (&observed.root, newest) {
        (None, None) if observed.had_authority => AuthorityPlan::Refuse(
            Reason::AuthorityLost,
            format!(
                "the Secrets of the authority ({name}-root-1, {name}-intermediate-*) are gone. Restore them from a \
                 backup; a new root would break every certificate issued so far. To start anew on purpose, delete and \
                 create this TrustDomain"
            ),
        ),
        (None, None) => AuthorityPlan::Create,
        (_, Some((generation, None))) => AuthorityPlan::Restore(*generation),
        (Some(_), None) => AuthorityPlan::Succeed(1),
        (root, Some((generation, Some(material)))) => {
            // In the last year of a root a successor would end with it, and gain nothing.
            let gains = root.iter().flatten().all(|root| root.not_after > material.not_after);
            let due = gains && successor_due(material.not_after) <= observed.now;
            match (due, root) {
                (true, Some(_)) => AuthorityPlan::Succeed(generation + 1),
                // Without the root the intermediate still serves its time.
                (true, None) if material.not_after <= observed.now => AuthorityPlan::Refuse(
                    Reason::AuthorityLost,
                    format!("the intermediate has expired and the Secret {name}-root-1 is gone; restore it"),
                ),
                _ => AuthorityPlan::Load(*generation),
            }
        }
    }
}
