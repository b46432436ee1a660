//! A store under test, and short ways to do things with it.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use darkroom_core::{
    artifact::ArtifactRef,
    cascade::{Cascade, CascadeSpec},
    digest::Digest,
    extent::Extent,
    fair_share::Pick,
    id::{JobId, StageName, WorkerId},
    image_state::ImageState,
    label::Naming,
    prompt::text_digest,
    settings::{Settings, SettingsRequest},
};
use darkroom_queue::task::{Outcome, PoolId, TaskKey, TaskResult};
use uuid::Uuid;

use crate::store::{
    Store,
    limits::Limits,
    records::{
        Dispatched, Extras, Fate, ImageOrder, ImageQuery, Input, NewJob, NewPrompt, Onward, PreparedText,
        Report, Requested, Term,
    },
};

/// A fresh, empty store, with what must live as long: its server, its folder.
pub struct Fresh {
    store: Arc<dyn Store>,
    other: Arc<dyn Store>,
    keep: Arc<dyn Any + Send + Sync>,
}

impl Fresh {
    /// A store whose record one process holds.
    pub fn one(store: Arc<dyn Store>, keep: impl Any + Send + Sync) -> Self {
        Self { other: Arc::clone(&store), store, keep: Arc::new(keep) }
    }

    /// Two stores of two processes on one record.
    pub fn two(store: Arc<dyn Store>, other: Arc<dyn Store>, keep: impl Any + Send + Sync) -> Self {
        Self { store, other, keep: Arc::new(keep) }
    }
}

/// A store with a cascade of two stages, and short ways to do things with it.
pub struct Bench {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Another process's store on the same record, where the backend has several.
    pub other: Arc<dyn Store>,
    keep: Arc<dyn Any + Send + Sync>,
    pub(super) cascade: Cascade,
    /// The term that the bench leads in.
    pub term: Term,
}

/// The stages of the bench's cascade.
pub const STAGES: [&str; 2] = ["base", "sr256"];

impl Bench {
    /// Over a fresh, empty store.
    ///
    /// # Panics
    /// As every check does, when the store does not do what it promises.
    pub async fn new(fresh: Fresh) -> Self {
        let Fresh { store, other, keep } = fresh;
        let spec = CascadeSpec::parse(
            r#"
            format = 1
            name = "tiny"
            [encoder]
            folder = "text_encoder"
            tokenizer = "tokenizer"
            max_length = 20
            [[stages]]
            name = "base"
            folder = "base"
            size = 64
            sampler = "ddim"
            steps = 4
            guidance_scale = 3.0
            [[stages]]
            name = "sr256"
            folder = "sr256"
            size = 256
            sampler = "ddpm"
            steps = 2
            guidance_scale = 1.0
            noise_level = 50
            "#,
        )
        .expect("a cascade");
        let cascade = Cascade { spec, files: BTreeMap::new() };
        store.register_cascade(&cascade).await.expect("registers");
        store.register_cascade(&cascade).await.expect("registers twice as once");
        let term = store.lead("bench").await.expect("leads").expect("alone");
        Self { store, other, keep, cascade, term }
    }

    /// The same record through the other store.
    pub(super) fn second(&self) -> Self {
        Self {
            store: Arc::clone(&self.other),
            other: Arc::clone(&self.store),
            keep: Arc::clone(&self.keep),
            cascade: self.cascade.clone(),
            term: self.term,
        }
    }

    /// The pool of a stage.
    ///
    /// # Panics
    /// When the store does not do it.
    #[must_use]
    pub fn pool(&self, stage: &str) -> PoolId {
        let digest = if stage == "encode" { self.cascade.encoder_digest() } else { self.cascade.digest() };
        PoolId { stage: StageName::try_from(stage.to_owned()).expect("a name"), digest }
    }

    pub(super) fn text(&self, text: &str) -> PreparedText {
        let digest = text_digest(&self.cascade.encoder_digest(), text);
        PreparedText { digest, prepared: text.to_owned() }
    }

    /// A job to submit.
    ///
    /// # Panics
    /// When the store does not do it.
    #[must_use]
    pub fn job(&self, request: Option<&str>) -> NewJob {
        NewJob {
            id: JobId(Uuid::now_v7()),
            tenant: "t".to_owned(),
            name: "name".to_owned(),
            client_request_id: request.map(str::to_owned),
            priority: 1,
            cascade: self.cascade.digest(),
            encoder: self.cascade.encoder_digest(),
            settings: Settings::resolve(&SettingsRequest::default(), &self.cascade.spec).expect("defaults"),
            requested: Requested { images_per_prompt: 2, ..Requested::default() },
            seed: u64::MAX,
            limits: Limits::default(),
        }
    }

