//! Makes a worker's task from a dispatched row: task digest, key prefix, picture text.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use darkroom_core::{
    cascade::Cascade,
    digest::{Digest, FieldHasher},
    guard::{Guard, stands},
    id::StageName,
    output::Output,
    picture_text::Recipe,
    settings::StageSettings,
};
use darkroom_queue::task::{
    EncodeBody, Fitting, PoolId, RenderBody, Subject, Task, TaskBody, TaskKey,
};

use crate::store::{
    records::{Dispatched, RenderWork, Work, compatibility},
    removal::{MADE_UP, prefix_of},
};

/// Numbers of a token in the widest encoder that is known (T5 XXL).
const WIDEST_TOKEN: u64 = 4096;
/// Tokens that a made-up embedding counts as.
const MADE_UP_TOKENS: u32 = 8;
/// Bytes that an output takes beside its numbers: its header or recipe, its folder, the rest of its
/// last block, its rows in the record.
const BESIDE: u64 = 32 << 10;

/// The cascades that this farm renders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cascades {
    by_digest: BTreeMap<Digest, Cascade>,
    default: Option<Digest>,
    /// What every output's key begins with.
    root: &'static str,
}

impl Cascades {
    /// The first one is the default.
    pub(crate) fn new(cascades: Vec<Cascade>) -> Self {
        let default = cascades.first().map(Cascade::digest);
        let by_digest = cascades.into_iter().map(|cascade| (cascade.digest(), cascade)).collect();
        Self { by_digest, default, root: "" }
    }

    /// The same, for workers that make up what they store: it lies apart, so that no farm with real
    /// models finds it and uses it again.
    pub(crate) fn made_up(self) -> Self {
        Self { root: MADE_UP, ..self }
    }

    /// Tokens of a text in an encoder's pool. `None` in other pools, and where embeddings are made
    /// up.
    pub(crate) fn tokens(&self, pool: &PoolId) -> Option<u32> {
        if !pool.stage.is_encode() || !self.root.is_empty() {
            return None;
        }
        let mut cascades = self.by_digest.values();
        let cascade = cascades.find(|cascade| cascade.encoder_digest() == pool.digest)?;
        Some(cascade.spec.encoder.max_length)
    }

    /// About the most bytes that the output of one task of the pool takes on a disk: the floats of
    /// a picture of the stage's usual size, or an embedding of the largest encoder that is known.
    pub(crate) fn output_bytes(&self, pool: &PoolId) -> u64 {
        let floats = if pool.stage.is_encode() {
            u64::from(self.tokens(pool).unwrap_or(MADE_UP_TOKENS)) * WIDEST_TOKEN
        } else {
            let cascade = self.by_digest.get(&pool.digest);
            let stage = cascade.and_then(|cascade| cascade.spec.stage(&pool.stage).ok());
            stage.map_or(0, |(_, stage)| 3 * u64::from(stage.size).pow(2))
        };
        BESIDE + 4 * floats
    }

    pub(crate) fn get(&self, digest: &Digest) -> Option<&Cascade> {
        self.by_digest.get(digest)
    }

    /// By name or digest; empty: the default cascade.
    pub(crate) fn find(&self, name: &str) -> Option<(Digest, &Cascade)> {
        let digest = if name.is_empty() {
            self.default?
        } else {
            let by_name = self.by_digest.iter().find(|(_, cascade)| cascade.spec.name == name);
            by_name.map(|(digest, _)| *digest).or_else(|| name.parse().ok())?
        };
        self.by_digest.get(&digest).map(|cascade| (digest, cascade))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Digest, &Cascade)> {
        self.by_digest.iter()
    }

    /// Every pool of every cascade, with later stages first, so that started images finish.
    pub(crate) fn pools(&self) -> Vec<PoolId> {
        let mut pools = Vec::new();
        for (digest, cascade) in &self.by_digest {
            let stages = cascade.spec.stages.iter().rev();
            pools.extend(stages.map(|stage| PoolId { stage: stage.name.clone(), digest: *digest }));
        }
        for cascade in self.by_digest.values() {
            let encoder = PoolId { stage: StageName::encode(), digest: cascade.encoder_digest() };
            if !pools.contains(&encoder) {
                pools.push(encoder);
            }
        }
        pools
    }

