//! Commands to some images of a job: which images match, how many, and which pictures are lost.

use std::{pin::pin, time::Duration};

use darkroom_artifacts::Error as Artifact;
use darkroom_core::{
    artifact::ArtifactRef, error::UserError, id::JobId, image_command::ImageCommand,
    image_filter::ImageFilter, image_state::ImageState, prompt_filter::PromptFilter,
};
use darkroom_farm_api::Caller;
use darkroom_proto::v1;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use super::{Farm, convert, jobs::new_deadline, listing::bad_token, refused};
use crate::{
    error::Error,
    store::{
        self,
        image_commands::{Counted, LostPicture},
        limits::NewDeadline,
        records::{ImageOrder, ImageQuery, ImageRecord, JobRecord},
    },
};

/// Done images per read while pictures are checked.
const PAGE: u32 = 200;
/// Pictures after which a call checks no further page.
const CHECKED: u64 = 1000;
/// Most done images that one call reads, whether or not they match the filter.
const READ: u64 = 20_000;
/// A call that has checked pictures for this long ends with a token.
const CHECKING: Duration = Duration::from_secs(8);
/// A call that has counted images for this long stops counting. It is about half of a call's time
/// limit, so that the command is recorded in time.
const COUNTING: Duration = Duration::from_secs(15);
/// Pictures that are read from storage at one time.
const AT_ONCE: usize = 8;

/// Which part of a job's pictures to check, and what to do with those that are lost.
struct LostPart {
    /// Where the last call stopped; empty: at the beginning.
    token: String,
    /// They are only counted.
    dry_run: bool,
    /// The job's deadline if some run again.
    deadline: NewDeadline,
}

/// The result of checking a part of a job's pictures.
#[derive(Default)]
struct Checked {
    pictures: u64,
    lost: Vec<LostPicture>,
    /// Index of the last image that was checked.
    last: Option<u64>,
    /// Token of the next part; empty after the last.
    token: String,
}

