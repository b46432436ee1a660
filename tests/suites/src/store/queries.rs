//! A job's notes, its place in line, and its changes.

use std::collections::BTreeMap;

use darkroom_coordinator::store::records::{
    Fate, ImageOrder, ImageQuery, ImageRecord, NewJob, Seen, Work,
};
use darkroom_core::{digest::Digest, id::JobId};
use darkroom_queue::task::Outcome;

use super::{
    bench::{Bench, STAGES},
    samples::done,
};

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_keeps_a_hundred_notes_whatever_other_jobs_keep(bench: &Bench) {
    let notes = |text: &str, count: usize| -> Vec<String> {
        (0..count).map(|note| format!("{text} {note:03}")).collect()
    };
    let (few, many) = (bench.submit(&["few"], 1).await, bench.submit(&["many"], 1).await);
    let mut reports = Vec::new();
    for job in [few, many] {
        for task in bench.dispatch("encode", job, 9).await {
            let Work::Encode { text } = &task.work else { panic!("stage encode") };
            let of = match text.prepared.as_str() {
                "few" => notes("few", 80),
                "many" => notes("many", 150),
                _ => Vec::new(),
            };
            let Outcome::Done { artifact, .. } = done("text") else { panic!("done") };
            reports.push(Bench::report(task.key, Outcome::Done { artifact, notes: of }, true));
        }
    }
    let committed = bench.store.commit(&bench.pool("encode"), &reports).await.expect("commits");
    assert!(committed.fates.iter().all(|fate| *fate == Fate::Applied));
    let about = |notes: Vec<String>| {
        notes.iter().map(|note| format!("image 0: {note}")).collect::<Vec<_>>()
    };
    assert_eq!(bench.store.notes(few, 999).await.expect("lists"), about(notes("few", 80)));
    assert_eq!(bench.store.notes(many, 999).await.expect("lists").len(), 100);
    let (_, around) = bench.store.view(few, 20).await.expect("reads");
    assert_eq!(
        around.notes,
        bench.store.notes(few, 20).await.expect("lists"),
        "as many as asked for"
    );
    assert_eq!(around.notes.len(), 20);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_is_ahead_of_a_job_is_what_runs_and_what_is_more_urgent(bench: &Bench) {
    let mut urgent = bench.job(None);
    urgent.priority = 2;
    let prompts = bench.prompts(&["one", "two"], 2);
    bench.store.submit(&urgent, &prompts, Digest::of(b"content")).await.expect("accepted");
    let (same, mine) = (bench.submit(&["one"], 5).await, bench.submit(&["two"], 1).await);
    bench.encode(urgent.id).await;
    let base = bench.pool("base");
    assert_eq!(bench.store.ahead(mine, &base).await.expect("counts"), 4, "all more urgent tasks");
    assert_eq!(bench.store.ahead(urgent.id, &base).await.expect("counts"), 0);
    assert_eq!(bench.dispatch("base", same, 3).await.len(), 3);
    assert_eq!(bench.store.ahead(mine, &base).await.expect("counts"), 7, "and what runs");
    assert_eq!(bench.store.ahead(urgent.id, &base).await.expect("counts"), 3);
    bench.store.pause(urgent.id).await.expect("pauses");
    assert_eq!(
        bench.store.ahead(mine, &base).await.expect("counts"),
        3,
        "a paused job does not go on"
    );
    assert_eq!(bench.store.active_jobs(1).await.expect("counts"), 2);
    assert_eq!(bench.store.active_jobs(2).await.expect("counts"), 0);
    for job in [mine, urgent.id] {
        let (record, around) = bench.store.view(job, 9).await.expect("reads");
        assert_eq!(around, bench.store.around(job, record.priority, 9).await.expect("reads"));
        assert_eq!((record.id, around.rivals), (job, if job == mine { 2 } else { 0 }));
        let alone = bench.store.job(job).await.expect("reads");
        assert_eq!((record.version, &record.stages), (alone.version, &alone.stages));
    }
    assert!(bench.store.view(JobId(uuid::Uuid::from_u128(7)), 9).await.is_err(), "nobody's job");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn changes_after_a_version_are_complete(bench: &Bench) {
    let job = bench.submit(&["one", "two", "three"], 3).await;
    let seen = |image: &ImageRecord| Seen { version: image.version, index: Some(image.id.index) };
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    let mut position = Seen::default();
    bench.encode(job).await;
    for round in 0..30_u64 {
        for task in bench.dispatch(STAGES[(round % 2) as usize], job, 2).await {
            bench.commit(STAGES[(round % 2) as usize], task.key, done("x")).await;
        }
        let changes = bench.store.changes(job, position, 2).await.expect("reads");
        for image in &changes.images {
            assert!(seen(image) > position);
            position = seen(image);
            known.insert(image.id.index, image.version);
        }
    }
    loop {
        let changes = bench.store.changes(job, position, 2).await.expect("reads");
        for image in &changes.images {
            position = seen(image);
            known.insert(image.id.index, image.version);
        }
        if !changes.more {
            break;
        }
    }
    let query = ImageQuery::all(job, ImageOrder::Index(None), 100);
    let page = bench.store.images(&query).await.expect("lists");
    let rows: BTreeMap<_, _> =
        page.images.iter().map(|image| (image.id.index, image.version)).collect();
    assert_eq!(known, rows);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_job_is_its_tenants_and_nobody_elses(bench: &Bench) {
    let new = NewJob { tenant: "a".to_owned(), ..bench.job(None) };
    let is_of = async |job, tenant| bench.other.is_of(job, tenant).await.expect("asks");
    bench.store.begin(&new).await.expect("begins");
    assert!(!is_of(new.id, "a").await, "it is still received");
    bench.store.receive(new.id, &bench.prompts(&["one"], 1)).await.expect("receives");
    bench.store.accept(new.id, Digest::of(b"content")).await.expect("accepts");
    assert!(is_of(new.id, "a").await);
    for other in ["b", "", "A", "a ", "%"] {
        assert!(!is_of(new.id, other).await, "{other:?}");
    }
    assert!(!is_of(JobId(uuid::Uuid::now_v7()), "a").await, "no such job");
}