    /// The next pool for images that have passed a pool; `None` after the last one.
    pub(crate) fn pools_after(&self, pool: &PoolId) -> Vec<PoolId> {
        let of = |(digest, cascade): (&Digest, &Cascade)| {
            let stages = &cascade.spec.stages;
            let next = if pool.stage.is_encode() {
                (cascade.encoder_digest() == pool.digest).then_some(0)?
            } else {
                let before = stages.iter().position(|stage| stage.name == pool.stage);
                before.filter(|_| *digest == pool.digest)? + 1
            };
            Some(PoolId { stage: stages.get(next)?.name.clone(), digest: *digest })
        };
        self.by_digest.iter().filter_map(of).collect()
    }

    /// The pools whose images come to a pool next.
    pub(crate) fn pools_before(&self, pool: &PoolId) -> Vec<PoolId> {
        let mut pools = self.pools();
        pools.retain(|before| self.pools_after(before).contains(pool));
        pools
    }

    /// The task for a dispatched row; `None` if the farm does not have its cascade.
    pub(crate) fn task(&self, pool: &PoolId, dispatched: &Dispatched) -> Option<Task> {
        let (compatibility, body) = match &dispatched.work {
            Work::Encode { text } => {
                let prefix = format!("{}embeddings/{}/{}/", self.root, pool.digest, text.digest);
                let body = EncodeBody { text: text.prepared.clone(), prefix };
                (StageName::ENCODE.to_owned(), TaskBody::Encode(body))
            }
            Work::Render(work) => {
                let mut body =
                    render_body(self.get(&work.cascade)?, (dispatched.key.subject, work))?;
                body.prefix.insert_str(0, self.root);
                (compatibility(&work.settings, work.stage), TaskBody::Render(Box::new(body)))
            }
        };
        Some(Task {
            key: dispatched.key,
            compatibility,
            suspect: dispatched.suspect,
            body,
            traceparent: None,
            warrant: None,
            seal: None,
        })
    }
}

/// Moves a task to another prefix, because something under its own is on its way out of storage
/// since this mark. Everybody who dispatches the task meanwhile moves it to the same one.
pub(crate) fn elsewhere(task: &mut Task, mark: u64) {
    let prefix = match &mut task.body {
        TaskBody::Encode(body) => &mut body.prefix,
        TaskBody::Render(body) => &mut body.prefix,
    };
    let parent = prefix_of(prefix.trim_end_matches('/')).len();
    let digest = prefix.get(parent..).unwrap_or_default().trim_end_matches('/');
    let digest = FieldHasher::new("task-again/1").field(digest.as_bytes());
    let digest = digest.field(&mark.to_le_bytes()).finish();
    prefix.truncate(parent);
    let _ = write!(prefix, "{digest}/");
}

/// Tasks by their pools.
pub(crate) fn by_pool(tasks: Vec<(PoolId, TaskKey)>) -> HashMap<PoolId, Vec<TaskKey>> {
    let mut pools: HashMap<PoolId, Vec<TaskKey>> = HashMap::new();
    for (pool, key) in tasks {
        pools.entry(pool).or_default().push(key);
    }
    pools
}

