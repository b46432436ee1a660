//! Commands to some images of a job: which images follow, when the job ends, and what runs again.

use std::collections::{BTreeMap, HashSet};

use darkroom_coordinator::store::{
    Error,
    image_commands::{Counted, LostPicture, MAX_COMMANDS},
    limits::{Limits, NewDeadline},
    records::{
        Discard, Dispatched, Fate, JobRecord, Manifest, NewJob, NewPrompt, RenderWork, Work,
    },
};
use darkroom_core::{
    id::JobId, image_command::ImageCommand, image_filter::ImageFilter,
    image_state::ImageState as S, job_state::JobState, label::Naming, prompt_filter::PromptFilter,
    sharing::Sharing,
};

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed},
};

/// A filter for index ranges and states of a job with this many images.
pub(super) fn filter(ranges: &[(u64, u64)], states: &[S], images: u64) -> ImageFilter {
    let prompts = PromptFilter::default();
    let filter = ImageFilter::new(ranges, states.iter().copied(), vec![], prompts);
    filter.expect("a filter").within(images).expect("inside")
}

fn of_prompts(labels: &[(&str, &str)], text: &str, images: u64) -> ImageFilter {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let prompts = PromptFilter::new(labels.collect(), text).expect("a filter");
    ImageFilter::new(&[], [], vec![], prompts).expect("a filter").within(images).expect("inside")
}

impl Bench {
    async fn command(&self, job: JobId, command: ImageCommand, filter: &ImageFilter) -> JobRecord {
        let same = NewDeadline::Same;
        self.store.command_images(job, command, filter, same).await.expect("commands")
    }

    async fn count(&self, job: JobId, command: ImageCommand, filter: &ImageFilter) -> Counted {
        self.store.count_images(job, command, filter, 0).await.expect("counts")
    }

    /// Renders every ready image, stage by stage.
    async fn render(&self, job: JobId) {
        for stage in STAGES {
            for task in self.dispatch(stage, job, 100).await {
                assert_eq!(self.commit(stage, task.key, done(stage)).await, Fate::Applied);
            }
        }
    }

    /// Makes every ready image fail for good.
    async fn kill(&self, job: JobId) {
        while let Some(task) = self.dispatch("base", job, 1).await.pop() {
            self.commit("base", task.key, failed()).await;
        }
    }

