//! How long uploaded pictures stay, and what is left of a submit that was given up: nothing that a
//! job uses is ever marked.

use std::{collections::HashMap, time::Duration};

use darkroom_coordinator::store::{
    farm_changes::{ChangeBounds, ChangePosition, ChangeQuery, DeletedJob},
    limits::Limits,
    records::{Input, NewJob, NewPrompt},
    removal::Kind,
};
use darkroom_core::{
    digest::Digest,
    error::Code,
    id::JobId,
    retention::{Policy, Scope, Subject},
};

use super::{bench::Bench, samples::input};

const HOUR: i64 = 3600 * 1000;
const DAY: i64 = 24 * HOUR;

/// Prompts that start from this picture.
fn from(bench: &Bench, input: &Input, texts: &[&str]) -> Vec<NewPrompt> {
    let mut prompts = bench.prompts(texts, 1);
    for prompt in &mut prompts {
        prompt.extras.image = Some(input.artifact());
    }
    prompts
}

async fn upload(bench: &Bench, tenant: &str, input: &Input) {
    assert!(bench.store.add_input(tenant, input).await.expect("recorded"));
}

async fn is_known(bench: &Bench, tenant: &str, input: &Input) -> bool {
    let found = bench.other.inputs(Some(tenant), &[input.sha256]).await.expect("asks");
    !found.is_empty()
}

/// Uploads are kept for this many days; `None`: for ever.
async fn keep(bench: &Bench, tenant: &str, days: Option<u64>) {
    let scope = Scope { tenant: tenant.to_owned(), subject: Subject::Inputs, outcome: None };
    let keep = days.map(|days| Duration::from_secs(days * 86_400));
    bench.store.set_retention(&Policy { scope, keep }).await.expect("sets it");
}

async fn now(bench: &Bench) -> i64 {
    bench.store.clock_ms().await.expect("a clock")
}

/// Removes what the policies do not keep. Returns how many pictures.
async fn forget(bench: &Bench, now: i64) -> u64 {
    let mut all = 0;
    loop {
        // Commits of other checks on the same server may be busy.
        let forgotten = bench.store.forget_inputs(bench.term, now, 2).await.expect("forgets");
        let Some((pictures, more)) = forgotten else { continue };
        all += pictures;
        if !more {
            return all;
        }
    }
}

/// Looks up all candidates. Returns the keys of pictures that may be deleted in storage.
async fn leaving(bench: &Bench, now: i64) -> Vec<String> {
    loop {
        let Some(batch) = bench.store.mark(bench.term, now, 2).await.expect("marks") else {
            continue;
        };
        if !batch.more {
            break;
        }
    }
    let leaving = bench.store.leaving(bench.term, now, 1000).await.expect("lists");
    let inputs = leaving.into_iter().filter(|one| one.kind == Kind::Input);
    let mut keys: Vec<_> = inputs.map(|one| one.key).collect();
    keys.sort();
    keys
}