fn render_body(cascade: &Cascade, (subject, work): (Subject, &RenderWork)) -> Option<RenderBody> {
    let settings = work.settings.stages.get(work.stage)?;
    let (position, _) = cascade.spec.stage(&settings.stage).ok()?;
    let last = work.stage + 1 == work.settings.stages.len();
    let picture = last.then(|| {
        let recipe = Recipe {
            prompt: work.prompt.clone(),
            negative: work.negative.clone(),
            style: work.extras.style.clone(),
            image: work.extras.image.as_ref().map(|image| image.sha256),
            mask: work.extras.mask.as_ref().map(|mask| mask.sha256),
            seed: work.seed,
            cascade: cascade.spec.name.clone(),
            cascade_digest: work.cascade,
            settings: work.settings.clone(),
        };
        recipe.to_pairs()
    });
    let negative = work.negative_embedding.clone().filter(|_| settings.sampling.guided());
    // The style is the text of super-resolution stages, which add detail, not of the first stage.
    let style = work.style_embedding.as_ref().filter(|_| settings.sampling.noise_level.is_some());
    // A stage with a strength starts from the user's picture. A low-resolution picture is for the
    // first stage.
    let takes_image = settings.sampling.strength.is_some() || work.stage == 0;
    let mut body = RenderBody {
        settings: settings.clone(),
        seed: work.seed,
        text: style.unwrap_or(&work.text_embedding).clone(),
        negative,
        low_res: work.low_res.clone(),
        image: work.extras.image.clone().filter(|_| takes_image),
        mask: work.extras.mask.clone().filter(|_| takes_image),
        fit: fitting(cascade, work, settings).filter(|_| takes_image),
        prefix: String::new(),
        picture,
        output: if last { work.settings.output } else { Output::default() },
    };
    let task = task_digest(&cascade.stage_digest(position), &body);
    let task = work.seal.as_deref().map_or(task, |tenant| sealed_digest(&task, tenant));
    let digest = if work.no_reuse { own_digest(&task, subject)? } else { task };
    body.prefix = format!("tasks/{digest}/");
    Some(body)
}

/// Identity of a task whose output only this tenant's images use.
fn sealed_digest(task: &Digest, tenant: &str) -> Digest {
    FieldHasher::new("sealed-task/1").field(tenant.as_bytes()).field(&task.0).finish()
}

/// Identity of a task whose output only its own image uses: no other image stores anything under
/// it, so it replaces nothing. After a worker's death, a second run for the same image finds the
/// output of the first.
fn own_digest(task: &Digest, subject: Subject) -> Option<Digest> {
    let Subject::Image(image) = subject else { return None };
    let hasher = FieldHasher::new("own-task/1").field(&task.0).field(image.job.0.as_bytes());
    Some(hasher.field(&image.index.to_le_bytes()).finish())
}

/// How the prompt's picture is prepared for a stage.
fn fitting(cascade: &Cascade, work: &RenderWork, stage: &StageSettings) -> Option<Fitting> {
    let fit = work.settings.fit.filter(|_| work.extras.image.is_some())?;
    let extent = work.settings.low_res(&cascade.spec).unwrap_or_else(|| stage.extent());
    Some(Fitting { fit, extent })
}

