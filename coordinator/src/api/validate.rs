//! Checks a request, and makes a job to record, or names the first wrong field.
//!
//! Seeds: image k of a prompt has the prompt's first seed plus k, wrapping. A prompt's first seed
//! is its own if it has one, else the job's seed plus the number of images before it, so the seeds
//! of a job without prompt seeds are consecutive.

mod recipe;

use darkroom_core::{
    cascade::Cascade,
    digest::{Digest, FieldHasher},
    error::{Code, UserError},
    id::JobId,
    job_filter::MAX_NAME,
    label::{Naming, NamingRequest, check_labels},
    mix::StageLoad,
    prompt::{
        check_prepared, check_prompt, check_text, is_blank, or_empty, sealed_text_digest,
        text_digest,
    },
    settings::{Settings, SettingsRequest},
    sharing::Sharing,
    tenant,
};
use darkroom_proto::v1;
use prost::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    access::DEFAULT_TENANT,
    custom_ids::CustomIds,
    distinct::Distinct,
    inputs::Inputs,
    overrides::{Made, Overrides},
};
use crate::{
    store::{
        limits::Limits,
        records::{Extras, NewJob, NewPrompt, PreparedText, Requested},
    },
    tasks::Cascades,
};

/// Most prompts of one message.
pub(super) const MAX_PROMPTS: usize = 10_000;
/// Most pictures of one prompt.
const MAX_IMAGES_PER_PROMPT: u32 = 10_000;
/// Most images of a job.
const MAX_IMAGES: u64 = 10_000_000;
/// Longest client request id, characters.
const MAX_REQUEST_ID: usize = 128;
/// Longest tenant that is looked for.
pub(super) const MAX_TENANT: usize = tenant::MAX_NAME;
/// Largest limit on workers.
const MAX_WORKERS: u32 = 100_000;
/// Latest deadline, seconds since 1970: the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// A job with a checked spec; prompts are added chunk by chunk.
pub(super) struct Draft {
    pub(super) job: NewJob,
    cascade: Cascade,
    made: Made,
    overrides: Overrides,
    position: u64,
    images: u64,
    /// Counts the texts.
    texts: Option<Distinct>,
    custom_ids: CustomIds,
    content: FieldHasher,
}

impl Draft {
    /// Checks everything but the prompts.
    pub(super) fn new(spec: Option<v1::JobSpec>, cascades: &Cascades) -> Result<Self, UserError> {
        let spec = spec.ok_or_else(|| {
            UserError::invalid("spec", "spec is missing; accepted: a job spec, first of all")
        })?;
        check_request_id(&spec.client_request_id)?;
        limit("spec.name", &spec.name, MAX_NAME)?;
        limit("spec.tenant", &spec.tenant, MAX_TENANT)?;
        if !is_blank(&spec.tenant) {
            tenant::check("spec.tenant", &spec.tenant)?;
        }
        check_labels("spec.labels", &spec.labels)?;
        let priority = priority(spec.priority)?;
        let (digest, cascade) = cascade(&spec.cascade, cascades)?;
        let request = spec.settings.as_ref().map(SettingsRequest::from).unwrap_or_default();
        let settings =
            Settings::resolve(&request, &cascade.spec).map_err(|error| within_spec(&error))?;
        let images_per_prompt = images(
            "spec.images_per_prompt",
            if spec.images_per_prompt == 0 { 1 } else { spec.images_per_prompt },
        )?;
        let limits = limits(&spec)?;
        let content = FieldHasher::new("submit/1").field(
            &v1::JobSpec { client_request_id: String::new(), ..spec.clone() }.encode_to_vec(),
        );
        let job = NewJob {
            id: JobId(Uuid::now_v7()),
            tenant: if is_blank(&spec.tenant) { DEFAULT_TENANT.to_owned() } else { spec.tenant },
            name: or_empty(&spec.name).to_owned(),
            labels: spec.labels,
            client_request_id: Some(spec.client_request_id).filter(|id| !id.is_empty()),
            priority,
            cascade: digest,
            encoder: cascade.encoder_digest(),
            settings,
            requested: Requested {
                cascade: spec.cascade,
                settings: request,
                images_per_prompt,
                seed_given: spec.seed.is_some(),
            },
            seed: spec.seed.unwrap_or_else(random_seed),
            limits,
            no_reuse: spec.no_reuse,
            sharing: Sharing::Shared,
        };
        let made = Made::of_job(&job.settings, &cascade.spec);
        let custom_ids = CustomIds::default();
        Ok(Self {
            job,
            cascade: cascade.clone(),
            made,
            overrides: Overrides::default(),
            position: 0,
            images: 0,
            texts: None,
            custom_ids,
            content,
        })
    }

