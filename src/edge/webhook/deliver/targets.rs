//! All kinds of targets.

use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::object::Objects;
use super::service::Post;
use super::target::Target;
use crate::edge::front::PerWorker;
use crate::edge::webhook::outcome::Reason;

/// Delivers to all kinds of targets.
pub struct Targets {
    post: PerWorker<Post>,
    objects: Objects,
    stopping: CancellationToken,
}

impl Targets {
    /// No delivery is retried after `stopping` is cancelled.
    #[must_use]
    pub fn new(post: PerWorker<Post>, objects: Objects, stopping: CancellationToken) -> Self {
        Self { post, objects, stopping }
    }

    /// Delivers, with retries as the target's policy says.
    pub async fn deliver(&self, target: &Target, delivery: &Delivery) -> (Reason, Option<u16>) {
        let stopping = &self.stopping;
        match target {
            Target::Service(service) => {
                let post = self.post.get();
                service.retry.run(stopping, || post.attempt(service, delivery)).await
            }
            Target::Object(object) => object.retry.run(stopping, || self.objects.attempt(object, delivery)).await,
            Target::Kafka(kafka) => kafka.retry.run(stopping, || kafka.attempt(delivery)).await,
        }
    }
}