/// Identity of a stage's work on an image: equal digests, equal bytes (on the same class of
/// device).
fn task_digest(stage: &Digest, body: &RenderBody) -> Digest {
    let mut hasher = body.settings.hash(FieldHasher::new("task/1").field(&stage.0));
    let seed = if stands(Guard::SeedInDigest) { body.seed } else { 0 };
    hasher = hasher.field(&seed.to_le_bytes()).field(&body.text.sha256.0);
    for input in [&body.negative, &body.low_res] {
        hasher = hasher.field(input.as_ref().map_or(&[][..], |input| &input.sha256.0));
    }
    // Like fields of the settings, these are hashed only if they are set.
    for (name, input) in [("image", &body.image), ("mask", &body.mask)] {
        if let Some(input) = input {
            hasher = hasher.field(name.as_bytes()).field(&input.sha256.0);
        }
    }
    if let Some(Fitting { fit, extent }) = body.fit {
        hasher = hasher.field(b"fit").field(format!("{fit} {extent}").as_bytes());
    }
    if !body.output.is_plain() {
        hasher = hasher.field(b"output").json(&body.output);
    }
    for (keyword, text) in body.picture.iter().flatten() {
        hasher = hasher.field(keyword.as_bytes()).field(text.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use darkroom_core::{extent::Extent, fit::Fit};

    use super::*;

    /// The constant was computed before `Sampling` was one struct; see `core/tests/digests.rs`.
    #[test]
    fn a_task_with_everything_has_the_digest_that_it_always_had() {
        let reference = |name: &str| {
            format!(r#"{{"key":"{name}","sha256":"{}","size":1}}"#, Digest::of(name.as_bytes()))
        };
        let settings = r#"{"stage":"sr256","size":256,"extent":{"width":256,"height":128},"sampler":"ddim",
            "steps":11,"spacing":"linspace","eta":0.1,"guidance_scale":3.3,"guidance_schedule":"200..800",
            "thresholding":"static:0.75","noise_level":250,"strength":0.55,"cache_interval":2}"#;
        let body = format!(
            r#"{{"settings":{settings},"seed":7,"text":{},"negative":{},"low_res":{},"image":{},"mask":{},
                "fit":{{"fit":"pad","extent":{{"width":256,"height":128}}}},"prefix":"",
                "picture":[["darkroom.seed","7"]]}}"#,
            reference("text"),
            reference("negative"),
            reference("low"),
            reference("image"),
            reference("mask"),
        );
        let body: RenderBody = serde_json::from_str(&body).expect("reads");
        assert_eq!(
            task_digest(&Digest::of(b"stage"), &body).to_string(),
            "5db5d089b92c64c5b356f7a9f76fce12c0f7cfef2f67e85802052b191b39d406"
        );
    }

    #[test]
    fn a_sealed_task_is_its_tenants_alone() {
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let sealed = [(one, "a"), (one, "b"), (other, "a")]
            .map(|(task, tenant)| sealed_digest(&task, tenant));
        let distinct: std::collections::BTreeSet<_> = sealed.iter().chain([&one, &other]).collect();
        assert_eq!(distinct.len(), 5, "{sealed:?}");
        assert_eq!(sealed_digest(&one, "a"), sealed[0]);
    }

    #[test]
    fn a_task_without_reuse_is_its_images_own_and_the_same_in_every_run() {
        let image = |job: u128, index| {
            let job = darkroom_core::id::JobId(uuid::Uuid::from_u128(job));
            Subject::Image(darkroom_core::id::ImageId { job, index })
        };
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let digests =
            [(one, image(1, 0)), (one, image(1, 1)), (one, image(2, 0)), (other, image(1, 0))];
        let own = digests.map(|(task, image)| own_digest(&task, image).expect("an image's"));
        let distinct: std::collections::BTreeSet<_> = own.iter().chain([&one, &other]).collect();
        assert_eq!(distinct.len(), 6, "{own:?}");
        assert_eq!(own_digest(&one, image(1, 0)), Some(own[0]));
        assert_eq!(own_digest(&one, Subject::Text(one)), None, "texts are encoded once");
    }

    #[test]
    fn a_task_without_a_fit_has_the_digest_that_it_had_before_there_was_one() {
        let reference = |name: &str| {
            format!(r#"{{"key":"{name}","sha256":"{}","size":1}}"#, Digest::of(name.as_bytes()))
        };
        // The form that was in queues then.
        let body = format!(
            r#"{{"settings":{{"stage":"base","size":64,"sampler":"ddim","steps":9,"guidance_scale":2.0,"noise_level":null,
                "strength":0.7}},"seed":5,"text":{},"negative":null,"low_res":null,"image":{},"prefix":"","picture":null}}"#,
            reference("text"),
            reference("image"),
        );
        let body: RenderBody = serde_json::from_str(&body).expect("reads");
        let digest = |body: &RenderBody| task_digest(&Digest::of(b"stage"), body).to_string();
        assert_eq!(
            digest(&body),
            "08625abc6d657598a97693beebad44663c084cfbdb070708d85c0f3c24956423"
        );
        let with = |fit| RenderBody {
            fit: Some(Fitting { fit, extent: Extent::square(64) }),
            ..body.clone()
        };
        let digests = [body.clone(), with(Fit::Crop), with(Fit::Pad), with(Fit::Stretch)]
            .map(|body| digest(&body));
        let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
        assert_eq!(distinct.len(), 4);
    }
}
