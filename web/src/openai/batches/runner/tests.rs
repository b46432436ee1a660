use std::collections::BTreeMap;

use darkroom_farm_api::batches::MOST_PROGRESS;

use super::{
    super::progress::{Blamed, Key, Refusal, Start},
    *,
};

const HOUR_MS: i64 = 3600 * 1000;

fn batch(state: BatchState, progress: &Progress) -> Batch {
    Batch {
        id: Uuid::nil(),
        tenant: "studio".to_owned(),
        key: None,
        endpoint: "/v1/images/generations".to_owned(),
        input: Uuid::nil(),
        window: Duration::from_secs(24 * 3600),
        metadata: BTreeMap::new(),
        origin: "https://farm.example.com".to_owned(),
        keep_output: None,
        state,
        since_ms: [(state, HOUR_MS)].into(),
        expires_ms: 30 * HOUR_MS,
        progress: serde_json::to_string(progress).expect("JSON"),
        output: None,
        errors: None,
    }
}

fn group(job: Option<&str>) -> Group {
    let key = Key { cascade: "d1".to_owned(), start: Start::Noise };
    let job = job.map(str::to_owned);
    Group { key, requests: 1, pictures: 1, job, refused: None }
}

fn job(state: v1::JobState, manifest: v1::ManifestState) -> v1::Job {
    v1::Job { state: state.into(), manifest: manifest.into(), ..Default::default() }
}

#[test]
fn a_batch_waits_for_its_jobs_and_cancels_them_when_its_time_is_over() {
    use v1::{JobState as Job, ManifestState as Manifest};
    let (runs, ends, ended) = (
        job(Job::Active, Manifest::Unspecified),
        job(Job::Done, Manifest::Pending),
        job(Job::Done, Manifest::Written),
    );
    // Jobs, whether time is over; then the state, whether jobs are cancelled, and whether it counts
    // as expired.
    for (jobs, is_over, expected) in [
        (vec![runs.clone()], false, (BatchState::InProgress, false, false)),
        (vec![runs.clone(), ended.clone()], true, (BatchState::InProgress, true, true)),
        (vec![ends.clone()], true, (BatchState::InProgress, false, false)),
        (vec![ended.clone()], false, (BatchState::Finalizing, false, false)),
        (vec![ended], true, (BatchState::Finalizing, false, false)),
        (vec![], false, (BatchState::Finalizing, false, false)),
    ] {
        let progress = Progress { jobs: vec![group(Some("j1"))], ..Default::default() };
        let told = format!("{jobs:?} {is_over}");
        let Followed { progress, to, cancels } = followed(progress, &jobs, is_over);
        assert_eq!((to, cancels, progress.expired), expected, "{told}");
        assert_eq!(progress.output.is_some(), to == BatchState::Finalizing, "{told}");
    }
}

#[test]
fn a_job_that_was_never_accepted_has_expired_with_its_batch() {
    let jobs = || vec![group(Some("j1")), group(None)];
    let expired = |jobs, is_over| {
        followed(Progress { jobs, ..Default::default() }, &[], is_over).progress.expired
    };
    assert!(expired(jobs(), true));
    assert!(!expired(jobs(), false));
    let refused = Some(Fault::of(UserError::invalid("size", "size is 1x1"), None));
    let refused = vec![group(Some("j1")), Group { refused, ..group(None) }];
    assert!(!expired(refused, true), "it was refused");
}

#[test]
fn a_batch_has_expired_only_if_something_was_cut_off() {
    assert_eq!(finished(true, 1), BatchState::Expired);
    assert_eq!(finished(true, 0), BatchState::Completed);
    assert_eq!(finished(false, 1), BatchState::Completed, "somebody cancelled a job");
}

#[test]
fn a_step_that_fails_is_tried_again_and_results_for_a_day() {
    let lost = || UserError::new(Code::Unavailable, "LOST", "storage is away");
    for state in BatchState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        let batch = batch(state, &Progress { total: 7, ..Default::default() });
        for (now, is_late) in [(HOUR_MS, false), (25 * HOUR_MS - 1, false), (25 * HOUR_MS, true)] {
            let step = held_up(&batch, now, lost());
            let progress = Progress::read(&step.progress).expect("notes");
            let writes = matches!(state, BatchState::Finalizing | BatchState::Cancelling);
            let gives_up = is_late && writes;
            assert_eq!(step.to, if gives_up { BatchState::Failed } else { state }, "{now}");
            assert!(state.may_become(step.to));
            assert_eq!(progress.total, 7);
            assert_eq!(progress.waiting_for.is_some(), !gives_up);
            assert_eq!(progress.faults.len(), usize::from(gives_up));
        }
    }
    // Notes that cannot be read keep no batch open for ever.
    for state in BatchState::ALL.into_iter().filter(|state| !state.is_terminal()) {
        let mut broken = batch(state, &Progress::default());
        broken.progress = "{".to_owned();
        let early = held_up(&broken, HOUR_MS, lost());
        assert_eq!((early.to, early.progress.as_str()), (state, "{"));
        assert_eq!(held_up(&broken, 30 * HOUR_MS, lost()).to, BatchState::Failed);
    }
}

