//! A store under test, and shortcuts to use it.

use std::{any::Any, sync::Arc, time::Duration};

use darkroom_coordinator::store::{
    Store,
    limits::Limits,
    records::{
        Dispatched, Extras, Fate, ImageOrder, ImageQuery, NewJob, NewPrompt, Onward, PreparedText,
        Report, Requested, Term,
    },
};
use darkroom_core::{
    cascade::Cascade,
    digest::Digest,
    fair_share::Pick,
    id::{JobId, WorkerId},
    image_state::ImageState,
};
use darkroom_queue::task::{Outcome, PoolId, TaskKey, TaskResult};
use futures::future::BoxFuture;

use super::samples::{self, done, input};
use crate::cascade;

/// A new, empty store, with its server or folder, which must live as long.
pub struct Fresh {
    store: Arc<dyn Store>,
    other: Arc<dyn Store>,
    keep: Arc<dyn Any + Send + Sync>,
    age: Option<Age>,
}

/// Makes the record's history this much older, as if its clock had advanced.
pub type Age = Arc<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>;

impl Fresh {
    /// A store with a record for one process.
    pub fn one(store: Arc<dyn Store>, keep: impl Any + Send + Sync) -> Self {
        Self { other: Arc::clone(&store), store, keep: Arc::new(keep), age: None }
    }

    /// Two stores on one record, as of two processes.
    pub fn two(store: Arc<dyn Store>, other: Arc<dyn Store>, keep: impl Any + Send + Sync) -> Self {
        Self { store, other, keep: Arc::new(keep), age: None }
    }

    /// A store whose history can be made older.
    #[must_use]
    pub fn with_age(self, age: Age) -> Self {
        Self { age: Some(age), ..self }
    }
}

/// A store with a cascade of two stages, and shortcuts to use it.
pub struct Bench {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Another process's store on the same record, if the backend supports several.
    pub other: Arc<dyn Store>,
    keep: Arc<dyn Any + Send + Sync>,
    age: Option<Age>,
    pub(super) cascade: Cascade,
    /// The term that the bench leads in.
    pub term: Term,
}

/// The stages of the bench's cascade.
pub const STAGES: [&str; 2] = [cascade::STAGES[0], cascade::STAGES[1]];

impl Bench {
    /// A bench on a new, empty store.
    ///
    /// # Panics
    /// Like every check, if the store breaks a promise.
    pub async fn new(fresh: Fresh) -> Self {
        let Fresh { store, other, keep, age } = fresh;
        let cascade = cascade::without_files(STAGES.len());
        store.register_cascade(&cascade).await.expect("registers");
        store.register_cascade(&cascade).await.expect("registering twice is the same as once");
        let term = store.lead("bench").await.expect("leads").expect("alone");
        Self { store, other, keep, age, cascade, term }
    }

    /// The same record through the other process's store.
    pub(super) fn second(&self) -> Self {
        Self {
            store: Arc::clone(&self.other),
            other: Arc::clone(&self.store),
            keep: Arc::clone(&self.keep),
            age: self.age.clone(),
            cascade: self.cascade.clone(),
            term: self.term,
        }
    }

    /// Advances the record's clock.
    ///
    /// # Panics
    /// If the store's history cannot be made older.
    pub async fn age(&self, by: Duration) {
        self.age.as_ref().expect("a store with a clock that tests can advance")(by).await;
    }

    /// The pool of a stage.
    ///
    /// # Panics
    /// When the store refuses.
    #[must_use]
    pub fn pool(&self, stage: &str) -> PoolId {
        cascade::pool(&self.cascade, stage)
    }

    pub(super) fn text(&self, text: &str) -> PreparedText {
        samples::text(&self.cascade.encoder_digest(), text)
    }

