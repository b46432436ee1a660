//! Clients' names for their prompts, and the notes that name them.

use std::collections::BTreeMap;

use darkroom_coordinator::store::{
    Error,
    limits::Limits,
    records::{ImageOrder, ImageQuery, NewPrompt, Remark, Seen, Work},
};
use darkroom_core::{digest::Digest, label::Naming};
use darkroom_queue::task::Outcome;

use super::{bench::Bench, samples::done};

fn named(custom_id: &str, line: u64) -> Naming {
    let labels = BTreeMap::from([
        ("tag".to_owned(), format!("\"{custom_id}\"\n")),
        (String::from("é"), String::new()),
    ]);
    Naming { custom_id: Some(custom_id.to_owned()), labels, line: Some(line) }
}

/// Prompts with this many images each and these ids, from line 1 on.
fn with_ids(bench: &Bench, ids: &[&str], images: u32) -> Vec<NewPrompt> {
    let named = |(line, (prompt, id)): (u64, (NewPrompt, &&str))| NewPrompt {
        naming: named(id, line),
        ..prompt
    };
    (1..).zip(bench.prompts(ids, images).into_iter().zip(ids)).map(named).collect()
}

/// The same as a later chunk, after this many prompts of one image.
fn from_position(prompts: Vec<NewPrompt>, position: u64) -> Vec<NewPrompt> {
    let moved = |prompt: NewPrompt| NewPrompt {
        position: prompt.position + position,
        first_index: prompt.first_index + position,
        naming: Naming { line: prompt.naming.line.map(|line| line + position), ..prompt.naming },
        ..prompt
    };
    prompts.into_iter().map(moved).collect()
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn what_a_client_calls_its_prompts_is_told_in_every_listing(bench: &Bench) {
    let mut prompts = with_ids(bench, &["a/1", "b", "c"], 2);
    prompts[1].naming = Naming::default();
    prompts[2].naming.custom_id = None;
    let expected: Vec<Naming> =
        prompts.iter().flat_map(|prompt| vec![prompt.naming.clone(); 2]).collect();
    let job = bench.submit_prompts(&prompts, Limits::default()).await;
    for order in [ImageOrder::Index(None), ImageOrder::Version(0, None)] {
        for states in [vec![], vec![darkroom_core::image_state::ImageState::Waiting]] {
            let query = ImageQuery { states, ..ImageQuery::all(job, order, 9) };
            let page = bench.store.images(&query).await.expect("lists");
            let listed: Vec<Naming> = page.images.into_iter().map(|image| image.naming).collect();
            assert_eq!(listed, expected, "{order:?}");
        }
    }
    let changed = bench.store.changes(job, Seen::default(), 9).await.expect("lists");
    assert_eq!(changed.images.into_iter().map(|image| image.naming).collect::<Vec<_>>(), expected);
    assert_eq!(bench.store.image(job, 1).await.expect("there").naming, expected[1]);
    bench.audit(job).await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_custom_id_is_taken_once_in_a_job(bench: &Bench) {
    let refused = |result: Result<(), Error>, field: &str, words: [&str; 2]| match result {
        Err(Error::Refused(error)) => {
            assert_eq!(error.field.as_deref(), Some(field), "{}", error.message);
            for word in words {
                assert!(error.message.contains(word), "{}", error.message);
            }
        }
        other => panic!("{other:?}"),
    };
    let job = bench.job(None);
    bench.store.begin(&job).await.expect("begins");
    // The later chunk comes from earlier lines. The error names the prompt that is later in the
    // job.
    let receive =
        |prompts: Vec<NewPrompt>| async move { bench.store.receive(job.id, &prompts).await };
    receive(from_position(with_ids(bench, &["a", "B", "c"], 1), 3)).await.expect("received");
    let clash = receive(with_ids(bench, &["x", "c", "y"], 1)).await;
    refused(clash, "prompts[5].custom_id", ["(line 6) is \"c\"", "prompts[1].custom_id (line 2)"]);
    let within = receive(with_ids(bench, &["x", "y", "x"], 1)).await;
    refused(within, "prompts[2].custom_id", ["is \"x\"", "prompts[0].custom_id (line 1)"]);
    // The refused prompts were not kept, so their ids are free. Prompts without ids never conflict.
    let mut chunk = with_ids(bench, &["x", "b", "y"], 1);
    chunk[2].naming = Naming::default();
    receive(chunk).await.expect("other ids, in another case");
    let mut last = from_position(with_ids(bench, &["d", "e"], 1), 6);
    last.iter_mut().for_each(|prompt| prompt.naming = Naming::default());
    receive(last).await.expect("no ids");
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    bench.audit(job.id).await;
    assert_eq!(bench.states(job.id).await.len(), 8);
    // Ids of another job, and of a whole submit.
    let other = bench.submit_prompts(&with_ids(bench, &["a", "B"], 1), Limits::default()).await;
    bench.audit(other).await;
    let whole = bench
        .store
        .submit(&bench.job(None), &with_ids(bench, &["a", "a"], 1), Digest::of(b"c"))
        .await;
    refused(whole.map(drop), "prompts[1].custom_id", ["is \"a\"", "prompts[0]"]);
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn of_two_chunks_at_once_with_the_same_custom_ids_one_is_refused(bench: &Bench) {
    let job = bench.job(None);
    bench.store.begin(&job).await.expect("begins");
    let (one, two) =
        (with_ids(bench, &["a", "b"], 1), from_position(with_ids(bench, &["b", "a"], 1), 2));
    let second = bench.second();
    let (one, two) =
        tokio::join!(bench.store.receive(job.id, &one), second.store.receive(job.id, &two));
    let refusals: Vec<Error> = [one, two].into_iter().filter_map(Result::err).collect();
    assert!(matches!(refusals.as_slice(), [Error::Refused(_)]), "{refusals:?}");
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    assert_eq!(bench.states(job.id).await.len(), 2);
    bench.audit(job.id).await;
}

/// Encodes a job's texts, each with its own text as a note, except the texts in `but`.
async fn encode_noted(bench: &Bench, job: darkroom_core::id::JobId, but: &[&str]) {
    for task in bench.dispatch("encode", job, 100).await {
        let Work::Encode { text } = &task.work else { panic!("stage encode") };
        let Outcome::Done { artifact, .. } = done("text") else { panic!("done") };
        let notes = if but.contains(&text.prepared.as_str()) {
            Vec::new()
        } else {
            vec![text.prepared.clone()]
        };
        bench.commit("encode", task.key, Outcome::Done { artifact, notes }).await;
    }
    bench.settle().await;
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_note_names_its_first_image_its_line_and_how_many_others(bench: &Bench) {
    let prompts = |images| {
        let mut prompts = with_ids(bench, &["one", "two", "one", "three"], images);
        prompts[0].naming.line = None;
        prompts[2].naming.custom_id = None;
        prompts[3].style_embedding = Some(bench.text("two"));
        prompts
    };
    let told = |ones: &str, twos: &str, threes: &str, style: &str, negative: &str| {
        [
            format!("image 0{ones}: one"),
            format!("image 0{negative}: negative prompt: no"),
            format!("image {twos}: two"),
            format!("image {threes}: three"),
            format!("image {style}: style: two"),
        ]
    };
    let with_negative = |mut prompts: Vec<NewPrompt>| {
        prompts.iter_mut().for_each(|prompt| prompt.negative_embedding = Some(bench.text("no")));
        prompts
    };
    // Encoded after it was accepted.
    let first = bench.submit_prompts(&with_negative(prompts(1)), Limits::default()).await;
    encode_noted(bench, first, &[]).await;
    let expected = told(" and 1 other", "1 (line 2)", "3 (line 4)", "3 (line 4)", " and 3 others");
    assert_eq!(bench.store.notes(first, 99).await.expect("lists"), expected);
    // Encoded before.
    let second = bench.submit_prompts(&with_negative(prompts(3)), Limits::default()).await;
    let shared = " and 2 others";
    let expected = told(
        " and 5 others",
        &format!("3 (line 2){shared}"),
        &format!("9 (line 4){shared}"),
        &format!("9 (line 4){shared}"),
        " and 11 others",
    );
    assert_eq!(bench.store.notes(second, 99).await.expect("lists"), expected);
    let (_, around) = bench.store.view(second, 2).await.expect("reads");
    assert_eq!(around.notes, expected[..2], "as many as asked for, from the first image on");
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_note_counts_the_images_of_all_chunks(bench: &Bench) {
    let chunk = |first: u64| from_position(with_ids(bench, &["same", "same"], 1), first);
    let strip = |mut prompts: Vec<NewPrompt>| {
        prompts.iter_mut().for_each(|prompt| prompt.naming.custom_id = None);
        prompts
    };
    let encoding = bench.submit(&["same"], 1).await;
    let job = bench.job(None);
    bench.store.begin(&job).await.expect("begins");
    // Two chunks come before the text is encoded and two after it. The job's first chunk comes
    // last.
    for first in [4, 2] {
        bench.store.receive(job.id, &strip(chunk(first))).await.expect("received");
    }
    encode_noted(bench, encoding, &[""]).await;
    for first in [6, 0] {
        bench.store.receive(job.id, &strip(chunk(first))).await.expect("received");
    }
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    assert_eq!(
        bench.store.notes(job.id, 99).await.expect("lists"),
        ["image 0 (line 1) and 7 others: same"]
    );
    bench.audit(job.id).await;
    // An abandoned job leaves no note that another job could show.
    let given_up = bench.job(None);
    bench.store.begin(&given_up).await.expect("begins");
    bench.store.receive(given_up.id, &strip(chunk(0))).await.expect("received");
    bench.store.abandon(given_up.id).await.expect("abandons");
    assert_eq!(bench.store.notes(given_up.id, 99).await.expect("lists"), Vec::<String>::new());
}

#[expect(missing_docs, reason = "a check's name says what it checks")]
pub async fn a_note_on_pictures_counts_all_of_which_the_same_is_said(bench: &Bench) {
    let remark = |of_mask, text: &str| Remark { of_mask, text: text.to_owned() };
    let chunk = |first: u64, words: &str| {
        let mut prompts = from_position(with_ids(bench, &["one", "two"], 1), first);
        for prompt in &mut prompts {
            prompt.naming.custom_id = None;
            prompt.remarks = vec![remark(false, words), remark(true, "has \"parts\"")];
        }
        prompts
    };
    let job = bench.job(None);
    bench.store.begin(&job).await.expect("begins");
    for (first, words) in [(2, "is wide"), (4, "is tall"), (0, "is wide")] {
        bench.store.receive(job.id, &chunk(first, words)).await.expect("received");
    }
    bench.store.accept(job.id, Digest::of(b"c")).await.expect("accepted");
    let told = [
        "image 0 (line 1) and 3 others: the picture is wide",
        "image 0 (line 1) and 5 others: the mask has \"parts\"",
        "image 4 (line 5) and 1 other: the picture is tall",
    ];
    assert_eq!(bench.store.notes(job.id, 99).await.expect("lists"), told);
    bench.audit(job.id).await;
    // Even with many notes about pictures, those about texts are kept.
    let texts: Vec<String> = (0..60).map(|number| format!("text {number}")).collect();
    let mut prompts = bench.prompts(&texts.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for (prompt, text) in prompts.iter_mut().zip(&texts) {
        prompt.remarks = vec![remark(false, &format!("is of {text}"))];
    }
    let many = bench.submit_prompts(&prompts, Limits::default()).await;
    let notes = bench.store.notes(many, 999).await.expect("lists");
    assert_eq!(notes.len(), 50, "{notes:?}");
    assert_eq!(notes[49], "image 49: the picture is of text 49");
    encode_noted(bench, many, &[""]).await;
    let notes = bench.store.notes(many, 999).await.expect("lists");
    assert_eq!((notes.len(), notes[0].as_str()), (100, "image 0: text 0"), "{notes:?}");
}
