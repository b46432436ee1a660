//! Uploaded pictures, and parts of prompts besides their texts.

use darkroom_coordinator::store::{
    limits::{Limits, NewDeadline},
    records::{Canonical, Dispatched, Fate, Input, RenderWork, Work},
};
use darkroom_core::{digest::Digest, extent::Extent, image_state::ImageState, job_state::JobState};
use darkroom_queue::task::Outcome;

use super::{
    bench::{Bench, STAGES},
    samples::{done, failed, input},
};

/// The text for an encoder.
fn prepared(task: &Dispatched) -> &str {
    let Work::Encode { text } = &task.work else { panic!("stage encode") };
    &text.prepared
}

fn rendered(task: &Dispatched) -> &RenderWork {
    let Work::Render(work) = &task.work else { panic!("renders") };
    work
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_picture_that_was_sent_is_known_by_its_hash(bench: &Bench) {
    let (cat, mask) = (input("cat"), input("mask"));
    for input in [&cat, &mask, &cat] {
        bench.store.add_input("a", input).await.expect("recorded; a repetition has no effect");
    }
    let asked = [Digest::of(b"dog"), mask.sha256, cat.sha256];
    let mut known = bench.other.inputs(Some("a"), &asked).await.expect("asks");
    known.sort_by_key(|input| input.is_mask);
    assert_eq!(known, [cat.clone(), mask]);
    assert_eq!(bench.store.inputs(Some("a"), &asked[..1]).await.expect("asks"), []);
    // Uploaded again later, it has a canonical form, which is also known by its own hash.
    let canonical = Canonical { sha256: Digest::of(b"upright cat"), size: 77 };
    let turned = Input {
        canonical: Some(canonical),
        extent: Extent { width: 128, height: 256 },
        is_mask: true,
        orientation: 6,
        notes: vec!["is turned".to_owned(), "is \"odd\"".to_owned()],
        ..cat.clone()
    };
    let itself = Input {
        sha256: canonical.sha256,
        size: 77,
        orientation: 1,
        notes: Vec::new(),
        ..turned.clone()
    };
    for input in [&itself, &turned, &turned] {
        bench.store.add_input("a", input).await.expect("recorded; a repetition has no effect");
    }
    for input in [&turned, &itself] {
        assert_eq!(
            bench.other.inputs(Some("a"), &[input.sha256]).await.expect("asks"),
            std::slice::from_ref(input)
        );
        assert_eq!(input.artifact().sha256, canonical.sha256);
        assert_eq!(input.artifact().size, 77);
    }
    assert_eq!(cat.artifact().sha256, cat.sha256, "the earlier upload is stored as it came");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_picture_is_known_to_the_tenants_that_sent_it_and_to_no_other(bench: &Bench) {
    let of_a = input("cat");
    let of_b = Input { orientation: 6, ..of_a.clone() };
    bench.store.add_input("a", &of_a).await.expect("recorded");
    let asked = [of_a.sha256];
    let of = async |tenant| bench.other.inputs(tenant, &asked).await.expect("asks");
    assert_eq!(of(Some("b")).await, []);
    bench.store.add_input("b", &of_b).await.expect("recorded");
    assert_eq!(
        of(Some("a")).await,
        std::slice::from_ref(&of_a),
        "another's upload does not change it"
    );
    assert_eq!(of(Some("b")).await, [of_b]);
    for other in ["", "c", "A", "%"] {
        assert_eq!(of(Some(other)).await, [], "{other:?}");
    }
    assert_eq!(of(None).await, [of_a], "each once");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_style_is_waited_for_and_handed_out_with_the_pictures(bench: &Bench) {
    let prompts = bench.styled(&["one", "two"], 2, "ink");
    let job = bench.submit_prompts(&prompts, Limits::default()).await;
    assert_eq!(
        bench.store.job(job).await.expect("there").stages[0].total,
        4,
        "two texts, the empty one, the style"
    );
    let mut texts = bench.dispatch("encode", job, 9).await;
    texts.sort_by_key(|task| prepared(task) == "ink");
    assert_eq!(texts.len(), 4);
    for (position, task) in texts.iter().enumerate() {
        assert!(
            bench.dispatch("base", job, 9).await.is_empty(),
            "{position} of 4 texts are encoded"
        );
        assert_eq!(
            bench.states(job).await,
            [ImageState::Waiting; 4],
            "{position} of 4 texts are encoded"
        );
        let name = if prepared(task) == "ink" { "style" } else { "text" };
        assert_eq!(bench.commit("encode", task.key, done(name)).await, Fate::Applied);
        bench.settle().await;
        bench.audit(job).await;
    }
    let later = bench.submit_prompts(&bench.styled(&["two"], 1, "ink"), Limits::default()).await;
    assert_eq!(bench.states(later).await, [ImageState::Ready], "all its texts are encoded");
    let record = bench.store.image(job, 3).await.expect("there");
    assert_eq!(record.extras, prompts[1].extras);
    for stage in STAGES {
        let tasks = bench.dispatch(stage, job, 9).await;
        assert_eq!(tasks.len(), 4);
        for task in tasks {
            let work = rendered(&task);
            assert_eq!(work.extras, prompts[0].extras);
            assert_eq!(work.style_embedding.as_ref().expect("a style").key, "tasks/style");
            assert_eq!(work.text_embedding.key, "tasks/text");
            bench.commit(stage, task.key, done(stage)).await;
        }
    }
    // A prompt without them has none.
    let plain = bench.submit(&["one"], 1).await;
    let task = bench.dispatch("base", plain, 1).await.remove(0);
    assert_eq!(rendered(&task).extras, darkroom_coordinator::store::records::Extras::default());
    assert!(rendered(&task).style_embedding.is_none());
    // Dispatched directly by a commit, it has the same.
    let task = bench.dispatch("base", later, 1).await.remove(0);
    let report = Bench::report(task.key, done("base"), false);
    let handed = bench
        .store
        .commit_onward(&bench.pool("base"), &[report], &bench.credit(1))
        .await
        .expect("commits")
        .1;
    for (_, task) in handed {
        assert_eq!(rendered(&task).extras, prompts[0].extras);
        assert!(rendered(&task).style_embedding.is_some());
    }
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_style_that_is_lost_is_wanted_again(bench: &Bench) {
    let job = bench.submit_prompts(&bench.styled(&["one"], 3, "ink"), Limits::default()).await;
    for task in bench.dispatch("encode", job, 9).await {
        let name = if prepared(&task) == "ink" { "style" } else { "text" };
        bench.commit("encode", task.key, done(name)).await;
    }
    bench.settle().await;
    let task = bench.dispatch("base", job, 1).await.remove(0);
    let lost = Outcome::InputMissing { key: "tasks/style".to_owned() };
    assert_eq!(bench.commit("base", task.key, lost).await, Fate::Applied);
    assert!(bench.dispatch("base", job, 9).await.is_empty(), "its style is lost");
    bench.audit(job).await;
    let again = bench.dispatch("encode", job, 9).await;
    assert_eq!(
        again.iter().map(prepared).collect::<Vec<_>>(),
        ["ink"],
        "and nothing else is encoded again"
    );
    bench.commit("encode", again[0].key, done("style")).await;
    bench.settle().await;
    assert_eq!(bench.dispatch("base", job, 9).await.len(), 3);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_style_that_is_given_up_ends_its_images_and_no_others(bench: &Bench) {
    let mut prompts = bench.styled(&["one", "two"], 1, "ink");
    prompts[1].style_embedding = None;
    let job = bench.submit_prompts(&prompts, Limits::default()).await;
    loop {
        let tasks = bench.dispatch("encode", job, 9).await;
        if tasks.is_empty() {
            break;
        }
        for task in tasks {
            let outcome = if prepared(&task) == "ink" { failed() } else { done("text") };
            bench.commit("encode", task.key, outcome).await;
        }
    }
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Dead, ImageState::Ready]);
    let error = bench.store.image(job, 0).await.expect("there").error.expect("why it is dead");
    assert!(!error.code.name().is_empty() && !error.message.is_empty(), "{error:?}");
    bench.audit(job).await;
    for stage in STAGES {
        for task in bench.dispatch(stage, job, 9).await {
            bench.commit(stage, task.key, done(stage)).await;
        }
    }
    assert_eq!(bench.store.job(job).await.expect("there").state, JobState::Failed);
    bench.store.retry(job, NewDeadline::Same).await.expect("retries");
    bench.settle().await;
    let again = bench.dispatch("encode", job, 9).await;
    assert_eq!(again.iter().map(prepared).collect::<Vec<_>>(), ["ink"]);
    bench.commit("encode", again[0].key, done("style")).await;
    bench.settle().await;
    assert_eq!(bench.states(job).await, [ImageState::Ready, ImageState::Done]);
    bench.audit(job).await;
}