    /// A job to submit.
    ///
    /// # Panics
    /// When the store refuses.
    #[must_use]
    pub fn job(&self, request: Option<&str>) -> NewJob {
        NewJob {
            client_request_id: request.map(str::to_owned),
            requested: Requested { images_per_prompt: 2, ..Requested::default() },
            seed: u64::MAX,
            ..samples::job(&self.cascade)
        }
    }

    /// Prompts with this many images each.
    ///
    /// # Panics
    /// When the store refuses.
    #[must_use]
    pub fn prompts(&self, texts: &[&str], images: u32) -> Vec<NewPrompt> {
        let encoder = self.cascade.encoder_digest();
        let prompt = |(position, text): (u64, &&str)| {
            let prompt = samples::prompt(&encoder, position, text, images);
            NewPrompt { first_seed: u64::MAX.wrapping_add(prompt.first_index), ..prompt }
        };
        (0..).zip(texts).map(prompt).collect()
    }

    /// Prompts with this many images each, a style for all of them, and a picture to start from.
    pub(super) fn styled(&self, texts: &[&str], images: u32, style: &str) -> Vec<NewPrompt> {
        let extras = Extras {
            style: Some(style.to_uppercase()),
            image: Some(input("cat").artifact()),
            mask: None,
        };
        let styled = |prompt| NewPrompt {
            style_embedding: Some(self.text(style)),
            extras: extras.clone(),
            ..prompt
        };
        self.prompts(texts, images).into_iter().map(styled).collect()
    }

    /// Submits a job with this many images per text.
    ///
    /// # Panics
    /// When the store refuses.
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

    /// Dispatches this many tasks of a job.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn dispatch(&self, stage: &str, job: JobId, count: u64) -> Vec<Dispatched> {
        self.store
            .dispatch(self.term, &self.pool(stage), &[Pick { job, count }])
            .await
            .expect("dispatches")
    }

    /// Credit for this many images in each stage's pool.
    pub(super) fn credit(&self, room: u64) -> Vec<Onward> {
        STAGES.map(|stage| Onward { term: self.term, pool: self.pool(stage), room }).to_vec()
    }

    /// A worker's report.
    #[must_use]
    pub fn report(key: TaskKey, outcome: Outcome, alone: bool) -> Report {
        let result = TaskResult {
            key,
            worker: WorkerId("w".to_owned()),
            place: "h".to_owned(),
            device_class: "class".to_owned(),
            alone,
            seconds: 0.5,
            batch: 2,
            outcome,
            warrant: None,
            signature: None,
        };
        Report { result, live_places: 1 }
    }

    /// Commits one outcome, and returns what happened to it.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn commit(&self, stage: &str, key: TaskKey, outcome: Outcome) -> Fate {
        let report = Self::report(key, outcome, true);
        let committed = self.store.commit(&self.pool(stage), &[report]).await.expect("commits");
        committed.fates[0].clone()
    }

    /// Encodes all texts of a job and updates its images.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn encode(&self, job: JobId) {
        for task in self.dispatch("encode", job, 100).await {
            assert_eq!(self.commit("encode", task.key, done("text")).await, Fate::Applied);
        }
        self.settle().await;
    }

    /// Updates image rows until all have followed.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn settle(&self) {
        while self.store.spread(3).await.expect("spreads").more {}
        while self.store.follow(3).await.expect("follows").more {}
    }

    /// Checks that counters equal rows, and so does what is kept of the tenants' usage.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn audit(&self, job: JobId) {
        assert_eq!(self.store.audit(job).await.expect("audits"), Vec::<String>::new());
        assert_eq!(self.store.audit_usage().await.expect("audits"), Vec::<String>::new());
    }

    /// The states of a job's images, in order.
    ///
    /// # Panics
    /// When the store refuses.
    pub async fn states(&self, job: JobId) -> Vec<ImageState> {
        let query = ImageQuery::all(job, ImageOrder::Index(None), 1000);
        let page = self.store.images(&query).await.expect("lists");
        page.images.iter().map(|image| image.progress.state).collect()
    }
}
