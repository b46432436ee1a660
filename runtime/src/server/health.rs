//! Whether a server's services can work, reported by gRPC health.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tonic_health::{ServingStatus, server::HealthReporter};

/// Why something does not serve, and since when.
pub(super) struct Trouble {
    reason: String,
    since: Instant,
}

/// Whether the server's services can work, reported by gRPC health. Clones share it.
#[derive(Clone)]
pub struct Health {
    pub(super) reporter: HealthReporter,
    pub(super) services: Arc<Vec<String>>,
    pub(super) trouble: Arc<Mutex<Option<Trouble>>>,
}

impl Health {
    /// For a process that serves no health; only its log reports problems.
    #[must_use]
    pub fn unasked() -> Self {
        Self { reporter: HealthReporter::new(), services: Arc::default(), trouble: Arc::default() }
    }

    /// Reports serving.
    pub async fn serving(&self) {
        if let Some(over) = self.trouble().take() {
            tracing::info!(after_s = over.since.elapsed().as_secs(), "serving again");
        }
        self.set(ServingStatus::Serving).await;
    }

    /// Reports not serving. A new reason is logged.
    pub async fn not_serving(&self, reason: &str) {
        self.log(reason);
        self.set(ServingStatus::NotServing).await;
    }

    /// Reports that the process as a whole does not serve, because of work outside its services.
    /// The services themselves go on. A new reason is logged.
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
