//! `darkroom render`: prompts in, pictures out. Submits one job, follows it, and writes each
//! picture as soon as it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use darkroom_artifacts::picture::{self, MAX_FILE_BYTES};
use darkroom_core::{
    error::{Code, UserError},
    output::Format,
    picture_text,
    shown::shown,
};
use darkroom_proto::{
    json::{self, Named as _, U64},
    v1,
};
use darkroom_runtime::{files, terminal::shown_path};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    args::RenderArgs,
    client::{Client, Pages},
    failure::{self, Result},
    inputs::{Inputs, is_note_about_pictures},
    jobs,
    lost::Lost,
    output::{self, Beside},
    pictures::{Folder, Taken},
    progress::Progress,
    request,
    spool::Prompts,
};

/// Most notes that are printed. A job usually has a few.
const MOST_NOTES: usize = 100;

/// A render whose request and folder were checked before any farm was asked.
pub(crate) struct Render {
    args: RenderArgs,
    prompts: Vec<v1::Prompt>,
    inputs: Inputs,
    folder: Folder,
    as_json: bool,
    told: Beside,
    /// Whether there is only one prompt, so that every note is about it.
    one_prompt: bool,
}

/// The result.
struct Done {
    job: v1::Job,
    pictures: BTreeMap<u64, Picture>,
    failed: Vec<v1::Image>,
    lost: Lost,
}

struct Picture {
    path: PathBuf,
    image: v1::Image,
}

impl Render {
    /// Checks the request and the folder.
    pub(crate) fn prepare(args: RenderArgs, as_json: bool) -> Result<Self> {
        request::check(&args.request)?;
        let mut inputs = Inputs::default();
        let prompts = request::prompts(&args.prompts, &args.request, &mut inputs)?;
        request::check_fit(&args.request, &prompts)?;
        let folder = Folder::open(&args.out, Taken::NumberOn)?;
        let one_prompt = prompts.len() == 1;
        Ok(Self { args, prompts, inputs, folder, as_json, told: Beside::default(), one_prompt })
    }

    /// Renders on a farm. When cancelled, it cancels its job there.
    pub(crate) async fn run(mut self, client: &Client, stop: &CancellationToken) -> Result<()> {
        let mut progress = Progress::new(!self.as_json && !self.args.quiet);
        progress.say("submitting");
        let result = self.render(client, stop, &mut progress).await;
        progress.end();
        let done = result?;
        self.report(&done);
        jobs::outcome(&done.job).and(done.lost.end(&done.job.id)).and(self.told.end())
    }

    async fn render(
        &mut self,
        client: &Client,
        stop: &CancellationToken,
        progress: &mut Progress,
    ) -> Result<Done> {
        let mut spec =
            request::spec(client, &self.args.request, &self.prompts, &self.inputs).await?;
        spec.priority = v1::Priority::Interactive.into();
        let images = |prompt: &v1::Prompt| match prompt.images {
            0 => spec.images_per_prompt,
            images => images,
        };
        let wanted: u64 = self.prompts.iter().map(|prompt| u64::from(images(prompt))).sum();
        let asked = format(spec.settings.as_ref());
        let job = client.submit(spec, Prompts::of(std::mem::take(&mut self.prompts))?).await?.job;
        if job.images != wanted {
            return Err(failure::unbelievable(format!(
                "{wanted} pictures were asked for, and the farm's job {} has {}",
                job.id, job.images
            )));
        }
        // A farm of an older version knows PNGs alone.
        let stored = format(job.effective_settings.as_ref());
        if stored != asked {
            progress.note(&format!(
                "note: the farm is of an older version, which stores pictures as {stored} and not as {asked}"
            ));
        }
        self.folder.hold(stored);
        let watched = tokio::select! {
            watched = self.follow(client, &job, progress) => watched,
            () = stop.cancelled() => Err(interrupted()),
        };
        match watched {
            Ok(done) => Ok(done),
            // Nobody would get its pictures any more, so whatever ended the render also ends the
            // job.
            Err(failure) => Err(end_job(client, &job.id, failure).await),
        }
    }

    async fn follow(
        &mut self,
        client: &Client,
        job: &v1::Job,
        progress: &mut Progress,
    ) -> Result<Done> {
        self.number(client, job).await?;
        let mut told = BTreeSet::new();
        let mut printed = 0;
        let mut pictures = BTreeMap::new();
        let mut watch = client.watch(&job.id, 0, true);
        let mut last = job.clone();
        while let Some(event) = watch.next().await? {
            if let Some(job) = event.job {
                progress.show(&job);
                for note in &job.notes {
                    if !is_note_about_pictures(note)
                        && told.len() < MOST_NOTES
                        && told.insert(note.clone())
                    {
                        let note = about_the_only_prompt(note, self.one_prompt);
                        progress.note(&format!("note: {}", shown(note)));
                    }
                }
                last = job;
            }
            for image in event.images {
                // Pictures that cannot be fetched now are requested once more at the end.
                let index = image.index;
                if index >= job.images {
                    return Err(failure::unbelievable(format!(
                        "the farm's job {} has {} images, and one of index {index}",
                        job.id, job.images
                    )));
                }
                if let Err(failure) = self.take(client, image, &mut pictures).await {
                    Lost::default().note(index, failure)?;
                }
            }
            self.print_paths(&pictures, &mut printed, progress);
        }
        // Pictures without an event, and pictures that failed.
        let mut failed = Vec::new();
        let mut lost = Lost::default();
        let (mut pages, mut token) = (Pages::default(), String::new());
        loop {
            let page = client.images(&job.id, &[], token).await?;
            for image in page.images.into_iter().filter(|image| image.index < job.images) {
                match image.state() {
                    v1::ImageState::Dead => failed.push(image),
                    _ => {
                        let index = image.index;
                        match self.take(client, image, &mut pictures).await {
                            Ok(()) => lost.found(),
                            Err(failure) => lost.note(index, failure)?,
                        }
                    }
                }
            }
            match pages.next(page.next_page_token)? {
                Some(next) => token = next,
                None => break,
            }
        }
        // Those behind a gap.
        while let Some((&next, _)) = pictures.range(printed..).next() {
            printed = next;
            self.print_paths(&pictures, &mut printed, progress);
        }
        Ok(Done { job: last, pictures, failed, lost })
    }

