//! Separate threads for the farm's work. Bulk commits and dispatches occupy a thread for
//! milliseconds, and API calls should not have to wait for that.

use std::future::Future;

use darkroom_core::error::{Code, UserError};
use tokio::runtime::{Builder, Runtime};

/// A runtime beside the caller's runtime; ends with it.
#[derive(Debug)]
pub(crate) struct Engine(Option<Runtime>);

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system cannot start a thread.
    pub(crate) fn start() -> Result<Self, UserError> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("farm").build();
        Ok(Self(Some(runtime.map_err(internal)?)))
    }

    /// Runs a future on the engine's threads, where everything that it spawns and opens stays. The
    /// caller waits for it.
    ///
    /// # Errors
    /// If it panicked.
    pub(crate) async fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<T, UserError> {
        let Some(runtime) = &self.0 else { return Err(internal("the engine has ended")) };
        let threads = runtime.handle().clone();
        runtime.spawn_blocking(move || threads.block_on(work())).await.map_err(internal)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Work that must not be interrupted has been joined before.
            runtime.shutdown_background();
        }
    }
}

fn internal(error: impl std::fmt::Display) -> UserError {
    UserError::new(Code::Internal, "INTERNAL", error.to_string())
}
