//! The jobs of a batch: one for each cascade and start of its requests.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use darkroom_core::error::{Code, UserError};
use darkroom_farm_api::{Answer, Incoming, batches::Batch};
use darkroom_proto::v1;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    super::{form::Inputs, spec},
    ids::Named,
    plan::{Request, Work},
    progress::{Blamed, Fault, Group, Key, Progress, Start},
};
use crate::submission::gathered;

/// The label of a job that holds its batch's id.
pub(super) const BATCH: &str = "openai.batch";
/// Jobs of a batch that are listed at one time.
const LISTED: u32 = 100;

/// Why a job was not accepted.
pub(super) enum Refused {
    /// The farm refuses these requests, for this reason.
    Requests(Vec<Blamed>, UserError),
    /// The farm refuses the whole job.
    Job(Fault),
    /// It may be accepted later.
    Later(UserError),
}

impl Work {
    /// Submits a job for those requests of the batch that share it. If it was submitted before,
    /// that job is returned.
    pub(super) async fn submit(
        &self,
        progress: &Progress,
        position: usize,
    ) -> Result<String, Refused> {
        let group = &progress.jobs[position];
        let prompts = self.prompts(progress, &group.key).await.map_err(Refused::Later)?;
        // The file was read to its end before. If it cannot be read now, that may pass, whatever the
        // error says.
        let unread = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&unread);
        let prompts = prompts
            .inspect_err(move |error| {
                noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
            })
            .boxed();
        let part = v1::submit_job_chunk::Part::Spec(job(&self.batch, group, position));
        let spec = v1::SubmitJobChunk { part: Some(part) };
        let chunks = stream::once(async { Ok(spec) }).chain(gathered(prompts)).boxed();
        match self.site.farm.submit_job_stream(&self.caller, chunks).await {
            Ok(accepted) => Ok(accepted.job.unwrap_or_default().id),
            Err(error) if unread.lock().unwrap_or_else(PoisonError::into_inner).is_some() => {
                Err(Refused::Later(error))
            }
            Err(error) if passes(&error) || was_given_up(&error) => Err(Refused::Later(error)),
            Err(error) => Err(self.blame(progress, &group.key, error).await),
        }
    }

    /// The prompts of a job, in the order of the file, with about their size in bytes.
    async fn prompts(
        &self,
        progress: &Progress,
        key: &Key,
    ) -> Answer<Incoming<(v1::Prompt, usize)>> {
        let farm = self.site.farm.get_farm(&self.caller, v1::GetFarmRequest {}).await?;
        let mut cascades = farm.cascades.into_iter();
        let cascade = cascades.find(|cascade| cascade.digest == key.cascade).ok_or_else(|| {
            let message = "the cascade of a batch is not served any more; start the farm with it";
            UserError::new(Code::Unavailable, "CASCADE_GONE", message)
        })?;
        let key = key.clone();
        let refused: BTreeSet<u64> = progress.refused_lines().into_keys().collect();
        let lines = self.lines(progress.models.clone()).await?;
        let prompts = lines.map(|(_, read)| read).try_filter_map(move |read| {
            let prompt = match read.request {
                Ok(request) if request.key == key && !refused.contains(&read.number) => {
                    Some(prompt(request, read.custom_id, read.number, &cascade))
                }
                _ => None,
            };
            async move { Ok(prompt) }
        });
        Ok(prompts.boxed())
    }

    /// Why the farm refuses a job, with the requests that are to blame.
    async fn blame(&self, progress: &Progress, key: &Key, error: UserError) -> Refused {
        let (position, error) = of_one_prompt(error);
        let error = spec::in_parameters(error);
        let Some(position) = position else { return Refused::Job(Fault::of(error, None)) };
        match self.requests(progress, key).await {
            Ok(requests) => match blamed(&requests, position, &error) {
                blamed if blamed.is_empty() => Refused::Later(no_such_prompt(position)),
                blamed => Refused::Requests(blamed, error),
            },
            Err(unread) => Refused::Later(unread),
        }
    }

    /// The requests of a job, in the order of its prompts.
    async fn requests(&self, progress: &Progress, key: &Key) -> Answer<Vec<(Blamed, Inputs)>> {
        let mut lines = self.lines(progress.models.clone()).await?;
        let (mut requests, refused) = (Vec::new(), progress.refused_lines());
        while let Some((line, read)) = lines.next().await {
            let Ok(request) = read?.request else { continue };
            if request.key == *key && !refused.contains_key(&line) {
                let pictures = u64::from(request.order.pictures);
                requests.push((Blamed { line, pictures }, request.inputs));
            }
        }
        Ok(requests)
    }

    /// A job; none if it was deleted.
    pub(super) async fn job(&self, id: &str) -> Answer<Option<v1::Job>> {
        let asked = v1::GetJobRequest { id: id.to_owned() };
        match self.site.farm.get_job(&self.caller, asked).await {
            Ok(job) => Ok(Some(job)),
            Err(error) if error.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The jobs of the batch that were not deleted.
    pub(super) async fn jobs(&self, progress: &Progress) -> Answer<Vec<v1::Job>> {
        let mut jobs = Vec::new();
        for id in progress.jobs.iter().filter_map(|group| group.job.as_deref()) {
            jobs.extend(self.job(id).await?);
        }
        Ok(jobs)
    }

    /// All jobs of the batch that the farm knows, whether it was noted that they were submitted or
    /// not.
    pub(super) async fn known_jobs(&self) -> Answer<Vec<v1::Job>> {
        let label = (BATCH.to_owned(), Named::Batch.show(self.batch.id));
        let mut asked = v1::ListJobsRequest {
            page_size: LISTED,
            labels: [label].into(),
            tenant: self.batch.tenant.clone(),
            ..Default::default()
        };
        let mut jobs = Vec::new();
        loop {
            let page = self.site.farm.list_jobs(&self.caller, asked.clone()).await?;
            jobs.extend(page.jobs);
            if page.next_page_token.is_empty() {
                return Ok(jobs);
            }
            asked.page_token = page.next_page_token;
        }
    }

    /// Cancels those of the batch's jobs that go on.
    pub(super) async fn cancel_jobs(&self, jobs: &[v1::Job]) -> Answer<()> {
        for job in jobs.iter().filter(|job| !has_ended(job)) {
            let asked = v1::CancelJobRequest { id: job.id.clone() };
            match self.site.farm.cancel_job(&self.caller, asked).await {
                Ok(_) => {}
                // It has ended or was deleted meanwhile.
                Err(error) if matches!(error.code, Code::FailedPrecondition | Code::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The name that a batch's job has for its client, which makes it one job however often it is
/// submitted.
pub(super) fn request_id(batch: &Batch, position: usize) -> String {
    format!("{}-{position}", Named::Batch.show(batch.id))
}

/// Whether a job and all its images have ended, and its manifest says so.
pub(super) fn is_settled(job: &v1::Job) -> bool {
    has_ended(job) && job.manifest() == v1::ManifestState::Written
}

pub(super) fn has_ended(job: &v1::Job) -> bool {
    matches!(job.state(), v1::JobState::Done | v1::JobState::Failed | v1::JobState::Cancelled)
}

/// Whether the same job may be accepted later.
pub(super) fn passes(error: &UserError) -> bool {
    matches!(
        error.code,
        Code::ResourceExhausted
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
    )
}

/// The requests that are refused together with the one at `position`: if its picture is at fault,
/// all that name the same picture.
fn blamed(requests: &[(Blamed, Inputs)], position: usize, error: &UserError) -> Vec<Blamed> {
    let Some((first, wrong)) = requests.get(position) else { return Vec::new() };
    let same: fn(&Inputs, &Inputs) -> bool = match error.field.as_deref() {
        Some("image") => |one, other| one.image == other.image,
        Some("mask") if error.code == Code::NotFound => |one, other| one.mask == other.mask,
        // A mask may not fit its picture, and fit another one.
        Some("mask") => |one, other| one.mask == other.mask && one.image == other.image,
        _ => return vec![*first],
    };
    let all = requests.iter().filter(|(_, inputs)| same(inputs, wrong));
    all.map(|(request, _)| *request).collect()
}

fn no_such_prompt(position: usize) -> UserError {
    let message = format!(
        "the farm refused prompt {position} of a batch's job, but the job has fewer prompts; please report this"
    );
    UserError::new(Code::Internal, "INTERNAL", message)
}

/// Whether the farm gave up the submit because nothing arrived for a time, for example because the
/// machine was suspended or its clock was changed.
fn was_given_up(error: &UserError) -> bool {
    error.reason == "NOT_FOUND" && error.field.is_none()
}

/// The spec of a job.
fn job(batch: &Batch, group: &Group, position: usize) -> v1::JobSpec {
    let id = Named::Batch.show(batch.id);
    let start = match group.key.start {
        Start::Noise => v1::Start::Noise,
        Start::Picture => v1::Start::Picture,
        Start::Masked => v1::Start::Masked,
    };
    v1::JobSpec {
        client_request_id: request_id(batch, position),
        cascade: group.key.cascade.clone(),
        name: id.clone(),
        tenant: batch.tenant.clone(),
        priority: v1::Priority::Batch.into(),
        settings: Some(v1::Settings { start: start.into(), ..Default::default() }),
        labels: [(BATCH.to_owned(), id)].into(),
        ..Default::default()
    }
}

fn prompt(
    request: Request,
    custom_id: String,
    line: u64,
    cascade: &v1::Cascade,
) -> (v1::Prompt, usize) {
    let Request { order, inputs, .. } = request;
    let settings = v1::Settings {
        // The same for all pictures of a job, so it is in the spec.
        start: v1::Start::Unspecified.into(),
        ..spec::settings(&order, &inputs, cascade)
    };
    let size = order.prompt.len() + order.negative.len() + order.user.len() + custom_id.len();
    let user = Some(order.user).filter(|user| !user.trim().is_empty());
    let prompt = v1::Prompt {
        text: order.prompt,
        negative: order.negative,
        images: order.pictures,
        seed: order.seed,
        image: inputs.image,
        mask: inputs.mask,
        custom_id,
        labels: user.map(|user| (spec::USER.to_owned(), user)).into_iter().collect(),
        line,
        settings: Some(settings),
        ..Default::default()
    };
    (prompt, size)
}

/// A refusal of a job as that of a job of one prompt, and which prompt it was.
fn of_one_prompt(error: UserError) -> (Option<usize>, UserError) {
    let Some(field) = &error.field else { return (None, error) };
    let Some((digits, rest)) =
        field.strip_prefix("prompts[").and_then(|field| field.split_once(']'))
    else {
        return (None, error);
    };
    let Ok(position) = digits.parse::<usize>() else { return (None, error) };
    let message = error.message.replace(&format!("prompts[{digits}]"), "prompts[0]");
    let field = Some(format!("prompts[0]{rest}"));
    (Some(position), UserError { field, message, ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_about_one_prompt_or_about_the_job() {
        let error = UserError::invalid("prompts[17].text", "prompts[17].text has 5000 characters");
        let (position, error) = of_one_prompt(error);
        assert_eq!(position, Some(17));
        let error = spec::in_parameters(error);
        assert_eq!(
            (error.field.as_deref(), error.message.as_str()),
            (Some("prompt"), "prompt has 5000 characters")
        );
        for field in ["spec.cascade", "prompts", "prompts[x].text"] {
            let error = UserError::invalid(field, "wrong");
            assert_eq!(of_one_prompt(error.clone()), (None, error));
        }
    }

    #[test]
    fn requests_with_the_same_wrong_picture_are_refused_together() {
        let request = |line: u64, image: &str, mask: &str| {
            let inputs = Inputs { image: image.into(), mask: mask.into() };
            (Blamed { line, pictures: 1 }, inputs)
        };
        let requests = [
            request(1, "a", "x"),
            request(3, "b", "x"),
            request(4, "b", "y"),
            request(7, "a", "y"),
        ];
        let lines = |position, code, parameter: Option<&str>| {
            let field = parameter.map(str::to_owned);
            let error = UserError { field, ..UserError::new(code, "X", "a sentence") };
            let blamed = blamed(&requests, position, &error);
            blamed.iter().map(|one| one.line).collect::<Vec<_>>()
        };
        let (missing, wrong) = (Code::NotFound, Code::InvalidArgument);
        assert_eq!(lines(1, missing, Some("image")), [3, 4]);
        assert_eq!(lines(3, wrong, Some("image")), [1, 7]);
        assert_eq!(lines(1, missing, Some("mask")), [1, 3]);
        assert_eq!(lines(1, wrong, Some("mask")), [3], "it may fit another picture");
        assert_eq!(lines(1, wrong, Some("prompt")), [3]);
        assert_eq!(lines(1, wrong, None), [3]);
        assert_eq!(lines(4, missing, Some("image")), [0; 0]);
    }

    #[test]
    fn a_quota_or_a_busy_farm_passes_and_a_wrong_request_does_not() {
        for code in Code::ALL {
            let is_final = matches!(
                code,
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::FailedPrecondition
                    | Code::PermissionDenied
                    | Code::Unauthenticated
            );
            assert_eq!(passes(&UserError::new(code, "X", "a sentence")), !is_final, "{code:?}");
        }
        let missing = |reason: &str, field: Option<&str>| UserError {
            field: field.map(str::to_owned),
            ..UserError::new(Code::NotFound, reason, "a sentence")
        };
        assert!(was_given_up(&missing("NOT_FOUND", None)));
        assert!(!was_given_up(&missing("NOT_FOUND", Some("spec.cascade"))));
        assert!(!was_given_up(&missing("DELETED", None)), "its job was deleted");
    }
}
