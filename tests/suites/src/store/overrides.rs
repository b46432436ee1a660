//! Prompts with their own settings: their images pass other stages, have other settings, and count
//! in the stages that they pass.

use std::sync::Arc;

use darkroom_coordinator::store::records::{
    Dispatched, Fate, ImageOrder, ImageQuery, ImageRecord, NewJob, NewPrompt, Variant, Work,
};
use darkroom_core::{
    digest::Digest,
    id::JobId,
    image_state::ImageState,
    job_state::JobState,
    settings::{Settings, SettingsRequest, StageRequest},
};
use darkroom_queue::task::{Outcome, TaskKey};

use super::{bench::Bench, samples::done};

/// Settings with this size in pixels, and this many steps in the first stage.
pub(super) fn settings(bench: &Bench, size: u32, steps: u32) -> Settings {
    let base =
        StageRequest { stage: "base".to_owned(), steps: Some(steps), ..StageRequest::default() };
    let request = SettingsRequest { size, stages: vec![base], ..SettingsRequest::default() };
    Settings::resolve(&request, &bench.cascade.spec).expect("valid")
}

pub(super) fn variant(bench: &Bench, number: u32, size: u32, steps: u32) -> Option<Variant> {
    Some(Variant { number, settings: Arc::new(settings(bench, size, steps)) })
}

/// A job whose own settings end with the first stage.
pub(super) fn small_job(bench: &Bench) -> NewJob {
    NewJob { settings: settings(bench, 64, 4), ..bench.job(None) }
}

fn render(task: &Dispatched) -> (u64, u32, usize) {
    let Work::Render(work) = &task.work else { panic!("a stage that renders") };
    let darkroom_queue::task::Subject::Image(image) = task.key.subject else { panic!("an image") };
    (image.index, work.settings.stages[0].sampling.steps, work.settings.stages.len())
}

async fn listed(bench: &Bench, job: JobId) -> Vec<ImageRecord> {
    let by_index = ImageQuery::all(job, ImageOrder::Index(None), 99);
    let images = bench.store.images(&by_index).await.expect("lists").images;
    let by_version = ImageQuery { order: ImageOrder::Version(0, None), ..by_index };
    let mut again = bench.store.images(&by_version).await.expect("lists").images;
    again.sort_by_key(|image| image.id.index);
    assert_eq!(
        images.iter().map(|image| image.settings.clone()).collect::<Vec<_>>(),
        again.iter().map(|image| image.settings.clone()).collect::<Vec<_>>(),
        "the same in every listing"
    );
    images
}

async fn totals(bench: &Bench, job: JobId) -> Vec<(String, u64, u64)> {
    let record = bench.store.job(job).await.expect("there");
    let stages = record.stages.into_iter().skip(1);
    stages.map(|stage| (stage.name.to_string(), stage.total, stage.passed)).collect()
}

fn told(stages: &[(&str, u64, u64)]) -> Vec<(String, u64, u64)> {
    stages.iter().map(|(name, total, passed)| ((*name).to_owned(), *total, *passed)).collect()
}

