//! What is left of a stage: images that ended before it do not count, whatever stages they pass.

use darkroom_coordinator::store::limits::NewDeadline;
use darkroom_core::{
    id::JobId, image_command::ImageCommand, image_filter::ImageFilter,
    image_state::ImageState as S, prompt_filter::PromptFilter,
};

use super::{
    bench::Bench,
    overrides::variant,
    samples::{done, failed},
};

async fn command(bench: &Bench, job: JobId, command: ImageCommand, indices: &[u64]) {
    let ranges: Vec<_> = indices.iter().map(|index| (*index, *index)).collect();
    let filter = ImageFilter::new(&ranges, Vec::<S>::new(), vec![], PromptFilter::default());
    let filter = filter.expect("a filter").within(6).expect("inside");
    let same = NewDeadline::Same;
    bench.store.command_images(job, command, &filter, same).await.expect("commands");
    bench.settle().await;
    bench.audit(job).await;
}

/// What each stage of a job has stopped, and what is left of it.
async fn counters(bench: &Bench, job: JobId) -> Vec<(u64, u64)> {
    let record = bench.store.job(job).await.expect("there");
    let rendering = record.stages.iter().skip(1);
    rendering.map(|stage| (stage.stopped, stage.remaining())).collect()
}

async fn run(bench: &Bench, stage: &str, job: JobId) {
    for task in bench.dispatch(stage, job, 9).await {
        bench.commit(stage, task.key, done(stage)).await;
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_ended_before_a_stage_is_not_left_of_it(bench: &Bench) {
    use ImageCommand::{Cancel, Retry};
    // Images 0 and 1 pass both stages, 2 and 3 the first one, 4 and 5 both again.
    let mut prompts = bench.prompts(&["own", "small", "slow"], 2);
    prompts[1].variant = variant(bench, 1, 64, 4);
    prompts[2].variant = variant(bench, 2, 256, 9);
    let job = bench.submit_prompts(&prompts, Default::default()).await;
    assert_eq!(counters(bench, job).await, [(0, 6), (0, 4)]);
    command(bench, job, Cancel, &[0]).await;
    assert_eq!(counters(bench, job).await, [(1, 5), (1, 3)], "it waited for its text");
    bench.encode(job).await;
    command(bench, job, Cancel, &[2]).await;
    assert_eq!(counters(bench, job).await, [(2, 4), (1, 3)], "it passes one stage");
    run(bench, "base", job).await;
    assert_eq!(counters(bench, job).await, [(2, 0), (1, 3)]);
    command(bench, job, Cancel, &[4]).await;
    assert_eq!(counters(bench, job).await, [(2, 0), (2, 2)], "it had passed the first");
    command(bench, job, Retry, &[0, 2, 4]).await;
    assert_eq!(counters(bench, job).await, [(0, 2), (0, 4)]);
    while let Some(task) = bench.dispatch("base", job, 1).await.pop() {
        bench.commit("base", task.key, failed()).await;
    }
    bench.audit(job).await;
    assert_eq!(counters(bench, job).await, [(2, 0), (1, 3)], "the dead count as the cancelled do");
    command(bench, job, Retry, &[0, 2]).await;
    run(bench, "base", job).await;
    run(bench, "sr256", job).await;
    assert_eq!(counters(bench, job).await, [(0, 0), (0, 0)]);
    bench.audit(job).await;
}
