//! Writes the report of a rotation policy.

use super::controller::Controller;
use super::observe::Observed;
use super::plan::Plan;
use crate::controllers::shared::handle::Conclusion;
use crate::domain::text::counted;
use crate::kubernetes::error::Error;
use crate::kubernetes::run::Done;

pub async fn apply(controller: &Controller, observed: &Observed, plan: Plan) -> Result<Done, Error> {
    let Plan { status, mut conditions, next } = plan;
    let ready = format!("in effect for {}", counted(status.targets as usize, "object", "objects"));
    let conclusion =
        Conclusion { object: &*observed.policy, current: &observed.status, status, ready, next, now: observed.now };
    let done = controller.handle.conclude(conclusion, &mut conditions).await?;
    Ok(done.unwrap_or_else(Done::gone))
}
