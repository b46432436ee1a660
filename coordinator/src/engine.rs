//! Threads of their own for the farm's work: commits and dispatches of whole bulks take a thread for milliseconds, and a
//! call that only asks should not find both of them taken.

use std::future::Future;

use darkroom_core::error::{Code, UserError};
use tokio::runtime::{Builder, Runtime};

/// A runtime beside that of the caller; ends with it.
#[derive(Debug)]
pub(crate) struct Engine(Option<Runtime>);

impl Engine {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system has none to give.
    pub(crate) fn start() -> Result<Self, UserError> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("farm").build();
        Ok(Self(Some(runtime.map_err(internal)?)))
    }

    /// Begins something with the engine's threads, on which whatever it spawns and opens stays; waits for it on the
    /// caller's.
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
            // Whoever must not be cut short has been waited for before.
            runtime.shutdown_background();
        }
    }
}

fn internal(error: impl std::fmt::Display) -> UserError {
    UserError::new(Code::Internal, "INTERNAL", error.to_string())
}