    /// Checks prompts and gives them their positions; fields are `prompts[i]` by position in the
    /// job.
    ///
    /// `inputs` are the pictures named in the prompts that the farm has. It ends early when `stop`
    /// is cancelled.
    pub(super) fn add(
        &mut self,
        prompts: Vec<v1::Prompt>,
        inputs: &Inputs,
        stop: &CancellationToken,
    ) -> Result<Vec<NewPrompt>, UserError> {
        if prompts.len() > MAX_PROMPTS {
            return Err(UserError::invalid(
                "prompts",
                format!(
                    "prompts has {} entries; accepted: 1 to {MAX_PROMPTS} a message; send more \
                     with SubmitJobStream",
                    prompts.len()
                ),
            ));
        }
        self.custom_ids.begin();
        let add = |prompt| {
            if stop.is_cancelled() {
                return Err(UserError::new(
                    Code::Unavailable,
                    "STOPPED",
                    "the submit was given up while its prompts were checked; submit it again",
                ));
            }
            self.add_one(prompt, inputs)
        };
        prompts.into_iter().map(add).collect()
    }

    /// Number of images so far.
    pub(super) fn images(&self) -> u64 {
        self.images
    }

    /// Number of distinct texts so far, if the draft [counts](Self::counting) them.
    pub(super) fn texts(&self) -> u64 {
        self.texts.as_ref().map_or(0, Distinct::count)
    }

    /// How many texts and custom ids it remembers of earlier messages.
    pub(super) fn remembered(&self) -> usize {
        self.texts.as_ref().map_or(0, |texts| texts.kept() + self.custom_ids.kept())
    }

    /// The job alone, without what was remembered of its prompts.
    pub(super) fn into_job(self) -> NewJob {
        self.job
    }

    /// The work of the images so far, stage by stage.
    pub(super) fn loads(&self) -> Vec<StageLoad> {
        self.overrides.mix().loads(&self.job.settings, self.images)
    }

    /// The draft with how its job shares; before any prompt is added.
    pub(super) fn sharing(mut self, sharing: Sharing) -> Self {
        self.job.sharing = sharing;
        self
    }

    /// The draft for a job that is not stored: it counts its distinct texts, and remembers as many
    /// of its custom ids as there is room for.
    pub(super) fn counting(mut self) -> Self {
        self.custom_ids.across = true;
        Self { texts: Some(Distinct::default()), ..self }
    }

    /// Digest of the whole content; refuses a job without prompts.
    pub(super) fn finish(&self) -> Result<Digest, UserError> {
        if self.position == 0 {
            return Err(UserError::invalid(
                "prompts",
                "prompts is empty; accepted: at least one prompt",
            ));
        }
        Ok(self.content.clone().finish())
    }

