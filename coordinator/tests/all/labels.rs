//! Clients' names for their prompts: they are shown everywhere, compared in a repeated submit, and
//! never change a picture.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use crate::support::{self, Act, Farm, prompt, spec};
use darkroom_artifacts::manifest;
use darkroom_proto::{
    status::from_status,
    v1::{self, submit_job_chunk::Part},
};
use tonic::Code;

fn named(text: &str, custom_id: &str, line: u64) -> v1::Prompt {
    let labels = BTreeMap::from([
        ("tag".to_owned(), format!("{custom_id}, \"quoted\"\nand more")),
        ("é".to_owned(), String::new()),
    ]);
    v1::Prompt { custom_id: custom_id.to_owned(), labels, line, ..prompt(text) }
}

fn stream(
    spec: v1::JobSpec,
    chunks: Vec<Vec<v1::Prompt>>,
) -> impl tokio_stream::Stream<Item = v1::SubmitJobChunk> {
    let prompts = chunks.into_iter().map(|prompts| Part::Prompts(v1::PromptChunk { prompts }));
    let parts = std::iter::once(Part::Spec(spec)).chain(prompts);
    tokio_stream::iter(
        parts.map(|part| v1::SubmitJobChunk { part: Some(part) }).collect::<Vec<_>>(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_in_listings_events_and_the_manifest() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let spec = v1::JobSpec { images_per_prompt: 2, ..spec() };
    let chunks = vec![
        vec![named("a cat", "cat", 3), prompt("a dog")],
        vec![named("a cow", "cow", u64::from(u32::MAX) + 1)],
    ];
    let expected: Vec<v1::Prompt> =
        chunks.concat().into_iter().flat_map(|prompt| [prompt.clone(), prompt]).collect();
    let job = farm
        .client
        .submit_job_stream(stream(spec, chunks))
        .await
        .expect("accepted")
        .into_inner()
        .job
        .expect("a job");
    farm.until_ended(&job.id).await;

    let of_image = |image: v1::Image| (image.custom_id, image.labels, image.line);
    let expected: Vec<_> =
        expected.into_iter().map(|prompt| (prompt.custom_id, prompt.labels, prompt.line)).collect();
    let listed: Vec<_> = farm.images(&job.id).await.into_iter().map(of_image).collect();
    assert_eq!(listed, expected);
    let watch = v1::WatchJobRequest { id: job.id.clone(), after_version: 0, images: true };
    let mut events = farm.client.watch_job(watch).await.expect("watches").into_inner();
    let mut told = BTreeMap::new();
    while let Some(event) = events.message().await.expect("an event") {
        told.extend(event.images.into_iter().map(|image| (image.index, of_image(image))));
    }
    assert_eq!(told.into_values().collect::<Vec<_>>(), expected);
    let mut lines = Vec::new();
    let text = farm.manifest_bytes(&job.id).await;
    manifest::verify(text.as_slice(), |line| {
        lines.push((line.custom_id.unwrap_or_default(), line.labels, line.line.unwrap_or(0)));
    })
    .expect("whole");
    assert_eq!(lines, expected);
    workers.stop().await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_prevents_no_reuse() {
    let mut farm = Farm::start().await;
    let workers = farm.work(|_| Act::Done);
    let mut keys = Vec::new();
    for prompt in [prompt("a cat"), named("a cat", "one", 1), named("a cat", "other", 2)] {
        let job = farm.submit(spec(), vec![prompt]).await;
        farm.until_ended(&job.id).await;
        let image = farm.images(&job.id).await.remove(0);
        keys.push((image.key, image.sha256));
    }
    // A key is derived from the task's digest, so the other jobs find the picture of the first one.
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let tasks = workers.stop().await;
    assert_eq!(
        tasks.iter().filter(|task| support::index(task).is_some()).count(),
        9,
        "three stages each"
    );
    for task in tasks {
        let sent = serde_json::to_string(&task).expect("JSON");
        assert!(
            !sent.contains("quoted") && !sent.contains("other"),
            "workers do not get it: {sent}"
        );
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_submit_with_other_names_is_refused() {
    let mut farm = Farm::start().await;
    let spec = v1::JobSpec { client_request_id: "once".to_owned(), ..spec() };
    let request = |prompt: v1::Prompt| v1::SubmitJobRequest {
        spec: Some(spec.clone()),
        prompts: vec![prompt],
    };
    let first =
        farm.client.submit_job(request(named("a", "one", 1))).await.expect("accepted").into_inner();
    let again =
        farm.client.submit_job(request(named("a", "one", 1))).await.expect("the same").into_inner();
    assert_eq!((again.existed, again.job.expect("a job").id), (true, first.job.expect("a job").id));
    let mut label = named("a", "one", 1);
    label.labels.insert("tag".to_owned(), "another".to_owned());
    for other in [prompt("a"), named("a", "two", 1), named("a", "one", 2), label] {
        let refused =
            farm.client.submit_job(request(other.clone())).await.expect_err("other content");
        assert_eq!(refused.code(), Code::AlreadyExists);
        let chunked = farm
            .client
            .submit_job_stream(stream(spec.clone(), vec![vec![other]]))
            .await
            .expect_err("the same");
        assert_eq!(chunked.code(), Code::AlreadyExists);
    }
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_custom_id_given_twice_is_refused_with_both_prompts_and_nothing_is_kept() {
    let mut farm = Farm::start().await;
    let twice = || {
        vec![vec![named("a", "x", 2), named("b", "y", 3)], vec![prompt("c"), named("d", "x", 9)]]
    };
    let refusals = [
        farm.client.submit_job_stream(stream(spec(), twice())).await.expect_err("over two chunks"),
        farm.client
            .forecast_job(stream(spec(), twice()))
            .await
            .expect_err("a forecast checks the same"),
        farm.client
            .submit_job(v1::SubmitJobRequest { spec: Some(spec()), prompts: twice().concat() })
            .await
            .expect_err("in one message"),
    ];
    for refused in refusals {
        let error = from_status(&refused);
        assert_eq!(
            (refused.code(), error.field.as_deref()),
            (Code::InvalidArgument, Some("prompts[3].custom_id"))
        );
        for word in ["(line 9)", "\"x\"", "prompts[0].custom_id (line 2)", "accepted:"] {
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
    let listed =
        farm.client.list_jobs(v1::ListJobsRequest::default()).await.expect("listed").into_inner();
    assert!(listed.jobs.is_empty());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_empty_zero_or_blank_means_one_thing_over_grpc() {
    let mut farm = Farm::start().await;
    let spec = v1::JobSpec {
        images_per_prompt: 2,
        tenant: "\u{200B}".to_owned(),
        name: " ".to_owned(),
        ..spec()
    };
    let blank = v1::Prompt {
        negative: "\u{FEFF} ".to_owned(),
        style: "\u{2060}".to_owned(),
        custom_id: "\u{A0}".to_owned(),
        images: 0,
        ..prompt("a cat")
    };
    let job = farm.submit(spec, vec![blank, prompt("a cat")]).await;
    let told = job.spec.expect("a spec");
    assert_eq!((job.images, told.tenant.as_str(), told.name.as_str()), (4, "default", ""));
    assert_eq!(job.stages[0].total, 2, "the prompt and the empty text, and no third");
    for image in farm.images(&job.id).await {
        assert_eq!(
            (image.negative.as_str(), image.style.as_str(), image.custom_id.as_str()),
            ("", "", "")
        );
        assert_eq!((image.image.as_str(), image.mask.as_str(), image.line), ("", "", 0));
    }
    let listed = v1::ListJobsRequest { tenant: "default".to_owned(), ..Default::default() };
    assert_eq!(farm.client.list_jobs(listed).await.expect("listed").into_inner().jobs.len(), 1);
    let refused = v1::JobSpec { client_request_id: "\u{FEFF}".to_owned(), ..support::spec() };
    let refused = v1::SubmitJobRequest { spec: Some(refused), prompts: vec![prompt("a")] };
    let refused = farm.client.submit_job(refused).await.expect_err("an invisible name");
    assert_eq!(from_status(&refused).field.as_deref(), Some("spec.client_request_id"));
    farm.shutdown().await;
}

/// A record from the previous version.
mod before {
    use super::*;

    use darkroom_coordinator::store::{roles::Queries as _, sqlite::SqliteStore};
    use darkroom_core::label::Naming;
    use sqlx::{Connection as _, SqliteConnection, migrate::Migrator};

    const JOB: &str = "0190a000-0000-7000-8000-000000000001";

    #[tokio::test]
    async fn old_rows_have_no_names_and_their_notes_are_told_without_a_digest() {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let path = support::database(folder.path());
        let url = format!("sqlite://{}?mode=rwc", path.to_str().expect("UTF-8"));
        let mut old = SqliteConnection::connect(&url).await.expect("opens");
        let migrations =
            Migrator::new(Path::new("../migrations/sqlite")).await.expect("the folder");
        migrations.run_to(6, &mut old).await.expect("migrates");
        let settings = serde_json::to_string(
            &darkroom_core::settings::Settings::resolve(
                &Default::default(),
                &support::cascade().spec,
            )
            .expect("settings"),
        )
        .expect("JSON");
        let rows = format!(
            "INSERT INTO cascades VALUES ('{digest}', 'tiny', '{digest}', '{{}}', 0);
             INSERT INTO jobs (id, tenant, content, name, priority, state, cascade, encoder, settings, requested, seed,
                               images, created_ms, touched_ms)
             VALUES ('{JOB}', 't', '', 'old', 0, 'active', '{digest}', '{digest}', '{settings}', '{{}}', 7, 1, 0, 0);
             INSERT INTO embeddings (id, digest, encoder, prepared) VALUES (1, 't', '{digest}', 'a cat');
             INSERT INTO prompts (job, position, text, negative, first_index, images, first_seed, text_embedding, encoded)
             VALUES (1, 0, 'a cat', '', 0, 1, 7, 1, 0);
             INSERT INTO images (job, idx, prompt, state, version) VALUES (1, 0, 0, 'waiting', 1);
             INSERT INTO job_notes VALUES (1, 'a prompt has 9 tokens, the last 2 were cut off (text 0123456789ab)');",
            digest = "0".repeat(64),
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut old).await.expect("rows");
        old.close().await.expect("closes");

        let store = SqliteStore::open(&path).await.expect("migrates the rest");
        let job = JOB.parse().expect("an id");
        let image = store.image(job, 0).await.expect("there");
        assert_eq!((image.prompt.as_str(), image.naming), ("a cat", Naming::default()));
        assert_eq!(
            store.notes(job, 9).await.expect("lists"),
            ["a prompt has 9 tokens, the last 2 were cut off"]
        );
    }
}
