//! Whose turn it is to write a manifest.

use std::sync::Arc;

use darkroom_coordinator::store::{limits::NewDeadline, records::Manifest};
use darkroom_core::digest::Digest;

use super::bench::Bench;

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_manifest_belongs_to_its_generation(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)]);
    let digest = Digest::of(b"m");
    assert!(!bench.store.manifest_written((job, 2), "k", digest, None).await.expect("asks"));
    assert!(bench.store.manifest_written((job, 1), "k", digest, None).await.expect("writes"));
    assert!(!bench.store.manifest_written((job, 1), "k", digest, None).await.expect("only once"));
    let record = bench.store.job(job).await.expect("there");
    assert_eq!(record.manifest, Manifest::Written { key: "k".to_owned(), sha256: digest });
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    assert_eq!(bench.store.job(job).await.expect("there").manifest, Manifest::None);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_manifest_is_claimed_by_one_process(bench: &Bench) {
    let job = bench.submit(&["one"], 1).await;
    bench.store.cancel(job).await.expect("cancels");
    bench.settle().await;
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)]);
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists"), [(job, 1)], "its own claim");
    if !Arc::ptr_eq(&bench.store, &bench.other) {
        assert_eq!(
            bench.other.pending_manifests(9).await.expect("lists"),
            [],
            "another process's claim"
        );
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_flood_of_ended_jobs_does_not_hold_up_another_tenants_manifest(bench: &Bench) {
    let prompts = bench.prompts(&["one"], 1);
    let mut jobs = Vec::new();
    for tenant in ["flood", "flood", "flood", "flood", "flood", "z", "a"] {
        let mut job = bench.job(None);
        tenant.clone_into(&mut job.tenant);
        bench.store.submit(&job, &prompts, Digest::of(b"content")).await.expect("accepted");
        bench.store.cancel(job.id).await.expect("cancels");
        jobs.push((job.id, 1));
    }
    bench.settle().await;
    let mut first = bench.store.pending_manifests(4).await.expect("lists");
    first.sort_unstable();
    let mut expected = [jobs[0], jobs[1], jobs[5], jobs[6]];
    expected.sort_unstable();
    assert_eq!(first, expected, "each tenant's oldest, then the next");
    for (job, generation) in first {
        bench
            .store
            .manifest_written((job, generation), "k", Digest::of(b"m"), None)
            .await
            .expect("writes");
    }
    assert_eq!(bench.store.pending_manifests(9).await.expect("lists").len(), 3);
}