#[test]
fn requests_that_are_refused_alone_leave_their_job_and_an_empty_job_is_refused() {
    let error = UserError::invalid("image", "there is no such image");
    let blamed = |line, pictures| Blamed { line, pictures };
    let some = Group { requests: 3, pictures: 6, ..group(None) };
    let mut progress = Progress { total: 3, jobs: vec![some], ..Default::default() };
    progress.refuse_alone(0, &[blamed(3, 4)], &error);
    let left = &progress.jobs[0];
    assert_eq!((left.requests, left.pictures, left.refused.is_none()), (2, 2, true));
    progress.refuse_alone(0, &[blamed(9, 1), blamed(11, 1)], &error);
    assert!(progress.jobs[0].refused.is_some(), "nothing is left to submit");
    assert_eq!((progress.refused, progress.refusals.len()), (3, 2));
    let lines = progress.refused_lines();
    assert_eq!(lines.keys().copied().collect::<Vec<_>>(), [3, 9, 11]);
    let told = lines[&11].error(11);
    assert_eq!(told.message, "there is no such image", "it is told without a line");
    assert_eq!(progress.counts(&[]), (0, 3));
}

#[test]
fn a_batch_has_failed_if_its_jobs_are_refused_as_a_whole() {
    let fault = |line| Fault::of(UserError::invalid("size", "size is 1x1"), line);
    let whole = || Group { refused: Some(fault(None)), ..group(None) };
    let emptied = || Group { requests: 0, refused: Some(fault(Some(7))), ..group(None) };
    let lines = |jobs| {
        let refusals = vec![Refusal { fault: fault(None), lines: vec![7, 9] }];
        let faults = refusal(&Progress { jobs, refusals, ..Default::default() });
        faults.map(|faults| faults.iter().map(|fault| fault.line).collect::<Vec<_>>())
    };
    assert_eq!(lines(vec![]), None, "the image API refused all of its requests");
    assert_eq!(lines(vec![group(Some("j1")), whole()]), None);
    assert_eq!(lines(vec![emptied()]), None, "each request has its own error");
    assert_eq!(lines(vec![group(Some("j1")), emptied()]), None);
    assert_eq!(lines(vec![whole(), whole()]), Some(vec![None, None, Some(7)]));
    assert_eq!(lines(vec![emptied(), whole()]), Some(vec![None, Some(7)]));
}

#[test]
fn a_job_has_the_same_request_id_in_each_try_and_another_one_than_its_neighbours() {
    let one = batch(BatchState::Validating, &Progress::default());
    let other = Batch { id: Uuid::max(), ..batch(BatchState::InProgress, &Progress::default()) };
    let same = batch(BatchState::InProgress, &Progress { total: 7, ..Default::default() });
    assert_eq!(request_id(&one, 1), request_id(&same, 1));
    assert_ne!(request_id(&one, 0), request_id(&one, 1));
    assert_ne!(request_id(&one, 1), request_id(&other, 1));
}

#[test]
fn notes_of_the_largest_batch_whose_requests_are_all_refused_fit_into_its_row() {
    let error = UserError::invalid("image", "x".repeat(100_000));
    let all = Group { requests: 50_000, pictures: 500_000, ..group(None) };
    let mut progress = Progress { total: 50_000, jobs: vec![all], ..Default::default() };
    let lines: Vec<_> = (1..=50_000).map(|line| Blamed { line, pictures: 10 }).collect();
    for some in lines.chunks(lines.len().div_ceil(MOST_ROUNDS)) {
        progress.refuse_alone(0, some, &error);
    }
    assert_eq!((progress.refused, progress.jobs[0].requests), (50_000, 0));
    let notes = serde_json::to_string(&progress).expect("JSON");
    assert!(notes.len() < MOST_PROGRESS, "{} bytes", notes.len());
}
