//! Commands about jobs on a running farm: submit, status, watch, ls, failures, get, cancel, pause,
//! resume, retry, and what the farm has: workers, cascades, itself.

use std::path::PathBuf;

use darkroom_core::{
    error::{Code, UserError},
    job_state::EndCode,
    shown::shown,
};
use darkroom_proto::{
    json::{self, Named as _},
    v1,
};
use darkroom_runtime::{disk::ByteSize, terminal::shown_path};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use crate::{
    args::{DrainArgs, GetArgs, LsArgs, Place, RmArgs, SubmitArgs, WatchArgs},
    batch_file,
    client::{Client, Pages},
    deadline,
    failure::Result,
    farm as farms,
    forecast::{self, DryRun},
    inputs::{Inputs, is_note_about_pictures},
    listing,
    lost::Lost,
    name_template::{self, BY_INDEX, NameTemplate},
    output::{self, Beside},
    pictures::{Folder, Taken},
    progress::Progress,
    request,
    spool::Prompts,
    view,
};

/// Links that are requested at the same time.
const LINKS_AT_ONCE: usize = 8;

/// `darkroom submit`.
pub(crate) async fn submit(place: &Place, args: SubmitArgs, as_json: bool) -> Result<()> {
    request::check(&args.request)?;
    let deadline = deadline::of_submit(args.deadline.as_deref(), args.request_id.is_some())?;
    let labels = listing::labels(&args.job_labels)?;
    let mut inputs = Inputs::default();
    let (prompts, remarks) = match &args.file.batch {
        Some(path) => {
            let template = request::template(&args.request, &mut inputs)?;
            batch_file::read(path, &args.file, &template, &mut inputs)?
        }
        None => {
            let prompts = request::prompts(&args.prompts, &args.request, &mut inputs)?;
            (Prompts::of(prompts)?, Vec::new())
        }
    };
    if !as_json {
        notes(&remarks);
    }
    if prompts.is_empty() {
        return Err(UserError::invalid(
            "prompt",
            "no prompt is given; accepted: prompts, or --batch FILE",
        ));
    }
    request::check_fit(&args.request, prompts.pictured())?;
    let client = &farms::find(place)?;
    let mut spec = request::spec(client, &args.request, prompts.pictured(), &inputs).await?;
    if let Some(id) = args.request_id {
        spec.client_request_id = id;
    }
    spec.name = args.name.unwrap_or_default();
    spec.tenant = args.tenant.unwrap_or_default();
    spec.labels = labels;
    if args.interactive {
        spec.priority = v1::Priority::Interactive.into();
    }
    spec.deadline = deadline;
    spec.max_workers = args.max_workers.unwrap_or(0);
    spec.max_failed_images = args.max_failed;
    if args.dry_run {
        let answer = client.forecast(spec, prompts).await?;
        return if as_json {
            let answer = json::ForecastJobResponse::from(answer);
            output::json(&DryRun { answer, batch_notes: remarks })
        } else {
            output::line(&forecast::dry_run_text(&answer))
        };
    }
    let submitted = client.submit(spec, prompts).await?;
    if as_json {
        let job = json::Job::from(&submitted.job);
        let document = json!({"job": job, "existed": submitted.existed, "batch_notes": remarks});
        return output::json(&document).map_err(|failure| accepted(failure, &submitted.job.id));
    }
    notes(submitted.job.notes.iter().filter(|note| !is_note_about_pictures(note)));
    output::line(&shown(&submitted.job.id)).map_err(|failure| accepted(failure, &submitted.job.id))
}

/// If the job's id cannot be printed, the error message has it.
fn accepted(failure: UserError, job: &str) -> UserError {
    UserError { message: format!("{} (job {job} was accepted)", failure.message), ..failure }
}

/// Prints a job, for `status` or after a change of its state.
pub(crate) fn show(job: &v1::Job, as_json: bool) -> Result<()> {
    if as_json { output::json(&json::Job::from(job)) } else { output::line(&view::job_text(job)) }
}