    /// Prints the paths in order. A picture that is done early waits for those before it.
    fn print_paths(
        &mut self,
        pictures: &BTreeMap<u64, Picture>,
        printed: &mut u64,
        progress: &Progress,
    ) {
        while let Some(picture) = pictures.get(printed) {
            if !self.as_json {
                self.told.print(|| progress.print(&shown_path(&picture.path)));
            }
            *printed += 1;
        }
    }

    /// Fetches and writes a picture that is done, unless it was written already.
    async fn take(
        &self,
        client: &Client,
        image: v1::Image,
        pictures: &mut BTreeMap<u64, Picture>,
    ) -> Result<()> {
        if image.state() != v1::ImageState::Done || pictures.contains_key(&image.index) {
            return Ok(());
        }
        let bytes = client.fetch_listed(&image).await?;
        let path = self.folder.write(image.index, &bytes)?;
        pictures.insert(image.index, Picture { path, image });
        Ok(())
    }

    /// Chooses the pictures' names. An earlier render of the same request has the same names.
    async fn number(&mut self, client: &Client, job: &v1::Job) -> Result<()> {
        let page = client.images(&job.id, &[], String::new()).await?;
        let expected: BTreeMap<u64, &v1::Image> =
            page.images.iter().map(|image| (image.index, image)).collect();
        let cascade = &job.cascade_digest;
        self.folder.number(job.images, |number, path| {
            expected.get(&number).is_some_and(|image| same(path, image, cascade))
        })
    }

    fn report(&mut self, done: &Done) {
        if self.as_json {
            let pictures: Vec<_> = done
                .pictures
                .values()
                .map(|picture| {
                    let image = &picture.image;
                    let document = json!({
                        "index": image.index,
                        "prompt": image.prompt,
                        "negative": image.negative,
                        "seed": U64(image.seed),
                        "sha256": image.sha256,
                        "image": json::Image::from(image),
                    });
                    output::with_path(document, "path", &picture.path)
                })
                .collect();
            let failed: Vec<_> = done.failed.iter().map(json::Image::from).collect();
            let document = json!({
                "job": json::Job::from(&done.job),
                "pictures": pictures,
                "failed": failed,
                "missing": done.lost.documents(),
                "notes": done.job.notes,
            });
            self.told.print(|| output::json(&document));
            return;
        }
        for image in &done.failed {
            output::tell(&format!(
                "failed: image {} (seed {}) in stage {}: {}",
                image.index,
                image.seed,
                shown(&image.stage),
                shown(&image.error)
            ));
        }
        done.lost.tell();
    }
}

/// The file format that settings name.
fn format(settings: Option<&v1::Settings>) -> Format {
    let output = settings.and_then(|settings| settings.output.as_ref());
    output.map_or(v1::PictureFormat::Unspecified, v1::Output::format).known()
}

/// Ends a job whose render failed, and adds to that failure, which is the one to be told, what
/// became of the job.
async fn end_job(client: &Client, job: &str, failure: UserError) -> UserError {
    let fate = match client.cancel(job).await {
        Ok(_) => format!("job {job} was cancelled"),
        // It had ended before.
        Err(refusal) if refusal.code == Code::FailedPrecondition => match client.job(job).await {
            Ok(ended) => format!("job {job} is {}", ended.state().name()),
            Err(_) => format!("job {job} had ended"),
        },
        Err(other) => format!("job {job} could not be cancelled: {}", other.message),
    };
    UserError { message: format!("{}; {fate}", failure.message), ..failure }
}

/// A note begins with the images that it is about, `image 0 and 3 others: `. With one prompt that
/// part is removed.
fn about_the_only_prompt(note: &str, one_prompt: bool) -> &str {
    match note.split_once(": ") {
        Some((images, what)) if one_prompt && images.starts_with("image 0") => what,
        _ => note,
    }
}

fn interrupted() -> UserError {
    UserError::new(
        Code::Unavailable,
        "INTERRUPTED",
        "interrupted; the pictures already written stay",
    )
}

/// Whether the picture at `path` has the same prompt, seed and cascade. (With other settings it has
/// other bytes, and then gets a higher number.)
fn same(path: &Path, image: &v1::Image, cascade: &str) -> bool {
    let Some(picture) =
        files::read(path, MAX_FILE_BYTES).ok().and_then(|bytes| picture::decode(&bytes).ok())
    else {
        return false;
    };
    let is = |keyword: &str, value: &str| picture.text(keyword) == Some(value);
    is(picture_text::PROMPT, &image.prompt)
        && is(picture_text::NEGATIVE, &image.negative)
        && is(picture_text::SEED, &image.seed.to_string())
        && is(picture_text::CASCADE_DIGEST, cascade)
        && [
            (picture_text::STYLE, &image.style),
            (picture_text::IMAGE, &image.image),
            (picture_text::MASK, &image.mask),
        ]
        .iter()
        .all(|(keyword, value)| picture.text(keyword).unwrap_or_default() == value.as_str())
}