    /// Prompts of so many images each.
    ///
    /// # Panics
    /// When the store does not do it.
    #[must_use]
    pub fn prompts(&self, texts: &[&str], images: u32) -> Vec<NewPrompt> {
        (0..)
            .zip(texts)
            .map(|(position, text)| NewPrompt {
                position,
                text: (*text).to_owned(),
                negative: String::new(),
                first_index: position * u64::from(images),
                images,
                first_seed: u64::MAX.wrapping_add(position * u64::from(images)),
                text_embedding: self.text(text),
                negative_embedding: Some(self.text("")),
                style_embedding: None,
                extras: Extras::default(),
                naming: Naming::default(),
            })
            .collect()
    }

    /// Prompts of so many images each, with a style for all of them and a picture to start from.
    pub(super) fn styled(&self, texts: &[&str], images: u32, style: &str) -> Vec<NewPrompt> {
        let extras =
            Extras { style: Some(style.to_uppercase()), image: Some(input("cat").artifact()), mask: None };
        let styled =
            |prompt| NewPrompt { style_embedding: Some(self.text(style)), extras: extras.clone(), ..prompt };
        self.prompts(texts, images).into_iter().map(styled).collect()
    }

    /// Submits a job of so many images for each text.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn submit(&self, texts: &[&str], images: u32) -> JobId {
        self.submit_within(texts, images, Limits::default()).await
    }

    pub(super) async fn submit_within(&self, texts: &[&str], images: u32, limits: Limits) -> JobId {
        self.submit_prompts(&self.prompts(texts, images), limits).await
    }

    pub(super) async fn submit_prompts(&self, prompts: &[NewPrompt], limits: Limits) -> JobId {
        let job = NewJob { limits, ..self.job(None) };
        self.store.submit(&job, prompts, Digest::of(b"content")).await.expect("accepted");
        job.id
    }

    /// Hands out so many tasks of a job.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn dispatch(&self, stage: &str, job: JobId, count: u64) -> Vec<Dispatched> {
        self.store.dispatch(self.term, &self.pool(stage), &[Pick { job, count }]).await.expect("dispatches")
    }

    /// Leave to hand so many images on to each stage's pool.
    pub(super) fn leave(&self, room: u64) -> Vec<Onward> {
        STAGES.map(|stage| Onward { term: self.term, pool: self.pool(stage), room }).to_vec()
    }

    /// A worker's report.
    #[must_use]
    pub fn report(key: TaskKey, outcome: Outcome, alone: bool) -> Report {
        let result = TaskResult {
            key,
            worker: WorkerId("w".to_owned()),
            host: "h".to_owned(),
            device_class: "class".to_owned(),
            alone,
            seconds: 0.5,
            outcome,
        };
        Report { result, live_hosts: 1 }
    }

    /// Commits one outcome and says what became of it.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn commit(&self, stage: &str, key: TaskKey, outcome: Outcome) -> Fate {
        let report = Self::report(key, outcome, true);
        let committed = self.store.commit(&self.pool(stage), &[report]).await.expect("commits");
        committed.fates[0].clone()
    }

    /// Encodes all texts of a job and lets its images follow.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn encode(&self, job: JobId) {
        for task in self.dispatch("encode", job, 100).await {
            assert_eq!(self.commit("encode", task.key, done("text")).await, Fate::Applied);
        }
        self.settle().await;
    }

    /// Lets rows follow until none has to.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn settle(&self) {
        while self.store.spread(3).await.expect("spreads").more {}
        while self.store.follow(3).await.expect("follows").more {}
    }

    /// Counters equal rows.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn audit(&self, job: JobId) {
        assert_eq!(self.store.audit(job).await.expect("audits"), Vec::<String>::new());
    }

    /// The states of a job's images, in order.
    ///
    /// # Panics
    /// When the store does not do it.
    pub async fn states(&self, job: JobId) -> Vec<ImageState> {
        let query = ImageQuery { job, states: Vec::new(), order: ImageOrder::Index(None), limit: 1000 };
        let page = self.store.images(&query).await.expect("lists");
        page.images.iter().map(|image| image.progress.state).collect()
    }
}

/// A picture that was sent.
pub(super) fn input(name: &str) -> Input {
    let extent = Extent { width: 256, height: 128 };
    Input {
        sha256: Digest::of(name.as_bytes()),
        size: 9,
        canonical: None,
        extent,
        is_mask: name == "mask",
        orientation: 1,
        notes: Vec::new(),
    }
}

/// A stage's output of this name.
#[must_use]
pub fn done(name: &str) -> Outcome {
    let artifact = ArtifactRef { key: format!("tasks/{name}"), sha256: Digest::of(name.as_bytes()), size: 3 };
    Outcome::Done { artifact, notes: vec!["a note".to_owned()] }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed { code: "code".to_owned(), message: "message".to_owned() }
}
