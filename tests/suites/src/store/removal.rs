//! Deleting jobs, and removing what nobody needs: nothing that a row names is ever marked, and
//! nobody can begin to name what is marked.

use std::{collections::HashMap, time::Duration};

use darkroom_coordinator::store::{
    Error,
    farm_changes::{ChangePosition, ChangeQuery},
    limits::NewDeadline,
    records::{Fate, ImageOrder, ImageQuery, JobQuery, NewJob, Release, Seen, Term},
    removal::{Candidate, Kind, Leavings, TOMBSTONE},
};
use darkroom_core::{
    artifact::ArtifactRef,
    digest::Digest,
    id::JobId,
    image_command::ImageCommand,
    image_state::ImageState,
    job_filter::JobFilter,
    job_state::JobState,
    retention::{Policy, Scope, Subject},
};
use darkroom_queue::task::{Outcome, Subject as Task};

use super::{
    bench::{Bench, STAGES},
    image_commands::filter,
    samples::failed,
};

/// Any time: the suite moves its own clock.
const NOW: i64 = 4_000_000_000_000;
const DAY: i64 = 24 * 3600 * 1000;

/// A stage's output with this key.
fn stored(key: &str) -> Outcome {
    let artifact = ArtifactRef { key: key.to_owned(), sha256: Digest::of(key.as_bytes()), size: 3 };
    Outcome::Done { artifact, notes: Vec::new() }
}

/// A job of one prompt whose images have ended; `picture` is the last output of all of them.
pub(super) async fn ended(bench: &Bench, text: &str, images: u32, picture: &str) -> JobId {
    let job = bench.submit(&[text], images).await;
    bench.encode(job).await;
    finish(bench, job, picture).await;
    job
}

async fn finish(bench: &Bench, job: JobId, picture: &str) {
    for (stage, key) in STAGES.into_iter().zip([&format!("{picture}.low"), picture]) {
        for task in bench.dispatch(stage, job, 1000).await {
            assert_eq!(bench.commit(stage, task.key, stored(key)).await, Fate::Applied);
        }
    }
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Done);
}

async fn delete(bench: &Bench, job: JobId) {
    assert!(bench.store.delete_job(job, "key k", false).await.expect("deletes"));
}

/// Removes all rows of deleted jobs.
async fn clear(bench: &Bench, now: i64) -> u64 {
    let mut jobs = 0;
    loop {
        let cleared = bench.store.clear_deleted(bench.term, now, 3).await.expect("clears");
        jobs += cleared.jobs;
        if !cleared.more {
            return jobs;
        }
    }
}

/// Looks up all candidates. Returns how many are marked.
async fn mark(bench: &Bench, now: i64) -> u64 {
    let mut marked = 0;
    loop {
        // Commits of other checks on the same server may be busy.
        let Some(batch) = bench.store.mark(bench.term, now, 2).await.expect("marks") else {
            continue;
        };
        marked += batch.marked;
        if !batch.more {
            return marked;
        }
    }
}

/// Makes objects candidates and marks them.
async fn remove(bench: &Bench, keys: &[&str]) {
    let candidates: Vec<_> = keys.iter().map(|key| Candidate::output((*key).to_owned())).collect();
    bench.store.suspect(bench.term, NOW, &candidates).await.expect("takes them");
    assert_eq!(mark(bench, NOW).await, keys.len() as u64, "{keys:?}");
}

/// What may be deleted in storage at a time, in order.
async fn leaving(bench: &Bench, now: i64) -> Vec<String> {
    let leaving = bench.store.leaving(bench.term, now, 1000).await.expect("lists");
    let mut keys: Vec<_> = leaving.into_iter().map(|one| one.key).collect();
    keys.sort();
    keys
}

async fn outputs_leaving(bench: &Bench, now: i64) -> Vec<String> {
    let mut keys = leaving(bench, now).await;
    keys.retain(|key| Kind::of(key) == Some(Kind::Output));
    keys
}

fn is_deleted<T: std::fmt::Debug>(answer: Result<T, Error>, job: JobId) {
    assert!(matches!(answer, Err(Error::Deleted { job: named, .. }) if named == job), "{answer:?}");
}