/// `darkroom rm`. Goes on after a job that cannot be deleted, and fails at the end.
pub(crate) async fn rm(client: &Client, args: &RmArgs, as_json: bool) -> Result<()> {
    let mut failed = None;
    for job in &args.job {
        match client.delete(job, args.cancel).await {
            Ok(answer) if as_json => output::json(&json::DeleteJobResponse::from(answer))?,
            Ok(answer) if answer.deleted => {
                output::line(&format!("{} deleted", shown(&answer.id)))?
            }
            Ok(answer) => {
                output::line(&format!("{} was deleted earlier", shown(&answer.id)))?;
            }
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    output::warn(&before.message);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// `darkroom watch`. The command fails where the job did.
pub(crate) async fn watch(
    client: &Client,
    job: &str,
    args: &WatchArgs,
    as_json: bool,
) -> Result<()> {
    let mut watch = client.watch(job, args.after, args.images);
    let mut progress = Progress::new(!as_json);
    let mut last = None;
    while let Some(event) = watch.next().await? {
        if as_json && watch.repeated() {
            // Nothing changed.
        } else if as_json {
            // Printed as a value, so that its keys are sorted as in other documents.
            output::json(&json!(json::WatchEvent::from(&event)))?;
        } else {
            for image in &event.images {
                progress.print(&format!("{:06}  {}", image.index, image.state().name()))?;
            }
        }
        if let Some(job) = event.job {
            progress.show(&job);
            last = Some(job);
        }
    }
    progress.end();
    let Some(job) = last else { return Ok(()) };
    let told = if as_json { Ok(()) } else { output::line(&view::job_text(&job)) };
    outcome(&job).and(told)
}

/// The end of a job as the result of a command: an error unless every picture is done.
pub(crate) fn outcome(job: &v1::Job) -> Result<()> {
    if !job.end_reason.is_empty() {
        let (code, reason) = match job.end_code.parse() {
            Ok(EndCode::Failures) => (Code::Internal, "IMAGES_FAILED"),
            _ => (Code::FailedPrecondition, "JOB_CANCELLED"),
        };
        return Err(UserError::new(
            code,
            reason,
            format!("job {} was ended: {}", job.id, job.end_reason),
        ));
    }
    match job.state() {
        v1::JobState::Failed => Err(UserError::new(
            Code::Internal,
            "IMAGES_FAILED",
            format!(
                "{} of {} images of job {} failed; `darkroom ls {}` lists them, `darkroom retry {}` runs them again",
                job.images_dead, job.images, job.id, job.id, job.id
            ),
        )),
        v1::JobState::Cancelled => Err(UserError::new(
            Code::FailedPrecondition,
            "JOB_CANCELLED",
            format!(
                "job {} was cancelled with {} of {} images done",
                job.id, job.images_done, job.images
            ),
        )),
        _ => Ok(()),
    }
}

/// `darkroom ls`.
pub(crate) async fn ls(place: &Place, args: &LsArgs, as_json: bool) -> Result<()> {
    match &args.job {
        Some(job) => ls_images(place, job, args, as_json).await,
        None => ls_jobs(place, args, as_json).await,
    }
}

async fn ls_jobs(place: &Place, args: &LsArgs, as_json: bool) -> Result<()> {
    let mut request = listing::jobs(args)?;
    let client = farms::find(place)?;
    let mut pages = Pages::default();
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = client.jobs(request.clone()).await?;
        for job in page.jobs.iter().take(left) {
            if as_json {
                output::json(&json::Job::from(job))?
            } else {
                output::line(&view::job_line(job))?
            }
        }
        left = left.saturating_sub(page.jobs.len());
        match pages.next(page.next_page_token)? {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    Ok(())
}

async fn ls_images(place: &Place, job: &str, args: &LsArgs, as_json: bool) -> Result<()> {
    let mut request = listing::images(job, args)?;
    let mut pages = Pages::default();
    let link_seconds = args.links.as_deref().map(deadline::link_seconds).transpose()?;
    let client = &farms::find(place)?;
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = client.images_of(request.clone()).await?;
        let linked = stream::iter(page.images.iter().take(left))
            .map(|image| linked(client, image, link_seconds));
        let mut linked = linked.buffered(LINKS_AT_ONCE);
        while let Some((image, link)) = linked.try_next().await? {
            if as_json {
                let document = json::Image::from(image);
                output::json(&link.iter().fold(document, json::Image::linked))?;
            } else {
                output::line(&image_line(image))?;
                link.iter()
                    .try_for_each(|link| output::line(&format!("        {}", shown(&link.url))))?;
            }
        }
        left = left.saturating_sub(page.images.len());
        match pages.next(page.next_page_token)? {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    Ok(())
}

/// `darkroom failures`.
pub(crate) async fn failures(client: &Client, job: &str, as_json: bool) -> Result<()> {
    let answer = client.failures(job).await?;
    if as_json {
        return output::json(&json::SummarizeFailuresResponse::from(answer));
    }
    for failure in &answer.failures {
        output::line(&view::failure_line(failure))?;
    }
    if answer.more_codes {
        output::tell("note: the job has more codes than are listed");
    }
    Ok(())
}

/// An image, and a link to its picture where links are wanted and it is done.
async fn linked<'a>(
    client: &Client,
    image: &'a v1::Image,
    link_seconds: Option<u32>,
) -> Result<(&'a v1::Image, Option<v1::SignImageResponse>)> {
    let seconds = link_seconds.filter(|_| image.state() == v1::ImageState::Done);
    let Some(seconds) = seconds else { return Ok((image, None)) };
    Ok((image, Some(client.sign(&image.job_id, image.index, seconds).await?)))
}

pub(crate) fn image_line(image: &v1::Image) -> String {
    let id = if image.custom_id.is_empty() {
        String::new()
    } else {
        format!("{}  ", shown(&image.custom_id))
    };
    let mut line = format!(
        "{:06}  {:<10}  {:<8}  seed {}  {id}{}",
        image.index,
        image.state().name(),
        shown(&image.stage),
        image.seed,
        shown(&image.prompt)
    );
    if !image.error.is_empty() {
        line += &format!("  [{}: {}]", shown(&image.error_code), shown(&image.error));
    }
    line
}

/// `darkroom get`. What is there already, byte for byte, is not fetched again.
pub(crate) async fn get(place: &Place, args: GetArgs, as_json: bool) -> Result<()> {
    let template = NameTemplate::parse(args.name.as_deref().unwrap_or(BY_INDEX))?;
    let client = &farms::find(place)?;
    let out = args.out.unwrap_or_else(|| PathBuf::from("renders").join(&args.job));
    let job = client.job(&args.job).await?;
    if args.name.is_some() {
        name_template::check(client, &args.job, |image| template.name(image)).await?;
    }
    let taken = if args.overwrite { Taken::Overwrite } else { Taken::Refuse };
    let folder = Folder::open(&out, taken)?;
    let mut pictures = Vec::new();
    let mut lost = Lost::default();
    let mut told = Beside::default();
    let (mut pages, mut token) = (Pages::default(), String::new());
    let mut fetched = 0;
    loop {
        let page = client.images(&args.job, &[v1::ImageState::Done], token).await?;
        for image in &page.images {
            let name = template.name(image)?;
            match download(client, &folder, &name, image).await {
                Ok(new) => {
                    lost.found();
                    fetched += u64::from(new);
                }
                Err(failure) => {
                    lost.note(image.index, failure)?;
                    continue;
                }
            }
            let path = folder.path_named(&name);
            if as_json {
                let document = json!({"index": image.index, "sha256": image.sha256, "custom_id": image.custom_id});
                pictures.push(output::with_path(document, "path", &path));
            } else {
                told.print(|| output::line(&shown_path(&path)));
            }
        }
        match pages.next(page.next_page_token)? {
            Some(next) => token = next,
            None => break,
        }
    }
    if as_json {
        let missing = lost.documents();
        let document = json!({
            "job": json::Job::from(&job), "fetched": fetched, "pictures": pictures, "missing": missing,
        });
        told.print(|| output::json(&document));
        return lost.end(&job.id).and(told.end());
    }
    lost.tell();
    let missing = job.images - job.images_done.min(job.images);
    if missing > 0 {
        output::tell(&format!(
            "note: {missing} of {} images are not done; the job is {}",
            job.images,
            job.state().name()
        ));
    }
    lost.end(&job.id).and(told.end())
}

/// Fetches a picture unless it is there; returns whether it did.
async fn download(client: &Client, folder: &Folder, name: &str, image: &v1::Image) -> Result<bool> {
    if folder.has_named(name, &image.sha256) {
        return Ok(false);
    }
    folder.write_named(name, &client.fetch_listed(image).await?)?;
    Ok(true)
}

/// `darkroom workers`.
pub(crate) async fn workers(client: &Client, as_json: bool) -> Result<()> {
    show_workers(&client.workers().await?, as_json)
}

/// `darkroom drain`.
pub(crate) async fn drain(client: &Client, args: DrainArgs, as_json: bool) -> Result<()> {
    let request = v1::DrainWorkerRequest {
        worker: args.worker.unwrap_or_default(),
        host: args.all_of.unwrap_or_default(),
    };
    show_workers(&client.drain(request).await?, as_json)
}

fn show_workers(workers: &[v1::Worker], as_json: bool) -> Result<()> {
    if as_json {
        return output::json(&workers.iter().map(json::Worker::from).collect::<Vec<_>>());
    }
    for worker in workers {
        let stages: Vec<_> = worker
            .stages
            .iter()
            .map(|stage| match stage.seconds_per_image {
                seconds if seconds > 0.0 => {
                    format!("{} (×{}, {seconds:.2} s)", shown(&stage.stage), stage.batch_cap)
                }
                _ => format!("{} (×{})", shown(&stage.stage), stage.batch_cap),
            })
            .collect();
        let mut state = match &worker.aside_until {
            Some(until) => format!("{} until {until} ({})", worker.state, worker.aside_reason),
            None => worker.state.clone(),
        };
        if !worker.trouble.is_empty() {
            state += &format!(", in trouble ({})", worker.trouble);
        }
        let failed = match worker.tasks_failed {
            0 => String::new(),
            failed => format!("  failed {failed}"),
        };
        let blamed = match worker.blamed_images {
            0 => String::new(),
            images => format!(" (to blame for {images})"),
        };
        let memory = worker.memory.map_or_else(String::new, |memory| {
            let (used, total) = (ByteSize(memory.used_bytes), ByteSize(memory.total_bytes));
            format!("  memory {used} of {total}")
        });
        let version = match worker.version.as_str() {
            "" => String::new(),
            version => format!("  version {}", shown(version)),
        };
        output::line(&format!(
            "{}  {}  {}  leased {}  done {}{failed}{blamed}  busy {:.0} %{memory}  {}{version}",
            shown(&worker.id),
            shown(&worker.device),
            shown(&state),
            worker.tasks_leased,
            worker.tasks_done,
            worker.busy * 100.0,
            stages.join(", ")
        ))?;
    }
    Ok(())
}

/// `darkroom farm`.
pub(crate) async fn farm(client: &Client, as_json: bool) -> Result<()> {
    let farm = client.farm().await?;
    if as_json {
        return output::json(&json::GetFarmResponse::from(&farm));
    }
    let cascades: Vec<_> = farm.cascades.iter().map(|cascade| shown(&cascade.name)).collect();
    let version = format!("version {}", shown(&farm.version));
    let mut facts = vec![version, cascades.join(", ")];
    // Only operators and members are told how to join.
    if !farm.farm_id.is_empty() {
        facts.insert(0, shown(&farm.farm_id).into_owned());
        facts.insert(2, format!("leases of {} s", farm.lease_seconds));
    }
    output::line(&facts.join("  "))?;
    if farm.jobs_overlooked > 0 {
        output::line(&format!(
            "jobs that a sweep ended because they were still open after all their images had \
             ended: {}; none are expected; the leader's log says when",
            farm.jobs_overlooked
        ))?;
    }
    if !farm.storage.is_empty() {
        output::line(&format!("storage: {}", shown(&farm.storage)))?;
    }
    for coordinator in &farm.coordinators {
        let leads = if coordinator.leads { ", leads" } else { "" };
        let answers = if coordinator.answers { ", answers you" } else { "" };
        output::line(&format!("coordinator: {}{leads}{answers}", shown(&coordinator.id)))?;
    }
    for trouble in &farm.troubles {
        output::line(&format!("trouble: {}", shown(trouble)))?;
    }
    Ok(())
}

/// `darkroom cascades`.
pub(crate) async fn cascades(client: &Client, as_json: bool) -> Result<()> {
    let cascades = client.cascades().await?;
    if as_json {
        return output::json(&cascades.iter().map(json::Cascade::from).collect::<Vec<_>>());
    }
    for cascade in &cascades {
        let stages: Vec<_> = cascade
            .stages
            .iter()
            .map(|stage| format!("{} {}", shown(&stage.name), stage.size))
            .collect();
        output::line(&format!(
            "{}  {}  {}  {}",
            shown(&cascade.name),
            shown(cascade.digest.get(..12).unwrap_or(&cascade.digest)),
            stages.join(" → "),
            shown(&cascade.description)
        ))?;
    }
    Ok(())
}

fn notes<'a>(notes: impl IntoIterator<Item = &'a String>) {
    for note in notes {
        output::tell(&format!("note: {}", shown(note)));
    }
}