    fn add_one(&mut self, mut prompt: v1::Prompt, inputs: &Inputs) -> Result<NewPrompt, UserError> {
        let position = self.position;
        let path = |key: &str| format!("prompts[{position}].{key}");
        let content = std::mem::take(&mut self.content);
        self.content = content.field(&prompt.encode_to_vec());
        check_prompt(&path("text"), &prompt.text)?;
        check_text(&path("negative"), &prompt.negative)?;
        let labels = std::mem::take(&mut prompt.labels);
        let naming = Naming::check(
            NamingRequest { custom_id: &prompt.custom_id, labels, line: prompt.line },
            &path,
        )?;
        self.custom_ids.add(position, &naming)?;
        let made = self.overrides.of_prompt(
            &format!("prompts[{position}]"),
            prompt.settings.as_ref(),
            (&self.made, &self.job.requested.settings),
            &self.cascade.spec,
        )?;
        let brought = inputs.of_prompt(&prompt, &made.wanted, &path)?;
        let style = style(&prompt.style, &made.settings, &path)?;
        let wanted =
            if prompt.images == 0 { self.job.requested.images_per_prompt } else { prompt.images };
        let images = images(&path("images"), wanted)?;
        if self.images + u64::from(images) > MAX_IMAGES {
            return Err(UserError::invalid(
                path("images"),
                format!(
                    "the job has more than {MAX_IMAGES} images; accepted: at most that many, so \
                     split it"
                ),
            ));
        }
        let text_embedding = self.prepare(&path("text"), &prompt.text)?;
        let style_embedding =
            style.as_deref().map(|style| self.prepare(&path("style"), style)).transpose()?;
        let preparation = self.cascade.spec.encoder.text_preparation;
        check_prepared(&path("text"), preparation, &text_embedding.prepared)?;
        if let Some(style) = &style_embedding {
            check_prepared(&path("style"), preparation, &style.prepared)?;
        }
        let negative = or_empty(&prompt.negative).to_owned();
        let guided = made.settings.guided();
        let negative_embedding =
            guided.then(|| self.prepare(&path("negative"), &negative)).transpose()?;
        let new = NewPrompt {
            position,
            first_index: self.images,
            images,
            first_seed: prompt.seed.unwrap_or_else(|| self.job.seed.wrapping_add(self.images)),
            text_embedding,
            negative_embedding,
            style_embedding,
            extras: Extras { style, image: brought.image, mask: brought.mask },
            naming,
            remarks: brought.remarks,
            variant: made.variant(),
            text: prompt.text,
            negative,
        };
        recipe::check((&self.job, &made.settings), &self.cascade.spec.name, &new, &path)?;
        if let Some(texts) = &mut self.texts {
            let others = [&new.negative_embedding, &new.style_embedding].into_iter().flatten();
            others.chain([&new.text_embedding]).for_each(|text| texts.add(&text.digest));
        }
        self.overrides.count(&made, images);
        self.position += 1;
        self.images += u64::from(images);
        Ok(new)
    }

    fn prepare(&self, field: &str, text: &str) -> Result<PreparedText, UserError> {
        let prepared = self.cascade.spec.encoder.text_preparation.prepare(field, text)?;
        let NewJob { tenant, encoder, sharing, .. } = &self.job;
        let digest = match sharing.seal(tenant) {
            Some(tenant) => sealed_text_digest(tenant, encoder, &prepared),
            None => text_digest(encoder, &prepared),
        };
        Ok(PreparedText { digest, prepared })
    }
}

/// The style, if there is one: a text for super-resolution stages.
fn style(
    text: &str,
    settings: &Settings,
    path: &dyn Fn(&str) -> String,
) -> Result<Option<String>, UserError> {
    let field = path("style");
    check_text(&field, text)?;
    if is_blank(text) {
        return Ok(None);
    }
    if settings.stages.iter().all(|stage| stage.sampling.noise_level.is_none()) {
        let message = format!(
            "{field} is given, but it is for super-resolution stages, and none runs; accepted: none"
        );
        return Err(UserError::invalid(field, message));
    }
    Ok(Some(text.to_owned()))
}

/// A repeated submit is recognised by it, so an invisible one is refused as a mistake, and does not
/// count as none.
fn check_request_id(id: &str) -> Result<(), UserError> {
    let field = "spec.client_request_id";
    if !id.is_empty() && is_blank(id) {
        let message =
            format!("{field} is blank; accepted: 1 to {MAX_REQUEST_ID} characters, or none");
        return Err(UserError::invalid(field, message));
    }
    limit(field, id, MAX_REQUEST_ID)
}

pub(super) fn limit(field: &str, text: &str, most: usize) -> Result<(), UserError> {
    let characters = text.chars().count();
    if characters > most {
        let message = format!("{field} has {characters} characters; accepted: at most {most}");
        return Err(UserError::invalid(field, message));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        let message = format!(
            "{field} contains the control character U+{:04X}; accepted: printable text",
            bad as u32
        );
        return Err(UserError::invalid(field, message));
    }
    Ok(())
}

fn priority(number: i32) -> Result<u8, UserError> {
    match v1::Priority::try_from(number) {
        Ok(v1::Priority::Unspecified | v1::Priority::Batch) => Ok(0),
        Ok(v1::Priority::Interactive) => Ok(1),
        Err(_) => Err(UserError::invalid(
            "spec.priority",
            format!("spec.priority is {number}; accepted: 0 or 1 (batch), 2 (interactive)"),
        )),
    }
}