async fn delete(bench: &Bench, job: JobId, now: i64) {
    bench.store.delete_job(job, "key k", true).await.expect("deletes");
    bench.settle().await;
    loop {
        let cleared = bench.store.clear_deleted(bench.term, now, 3).await.expect("clears");
        if !cleared.more {
            break;
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_upload_stays_while_a_job_uses_it_and_for_the_time_of_its_policy(bench: &Bench) {
    let (cat, dog) = (input("cat"), input("dog"));
    upload(bench, "t", &cat).await;
    upload(bench, "t", &dog).await;
    let start = now(bench).await;
    assert_eq!(forget(bench, start + 9999 * DAY).await, 0, "without a policy everything stays");
    keep(bench, "", Some(30)).await;
    assert_eq!(forget(bench, start + 29 * DAY).await, 0, "too soon");
    let job = bench.submit_prompts(&from(bench, &cat, &["one"]), Limits::default()).await;
    let due = bench.store.due(start + 31 * DAY).await.expect("adds up");
    let due: Vec<_> = due.iter().map(|due| (due.policy.scope.subject, due.count)).collect();
    // A new record has a policy on files, of which there are none.
    assert_eq!(due, [(Subject::Files, 0), (Subject::Inputs, 1)], "one is in use");
    // Only the one that no job uses.
    assert_eq!(forget(bench, start + 31 * DAY).await, 1);
    assert!(is_known(bench, "t", &cat).await && !is_known(bench, "t", &dog).await);
    assert_eq!(leaving(bench, start + 31 * DAY).await, [dog.artifact().key]);
    assert_eq!(forget(bench, start + 99 * DAY).await, 0, "the job still uses it");
    // From its job's end on it is kept for the time of the policy once more.
    delete(bench, job, start + 99 * DAY).await;
    assert_eq!(forget(bench, start + 128 * DAY).await, 0, "too soon");
    assert!(is_known(bench, "t", &cat).await);
    assert_eq!(forget(bench, start + 130 * DAY).await, 1);
    assert!(leaving(bench, start + 130 * DAY).await.contains(&cat.artifact().key));
    // An upload that comes again counts from then on.
    let bird = input("bird");
    upload(bench, "t", &bird).await;
    let first = now(bench).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(bench.store.uploaded_again("t", &bird).await.expect("notes"));
    assert!(!bench.store.uploaded_again("u", &bird).await.expect("looks"), "it is not u's");
    assert_eq!(forget(bench, first + 30 * DAY + 10).await, 0, "it was uploaded later again");
    assert_eq!(forget(bench, first + 31 * DAY).await, 1);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn an_upload_of_one_tenant_stays_whatever_becomes_of_anothers(bench: &Bench) {
    let cat = input("cat");
    upload(bench, "t", &cat).await;
    upload(bench, "u", &cat).await;
    let start = now(bench).await;
    keep(bench, "", Some(1)).await;
    keep(bench, "u", Some(60)).await;
    let job = bench.submit_prompts(&from(bench, &cat, &["one"]), Limits::default()).await;
    delete(bench, job, start + DAY).await;
    let later = start + 3 * DAY;
    assert_eq!(forget(bench, later).await, 1);
    assert!(!is_known(bench, "t", &cat).await && is_known(bench, "u", &cat).await);
    assert_eq!(leaving(bench, later).await, [""; 0], "u's upload keeps it");
    keep(bench, "u", None).await;
    assert_eq!(forget(bench, start + 999 * DAY).await, 0, "u keeps everything");
    keep(bench, "u", Some(60)).await;
    // A job of another tenant, as an operator submits it, keeps the picture, but not the upload.
    let other = NewJob { tenant: "v".to_owned(), ..bench.job(None) };
    let prompts = from(bench, &cat, &["two"]);
    bench.store.submit(&other, &prompts, Digest::of(b"content")).await.expect("accepted");
    assert_eq!(forget(bench, start + 61 * DAY).await, 1);
    assert_eq!(leaving(bench, start + 61 * DAY).await, [""; 0], "v's job uses it");
    delete(bench, other.id, start + 61 * DAY).await;
    assert_eq!(leaving(bench, start + 61 * DAY).await, [cat.artifact().key]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_removed_upload_is_refused_and_comes_again_under_another_key(bench: &Bench) {
    let cat = input("cat");
    upload(bench, "t", &cat).await;
    let late = now(bench).await + 2 * DAY;
    keep(bench, "", Some(1)).await;
    assert_eq!(bench.store.input_mark(cat.sha256).await.expect("looks"), 0);
    assert_eq!(forget(bench, late).await, 1);
    assert_eq!(leaving(bench, late).await, [cat.artifact().key]);
    // A submit that has looked it up before.
    let (job, prompts) = (bench.job(None), from(bench, &cat, &["one"]));
    let refused = bench.store.submit(&job, &prompts, Digest::of(b"content")).await;
    let refused = refused.expect_err("it is on its way out").to_user();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::NotFound, "UNKNOWN_INPUT"));
    assert_eq!(refused.field.as_deref(), Some("prompts[0].image"));
    assert!(refused.message.contains(&cat.sha256.to_string()), "{refused}");
    let chunked = NewJob { id: JobId(uuid::Uuid::now_v7()), ..job };
    bench.store.begin(&chunked).await.expect("begins");
    let refused = bench.store.receive(chunked.id, &prompts).await.expect_err("on its way out");
    assert_eq!(refused.to_user().reason, "UNKNOWN_INPUT");
    bench.store.abandon(chunked.id).await.expect("given up");
    // An upload that has stored it under the old key, and one that has asked where to.
    assert!(!bench.store.add_input("t", &cat).await.expect("looks"), "its key is on its way out");
    assert!(!is_known(bench, "t", &cat).await);
    let mark = bench.store.input_mark(cat.sha256).await.expect("looks");
    assert!(mark > 0);
    let again = Input { mark, ..cat.clone() };
    assert_ne!(again.artifact().key, cat.artifact().key);
    upload(bench, "t", &again).await;
    let found = bench.store.inputs(Some("t"), &[cat.sha256]).await.expect("asks");
    assert_eq!(found, std::slice::from_ref(&again));
    let job = bench.submit_prompts(&from(bench, &again, &["one"]), Limits::default()).await;
    assert_eq!(forget(bench, late + DAY).await, 0);
    assert_eq!(leaving(bench, late + DAY).await, [cat.artifact().key], "not the new one");
    bench.audit(job).await;
    // The new one leaves too, and the next one lies elsewhere again.
    delete(bench, job, late + DAY).await;
    assert_eq!(forget(bench, late + 3 * DAY).await, 1);
    assert!(leaving(bench, late + 3 * DAY).await.contains(&again.artifact().key));
    assert!(bench.store.input_mark(cat.sha256).await.expect("looks") > mark);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_a_submit_and_a_removal_of_its_upload_at_once_one_wins(bench: &Bench) {
    let second = bench.second();
    keep(bench, "", Some(1)).await;
    for round in 0..8 {
        let cat = input(&format!("cat {round}"));
        upload(bench, "t", &cat).await;
        let late = now(bench).await + 2 * DAY;
        let (job, prompts) = (bench.job(None), from(bench, &cat, &["one"]));
        let submit = second.store.submit(&job, &prompts, Digest::of(b"content"));
        let remove = async {
            forget(bench, late).await;
            leaving(bench, late).await
        };
        // Both orders come up.
        let (submitted, leaving) = if round % 2 == 0 {
            tokio::join!(submit, remove)
        } else {
            let (leaving, submitted) = tokio::join!(remove, submit);
            (submitted, leaving)
        };
        let is_leaving = leaving.contains(&cat.artifact().key);
        match submitted {
            Ok(_) => assert!(!is_leaving, "{round}: a job uses it, and it leaves"),
            Err(refused) => {
                assert!(is_leaving, "{round}: {refused}");
                assert_eq!(refused.to_user().reason, "UNKNOWN_INPUT");
            }
        }
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_a_submit_that_was_given_up_needed_is_forgotten(bench: &Bench) {
    let cat = input("cat");
    upload(bench, "t", &cat).await;
    keep(bench, "", Some(1)).await;
    let stays = bench.submit(&["shared"], 1).await;
    for swept in [false, true] {
        let job = bench.job(None);
        bench.store.begin(&job).await.expect("begins");
        let texts = ["shared", if swept { "swept" } else { "abandoned" }];
        bench.store.receive(job.id, &from(bench, &cat, &texts)).await.expect("receives");
        assert_eq!(forget(bench, now(bench).await + 99 * DAY).await, 0, "it uses the upload");
        if swept {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let idle = Duration::from_millis(1);
            assert_eq!(bench.store.sweep_receiving(idle).await.expect("sweeps"), 1);
        } else {
            bench.store.abandon(job.id).await.expect("given up");
        }
        let late = now(bench).await + 2 * DAY;
        let forgotten = loop {
            let texts = bench.store.forget_texts(bench.term, (late, late), 9).await;
            if let Some(texts) = texts.expect("forgets") {
                break texts.texts;
            }
        };
        assert_eq!(forgotten, 1, "swept: {swept}; its own text, and none that the other job needs");
        if swept {
            assert_eq!(forget(bench, late).await, 1);
            assert_eq!(leaving(bench, late).await, [cat.artifact().key]);
        }
    }
    bench.encode(stays).await;
    bench.audit(stays).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_reader_that_was_away_learns_of_deleted_jobs_of_which_no_row_is_left(bench: &Bench) {
    let store = &bench.store;
    let mut jobs = Vec::new();
    for tenant in ["t", "u", "t"] {
        let job = NewJob { tenant: tenant.to_owned(), ..bench.job(None) };
        let prompts = bench.prompts(&["one"], 1);
        store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
        jobs.push(job.id);
    }
    let away = store.change_bounds().await.expect("bounds");
    let read = async |tenant, limit| -> Vec<DeletedJob> {
        let ChangeBounds { next, .. } = store.change_bounds().await.expect("bounds");
        let (mut from, mut all) = (ChangePosition::before(away.settled), Vec::new());
        let known = HashMap::new();
        loop {
            let query = ChangeQuery { tenant, from, next, limit, known: &known };
            let page = store.changed_jobs(query).await.expect("reads");
            assert!(page.jobs.len() + page.deleted.len() <= limit as usize);
            all.extend(page.deleted);
            match page.more {
                Some(more) => from = more,
                None => return all,
            }
        }
    };
    let later = now(bench).await + HOUR;
    delete(bench, jobs[0], later).await;
    delete(bench, jobs[1], later).await;
    // This one's own row is still there.
    store.delete_job(jobs[2], "key k", true).await.expect("deletes");
    for limit in [1, 2, 100] {
        let told = read(None, limit).await;
        let ids: Vec<JobId> = told.iter().map(|one| one.id).collect();
        assert_eq!(ids, jobs, "in order, each once, {limit} at a time");
    }
    let of_u = read(Some("u"), 100).await;
    let [one] = of_u.as_slice() else { panic!("{of_u:?}") };
    assert_eq!((one.id, one.tenant.as_str()), (jobs[1], "u"));
    assert_eq!(away.forgotten, 0);
    // A month later nobody can tell, and whoever has not come further must begin anew.
    let month = later + 31 * DAY;
    store.clear_deleted(bench.term, month, 9).await.expect("clears");
    let mut bounds = store.change_bounds().await.expect("bounds");
    // Transactions of other databases may delay it for a moment.
    while bounds.settled <= bounds.forgotten {
        tokio::time::sleep(Duration::from_millis(5)).await;
        bounds = store.change_bounds().await.expect("bounds");
    }
    let last = one.position.mark;
    assert!(bounds.forgotten >= last && bounds.forgotten < bounds.settled, "{bounds:?} {last}");
    assert!(away.settled <= bounds.forgotten);
}