impl Farm {
    pub(super) async fn cancel_images(
        &self,
        caller: &Caller,
        request: v1::CancelImagesRequest,
    ) -> Result<v1::CancelImagesResponse, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let job = self.front.job(id).await?;
        let filter = meant(ImageCommand::Cancel, request.filter, &job).map_err(refused)?;
        let counted = self.count(id, ImageCommand::Cancel, &filter).await?;
        let changes = !request.dry_run && !is_none(&counted);
        self.call.tell_changed(changes);
        let job = if changes {
            self.command(id, ImageCommand::Cancel, &filter, NewDeadline::Same).await?
        } else {
            job
        };
        let job = Some(self.view_committed(job).await);
        let at_least = counted.next.is_some();
        Ok(v1::CancelImagesResponse { job, images: counted.images, at_least })
    }

    pub(super) async fn retry_images(
        &self,
        caller: &Caller,
        request: v1::RetryImagesRequest,
    ) -> Result<v1::RetryImagesResponse, Error> {
        let id = self.job_of(caller, "job_id", &request.job_id).await?;
        let deadline = new_deadline(request.deadline, request.no_deadline).map_err(refused)?;
        let job = self.front.job(id).await?;
        if request.lost {
            let filter = lost_filter(request.filter, &job).map_err(refused)?;
            let part = LostPart { token: request.page_token, dry_run: request.dry_run, deadline };
            return self.retry_lost(job, &filter, part).await;
        }
        if !request.page_token.is_empty() {
            return Err(refused(bad_token(&request.page_token)));
        }
        let filter = meant(ImageCommand::Retry, request.filter, &job).map_err(refused)?;
        let counted = self.count(id, ImageCommand::Retry, &filter).await?;
        let changes = !request.dry_run && !is_none(&counted);
        self.call.tell_changed(changes);
        let job = if changes {
            self.command(id, ImageCommand::Retry, &filter, deadline).await?
        } else {
            job
        };
        Ok(v1::RetryImagesResponse {
            job: Some(self.view_committed(job).await),
            images: counted.images,
            skipped_intact: counted.done,
            at_least: counted.next.is_some(),
            ..v1::RetryImagesResponse::default()
        })
    }

    /// Counts the images that a command would change, for a limited time.
    async fn count(
        &self,
        job: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
    ) -> Result<Counted, Error> {
        let until = Instant::now() + COUNTING;
        Ok(count_until(until, |from| self.front.count_images(job, command, filter, from)).await?)
    }

    async fn command(
        &self,
        id: JobId,
        command: ImageCommand,
        filter: &ImageFilter,
        deadline: NewDeadline,
    ) -> Result<JobRecord, Error> {
        let job = self.front.command_images(id, command, filter, deadline).await?;
        self.shared.events.follow.notify_one();
        self.shared.events.changed(&[id]);
        Ok(job)
    }

    async fn retry_lost(
        &self,
        mut job: JobRecord,
        filter: &ImageFilter,
        part: LostPart,
    ) -> Result<v1::RetryImagesResponse, Error> {
        let checked = self.check_pictures(job.id, filter, &part.token).await?;
        let mut images = checked.lost.len() as u64;
        let skipped_intact = checked.pictures - images;
        if images > 0 {
            tracing::warn!(job.id = %job.id, pictures = images, "pictures of done images are lost");
        }
        self.call.tell_changed(false);
        if !part.dry_run && images > 0 {
            let rerendered = self.front.rerender_lost(job.id, &checked.lost, part.deadline).await?;
            self.shared.events.dispatch.notify_one();
            self.shared.events.changed(&[job.id]);
            (job, images) = (rerendered.job, rerendered.images);
            self.call.tell_changed(images > 0);
        }
        Ok(v1::RetryImagesResponse {
            job: Some(self.view_committed(job).await),
            images,
            skipped_intact,
            checked: checked.pictures,
            next_page_token: checked.token,
            at_least: false,
        })
    }

    /// Reads pictures of done images and compares them with the record, for a limited time.
    async fn check_pictures(
        &self,
        job: JobId,
        filter: &ImageFilter,
        token: &str,
    ) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        let until = Instant::now() + CHECKING;
        let (mut next, mut read) = (Some(from_token(token)?), 0);
        while let Some(from) = next.and_then(|from| first_meant(filter, from)) {
            if checked.pictures >= CHECKED || read >= READ || Instant::now() >= until {
                checked.token = format!("i{from}");
                break;
            }
            let order = ImageOrder::Index(from.checked_sub(1));
            let states = vec![ImageState::Done];
            let query = ImageQuery { states, ..ImageQuery::all(job, order, PAGE) };
            let page = self.front.images(&query).await?;
            read += page.images.len() as u64;
            let last = page.images.last().map(|image| image.id.index);
            next = last.filter(|_| page.next.is_some()).map(|last| last + 1);
            let mut checks = Vec::with_capacity(page.images.len());
            for image in page.images {
                if is_meant(filter, &image) {
                    checks.push(self.lost(job, picture(image)));
                }
            }
            let expected = checked.pictures + checks.len() as u64;
            checked.take(stream::iter(checks).buffered(AT_ONCE), until).await?;
            if checked.pictures < expected {
                // The rest of the page is left for the next call.
                next = checked.last.map_or(Some(from), |last| Some(last + 1));
            }
        }
        Ok(checked)
    }

    /// The image's index; also the image, if its picture is missing in storage or damaged.
    async fn lost(
        &self,
        job: JobId,
        (lost, artifact): (LostPicture, Option<ArtifactRef>),
    ) -> Result<(u64, Option<LostPicture>), Error> {
        let index = lost.index;
        let Some(artifact) = artifact else { return Ok((index, Some(lost))) };
        match self.shared.artifacts.get(&artifact).await {
            Ok(_) => Ok((index, None)),
            Err(error @ (Artifact::Missing { .. } | Artifact::Corrupt { .. })) => {
                tracing::debug!(job.id = %job, image.index = index, %error, "a picture is lost");
                Ok((index, Some(lost)))
            }
            // It is not known whether the picture exists.
            Err(error) => Err(error.into()),
        }
    }
}