    async fn record(&self, job: JobId) -> JobRecord {
        self.store.job(job).await.expect("there")
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_cancel_of_images_is_followed_in_chunks_and_changes_no_others(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 10).await;
    bench.encode(job).await;
    let held = bench.dispatch("base", job, 5).await[4].key;
    let some = filter(&[(3, 6), (8, 12), (19, 19)], &[], 20);
    let counted = bench.count(job, ImageCommand::Cancel, &some).await;
    assert_eq!(counted, Counted { images: 10, done: 0, next: None });
    let commanded = bench.command(job, ImageCommand::Cancel, &some).await;
    assert_eq!((commanded.state, commanded.cancelled), (JobState::Active, 0), "rows follow later");
    let chunk = bench.store.follow(4).await.expect("follows");
    assert_eq!((chunk.changed, chunk.more), (4, true));
    bench.audit(job).await;
    assert_eq!(
        bench.count(job, ImageCommand::Cancel, &some).await.images,
        6,
        "after a crash it continues here"
    );
    bench.settle().await;
    let states = bench.states(job).await;
    for (index, state) in (0_u64..).zip(&states) {
        assert_eq!(*state == S::Cancelled, some.has_index(index), "image {index} is {state}");
    }
    let late = bench.commit("base", held, done("base")).await;
    assert_eq!(late, Fate::Discarded(Discard::ImageTerminal), "image 4 is cancelled");
    let again = bench.command(job, ImageCommand::Cancel, &some).await;
    bench.settle().await;
    let record = bench.record(job).await;
    assert_eq!((record.version, record.cancelled), (again.version, 10), "idempotent");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_cancel_of_images_tells_which_tasks_it_withdraws(bench: &Bench) {
    let job = bench.submit(&["one"], 6).await;
    bench.encode(job).await;
    let first = bench.dispatch("base", job, 3).await;
    bench.commit("base", first[0].key, done("base")).await;
    let second = bench.dispatch("sr256", job, 1).await;
    let withdrawn = async |command: ImageCommand| {
        bench.command(job, command, &filter(&[(0, 1), (3, 4)], &[], 6)).await;
        let mut tasks = Vec::new();
        loop {
            let chunk = bench.store.follow(2).await.expect("follows");
            tasks.extend(chunk.withdrawn);
            if !chunk.more {
                return tasks;
            }
        }
    };
    // The other images are ready or do not match.
    let expected = [(bench.pool("sr256"), second[0].key), (bench.pool("base"), first[1].key)];
    let told = withdrawn(ImageCommand::Cancel).await;
    assert_eq!(told.len(), 2, "each once: {told:?}");
    assert_eq!(told.into_iter().collect::<HashSet<_>>(), HashSet::from(expected));
    let again = withdrawn(ImageCommand::Cancel).await;
    assert!(again.is_empty(), "they are cancelled already: {again:?}");
    let retried = withdrawn(ImageCommand::Retry).await;
    assert!(retried.is_empty(), "none was dispatched: {retried:?}");
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_whose_last_open_images_are_cancelled_ends(bench: &Bench) {
    let all = filter(&[], &[S::Waiting, S::Ready, S::Dispatched], 3);
    let waiting = bench.submit(&["one"], 3).await;
    bench.command(waiting, ImageCommand::Cancel, &all).await;
    bench.settle().await;
    let record = bench.record(waiting).await;
    assert_eq!((record.state, record.manifest), (JobState::Cancelled, Manifest::Pending));

    let ended = async |fails: bool, expected: JobState| {
        let job = bench.submit(&["one"], 3).await;
        bench.encode(job).await;
        let one = filter(&[(0, 0)], &[], 3);
        bench.command(job, ImageCommand::Cancel, &one).await;
        bench.settle().await;
        if fails {
            let task = bench.dispatch("base", job, 1).await.remove(0);
            bench.commit("base", task.key, failed()).await;
            while let Some(task) = bench.dispatch("base", job, 1).await.pop() {
                bench.commit("base", task.key, failed()).await;
                if bench.record(job).await.dead > 0 {
                    break;
                }
            }
        } else {
            let task = bench.dispatch("base", job, 1).await.remove(0);
            bench.commit("base", task.key, done("base")).await;
            let task = bench.dispatch("sr256", job, 1).await.remove(0);
            bench.commit("sr256", task.key, done("sr256")).await;
        }
        bench.store.pause(job).await.expect("pauses");
        bench.command(job, ImageCommand::Cancel, &all).await;
        bench.settle().await;
        assert_eq!(bench.record(job).await.state, expected);
        bench.audit(job).await;
    };
    ended(true, JobState::Failed).await;
    ended(false, JobState::Done).await;
    let overlooked = bench.store.finish_overlooked().await.expect("sweeps");
    assert_eq!(overlooked, [], "the last command ends the job itself");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn images_of_an_ended_job_run_again_in_a_new_generation(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 2).await;
    bench.encode(job).await;
    bench.command(job, ImageCommand::Cancel, &filter(&[(3, 3)], &[], 4)).await;
    bench.settle().await;
    let task = bench.dispatch("base", job, 1).await.remove(0);
    bench.commit("base", task.key, done("base")).await;
    let task = bench.dispatch("sr256", job, 1).await.remove(0);
    bench.commit("sr256", task.key, done("sr256")).await;
    bench.kill(job).await;
    assert_eq!(bench.states(job).await, [S::Done, S::Dead, S::Dead, S::Cancelled]);
    assert_eq!(bench.record(job).await.state, JobState::Failed);
    let sha256 = darkroom_core::digest::Digest::of(b"m");
    assert!(bench.store.manifest_written((job, 1), "k", sha256, None).await.expect("writes"));

    let some = filter(&[(0, 1), (3, 3)], &[], 4);
    let counted = bench.count(job, ImageCommand::Retry, &some).await;
    assert_eq!((counted.images, counted.done), (2, 1), "done images stay");
    let retried = bench.command(job, ImageCommand::Retry, &some).await;
    assert_eq!(
        (retried.state, retried.generation, retried.manifest, retried.finished_ms),
        (JobState::Active, 2, Manifest::None, None)
    );
    assert!(
        bench.store.finish_overlooked().await.expect("sweeps").is_empty(),
        "rows have to follow"
    );
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Done, S::Ready, S::Dead, S::Ready]);
    bench.render(job).await;
    let record = bench.record(job).await;
    assert_eq!((record.state, record.done, record.dead), (JobState::Failed, 3, 1));
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 2)]);
    let dead = filter(&[], &[S::Dead], 4);
    bench.command(job, ImageCommand::Retry, &dead).await;
    bench.settle().await;
    bench.render(job).await;
    let record = bench.record(job).await;
    assert_eq!((record.state, record.generation, record.done), (JobState::Done, 3, 4));
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_command_that_finds_nothing_lets_its_job_end_again(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    bench.render(job).await;
    let nothing = filter(&[(0, 0)], &[], 1);
    bench.command(job, ImageCommand::Retry, &nothing).await;
    assert_eq!(bench.record(job).await.state, JobState::Active);
    bench.settle().await;
    let record = bench.record(job).await;
    assert_eq!((record.state, record.generation), (JobState::Done, 2));
    bench.command(job, ImageCommand::Cancel, &nothing).await;
    assert_eq!(
        bench.record(job).await.version,
        record.version,
        "an ended job has nothing to cancel"
    );
    assert!(!bench.store.follow(9).await.expect("follows").more);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_jobs_own_command_goes_before_those_to_its_images(bench: &Bench) {
    let job = bench.submit(&["one"], 6).await;
    bench.encode(job).await;
    // Some images are retried while a cancel of the job is still being applied.
    bench.store.cancel(job).await.expect("cancels");
    assert_eq!(bench.store.follow(2).await.expect("follows").changed, 2);
    let some = filter(&[(1, 3)], &[], 6);
    let retried = bench.command(job, ImageCommand::Retry, &some).await;
    assert_eq!((retried.state, retried.generation), (JobState::Active, 2));
    bench.settle().await;
    let expected = [S::Cancelled, S::Ready, S::Ready, S::Ready, S::Cancelled, S::Cancelled];
    assert_eq!(bench.states(job).await, expected);
    let record = bench.record(job).await;
    assert_eq!((record.state, record.manifest), (JobState::Active, Manifest::None));
    bench.audit(job).await;

    // Commands that were not applied before the job was cancelled have no effect after its retry.
    bench.command(job, ImageCommand::Cancel, &some).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Ready; 6]);
    bench.render(job).await;
    assert_eq!(bench.record(job).await.state, JobState::Done);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_command_names_images_by_code_label_and_text(bench: &Bench) {
    let naming = |position: u64| Naming {
        custom_id: (position == 2).then(|| "Éclair-7".to_owned()),
        labels: BTreeMap::from([
            ("set".to_owned(), if position < 2 { "a" } else { "b" }.to_owned()),
            ("parity".to_owned(), (position % 2).to_string()),
        ]),
        line: None,
    };
    let named = |prompt: NewPrompt| NewPrompt { naming: naming(prompt.position), ..prompt };
    let texts = ["a red cat", "a dog", "cakes", "a CAT"];
    let prompts: Vec<_> = bench.prompts(&texts, 3).into_iter().map(named).collect();
    let job = bench.submit_prompts(&prompts, Limits::default()).await;
    bench.encode(job).await;
    let cancel = ImageCommand::Cancel;
    let count = async |labels: &[(&str, &str)], text: &str| {
        bench.count(job, cancel, &of_prompts(labels, text, 12)).await.images
    };
    assert_eq!(count(&[], "cat").await, 6, "in any case");
    assert_eq!(count(&[], "éclair").await, 3, "the custom id counts");
    assert_eq!(count(&[("set", "a")], "").await, 6);
    assert_eq!(count(&[("set", "a"), ("parity", "1")], "").await, 3);
    assert_eq!(count(&[("set", "a")], "CAKES").await, 0, "every condition must hold");
    // A part of a prompt's images only.
    let cats = PromptFilter::new(BTreeMap::new(), "cat").expect("a filter");
    let part = ImageFilter::new(&[(1, 1), (8, 10)], [], vec![], cats).expect("a filter");
    let part = part.within(12).expect("inside");
    assert_eq!(bench.count(job, cancel, &part).await.images, 3);
    bench.command(job, cancel, &part).await;
    bench.settle().await;
    let states = bench.states(job).await;
    let cancelled: Vec<_> = (0..12).filter(|index| states[*index] == S::Cancelled).collect();
    assert_eq!(cancelled, [1, 9, 10]);

    // Images that failed with one code, only in the first prompt; the others died in another way.
    bench.kill(job).await;
    let of_code = |code: &str| {
        let prompts = PromptFilter::default();
        let filter = ImageFilter::new(&[(0, 5)], [S::Dead], vec![code.to_owned()], prompts);
        filter.expect("a filter").within(12).expect("inside")
    };
    assert_eq!(bench.count(job, ImageCommand::Retry, &of_code("other")).await.images, 0);
    assert_eq!(bench.count(job, ImageCommand::Retry, &of_code("code")).await.images, 5);
    bench.command(job, ImageCommand::Retry, &of_code("other")).await;
    bench.settle().await;
    assert_eq!(bench.record(job).await.dead, 9, "none has that code");
    bench.command(job, ImageCommand::Retry, &of_code("code")).await;
    bench.settle().await;
    assert_eq!(bench.record(job).await.dead, 4);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_retried_image_waits_for_a_text_that_was_given_up(bench: &Bench) {
    let job = bench.submit(&["bad", "good"], 2).await;
    for _ in 0..30 {
        for task in bench.dispatch("encode", job, 9).await {
            let Work::Encode { text } = &task.work else { panic!("stage encode") };
            let outcome = if text.prepared == "bad" { failed() } else { done("text") };
            bench.commit("encode", task.key, outcome).await;
        }
    }
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Dead, S::Dead, S::Ready, S::Ready]);
    bench.command(job, ImageCommand::Retry, &filter(&[(1, 1)], &[], 4)).await;
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Dead, S::Waiting, S::Ready, S::Ready]);
    bench.audit(job).await;
    bench.encode(job).await;
    assert_eq!(bench.states(job).await, [S::Dead, S::Ready, S::Ready, S::Ready]);
    // The text is encoded now.
    bench.command(job, ImageCommand::Retry, &filter(&[(0, 0)], &[], 4)).await;
    bench.settle().await;
    assert_eq!(bench.states(job).await, [S::Ready; 4]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_lost_picture_runs_its_last_stage_again(bench: &Bench) {
    let job = bench.submit(&["one"], 3).await;
    bench.encode(job).await;
    bench.render(job).await;
    let before = bench.record(job).await;
    assert_eq!(before.state, JobState::Done);
    let lost = |index, generation| LostPicture { index, generation };
    let rerender =
        async |lost: &[LostPicture]| bench.store.rerender_lost(job, lost, NewDeadline::Same).await;
    let stale = rerender(&[lost(1, 2)]).await.expect("answers");
    assert_eq!((stale.images, stale.job.state), (0, JobState::Done), "of another generation");
    assert_eq!(stale.job.version, before.version);
    let again = rerender(&[lost(0, 1), lost(2, 1)]).await.expect("answers");
    assert_eq!(
        (again.images, again.job.state, again.job.generation, again.job.manifest),
        (2, JobState::Active, 2, Manifest::None)
    );
    bench.audit(job).await;
    assert_eq!(bench.states(job).await, [S::Ready, S::Done, S::Ready]);
    let image = bench.store.image(job, 0).await.expect("there");
    assert_eq!((image.outputs.len(), image.progress.stage, image.progress.generation), (1, 1, 2));
    let attempts = bench.store.attempts(job, 0).await.expect("reads");
    let stages: Vec<_> = attempts.iter().map(|one| one.stage).collect();
    assert_eq!(stages, [0, 1], "the attempt of the lost picture stays");
    assert_eq!(rerender(&[lost(0, 1)]).await.expect("answers").images, 0, "once is enough");
    assert!(bench.dispatch("base", job, 9).await.is_empty(), "its first stage is intact");
    // The input is lost too, so the preceding stage runs again as usual.
    let missing = bench.dispatch("sr256", job, 1).await.remove(0).key;
    let gone = darkroom_queue::task::Outcome::InputMissing { key: "tasks/base".to_owned() };
    assert_eq!(bench.commit("sr256", missing, gone).await, Fate::Applied);
    bench.render(job).await;
    let record = bench.record(job).await;
    assert_eq!((record.state, record.done), (JobState::Done, 3));
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 2)]);
    bench.audit(job).await;

    bench.command(job, ImageCommand::Retry, &filter(&[(1, 1)], &[], 3)).await;
    let refused = rerender(&[lost(1, 1)]).await;
    assert!(matches!(&refused, Err(Error::Refused(error)) if error.reason == "STILL_FOLLOWING"));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn commands_that_are_not_followed_yet_are_limited(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    let all = filter(&[(0, 0)], &[], 1);
    for _ in 0..MAX_COMMANDS {
        bench.command(job, ImageCommand::Retry, &all).await;
    }
    let same = NewDeadline::Same;
    let refused = bench.store.command_images(job, ImageCommand::Cancel, &all, same).await;
    assert!(matches!(&refused, Err(Error::Refused(error)) if error.reason == "TOO_MANY_COMMANDS"));
    bench.settle().await;
    bench.command(job, ImageCommand::Cancel, &all).await;
    bench.settle().await;
    assert_eq!(bench.record(job).await.state, JobState::Cancelled);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn failures_end_no_job_while_images_follow_their_retry(bench: &Bench) {
    let limits = Limits { max_failed: Some(1), ..Limits::default() };
    let job = bench.submit_within(&["one"], 3, limits).await;
    bench.encode(job).await;
    bench.kill(job).await;
    bench.settle().await;
    let end = async || bench.store.end_overdue(bench.term, 9).await.expect("looks");
    end().await;
    bench.settle().await;
    assert_eq!(bench.record(job).await.state, JobState::Failed);
    bench.command(job, ImageCommand::Retry, &filter(&[], &[S::Dead], 3)).await;
    assert_eq!(end().await, [], "they are about to run again");
    bench.settle().await;
    assert_eq!(end().await, []);
    assert_eq!(bench.record(job).await.dead, 0);
    bench.render(job).await;
    assert_eq!(bench.record(job).await.state, JobState::Done);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_without_reuse_says_so_in_each_of_its_tasks(bench: &Bench) {
    for no_reuse in [true, false] {
        let new = NewJob { no_reuse, ..bench.job(None) };
        for work in render_works(bench, &new).await {
            assert_eq!(work.no_reuse, no_reuse);
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_sealed_job_names_its_tenant_in_each_of_its_tasks(bench: &Bench) {
    for sharing in Sharing::ALL {
        let tenant = format!("{sharing}-studio");
        let new = NewJob { sharing, tenant: tenant.clone(), ..bench.job(None) };
        for work in render_works(bench, &new).await {
            assert_eq!(work.seal.as_deref(), sharing.seal(&tenant));
        }
    }
}

/// The work of all tasks of a new job, dispatched in each way that there is: by the leader, by a
/// commit, and after the stage before.
async fn render_works(bench: &Bench, new: &NewJob) -> Vec<RenderWork> {
    let content = darkroom_core::digest::Digest::of(b"content");
    bench.store.submit(new, &bench.prompts(&["one"], 2), content).await.expect("accepted");
    bench.encode(new.id).await;
    let mut tasks = bench.dispatch("base", new.id, 9).await;
    let reports: Vec<_> =
        tasks.iter().map(|task| Bench::report(task.key, done("base"), false)).collect();
    let pool = bench.pool("base");
    let onward = bench.credit(1);
    let (_, handed) = bench.store.commit_onward(&pool, &reports, &onward).await.expect("commits");
    tasks.extend(handed.into_iter().map(|(_, task)| task));
    tasks.extend(bench.dispatch("sr256", new.id, 9).await);
    assert_eq!(tasks.len(), 4);
    let work = |task: Dispatched| match task.work {
        Work::Render(work) => *work,
        Work::Encode { .. } => panic!("renders"),
    };
    tasks.into_iter().map(work).collect()
}
