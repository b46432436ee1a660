//! What commands to some images promise while other things happen to their job.

use darkroom_coordinator::store::{image_commands::LostPicture, limits::NewDeadline};
use darkroom_core::{
    image_command::ImageCommand, image_filter::ImageFilter, image_state::ImageState as S,
    job_state::JobState, prompt_filter::PromptFilter,
};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_waits_for_the_commands_to_its_images(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    let mut tasks = bench.dispatch("base", job, 2).await;
    let (mut first, second) = (tasks.remove(0), tasks.remove(0));
    bench.commit("base", second.key, done("base")).await;
    loop {
        bench.commit("base", first.key, failed()).await;
        match bench.dispatch("base", job, 1).await.pop() {
            Some(again) => first = again,
            None => break,
        }
    }
    assert_eq!(bench.states(job).await, [S::Dead, S::Ready]);
    let last = bench.dispatch("sr256", job, 1).await.remove(0);
    let dead = ImageFilter::new(&[], [S::Dead], vec![], PromptFilter::default());
    let dead = dead.expect("a filter").within(2).expect("inside");
    let same = NewDeadline::Same;
    bench.store.command_images(job, ImageCommand::Retry, &dead, same).await.expect("commands");
    bench.commit("sr256", last.key, done("sr256")).await;
    let record = bench.store.job(job).await.expect("there");
    assert_eq!(record.state, JobState::Active, "it ended before its image was retried");
    let swept = bench.store.finish_overlooked().await.expect("sweeps");
    let version = bench.store.job(job).await.expect("there").version;
    assert_eq!((swept.len(), version), (0, record.version), "it is not overlooked: it waits");
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Ready, S::Done]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_picture_that_was_rendered_again_is_not_lost_a_second_time(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let render = async || {
        for stage in STAGES {
            for task in bench.dispatch(stage, job, 9).await {
                bench.commit(stage, task.key, done(stage)).await;
            }
        }
    };
    render().await;
    // Two callers found it lost; the second one comes when it is rendered again.
    let found = [LostPicture { index: 0, generation: 1 }];
    let lost = async || {
        let answer = bench.store.rerender_lost(job, &found, NewDeadline::Same).await;
        answer.expect("answers").images
    };
    assert_eq!(lost().await, 1);
    render().await;
    assert_eq!(bench.states(job).await, [S::Done]);
    assert_eq!(lost().await, 0, "its picture is there again");
    assert_eq!(bench.states(job).await, [S::Done]);
    bench.audit(job).await;
}
