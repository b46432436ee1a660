//! Writes the manifests of ended jobs.
//!
//! The text of a manifest depends only on the job's rows, so writing it twice (after a crash
//! between storing and committing) stores the same bytes under the same key.

use std::{
    fs::File,
    io::{BufWriter, Write},
    sync::Arc,
};

use darkroom_artifacts::manifest::{
    self, EXTENSION, Header, ImageLine, ImageOutcome, Removed, Writer,
};
use darkroom_core::{forecast::StageSpent, id::JobId, image_state::ImageState};
use tokio::task::spawn_blocking;

use crate::{
    error::Error,
    shared::Shared,
    store::{
        limits::timestamp,
        records::{ImageOrder, ImageQuery, ImageRecord, JobRecord, Output},
        roles::{Forecasts, Manifests, Queries},
    },
};

/// Images per read.
const PAGE: u32 = 1000;
/// Jobs without a manifest that are looked for at one time.
const JOBS: u32 = 16;

type Lines = Writer<BufWriter<File>>;

/// Runs until shutdown.
pub(crate) async fn run<S: Forecasts + Manifests + Queries + ?Sized>(
    shared: Arc<Shared>,
    store: Arc<S>,
) {
    while !shared.stop.is_cancelled() {
        let woken = shared.events.finish.notified();
        match pass(&shared, store.as_ref()).await {
            Ok(()) => shared.healed("finish"),
            Err(error) => shared.failed("finish", &error),
        }
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(shared.options.poll) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}

async fn pass<S: Forecasts + Manifests + Queries + ?Sized>(
    shared: &Shared,
    store: &S,
) -> Result<(), Error> {
    loop {
        let pending = store.pending_manifests(JOBS).await?;
        if pending.is_empty() {
            return Ok(());
        }
        for (job, generation) in pending {
            if shared.stop.is_cancelled() {
                return Ok(());
            }
            write(shared, store, job, generation).await?;
        }
    }
}

async fn write<S: Forecasts + Manifests + Queries + ?Sized>(
    shared: &Shared,
    store: &S,
    id: JobId,
    generation: u32,
) -> Result<(), Error> {
    let job = store.job(id).await?;
    let folder = spawn_blocking(tempfile::tempdir).await.map_err(Error::other)??;
    let path = folder.path().join("manifest");
    let mut lines = open(shared, &job, path.clone()).await?;
    let mut spent = spent_on(&job);
    let (mut after, mut is_whole) = (None, true);
    loop {
        let order = ImageOrder::Index(after);
        let page = store.images(&ImageQuery::all(id, order, PAGE)).await?;
        after = page.images.last().map(|image| image.id.index);
        page.images
            .iter()
            .flat_map(|image| &image.outputs)
            .for_each(|output| add(&mut spent, output));
        let images: Vec<_> =
            page.images.into_iter().map(|image| line(&job, image)).collect::<Result<_, _>>()?;
        is_whole &= !images.iter().any(ImageLine::is_removed);
        lines = spawn_blocking(move || append(lines, images)).await.map_err(Error::other)??;
        if page.next.is_none() {
            break;
        }
    }
    spawn_blocking(move || close(lines)).await.map_err(Error::other)??;
    let artifact = shared
        .artifacts
        .put_file(&format!("manifests/{id}/{generation}/"), EXTENSION, &path)
        .await?;
    if job.forecast.is_some() {
        store.note_spent(id, &spent).await?;
    }
    // If all pictures are there again, the job no longer says that some were removed.
    let made_up_for = job.pictures_removed.as_ref().filter(|_| is_whole).map(|gone| gone.at_ms);
    let written =
        store.manifest_written((id, generation), &artifact.key, artifact.sha256, made_up_for);
    if written.await? {
        tracing::info!(job.id = %id, job.state = %job.state, job.images = job.images, "job ended");
    }
    shared.events.webhooks.notify_one();
    shared.events.changed(&[id]);
    Ok(())
}

/// Zero for each rendering stage.
fn spent_on(job: &JobRecord) -> Vec<StageSpent> {
    job.stage_names()
        .map(|stage| StageSpent { stage: stage.to_string(), ..StageSpent::default() })
        .collect()
}

fn add(spent: &mut [StageSpent], output: &Output) {
    if let Some(stage) = spent.get_mut(output.stage) {
        stage.images += 1;
        stage.device_seconds += output.seconds;
    }
}

async fn open(shared: &Shared, job: &JobRecord, path: std::path::PathBuf) -> Result<Lines, Error> {
    let header = Header {
        format: 1,
        job: job.id.to_string(),
        generation: job.generation,
        cascade: shared
            .cascades
            .get(&job.cascade)
            .map_or_else(String::new, |c| c.spec.name.clone()),
        cascade_digest: job.cascade,
        labels: job.labels.clone(),
        settings: serde_json::to_value(&job.settings).map_err(Error::other)?,
    };
    let opened = spawn_blocking(move || -> Result<Lines, manifest::Error> {
        Writer::new(BufWriter::new(File::create(path)?), &header)
    });
    Ok(opened.await.map_err(Error::other)??)
}

fn append(mut lines: Lines, images: Vec<ImageLine>) -> Result<Lines, manifest::Error> {
    for image in images {
        lines.image(image)?;
    }
    Ok(lines)
}

fn close(lines: Lines) -> Result<(), manifest::Error> {
    Ok(lines.finish()?.0.flush()?)
}

fn line(job: &JobRecord, image: ImageRecord) -> Result<ImageLine, Error> {
    let state = match image.progress.state {
        ImageState::Done => ImageOutcome::Done,
        ImageState::Dead => ImageOutcome::Dead,
        _ => ImageOutcome::Cancelled,
    };
    let stage = |position: usize| {
        job.stage_names().nth(position).map_or_else(String::new, ToString::to_string)
    };
    let settings = image.settings.as_deref().map(serde_json::to_value).transpose();
    let seconds =
        image.outputs.iter().map(|output| (stage(output.stage), output.seconds)).collect();
    let last = image.outputs.last().cloned();
    let picture =
        last.as_ref().filter(|_| state == ImageOutcome::Done).map(|output| &output.artifact);
    let removed_ms = last.as_ref().and_then(|output| output.removed_ms);
    let removed = removed_ms.filter(|_| picture.is_some()).map(|ms| Removed {
        at: timestamp(ms - ms.rem_euclid(1000)).to_string(),
        by: job.pictures_removed.as_ref().map_or_else(String::new, |removed| removed.by.clone()),
    });
    Ok(ImageLine {
        index: image.id.index,
        prompt: image.prompt,
        negative: image.negative,
        style: image.extras.style,
        image: image.extras.image.map(|image| image.sha256),
        mask: image.extras.mask.map(|mask| mask.sha256),
        custom_id: image.naming.custom_id,
        labels: image.naming.labels,
        line: image.naming.line,
        settings: settings.map_err(Error::other)?,
        seed: image.seed,
        state,
        key: picture.map(|artifact| artifact.key.clone()),
        size: picture.map(|artifact| artifact.size),
        sha256: picture.map(|artifact| artifact.sha256),
        removed,
        device_class: last.map_or_else(String::new, |output| output.device_class),
        dispatches: image.progress.dispatch,
        // A manifest is its tenant's, and workers are for operators.
        worker: String::new(),
        seconds,
        error: image
            .error
            .filter(|_| state == ImageOutcome::Dead)
            .map(|failure| format!("{}: {}", failure.code, failure.message)),
    })
}