impl Checked {
    /// Takes answers in the order of their images until all have come or the time is over. Always
    /// waits for the first answer, so that every call makes progress.
    async fn take(
        &mut self,
        answers: impl Stream<Item = Result<(u64, Option<LostPicture>), Error>>,
        until: Instant,
    ) -> Result<(), Error> {
        let mut answers = pin!(answers);
        loop {
            let answer = if self.pictures == 0 {
                answers.try_next().await?
            } else if Instant::now() >= until {
                None
            } else {
                match timeout_at(until, answers.try_next()).await {
                    Ok(answer) => answer?,
                    Err(_) => None,
                }
            };
            let Some((index, lost)) = answer else { return Ok(()) };
            self.pictures += 1;
            self.lost.extend(lost);
            self.last = Some(index);
        }
    }
}

/// Adds up the steps of a count until the last one, or until the time is over. If it stops early,
/// `next` is set, because images may be missing. The first step is always taken.
async fn count_until<F>(until: Instant, step: impl Fn(u64) -> F) -> Result<Counted, store::Error>
where
    F: Future<Output = Result<Counted, store::Error>>,
{
    let mut all = Counted { next: Some(0), ..Counted::default() };
    while let Some(from) = all.next {
        let counted = step(from).await?;
        all.images += counted.images;
        all.done += counted.done;
        all.next = counted.next;
        if Instant::now() >= until {
            break;
        }
    }
    Ok(all)
}

/// Whether it is certain that a command would change nothing.
fn is_none(counted: &Counted) -> bool {
    counted.images == 0 && counted.next.is_none()
}

/// A done image, and its picture in the record.
fn picture(image: ImageRecord) -> (LostPicture, Option<ArtifactRef>) {
    let (index, stage) = (image.id.index, image.progress.stage);
    let lost = LostPicture { index, generation: image.progress.generation };
    let output = image.outputs.into_iter().find(|output| output.stage == stage);
    // What a policy removed may still be there because another job needs it, until that is deleted.
    let kept = output.filter(|output| output.removed_ms.is_none());
    (lost, kept.map(|output| output.artifact))
}

fn is_meant(filter: &ImageFilter, image: &ImageRecord) -> bool {
    let naming = &image.naming;
    filter.has_index(image.id.index)
        && filter.prompts().accepts(&image.prompt, naming.custom_id.as_deref(), &naming.labels)
}

/// The first matching index from this one on.
fn first_meant(filter: &ImageFilter, from: u64) -> Option<u64> {
    filter.window(from, 1).ranges.first().map(|range| range.start)
}

fn from_token(token: &str) -> Result<u64, Error> {
    if token.is_empty() {
        return Ok(0);
    }
    let index = token.strip_prefix('i').and_then(|index| index.parse().ok());
    index.ok_or_else(|| refused(bad_token(token)))
}

/// The images of a job that a command applies to.
fn meant(
    command: ImageCommand,
    filter: Option<v1::ImageFilter>,
    job: &JobRecord,
) -> Result<ImageFilter, UserError> {
    let filter = parsed(filter.unwrap_or_default())?;
    command.check(&filter)?;
    filter.within(job.images).map_err(below_filter)
}

/// The images of a job whose pictures are checked.
fn lost_filter(filter: Option<v1::ImageFilter>, job: &JobRecord) -> Result<ImageFilter, UserError> {
    let filter = parsed(filter.unwrap_or_default())?;
    let field = if filter.states().iter().any(|state| *state != ImageState::Done) {
        "filter.states"
    } else if filter.codes().is_empty() {
        return filter.within(job.images).map_err(below_filter);
    } else {
        "filter.error_codes"
    };
    let message = format!(
        "{field} is set together with lost; accepted: ranges, labels and text, since only done \
         images have pictures"
    );
    Err(UserError::invalid(field, message))
}