async fn commit_all(bench: &Bench, stage: &str, keys: impl IntoIterator<Item = TaskKey>) {
    for key in keys {
        assert_eq!(bench.commit(stage, key, done(stage)).await, Fate::Applied);
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn images_with_settings_of_their_own_pass_their_own_stages(bench: &Bench) {
    let mut prompts = bench.prompts(&["own", "small", "slow"], 2);
    prompts[1].variant = variant(bench, 1, 64, 4);
    prompts[2].variant = variant(bench, 2, 256, 9);
    let job = bench.submit_prompts(&prompts, Default::default()).await;
    assert_eq!(totals(bench, job).await, told(&[("base", 6, 0), ("sr256", 4, 0)]));
    let record = bench.store.job(job).await.expect("there");
    let passes: Vec<f64> = record.loads().iter().map(|load| load.passes).collect();
    let of = |steps| settings(bench, 256, steps).stages[0].sampling.passes();
    assert_eq!(passes, [(2.0 * of(4) + 2.0 * of(4) + 2.0 * of(9)) / 6.0, 2.0]);
    bench.encode(job).await;
    let tasks = bench.dispatch("base", job, 9).await;
    let seen: Vec<_> = tasks.iter().map(render).collect();
    assert_eq!(seen, [(0, 4, 2), (1, 4, 2), (2, 4, 1), (3, 4, 1), (4, 9, 2), (5, 9, 2)]);
    commit_all(bench, "base", tasks.iter().map(|task| task.key)).await;
    assert_eq!(totals(bench, job).await, told(&[("base", 6, 6), ("sr256", 4, 0)]));
    let states = bench.states(job).await;
    use ImageState::{Done, Ready};
    assert_eq!(states, [Ready, Ready, Done, Done, Ready, Ready]);
    bench.audit(job).await;
    let tasks = bench.dispatch("sr256", job, 9).await;
    assert_eq!(tasks.iter().map(|task| render(task).0).collect::<Vec<_>>(), [0, 1, 4, 5]);
    commit_all(bench, "sr256", tasks.iter().map(|task| task.key)).await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done), (JobState::Done, 6));
    let images = listed(bench, job).await;
    let outputs: Vec<_> = images.iter().map(|image| image.outputs.len()).collect();
    assert_eq!(outputs, [2, 2, 1, 1, 2, 2]);
    let own = |image: &ImageRecord| {
        image.settings.as_ref().map(|settings| settings.stages[0].sampling.steps)
    };
    assert_eq!(
        images.iter().map(own).collect::<Vec<_>>(),
        [None, None, Some(4), Some(4), Some(9), Some(9)]
    );
    let one = bench.store.image(job, 3).await.expect("there");
    assert_eq!(one.settings.as_deref(), Some(&settings(bench, 64, 4)));
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_prompt_may_pass_more_stages_than_its_job(bench: &Bench) {
    let job = small_job(bench);
    let plain = NewJob { id: JobId(uuid::Uuid::now_v7()), ..job.clone() };
    bench
        .store
        .submit(&plain, &bench.prompts(&["one"], 3), Digest::of(b"content"))
        .await
        .expect("accepted");
    assert_eq!(
        totals(bench, plain.id).await,
        told(&[("base", 3, 0)]),
        "no stage more than its own"
    );
    bench.store.begin(&job).await.expect("begins");
    let mut prompts = bench.prompts(&["one", "two", "three"], 2);
    prompts[1].variant = variant(bench, 1, 256, 4);
    for chunk in prompts.chunks(1) {
        bench.store.receive(job.id, chunk).await.expect("receives");
    }
    bench.store.accept(job.id, Digest::of(b"content")).await.expect("accepted");
    let job = job.id;
    assert_eq!(totals(bench, job).await, told(&[("base", 6, 0), ("sr256", 2, 0)]));
    bench.encode(job).await;
    let pool = bench.pool("base");
    let tasks = bench.dispatch("base", job, 9).await;
    let reports: Vec<_> =
        tasks.iter().map(|task| Bench::report(task.key, done("base"), true)).collect();
    let (committed, handed) =
        bench.store.commit_onward(&pool, &reports, &bench.credit(1)).await.expect("commits");
    assert!(committed.fates.iter().all(|fate| *fate == Fate::Applied));
    assert_eq!(totals(bench, job).await, told(&[("base", 6, 6), ("sr256", 2, 0)]));
    bench.audit(job).await;
    for (to, task) in &handed {
        assert_eq!((to, render(task)), (&bench.pool("sr256"), (2, 4, 2)));
    }
    let mut keys: Vec<_> = handed.iter().map(|(_, task)| task.key).collect();
    let candidates = bench.store.candidates(&bench.pool("sr256")).await.expect("lists");
    assert_eq!(candidates.iter().map(|one| one.ready).sum::<u64>(), 2 - handed.len() as u64);
    keys.extend(bench.dispatch("sr256", job, 9).await.iter().map(|task| task.key));
    assert_eq!(keys.len(), 2);
    commit_all(bench, "sr256", keys).await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!((record.state, record.done), (JobState::Done, 6));
    let outputs: Vec<_> =
        listed(bench, job).await.iter().map(|image| image.outputs.len()).collect();
    assert_eq!(outputs, [1, 1, 2, 2, 1, 1]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn chunks_at_once_that_bring_the_same_settings_share_them(bench: &Bench) {
    let job = small_job(bench);
    bench.store.begin(&job).await.expect("begins");
    let chunk = |first: u64| {
        let mut prompts: Vec<NewPrompt> = bench.prompts(&["a", "b", "c", "d"], 1);
        for (place, prompt) in prompts.iter_mut().enumerate() {
            prompt.position += first;
            prompt.first_index += first;
            prompt.variant = match place {
                0 => None,
                1 => variant(bench, 3, 64, 7),
                2 => variant(bench, 1, 256, 4),
                _ => variant(bench, 2, 256, 5),
            };
        }
        prompts
    };
    let second = bench.second();
    let (one, two) = (chunk(0), chunk(4));
    let (one, two) =
        tokio::join!(bench.store.receive(job.id, &one), second.store.receive(job.id, &two));
    one.expect("received");
    two.expect("received");
    // Texts are encoded while more chunks come. The job as known then must not be remembered.
    let other = bench.submit(&["a", "b", "c", "d"], 1).await;
    let tasks = bench.dispatch("encode", other, 9).await;
    let reports: Vec<_> =
        tasks.iter().map(|task| Bench::report(task.key, done("text"), true)).collect();
    let (pool, credit) = (bench.pool("encode"), bench.credit(9));
    let (_, handed) = bench.store.commit_onward(&pool, &reports, &credit).await.expect("commits");
    bench.settle().await;
    let mut last = chunk(8);
    last[1].variant = variant(bench, 4, 256, 8);
    bench.store.receive(job.id, &last).await.expect("received");
    bench.store.accept(job.id, Digest::of(b"content")).await.expect("accepted");
    assert_eq!(totals(bench, job.id).await, told(&[("base", 12, 0), ("sr256", 7, 0)]));
    let steps: Vec<_> = listed(bench, job.id)
        .await
        .iter()
        .map(|image| image.settings.as_ref().map(|own| own.stages[0].sampling.steps))
        .collect();
    let mut expected = [[None, Some(7), Some(4), Some(5)]; 3].concat();
    expected[9] = Some(8);
    assert_eq!(steps, expected);
    commit_all(bench, "base", handed.iter().map(|(_, task)| task.key)).await;
    let tasks = bench.dispatch("base", job.id, 99).await;
    assert_eq!(tasks.len(), 12);
    commit_all(bench, "base", tasks.iter().map(|task| task.key)).await;
    assert_eq!(totals(bench, job.id).await, told(&[("base", 12, 12), ("sr256", 7, 0)]));
    bench.audit(job.id).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_lost_of_an_image_with_settings_of_its_own_is_made_again(bench: &Bench) {
    let job = small_job(bench);
    let mut prompts = bench.prompts(&["long"], 1);
    prompts[0].variant = variant(bench, 1, 256, 4);
    bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
    let job = job.id;
    bench.encode(job).await;
    let tasks = bench.dispatch("base", job, 9).await;
    commit_all(bench, "base", tasks.iter().map(|task| task.key)).await;
    let tasks = bench.dispatch("sr256", job, 9).await;
    let missing = Outcome::InputMissing { key: "tasks/base".to_owned() };
    assert_eq!(bench.commit("sr256", tasks[0].key, missing).await, Fate::Applied);
    bench.audit(job).await;
    assert_eq!(totals(bench, job).await, told(&[("base", 1, 0), ("sr256", 1, 0)]));
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    bench
        .store
        .retry(job, darkroom_coordinator::store::limits::NewDeadline::Same)
        .await
        .expect("retries");
    bench.settle().await;
    for stage in ["base", "sr256"] {
        let tasks = bench.dispatch(stage, job, 9).await;
        assert_eq!(tasks.iter().map(render).collect::<Vec<_>>(), [(0, 4, 2)]);
        commit_all(bench, stage, tasks.iter().map(|task| task.key)).await;
        bench.audit(job).await;
    }
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_waits_is_told_with_the_settings_of_its_prompts(bench: &Bench) {
    let submit = async |prompts: &[NewPrompt]| {
        let job = small_job(bench);
        bench.store.submit(&job, prompts, Digest::of(b"content")).await.expect("accepted");
        job.id
    };
    submit(&bench.prompts(&["one"], 3)).await;
    submit(&bench.prompts(&["one"], 3)).await;
    let mut prompts = bench.prompts(&["one", "two"], 2);
    prompts[1].variant = variant(bench, 1, 256, 9);
    let mixed = submit(&prompts).await;
    bench.encode(mixed).await;
    let waits = async |stage: &str| {
        let pool = bench.pool(stage);
        let mut waits = Vec::new();
        for depth in bench.store.depths().await.expect("asks") {
            if depth.pool != pool {
                continue;
            }
            let own = depth.settings.as_ref().expect("a stage that renders");
            let loads = depth.mix.loads(own, depth.images);
            let load = loads.iter().find(|load| load.stage == pool.stage).expect("its stage");
            waits.push((depth.ready, load.passes));
        }
        waits
    };
    let passes = |steps| settings(bench, 64, steps).stages[0].sampling.passes();
    let mean = (2.0 * passes(4) + 2.0 * passes(9)) / 4.0;
    assert_eq!(waits("base").await, [(6, passes(4)), (4, mean)]);
    let tasks = bench.dispatch("base", mixed, 9).await;
    commit_all(bench, "base", tasks.iter().map(|task| task.key)).await;
    assert_eq!(waits("sr256").await, [(2, 2.0)], "only prompts pass it, their job does not");
}