fn cascade<'a>(name: &str, cascades: &'a Cascades) -> Result<(Digest, &'a Cascade), UserError> {
    cascades.find(name).ok_or_else(|| {
        let names: Vec<_> =
            cascades.iter().map(|(_, cascade)| cascade.spec.name.as_str()).collect();
        let names = if names.is_empty() {
            "none, because the farm has no cascade".to_owned()
        } else {
            names.join(", ")
        };
        let message = format!("spec.cascade is {name:?}; accepted: {names}");
        UserError {
            field: Some("spec.cascade".to_owned()),
            ..UserError::new(Code::NotFound, "UNKNOWN_CASCADE", message)
        }
    })
}

fn images(field: &str, count: u32) -> Result<u32, UserError> {
    if (1..=MAX_IMAGES_PER_PROMPT).contains(&count) {
        return Ok(count);
    }
    Err(UserError::invalid(
        field,
        format!("{field} is {count}; accepted: 1 to {MAX_IMAGES_PER_PROMPT}"),
    ))
}

/// The user's limits for the job. The record checks that the deadline is in the future, by its own
/// clock.
fn limits(spec: &v1::JobSpec) -> Result<Limits, UserError> {
    let field = "spec.max_workers";
    let max_workers = match spec.max_workers {
        0 => None,
        workers @ 1..=MAX_WORKERS => Some(workers),
        workers => {
            let message =
                format!("{field} is {workers}; accepted: 1 to {MAX_WORKERS}, or 0 for no limit");
            return Err(UserError::invalid(field, message));
        }
    };
    let field = "spec.max_failed_images";
    if let Some(failed) = spec.max_failed_images.filter(|failed| *failed > MAX_IMAGES) {
        let message =
            format!("{field} is {failed}; accepted: 0 to {MAX_IMAGES}, or none for no limit");
        return Err(UserError::invalid(field, message));
    }
    let deadline = spec.deadline.as_ref();
    let deadline_ms =
        deadline.map(|deadline| deadline_ms("spec.deadline", deadline)).transpose()?;
    Ok(Limits { deadline_ms, max_workers, max_failed: spec.max_failed_images })
}

/// A deadline as milliseconds since 1970.
pub(super) fn deadline_ms(
    field: &str,
    deadline: &prost_types::Timestamp,
) -> Result<i64, UserError> {
    let prost_types::Timestamp { seconds, nanos } = *deadline;
    if (0..=LAST_SECOND).contains(&seconds) && (0..1_000_000_000).contains(&nanos) {
        return Ok(seconds * 1000 + i64::from(nanos / 1_000_000));
    }
    let message =
        format!("{field} is {seconds} s {nanos} ns since 1970; accepted: a time later than now");
    Err(UserError::invalid(field, message))
}

/// Core names fields from `settings` on. In a request, they are below `spec`.
fn within_spec(error: &UserError) -> UserError {
    let field = error.field.clone().unwrap_or_default();
    let full = format!("spec.{field}");
    let message = match error.message.strip_prefix(&field) {
        Some(rest) => format!("{full}{rest}"),
        None => error.message.clone(),
    };
    UserError { field: Some(full), message, ..error.clone() }
}

/// A seed that is short enough to type.
fn random_seed() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    (high ^ low) & u64::from(u32::MAX)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod preparing_tests {
    use darkroom_core::prompt::TextPreparation;

    use super::{tests::cascades, *};

    fn draft() -> Draft {
        let cascades = cascades(TextPreparation::IfClean);
        Draft::new(Some(v1::JobSpec::default()), &cascades).expect("a draft")
    }

    fn prompt(text: &str, negative: &str) -> v1::Prompt {
        v1::Prompt { text: text.to_owned(), negative: negative.to_owned(), ..v1::Prompt::default() }
    }

    #[test]
    fn a_text_that_cannot_be_cleaned_is_refused_by_its_field() {
        let (good, bad) = ("a red circle", "<a ".repeat(1365));
        let refused = |prompts| {
            let added = draft().add(prompts, &Inputs::default(), &CancellationToken::new());
            added.expect_err("refused").field
        };
        let text = refused(vec![prompt(good, ""), prompt(&bad, "")]);
        assert_eq!(text.as_deref(), Some("prompts[1].text"));
        assert_eq!(refused(vec![prompt(good, &bad)]).as_deref(), Some("prompts[0].negative"));
    }

    #[test]
    fn prompts_are_not_looked_at_any_more_when_the_coordinator_stops() {
        let stop = CancellationToken::new();
        stop.cancel();
        let refused = draft().add(vec![prompt("a", ""); 10_000], &Inputs::default(), &stop);
        assert_eq!(refused.expect_err("given up").reason, "STOPPED");
    }
}