pub(super) fn parsed(filter: v1::ImageFilter) -> Result<ImageFilter, UserError> {
    let states = filter.states.iter().map(|state| convert::image_state_from(*state));
    let states: Vec<_> = states.collect::<Result<_, _>>().map_err(below_filter)?;
    let ranges: Vec<_> = filter.ranges.iter().map(|range| (range.first, range.last)).collect();
    let labels = filter.labels.into_iter().collect();
    let prompts = PromptFilter::new(labels, &filter.text).map_err(below_filter)?;
    ImageFilter::new(&ranges, states, filter.error_codes, prompts).map_err(below_filter)
}

/// Core names fields of a filter. In a request, they are below `filter`.
fn below_filter(error: UserError) -> UserError {
    let Some(field) = error.field else { return error };
    let full = format!("filter.{field}");
    let message = match error.message.strip_prefix(&field) {
        Some(rest) => format!("{full}{rest}"),
        None => error.message,
    };
    UserError { field: Some(full), message, ..UserError::new(error.code, &error.reason, "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lost picture that is reported after a time.
    async fn lost_after(index: u64, seconds: u64) -> Result<(u64, Option<LostPicture>), Error> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        Ok((index, Some(LostPicture { index, generation: 1 })))
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_on_slow_storage_are_checked_in_parts_that_end_in_time() {
        let until = Instant::now() + CHECKING;
        // Eight at a time, three seconds each: two rounds fit.
        let checks: Vec<_> = (10..110).map(|index| lost_after(index, 3)).collect();
        let mut checked = Checked::default();
        checked.take(stream::iter(checks).buffered(AT_ONCE), until).await.expect("checks");
        assert_eq!((checked.pictures, checked.last), (16, Some(25)));
        assert_eq!(checked.lost.len(), 16, "findings are not discarded");
        assert!(Instant::now() <= until + Duration::from_millis(10));

        // A later picture that was read earlier does not count, because results are in the images'
        // order.
        let until = Instant::now() + CHECKING;
        let checks = vec![lost_after(0, 1), lost_after(1, 3600), lost_after(2, 1)];
        let mut checked = Checked::default();
        checked.take(stream::iter(checks).buffered(AT_ONCE), until).await.expect("checks");
        assert_eq!((checked.pictures, checked.last), (1, Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_picture_of_a_call_is_waited_for_and_no_other_after_the_time() {
        let until = Instant::now() + CHECKING;
        let checks: Vec<_> = (0..20).map(|index| lost_after(index, 12)).collect();
        let mut checked = Checked::default();
        checked.take(stream::iter(checks).buffered(AT_ONCE), until).await.expect("checks");
        assert_eq!((checked.pictures, checked.last), (1, Some(0)), "progress is made");
        let ready = vec![lost_after(1, 0), lost_after(2, 0)];
        checked.take(stream::iter(ready).buffered(AT_ONCE), until).await.expect("checks");
        assert_eq!(checked.pictures, 1, "the time is over");
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_that_takes_long_ends_in_time_and_says_that_there_may_be_more() {
        let step = |from: u64| async move {
            tokio::time::sleep(Duration::from_secs(4)).await;
            let next = Some(from + 20_000).filter(|next| *next < 1_000_000);
            Ok(Counted { images: 7, done: 1, next })
        };
        let counted = count_until(Instant::now() + COUNTING, step).await.expect("counts");
        assert_eq!(counted, Counted { images: 28, done: 4, next: Some(80_000) });
        let one_step = |_: u64| async { Ok(Counted::default()) };
        let counted = count_until(Instant::now(), one_step).await.expect("counts");
        assert!(is_none(&counted), "all were counted, and there are none");
        let none_yet = Counted { next: Some(20_000), ..Counted::default() };
        assert!(!is_none(&none_yet), "the command is recorded, because others may match");
    }
}
