//! Whether a server's services can do their work, as gRPC health tells it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tonic_health::{ServingStatus, server::HealthReporter};

/// Why something does not serve, and since when something is wrong.
pub(super) struct Trouble {
    reason: String,
    since: Instant,
}

/// Whether the server's services can do their work, as gRPC health tells it. Clones share it.
#[derive(Clone)]
pub struct Health {
    pub(super) reporter: HealthReporter,
    pub(super) services: Arc<Vec<String>>,
    pub(super) trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Health {
    /// That of a process which nobody can ask; its log tells.
    #[must_use]
    pub fn unasked() -> Self {
        Self { reporter: HealthReporter::new(), services: Arc::default(), trouble: Arc::default() }
    }

    /// Turns serving.
    pub async fn serving(&self) {
        if let Some(over) = self.trouble().take() {
            tracing::info!(after_s = over.since.elapsed().as_secs(), "serving again");
        }
        self.set(ServingStatus::Serving).await;
    }

    /// Turns not serving; the reason is logged when it changes.
    pub async fn not_serving(&self, reason: &str) {
        self.log(reason);
        self.set(ServingStatus::NotServing).await;
    }

    /// Turns the process as a whole not serving, for the sake of work that none of its services does: they go on. The
    /// reason is logged when it changes.
    pub async fn not_working(&self, reason: &str) {
        self.log(reason);
        self.reporter.set_service_status("", ServingStatus::NotServing).await;
    }

    fn log(&self, reason: &str) {
        let mut trouble = self.trouble();
        if trouble.as_ref().is_none_or(|trouble| trouble.reason != reason) {
            tracing::warn!(reason, "not serving");
            let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
            *trouble = Some(Trouble { reason: reason.to_owned(), since });
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Option<Trouble>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn set(&self, status: ServingStatus) {
        for service in self.services.iter() {
            self.reporter.set_service_status(service, status).await;
        }
        self.reporter.set_service_status("", status).await;
    }
}
