//! A job as it advances: which stages its pictures have passed, and how it ends.

use std::collections::BTreeMap;

use darkroom_core::{
    error::{Code, UserError},
    failure_code::FailureCode,
    id::StageName,
};
use darkroom_farm_api::{Answer, Outgoing};
use darkroom_proto::v1;
use futures::StreamExt as _;

/// The reason of an error that says why a picture failed for good.
pub(super) const IMAGE_FAILED: &str = "IMAGE_FAILED";
/// The reason of the error that ends a watch when the farm stops.
const STOPPING: &str = "STOPPING";

/// A job that is being watched.
pub(super) struct Progress {
    id: String,
    events: Outgoing<v1::WatchEvent>,
    job: v1::Job,
    images: BTreeMap<u64, v1::Image>,
    /// Whether nothing more comes.
    ended: bool,
}

impl Progress {
    /// A job by what a watch of it, with its images, says from the beginning on.
    pub(super) fn of(id: &str, events: Outgoing<v1::WatchEvent>) -> Self {
        Self {
            id: id.to_owned(),
            events,
            job: v1::Job::default(),
            images: BTreeMap::new(),
            ended: false,
        }
    }

    /// Waits for the next change. It may be dropped at any time.
    pub(super) async fn change(&mut self) -> Answer<()> {
        let event = self.events.next().await.transpose();
        match event.map_err(|error| translated(&self.id, error))? {
            Some(v1::WatchEvent { job, images, end, .. }) => {
                self.job = job.unwrap_or_default();
                self.images.extend(images.into_iter().map(|image| (image.index, image)));
                self.ended |= end;
                Ok(())
            }
            None if self.ended => Ok(()),
            None => {
                let message = "the farm ended the job's event stream early; send the \
                               request again";
                Err(UserError::new(Code::Unavailable, "WATCH_ENDED", message))
            }
        }
    }

    /// Waits until all pictures are done, or the job has failed.
    pub(super) async fn finish(&mut self) -> Answer<()> {
        loop {
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.change().await?;
        }
    }

    pub(super) fn job(&self) -> &v1::Job {
        &self.job
    }

    /// The pictures, by their index.
    pub(super) fn images(&self) -> impl ExactSizeIterator<Item = &v1::Image> {
        self.images.values()
    }

    /// How the job ended; none while it goes on.
    pub(super) fn outcome(&self) -> Option<Answer<()>> {
        let done = |image: &v1::Image| image.state() == v1::ImageState::Done;
        let all = self.images.len() as u64 == self.job.images && self.images.values().all(done);
        match self.job.state() {
            v1::JobState::Done if all && self.job.images > 0 => Some(Ok(())),
            v1::JobState::Done if self.job.images_cancelled > 0 || self.ended => {
                Some(Err(self.cancelled()))
            }
            v1::JobState::Failed => Some(Err(self.failed())),
            v1::JobState::Cancelled => Some(Err(self.cancelled())),
            _ => None,
        }
    }

    /// The stages before the last one, which pictures of a job with one picture have passed.
    pub(super) fn passed(&self) -> Vec<&str> {
        let names = self.job.stages.iter().map(|stage| stage.stage.as_str());
        let names: Vec<_> = names.filter(|name| *name != StageName::ENCODE).collect();
        let before_last = names.len().saturating_sub(1);
        let Some(image) = self.images.values().next() else { return Vec::new() };
        let passed = match image.state() {
            v1::ImageState::Done => before_last,
            v1::ImageState::Ready | v1::ImageState::Dispatched => {
                names.iter().position(|name| *name == image.stage).unwrap_or(0)
            }
            _ => 0,
        };
        names[..passed.min(before_last)].to_vec()
    }

    fn failed(&self) -> UserError {
        let dead = self.images.values().find(|image| image.state() == v1::ImageState::Dead);
        dead.map(failed_picture).unwrap_or_else(|| {
            let message = match self.job.end_reason.as_str() {
                "" => {
                    let id = &self.job.id;
                    format!("job {id} failed without a recorded reason; see the job's page")
                }
                why => format!("the picture failed: {why}"),
            };
            UserError::new(Code::Internal, IMAGE_FAILED, message)
        })
    }

    fn cancelled(&self) -> UserError {
        let why = match self.job.end_reason.as_str() {
            "" => String::new(),
            why => format!(": {why}"),
        };
        let message =
            format!("job {} was cancelled{why}; send the request again for a new job", self.job.id);
        UserError::new(Code::FailedPrecondition, "JOB_CANCELLED", message)
    }
}

/// Why a picture failed.
pub(super) fn failed_picture(image: &v1::Image) -> UserError {
    // What the client sent is at fault, and only the client can change it.
    let theirs = [FailureCode::InputLost, FailureCode::InvalidInput];
    let is_theirs = theirs.iter().any(|code| code.name() == image.error_code);
    let code = if is_theirs { Code::InvalidArgument } else { Code::Internal };
    let message = format!(
        "picture {} failed in stage {} ({}): {}",
        image.index, image.stage, image.error_code, image.error
    );
    UserError::new(code, IMAGE_FAILED, message)
}

/// An error of a watch of a job, as a client of this API reads it, who watches nothing.
pub(super) fn translated(id: &str, error: UserError) -> UserError {
    match error.code {
        Code::NotFound => {
            let message = format!("job {id} was deleted; send the request again for a new job");
            UserError::new(Code::FailedPrecondition, "JOB_CANCELLED", message)
        }
        Code::Unavailable if error.reason == STOPPING => stopping(),
        _ => error,
    }
}

