//! The signal that a webhook is gone, for the sweep of its route.

use std::sync::Arc;

use tokio::sync::Notify;

/// Notifies the sweep. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct SweepSignal(Arc<Notify>);

impl SweepSignal {
    /// A webhook is gone.
    pub fn notify(&self) {
        self.0.notify_one();
    }

    /// Waits until a webhook is gone.
    pub async fn notified(&self) {
        self.0.notified().await;
    }
}
