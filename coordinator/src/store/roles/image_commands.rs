//! A user's commands to some images of a job.

use async_trait::async_trait;
use darkroom_core::{id::JobId, image_command::ImageCommand, image_filter::ImageFilter};

use crate::store::{
    error::Error,
    image_commands::{Counted, LostPicture, Rerendered},
    limits::NewDeadline,
    records::JobRecord,
};

/// A user's commands to some images of a job.
#[async_trait]
pub trait ImageCommands: Send + Sync + 'static {
    /// Counts the images that a command would change now, in one step from index `from` on. The
    /// filter's ranges lie [within](ImageFilter::within) the job.
    async fn count_images(
        &self,
        job: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
        from: u64,
    ) -> Result<Counted, Error>;

    /// Records a command to some images of a job; their rows [follow](super::Following::follow). A
    /// retry reopens an ended job in a new generation; a cancel does nothing to an ended job. The
    /// filter's ranges lie [within](ImageFilter::within) the job.
    ///
    /// Refused if the deadline of a retried job has passed and no other is given, or if too many
    /// commands to the job are still being carried out.
    async fn command_images(
        &self,
        job: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
        deadline: NewDeadline,
    ) -> Result<JobRecord, Error>;

    /// Runs the last stage of these done images with lost pictures again, in a new generation, and
    /// reopens the job if it has ended. Images that are no longer done, or have another generation
    /// now, do not change.
    ///
    /// Refused like [`command_images`](Self::command_images), and also while another command to the
    /// job's images is still being carried out.
    async fn rerender_lost(
        &self,
        job: JobId,
        lost: &[LostPicture],
        deadline: NewDeadline,
    ) -> Result<Rerendered, Error>;
}