/// The error of a request that the farm cannot finish because it stops.
pub(super) fn stopping() -> UserError {
    let message = "the farm is stopping; send the request again";
    UserError::new(Code::Unavailable, STOPPING, message)
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn image(index: u64, state: v1::ImageState, stage: &str) -> v1::Image {
        v1::Image { index, state: state.into(), stage: stage.into(), ..Default::default() }
    }

    fn job(state: v1::JobState, images: u64) -> v1::Job {
        let stages = ["encode", "base", "sr256", "sr1024"]
            .map(|stage| v1::StageProgress { stage: stage.into(), ..Default::default() });
        v1::Job {
            id: "j1".into(),
            state: state.into(),
            images,
            stages: stages.to_vec(),
            ..Default::default()
        }
    }

    fn event(job: v1::Job, images: Vec<v1::Image>) -> v1::WatchEvent {
        v1::WatchEvent { job: Some(job), images, ..Default::default() }
    }

    fn progress(events: Vec<Answer<v1::WatchEvent>>) -> Progress {
        Progress::of("j1", stream::iter(events).boxed())
    }

    #[tokio::test]
    async fn a_job_ends_when_all_its_pictures_are_done() {
        use v1::{ImageState as Image, JobState as Job};
        let mut waits = progress(vec![
            Ok(event(job(Job::Active, 2), vec![image(0, Image::Waiting, "")])),
            Ok(event(
                job(Job::Active, 2),
                vec![image(1, Image::Done, ""), image(0, Image::Done, "")],
            )),
            Ok(event(job(Job::Done, 2), vec![])),
        ]);
        assert_eq!(waits.finish().await, Ok(()));
        assert_eq!(waits.images().map(|image| image.index).collect::<Vec<_>>(), [0, 1]);
        let mut broken = progress(vec![Ok(event(job(Job::Active, 1), vec![]))]);
        let error = broken.finish().await.expect_err("the watch ended");
        assert_eq!(error.code, Code::Unavailable);
    }

    #[tokio::test]
    async fn a_failure_says_which_picture_failed_where_and_why() {
        use v1::{ImageState as Image, JobState as Job};
        let dead = |code: &str| v1::Image {
            error_code: code.into(),
            error: "values that are not finite".into(),
            ..image(1, Image::Dead, "base")
        };
        for (code, kind) in [("non_finite", Code::Internal), ("input_lost", Code::InvalidArgument)]
        {
            let failed =
                event(job(Job::Failed, 2), vec![image(0, Image::Cancelled, ""), dead(code)]);
            let error = progress(vec![Ok(failed)]).finish().await.expect_err("failed");
            assert_eq!((error.code, error.reason.as_str()), (kind, IMAGE_FAILED));
            assert_eq!(
                error.message,
                format!("picture 1 failed in stage base ({code}): values that are not finite")
            );
        }
    }

    #[tokio::test]
    async fn a_cancelled_job_or_picture_is_told() {
        use v1::{ImageState as Image, JobState as Job};
        let reason = v1::Job { end_reason: "its deadline passed".into(), ..job(Job::Cancelled, 1) };
        let some = v1::Job { images_cancelled: 1, ..job(Job::Done, 2) };
        let rows = vec![image(0, Image::Done, ""), image(1, Image::Cancelled, "")];
        for (told, said) in [
            (event(reason, vec![]), "job j1 was cancelled: its deadline passed"),
            (event(some, rows), "job j1 was cancelled"),
        ] {
            let error = progress(vec![Ok(told)]).finish().await.expect_err("cancelled");
            let said = format!("{said}; send the request again for a new job");
            assert_eq!((error.reason, error.message), ("JOB_CANCELLED".to_owned(), said));
        }
    }

    #[tokio::test]
    async fn a_deleted_job_is_told_as_a_cancelled_one_and_a_farm_that_stops_as_a_pause() {
        let gone = UserError::new(Code::NotFound, "NOT_FOUND", "there is no job j1");
        let stops = "the coordinator is stopping; watch again from the last version";
        let busy = UserError::new(Code::Unavailable, "STORE", "the store is busy");
        let again = "the farm is stopping; send the request again";
        let deleted = "job j1 was deleted; send the request again for a new job";
        for (error, expected) in [
            (gone, (Code::FailedPrecondition, "JOB_CANCELLED", deleted)),
            (
                UserError::new(Code::Unavailable, STOPPING, stops),
                (Code::Unavailable, STOPPING, again),
            ),
            (busy, (Code::Unavailable, "STORE", "the store is busy")),
        ] {
            let error = progress(vec![Err(error)]).finish().await.expect_err("an error");
            assert_eq!((error.code, &error.reason[..], &error.message[..]), expected);
            assert_eq!(error.retry_after.is_some(), error.code == Code::Unavailable);
        }
    }

    #[tokio::test]
    async fn a_picture_has_passed_the_stages_before_its_own() {
        use v1::{ImageState as Image, JobState as Job};
        for (state, stage, passed) in [
            (Image::Waiting, "base", &[][..]),
            (Image::Ready, "base", &[]),
            (Image::Dispatched, "sr256", &["base"]),
            (Image::Ready, "sr1024", &["base", "sr256"]),
            (Image::Done, "", &["base", "sr256"]),
            (Image::Dead, "sr1024", &[]),
        ] {
            let told = event(job(Job::Active, 1), vec![image(0, state, stage)]);
            let mut progress = progress(vec![Ok(told)]);
            progress.change().await.expect("a change");
            assert_eq!(progress.passed(), passed, "{state:?} {stage}");
        }
    }
}