fn everyones() -> JobQuery {
    JobQuery {
        tenant: None,
        states: Vec::new(),
        filter: JobFilter::default(),
        created_from_ms: None,
        created_to_ms: None,
        oldest_first: true,
        from: None,
        limit: 100,
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_that_has_not_ended_is_deleted_only_if_it_is_cancelled(bench: &Bench) {
    let job = bench.submit(&["one", "two"], 2).await;
    bench.encode(job).await;
    bench.dispatch("base", job, 1).await;
    let refused = bench.store.delete_job(job, "key k", false).await.expect_err("it runs");
    let refused = refused.to_user();
    assert_eq!(refused.reason, "JOB_NOT_ENDED");
    assert!(refused.message.contains("is active") && refused.message.contains("--cancel"));
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Active);
    assert!(bench.store.delete_job(job, "key k", true).await.expect("cancels and deletes"));
    is_deleted(bench.store.job(job).await, job);
    // Its images follow the cancel before their rows go.
    assert_eq!(clear(bench, NOW).await, 0);
    bench.settle().await;
    assert_eq!(bench.store.dispatched(&bench.pool("base")).await.expect("lists"), []);
    assert_eq!(clear(bench, NOW).await, 1);
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), []);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_deleted_job_is_found_nowhere_and_stays_deleted(bench: &Bench) {
    let job = ended(bench, "one", 2, "tasks/a/p.png").await;
    let other = ended(bench, "one", 1, "tasks/b/p.png").await;
    let store = &bench.store;
    delete(bench, job).await;
    // Watchers of the farm had time to see it.
    let now = store.clock_ms().await.expect("a clock") + 60_000;
    let nobodys = JobId(uuid::Uuid::now_v7());
    for cleared in [false, true] {
        assert!(!store.delete_job(job, "key k", false).await.expect("it is deleted already"));
        is_deleted(store.job(job).await, job);
        is_deleted(store.image(job, 0).await, job);
        is_deleted(store.view(job, 1).await, job);
        is_deleted(store.changes(job, Seen::default(), 9).await, job);
        is_deleted(store.failures(job).await, job);
        is_deleted(store.map_part(job, 0).await, job);
        is_deleted(store.images(&ImageQuery::all(job, ImageOrder::Index(None), 9)).await, job);
        is_deleted(store.cancel(job).await, job);
        is_deleted(store.retry(job, NewDeadline::Same).await, job);
        let all = filter(&[], &[ImageState::Done], 2);
        let retry = store.command_images(job, ImageCommand::Retry, &all, NewDeadline::Same).await;
        is_deleted(retry, job);
        is_deleted(store.rerender_lost(job, &[], NewDeadline::Same).await, job);
        assert_eq!(store.attempts(job, 0).await.expect("reads"), []);
        assert!(!store.is_of(job, "t").await.expect("looks"));
        let page = store.jobs(&everyones()).await.expect("lists");
        assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [other]);
        let listed = store.pending_manifests(9).await.expect("lists");
        assert_eq!(listed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [other]);
        // Its own tenant learns what became of it, and others do not.
        let why = store.why_not_found(job, Some("t")).await.expect("says");
        assert!(matches!(why, Error::Deleted { .. }), "{why:?}");
        for (id, tenant) in [(job, Some("u")), (nobodys, Some("t")), (nobodys, None)] {
            let why = store.why_not_found(id, tenant).await.expect("says");
            assert!(matches!(why, Error::NotFound(_)), "{why:?}");
        }
        if !cleared {
            assert_eq!(clear(bench, now - 30_000).await, 0, "its own row stays for a minute");
            assert_eq!(clear(bench, now + 1000).await, 1);
        }
    }
    bench.audit(other).await;
    // A month later nobody knows of it.
    clear(bench, now + 31 * DAY).await;
    let gone = bench.store.job(job).await;
    assert!(matches!(gone, Err(Error::NotFound(_))), "{gone:?}");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_a_delete_and_a_retry_at_once_one_wins(bench: &Bench) {
    for round in 0..6 {
        let job = bench.submit(&["one"], 1).await;
        bench.encode(job).await;
        bench.store.cancel(job).await.expect("cancels");
        bench.settle().await;
        let second = bench.second();
        let (deleted, retried) = tokio::join!(
            bench.store.delete_job(job, "key k", false),
            second.store.retry(job, NewDeadline::Same)
        );
        match (deleted, retried) {
            (Ok(true), retried) => {
                is_deleted(retried, job);
                is_deleted(bench.store.job(job).await, job);
            }
            (Err(Error::Refused(refused)), Ok(_)) => {
                assert_eq!(refused.reason, "JOB_NOT_ENDED", "{round}");
                bench.settle().await;
                finish(bench, job, "tasks/a/p.png").await;
                delete(bench, job).await;
            }
            both => panic!("{both:?}"),
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn readers_of_all_jobs_learn_which_were_deleted(bench: &Bench) {
    let job = ended(bench, "one", 1, "tasks/a/p.png").await;
    let stays = ended(bench, "two", 1, "tasks/b/p.png").await;
    let read = async |known: &HashMap<i64, u64>| {
        let next = bench.store.change_bounds().await.expect("bounds").next;
        let from = ChangePosition::before(0);
        let query = ChangeQuery { tenant: None, from, next, limit: 100, known };
        bench.store.changed_jobs(query).await.expect("reads")
    };
    let before = read(&HashMap::new()).await;
    assert_eq!((before.jobs.len(), before.deleted.len()), (2, 0));
    delete(bench, job).await;
    let after = read(&HashMap::new()).await;
    assert_eq!(after.jobs.iter().map(|one| one.job.id).collect::<Vec<_>>(), [stays]);
    let [gone] = after.deleted.as_slice() else { panic!("{:?}", after.deleted) };
    assert_eq!((gone.id, gone.tenant.as_str()), (job, "t"));
    // It is told once for each version that a reader does not know.
    assert_eq!(read(&HashMap::from([(gone.seq, gone.version)])).await.deleted, []);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_deleted_jobs_rows_go_in_chunks_and_what_nobody_needs_is_marked(bench: &Bench) {
    let job = ended(bench, "one", 8, "tasks/a/p.png").await;
    delete(bench, job).await;
    let first = bench.store.clear_deleted(bench.term, NOW, 3).await.expect("clears");
    assert_eq!((first.images, first.jobs, first.more), (3, 0, true));
    // The rest still names them.
    assert_eq!(mark(bench, NOW).await, 0);
    assert_eq!(clear(bench, NOW).await, 1);
    assert_eq!(mark(bench, NOW).await, 5, "two outputs, their previews, and the manifests");
    let keys = leaving(bench, NOW).await;
    assert_eq!(outputs_leaving(bench, NOW).await, ["tasks/a/p.png", "tasks/a/p.png.low"]);
    assert!(keys.contains(&format!("manifests/{job}/")), "{keys:?}");
    assert_eq!(
        keys.iter().filter(|key| key.starts_with("previews/3/tasks/a/")).count(),
        2,
        "{keys:?}"
    );
    // A new job with the same text is not disturbed.
    let again = bench.submit(&["one"], 1).await;
    bench.encode(again).await;
    finish(bench, again, "tasks/c/p.png").await;
    bench.audit(again).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_another_job_names_stays_until_that_is_deleted_too(bench: &Bench) {
    let one = ended(bench, "one", 2, "tasks/a/p.png").await;
    let other = ended(bench, "one", 2, "tasks/a/p.png").await;
    delete(bench, one).await;
    assert_eq!(clear(bench, NOW).await, 1);
    assert_eq!(
        mark(bench, NOW).await,
        1,
        "what another job names is marked, not only the manifests"
    );
    assert_eq!(outputs_leaving(bench, NOW).await, [""; 0]);
    bench.audit(other).await;
    delete(bench, other).await;
    clear(bench, NOW).await;
    mark(bench, NOW).await;
    assert_eq!(outputs_leaving(bench, NOW).await, ["tasks/a/p.png", "tasks/a/p.png.low"]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_result_that_names_an_object_on_its_way_out_is_returned(bench: &Bench) {
    remove(bench, &["tasks/a/p.png"]).await;
    let prefixes = ["tasks/a/", "tasks/b/"].map(str::to_owned);
    let leaving = bench.store.leaving(bench.term, NOW, 9).await.expect("lists");
    assert_eq!(leaving.len(), 1);
    let marks = bench.store.leaving_under(&prefixes).await.expect("looks");
    assert_eq!(marks, HashMap::from([("tasks/a/".to_owned(), 1)]));
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    let tasks = bench.dispatch("base", job, 2).await;
    bench.commit("base", tasks[0].key, stored("tasks/a/p.png")).await;
    assert_eq!(bench.commit("base", tasks[1].key, stored("tasks/b/p.png")).await, Fate::Applied);
    let image = bench.store.image(job, 0).await.expect("there");
    assert_eq!(
        (image.progress.state, image.progress.stage, image.progress.failures, image.outputs.len()),
        (ImageState::Ready, 0, 0, 0),
        "a row names what is removed"
    );
    assert_eq!(bench.store.image(job, 1).await.expect("there").progress.stage, 1);
    // Another object is believed.
    let again = bench.dispatch("base", job, 2).await[0].key;
    assert_eq!(bench.commit("base", again, stored("tasks/c/p.png")).await, Fate::Applied);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_text_whose_result_names_an_object_on_its_way_out_is_wanted_again(bench: &Bench) {
    remove(bench, &["embeddings/a/b/c.safetensors"]).await;
    let job = bench.submit(&["one"], 1).await;
    let tasks = bench.dispatch("encode", job, 9).await;
    for task in &tasks {
        bench.commit("encode", task.key, stored("embeddings/a/b/c.safetensors")).await;
    }
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Waiting]);
    bench.encode(job).await;
    assert_eq!(bench.states(job).await, [ImageState::Ready]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_a_commit_and_a_mark_at_once_one_wins(bench: &Bench) {
    let job = bench.submit(&["one"], 12).await;
    bench.encode(job).await;
    let second = bench.second();
    for (round, task) in bench.dispatch("base", job, 12).await.into_iter().enumerate() {
        let key = format!("tasks/{round}/p.png");
        let candidate = Candidate::output(key.clone());
        bench.store.suspect(bench.term, NOW, &[candidate]).await.expect("takes it");
        let commit = second.commit("base", task.key, stored(&key));
        // Both orders come up.
        let (marked, _) = if round % 2 == 0 {
            tokio::join!(mark(bench, NOW), commit)
        } else {
            let (fate, marked) = tokio::join!(commit, mark(bench, NOW));
            (marked, fate)
        };
        let Task::Image(id) = task.key.subject else { panic!("an image") };
        let image = bench.store.image(job, id.index).await.expect("there");
        assert_eq!(
            (image.outputs.len(), image.progress.stage),
            if marked == 1 { (0, 0) } else { (1, 1) },
            "{round}: {marked}"
        );
    }
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_object_is_deleted_twice_and_remembered_until_nobody_can_store_it(bench: &Bench) {
    let store = &bench.store;
    let key = "tasks/a/p.png".to_owned();
    remove(bench, &[&key]).await;
    let tombstone = i64::try_from(TOMBSTONE.as_millis()).expect("short");
    let known = async || {
        let marks = store.leaving_under(&["tasks/a/".to_owned()]).await.expect("looks");
        !marks.is_empty()
    };
    let forget = async |now| store.forget_removed(bench.term, now, 9).await.expect("forgets");
    assert_eq!(leaving(bench, NOW).await, [key.as_str()]);
    let deleted = std::slice::from_ref(&key);
    store.note_deleted(bench.term, NOW, deleted).await.expect("notes");
    // Noting it twice, as two cleaners may, is the same as once.
    store.note_deleted(bench.term, NOW, deleted).await.expect("notes");
    assert_eq!(leaving(bench, NOW + tombstone - 1).await, [""; 0]);
    assert_eq!(forget(NOW + tombstone - 1).await, 0, "forgotten too soon");
    let late = NOW + tombstone;
    assert_eq!(leaving(bench, late).await, [key.as_str()]);
    assert_eq!(forget(late).await, 0, "forgotten too soon: it must be deleted once more");
    store.note_deleted(bench.term, late, deleted).await.expect("notes");
    assert_eq!(leaving(bench, late + tombstone).await, [""; 0]);
    assert_eq!(forget(late + tombstone - 1).await, 0);
    assert!(known().await);
    // A row that names it no more makes it no candidate again meanwhile.
    store.suspect(bench.term, late, &[Candidate::output(key.clone())]).await.expect("takes it");
    assert_eq!(
        store.leavings().await.expect("counts"),
        Leavings { deleted: 1, ..Leavings::default() }
    );
    assert_eq!(forget(late + tombstone).await, 1);
    assert!(!known().await);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_cannot_be_deleted_is_tried_later(bench: &Bench) {
    remove(bench, &["tasks/a/p.png", "tasks/b/p.png"]).await;
    let fault = ("tasks/a/p.png".to_owned(), "no permission".to_owned());
    bench
        .store
        .note_not_deleted(bench.term, NOW, std::slice::from_ref(&fault))
        .await
        .expect("notes");
    assert_eq!(leaving(bench, NOW).await, ["tasks/b/p.png"], "others go on");
    assert_eq!(bench.store.leavings().await.expect("counts").failing, 1);
    assert_eq!(leaving(bench, NOW + 10_000).await.len(), 2);
    bench.store.note_not_deleted(bench.term, NOW + 10_000, &[fault]).await.expect("notes");
    assert_eq!(leaving(bench, NOW + 20_000).await.len(), 1, "it waits longer each time");
    let tried = bench.store.leaving(bench.term, NOW + 30_000, 9).await.expect("lists");
    assert_eq!(tried.iter().map(|one| one.tries).max(), Some(2));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn only_who_leads_removes(bench: &Bench) {
    let job = ended(bench, "one", 1, "tasks/a/p.png").await;
    delete(bench, job).await;
    let (store, term) = (&bench.store, Term(bench.term.0 + 1));
    let keys = ["tasks/a/p.png".to_owned()];
    let refused = [
        store.clear_deleted(term, NOW, 9).await.err(),
        store.suspect(term, NOW, &[]).await.err(),
        store.mark(term, NOW, 9).await.err(),
        store.leaving(term, NOW, 9).await.err(),
        store.note_deleted(term, NOW, &keys).await.err(),
        store.note_not_deleted(term, NOW, &[]).await.err(),
        store.forget_removed(term, NOW, 9).await.err(),
        store.forget_texts(term, (NOW, NOW), 9).await.err(),
        store.accept_restored(term, 9).await.err(),
    ];
    for (position, refused) in refused.iter().enumerate() {
        assert!(matches!(refused, Some(Error::NotLeading(_))), "{position}: {refused:?}");
    }
    assert_eq!(store.removal_count().await.expect("counts"), 0);
    assert_eq!(clear(bench, NOW).await, 1);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn texts_that_no_job_needs_are_forgotten_after_a_while(bench: &Bench) {
    let (store, term) = (&bench.store, bench.term);
    let job = bench.submit(&["one"], 1).await;
    for task in bench.dispatch("encode", job, 9).await {
        let Task::Text(text) = task.key.subject else { panic!("a text") };
        let key = format!("embeddings/e/{text}/x.safetensors");
        assert_eq!(bench.commit("encode", task.key, stored(&key)).await, Fate::Applied);
    }
    bench.settle().await;
    finish(bench, job, "tasks/a/p.png").await;
    delete(bench, job).await;
    let forget = async |now: i64, before: i64| loop {
        let forgotten = store.forget_texts(term, (now, before), 9).await.expect("forgets");
        if let Some(forgotten) = forgotten {
            return forgotten.texts;
        }
    };
    assert_eq!(forget(NOW, NOW).await, 0, "the job's rows still need them");
    assert_eq!(clear(bench, NOW).await, 1);
    assert_eq!(forget(NOW + 9, NOW - 1).await, 0, "not unused for long enough");
    // Another job needs one of them again.
    let again = bench.submit(&["one"], 1).await;
    assert_eq!(forget(NOW + 9, NOW).await, 0, "both are needed: the text and the empty one");
    bench.store.cancel(again).await.expect("cancels");
    bench.settle().await;
    delete(bench, again).await;
    assert_eq!(clear(bench, NOW + 20).await, 1);
    assert_eq!(forget(NOW + 30, NOW + 20).await, 2);
    mark(bench, NOW + 30).await;
    let keys = leaving(bench, NOW + 30).await;
    assert_eq!(keys.iter().filter(|key| key.starts_with("embeddings/")).count(), 2, "{keys:?}");
    // A new job has them encoded again.
    let new = bench.submit(&["one"], 1).await;
    assert_eq!(bench.states(new).await, [ImageState::Waiting]);
    bench.encode(new).await;
    assert_eq!(bench.states(new).await, [ImageState::Ready]);
    bench.audit(new).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_a_submit_and_forgetting_its_text_at_once_the_job_has_its_text(bench: &Bench) {
    let second = bench.second();
    for round in 0..6 {
        let text = format!("text {round}");
        let job = ended(bench, &text, 1, "tasks/a/p.png").await;
        delete(bench, job).await;
        clear(bench, NOW).await;
        let forget = async {
            loop {
                let forgotten = bench.store.forget_texts(bench.term, (NOW, NOW), 9).await;
                if let Some(forgotten) = forgotten.expect("forgets") {
                    return forgotten.texts;
                }
            }
        };
        let texts = [text.as_str()];
        let (job, _) = tokio::join!(second.submit(&texts, 1), forget);
        bench.encode(job).await;
        assert_eq!(bench.states(job).await, [ImageState::Ready], "{round}");
        bench.audit(job).await;
        finish(bench, job, "tasks/a/p.png").await;
        delete(bench, job).await;
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_a_rewind_forgot_is_looked_at_later(bench: &Bench) {
    let job = bench.submit(&["one"], 2).await;
    bench.encode(job).await;
    for task in bench.dispatch("base", job, 2).await {
        let outcome = stored(&format!("tasks/{}/low", task.key.dispatch));
        bench.commit("base", task.key, outcome).await;
    }
    let lost = Outcome::InputMissing { key: "tasks/1/low".to_owned() };
    let tasks = bench.dispatch("sr256", job, 2).await;
    bench.commit("sr256", tasks[0].key, lost).await;
    assert_eq!(bench.store.image(job, 0).await.expect("there").progress.stage, 0);
    let candidates = async || bench.store.leavings().await.expect("counts").candidates;
    assert_eq!(candidates().await, 2, "the output and its previews");
    let now = bench.store.clock_ms().await.expect("a clock");
    assert_eq!(mark(bench, now).await, 0);
    assert_eq!(candidates().await, 2, "mostly it is stored again soon");
    // The other image still names it, and this one stores it again.
    mark(bench, now + DAY).await;
    assert_eq!(candidates().await, 0);
    assert_eq!(outputs_leaving(bench, now + DAY).await, [""; 0]);
    bench.commit("sr256", tasks[1].key, failed()).await;
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn after_a_restore_what_is_marked_is_looked_up_again(bench: &Bench) {
    remove(bench, &["tasks/a/p.png"]).await;
    assert_eq!(bench.store.removal_count().await.expect("counts"), 1);
    bench.store.accept_restored(bench.term, 41).await.expect("accepts");
    assert_eq!(bench.store.removal_count().await.expect("counts"), 41);
    assert_eq!(leaving(bench, NOW).await, [""; 0]);
    // A copy that is behind never lowers the count.
    bench.store.accept_restored(bench.term, 3).await.expect("accepts");
    let job = bench.submit(&["one"], 1).await;
    bench.encode(job).await;
    let task = bench.dispatch("base", job, 1).await[0].key;
    assert_eq!(bench.commit("base", task, stored("tasks/a/p.png")).await, Fate::Applied);
    assert_eq!(mark(bench, NOW).await, 0, "a row names it now");
    let released = bench.dispatch("sr256", job, 1).await[0].key;
    let pool = bench.pool("sr256");
    let returned = [released];
    let release = bench.store.release(bench.term, &pool, &returned, &Release::Returned);
    assert_eq!(release.await.expect("releases").changed, 1);
    assert_eq!(bench.store.removal_count().await.expect("counts"), 41);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_policy_removes_what_it_says_and_keeps_what_a_tenants_own_one_keeps(bench: &Bench) {
    let store = &bench.store;
    let job = ended(bench, "one", 3, "tasks/a/p.png").await;
    let other = NewJob { tenant: "u".to_owned(), ..bench.job(None) };
    let prompts = bench.prompts(&["one"], 1);
    store.submit(&other, &prompts, Digest::of(b"content")).await.expect("accepted");
    finish(bench, other.id, "tasks/b/p.png").await;
    let policy = |tenant: &str, subject, keep: Option<u64>| Policy {
        scope: Scope { tenant: tenant.to_owned(), subject, outcome: Some(JobState::Done) },
        keep: keep.map(Duration::from_secs),
    };
    store.set_retention(&policy("", Subject::Pictures, Some(86_400))).await.expect("sets it");
    store.set_retention(&policy("u", Subject::Pictures, None)).await.expect("sets it");
    let policies = store.retention().await.expect("lists");
    let of_pictures = policies.iter().filter(|one| one.scope.subject == Subject::Pictures);
    assert_eq!(of_pictures.count(), 2);
    let now = store.clock_ms().await.expect("a clock") + DAY + 3_600_000;
    let too_soon = store.expiring(bench.term, now - DAY, 2).await.expect("looks");
    assert_eq!(too_soon, None);
    let mut due = store.due(now).await.expect("adds up");
    due.retain(|due| due.policy.scope.subject != Subject::Files);
    assert_eq!((due.len(), due[0].count, due[0].bytes), (1, 1, 9), "three pictures of three bytes");
    let mut removed = 0;
    while let Some(expiring) = store.expiring(bench.term, now, 2).await.expect("looks") {
        assert_eq!(expiring.job, job);
        removed +=
            store.expire(bench.term, now, &expiring).await.expect("removes").expect("as read");
        // What another leader has done already changes nothing.
        let again = store.expire(bench.term, now, &expiring).await.expect("looks");
        assert_eq!(again, None);
    }
    assert_eq!(removed, 3);
    let gone = |outputs: &[darkroom_coordinator::store::records::Output]| {
        outputs.iter().map(|output| output.removed_ms.is_some()).collect::<Vec<_>>()
    };
    let image = store.image(job, 2).await.expect("there");
    assert_eq!(gone(&image.outputs), [false, true], "the picture, not what it was made of");
    let image = store.image(other.id, 0).await.expect("there");
    assert_eq!(gone(&image.outputs), [false, false]);
    let record = store.job(job).await.expect("there").pictures_removed.expect("it says so");
    assert_eq!(record.by, "the retention of pictures of done jobs: 86400 s");
    mark(bench, now).await;
    assert_eq!(outputs_leaving(bench, now).await, ["tasks/a/p.png"]);
    // Whole jobs go by another policy, and only those that have ended.
    store.set_retention(&policy("", Subject::Jobs, Some(86_400))).await.expect("sets it");
    let runs = bench.submit(&["one"], 1).await;
    let expired = store.expire_jobs(bench.term, now, 9).await.expect("deletes");
    assert_eq!(expired.len(), 2, "the other tenant has no policy of its own on jobs");
    is_deleted(store.job(job).await, job);
    assert_eq!(store.job(runs).await.expect("there").state, JobState::Active);
    assert_eq!(store.expire_jobs(bench.term, now, 9).await.expect("looks"), []);
    bench.audit(runs).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn jobs_deleted_within_a_minute_do_not_wait_for_each_other(bench: &Bench) {
    let one = ended(bench, "one", 1, "tasks/a/p.png").await;
    let two = ended(bench, "two", 1, "tasks/b/p.png").await;
    let store = &bench.store;
    delete(bench, one).await;
    delete(bench, two).await;
    let now = store.clock_ms().await.expect("a clock");
    assert!(store.is_due(now).await.expect("looks"));
    assert_eq!(clear(bench, now).await, 0, "the rows of both stay for a minute");
    mark(bench, now).await;
    let mut outputs = outputs_leaving(bench, now).await;
    outputs.retain(|key| !key.ends_with(".low"));
    assert_eq!(outputs, ["tasks/a/p.png", "tasks/b/p.png"], "the second waited for the first");
    store.note_deleted(bench.term, now, &leaving(bench, now).await).await.expect("notes");
    assert!(
        !store.is_due(now).await.expect("looks"),
        "there is nothing to do until the minute is over"
    );
    for job in [one, two] {
        is_deleted(store.job(job).await, job);
    }
    let later = now + 61_000;
    assert!(store.is_due(later).await.expect("looks"));
    assert_eq!(clear(bench, later).await, 2);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_repeated_submit_of_a_deleted_job_is_told_so_and_makes_no_second_job(bench: &Bench) {
    let store = &bench.store;
    let prompts = bench.prompts(&["one"], 1);
    let content = Digest::of(b"content");
    let new = bench.job(Some("r"));
    store.submit(&new, &prompts, content).await.expect("accepted");
    bench.encode(new.id).await;
    finish(bench, new.id, "tasks/a/p.png").await;
    delete(bench, new.id).await;
    let now = store.clock_ms().await.expect("a clock") + 61_000;
    for cleared in [false, true] {
        let again = store.submit(&bench.job(Some("r")), &prompts, content).await;
        is_deleted(again, new.id);
        // The same in chunks.
        let chunked = bench.job(Some("r"));
        store.begin(&chunked).await.expect("begins");
        store.receive(chunked.id, &prompts).await.expect("receives");
        is_deleted(store.accept(chunked.id, content).await, new.id);
        store.abandon(chunked.id).await.expect("gives it up");
        if cleared {
            is_deleted(store.find_submitted("t", "r").await, new.id);
        } else {
            assert_eq!(clear(bench, now).await, 1);
        }
    }
    assert!(store.jobs(&everyones()).await.expect("lists").jobs.is_empty());
    // Another tenant has request ids of its own, and after a month the id is free.
    assert_eq!(store.find_submitted("u", "r").await.expect("finds"), None);
    clear(bench, now + 31 * DAY).await;
    assert_eq!(store.find_submitted("t", "r").await.expect("finds"), None);
    let third = bench.job(Some("r"));
    assert!(!store.submit(&third, &prompts, content).await.expect("accepted").existed);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_failure_is_noted_only_while_an_object_is_due(bench: &Bench) {
    let store = &bench.store;
    let keys = ["tasks/a/p.png", "tasks/b/p.png"];
    remove(bench, &keys).await;
    let faults = keys.map(|key| (key.to_owned(), "no permission".to_owned()));
    store.note_not_deleted(bench.term, NOW, &faults).await.expect("notes");
    // The note of another cleaner that tried at the same time.
    store.note_not_deleted(bench.term, NOW, &faults).await.expect("notes");
    let tried = store.leaving(bench.term, NOW + 10_000, 9).await.expect("lists");
    assert_eq!(tried.iter().map(|one| one.tries).collect::<Vec<_>>(), [1, 1]);
    assert!(tried.iter().all(|one| one.mark > 0), "{tried:?}");
    // However often it fails, it is tried again within the hour.
    let mut now = NOW + 10_000;
    for tries in 1..40 {
        store.note_not_deleted(bench.term, now, &faults).await.expect("notes");
        assert_eq!(leaving(bench, now + 9999).await, [""; 0], "{tries}");
        now += 3_600_000;
        assert_eq!(leaving(bench, now).await, keys, "{tries}");
    }
    assert!(store.is_undeleted().await.expect("looks"));
    // A note that comes after somebody deleted them changes nothing.
    store.note_deleted(bench.term, now, &keys.map(str::to_owned)).await.expect("notes");
    store.note_not_deleted(bench.term, now, &faults).await.expect("notes");
    assert_eq!(store.leavings().await.expect("counts").failing, 0);
    assert!(!store.is_undeleted().await.expect("looks"));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_jobs_pictures_are_noted_with_the_first_chunk_and_once(bench: &Bench) {
    let store = &bench.store;
    let job = ended(bench, "one", 6, "tasks/a/p.png").await;
    let scope =
        Scope { tenant: String::new(), subject: Subject::Pictures, outcome: Some(JobState::Done) };
    let policy = Policy { scope, keep: Some(Duration::from_secs(86_400)) };
    store.set_retention(&policy).await.expect("sets it");
    let now = store.clock_ms().await.expect("a clock") + DAY + 3_600_000;
    let mut versions = Vec::new();
    while let Some(expiring) = store.expiring(bench.term, now, 2).await.expect("looks") {
        assert_eq!(store.expire(bench.term, now, &expiring).await.expect("removes"), Some(2));
        let record = store.job(job).await.expect("there");
        assert!(record.pictures_removed.is_some(), "it says so from the first chunk on");
        versions.push(record.version);
    }
    assert_eq!(versions.len(), 3);
    assert_eq!(versions[0], versions[2], "watchers hear of it once");
}

/// A policy of the farm or a tenant on done jobs.
fn on_done(tenant: &str, subject: Subject, days: Option<u64>) -> Policy {
    let scope = Scope { tenant: tenant.to_owned(), subject, outcome: Some(JobState::Done) };
    Policy { scope, keep: days.map(|days| Duration::from_secs(days * 86_400)) }
}

/// A policy's place belongs to the record's clock, which may have been wrong. `end` makes the newest
/// job end at a time, milliseconds since 1970.
///
/// # Panics
/// Like every check, if the store breaks a promise.
pub async fn a_clock_that_goes_back_hides_no_job_from_a_policy(
    bench: &Bench,
    end: impl AsyncFn(i64),
) {
    let store = &bench.store;
    let now = store.clock_ms().await.expect("a clock");
    for subject in [Subject::Pictures, Subject::Jobs] {
        store.set_retention(&on_done("", subject, Some(1))).await.expect("sets it");
    }
    let expire = async |now: i64| {
        let mut jobs = Vec::new();
        while let Some(expiring) = store.expiring(bench.term, now, 9).await.expect("looks") {
            let removed = store.expire(bench.term, now, &expiring).await.expect("removes");
            jobs.push((expiring.job, removed.expect("as read")));
        }
        (jobs, store.expire_jobs(bench.term, now, 9).await.expect("deletes"))
    };
    // A clock that is ahead removes what it should not: nobody can know that it is wrong.
    let first = ended(bench, "one", 2, "tasks/a/p.png").await;
    end(now + 400 * DAY).await;
    assert_eq!(expire(now + 402 * DAY).await, (vec![(first, 2)], vec![first]));
    // It is set right. The next job ends before the places that the policies have reached.
    let second = ended(bench, "two", 3, "tasks/b/p.png").await;
    assert_eq!(expire(now).await, (Vec::new(), Vec::new()), "it is kept for a day");
    assert_eq!(expire(now + 2 * DAY).await, (vec![(second, 3)], vec![second]));
    assert_eq!(expire(now + 2 * DAY).await, (Vec::new(), Vec::new()));
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_policy_on_jobs_goes_on_where_it_was_and_comes_back(bench: &Bench) {
    let store = &bench.store;
    let jobs = [
        ended(bench, "one", 1, "tasks/a/p.png").await,
        ended(bench, "two", 1, "tasks/b/p.png").await,
        ended(bench, "three", 1, "tasks/c/p.png").await,
    ];
    assert!(store.set_retention(&on_done("", Subject::Jobs, Some(1))).await.expect("sets it"));
    assert!(!store.set_retention(&on_done("", Subject::Jobs, Some(1))).await.expect("is set"));
    let now = store.clock_ms().await.expect("a clock") + 2 * DAY;
    let expire = async |limit| store.expire_jobs(bench.term, now, limit).await.expect("deletes");
    assert_eq!(expire(1).await, [jobs[0]]);
    assert_eq!(expire(1).await, [jobs[1]]);
    let late = store.expire_jobs(Term(bench.term.0 + 1), now, 1).await;
    assert!(matches!(late, Err(Error::NotLeading(_))), "{late:?}");
    assert_eq!(expire(9).await, [jobs[2]]);
    assert_eq!(expire(9).await, []);
    let next = ended(bench, "four", 1, "tasks/d/p.png").await;
    assert_eq!(expire(9).await, [next]);
}
