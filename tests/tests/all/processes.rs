//! The farm as separate processes on real servers. A process that cannot start says why in one
//! sentence, a drain costs nothing, health is right, and a finished job can be verified.

use darkroom_test_servers::{
    clock::hours_ahead,
    http_get,
    postgres::Postgres,
    process::{Process, free_port},
    redis::Redis,
    s3::{S3, faults::Rule},
};
use darkroom_tests::{
    eventually,
    processes::{Coordinator, Member, Settings, health},
};
use nix::sys::signal::Signal;
use serde_json::Value;
use tonic_health::pb::health_check_response::ServingStatus;

#[test]
fn a_wrong_setting_is_refused_in_one_sentence() {
    let redis = Redis::start();
    let nobody = free_port();

    let settings =
        Settings { redis: format!("redis://127.0.0.1:{nobody}"), ..Settings::small(&redis) };
    let (code, error) = settings.refusal();
    assert!(code == Some(4) && error.contains("no Redis answers"), "{code:?} {error}");

    let settings = Settings { redis: "127.0.0.1".to_owned(), ..Settings::small(&redis) };
    let (code, error) = settings.refusal();
    assert!(code == Some(2) && error.contains("redis://"), "{code:?} {error}");

    let database = format!("postgres://darkroom@127.0.0.1:{nobody}/darkroom");
    let settings = Settings { database, ..Settings::small(&redis) };
    let (code, error) = settings.refusal();
    assert!(code == Some(3) || code == Some(4), "{code:?} {error}");
    assert!(error.contains(&nobody.to_string()), "{error}");

    let settings = Settings { database: "mysql://x".to_owned(), ..Settings::small(&redis) };
    let (code, error) = settings.refusal();
    assert!(
        code == Some(2) && error.contains("postgres://") && error.contains("sqlite:"),
        "{code:?} {error}"
    );

    let settings = Settings { artifacts: "ftp://x/y".to_owned(), ..Settings::small(&redis) };
    let (code, error) = settings.refusal();
    assert!(code == Some(2) && error.contains("s3://"), "{code:?} {error}");
}

#[test]
fn a_bucket_that_cannot_be_used_is_refused_in_one_sentence() {
    let (redis, storage) = (Redis::start(), S3::start());
    let on = |url: String| Settings { artifacts: url, ..Settings::on_s3(&redis, &storage) };
    storage.faults().set([Rule::read_only()]);
    let (code, error) = on(storage.url()).refusal();
    assert!(code.is_some_and(|code| code > 1), "{code:?} {error}");
    storage.faults().clear();
    let (code, error) = on(storage.url().replace("s3://darkroom", "s3://elsewhere")).refusal();
    assert!(code.is_some_and(|code| code > 1) && error.contains("elsewhere"), "{code:?} {error}");
    // A clock that differs too much from the store's; it works for local and remote servers.
    for hours in [1, -1] {
        let mut settings = on(storage.url());
        let Some(wrong) = hours_ahead(hours) else { continue };
        settings.environment.extend(wrong.map(|(name, value)| (name.to_owned(), value)));
        let (code, error) = settings.refusal();
        assert!(
            code.is_some_and(|code| code > 1) && error.contains("another time of day"),
            "{code:?} {error}"
        );
    }
}

#[test]
fn a_worker_and_an_encoder_on_another_redis_than_their_farm_are_refused_in_one_sentence() {
    let (redis, other) = (Redis::start(), Redis::start());
    let settings = Settings::small(&redis);
    let farm = Coordinator::start(&settings);
    let astray = Settings {
        redis: other.url(),
        artifacts: settings.artifacts.clone(),
        ..Settings::small(&other)
    };
    let refused = |members: [Process; 2]| {
        for mut member in members {
            assert_eq!(member.wait(), Some(3), "{}", member.log_text());
            let text = member.log_text();
            let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
            assert!(errors.len() == 1 && !text.contains("panicked"), "{text}");
            let named = [other.port().to_string(), "not the one of this farm".to_owned()];
            assert!(named.iter().all(|part| errors[0].contains(part)), "{text}");
        }
    };
    let both =
        || ["darkroom-worker", "darkroom-encoder"].map(|name| astray.member(name, farm.port, &[]));
    refused(both());

    // The farm used this Redis before: its mark exists and is an hour old.
    let mark = redis.must(&["EVAL", "return redis.call('KEYS', 'darkroom:{*}:owner')[1]", "0"]);
    let old = "redis.call('SET', KEYS[1], 'moved') local copy = redis.call('DUMP', KEYS[1]) \
               return redis.call('RESTORE', KEYS[1], 0, copy, 'REPLACE', 'IDLETIME', 3600)";
    other.must(&["EVAL", old, "1", &mark]);
    refused(both());
}

#[test]
fn a_worker_that_joins_right_after_a_flush_waits_for_the_farms_mark() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let farm = Coordinator::start(&settings);
    redis.flush();
    let mut worker = settings.member("darkroom-worker", farm.port, &[]);
    eventually("it joined", || {
        assert!(worker.runs(), "{}", worker.log_text());
        worker.log_text().contains("joined the farm").then_some(())
    });
}

#[test]
fn two_databases_of_one_farm_id_cannot_share_a_redis_and_a_newer_database_is_refused() {
    let (redis, postgres) = (Redis::start(), Postgres::shared());
    let on = |url: &str| Settings { database: url.to_owned(), ..Settings::small(&redis) };
    let (first, second) = (postgres.create_database(), postgres.create_database());
    let settings = on(&first);
    let running = Coordinator::start(&settings);
    let name = |url: &str| url.rsplit('/').next().expect("a database").to_owned();
    let id = postgres.sql(&name(&first), "SELECT id FROM farm");

    // A copy of the database, like a restored backup: its farm has the same id.
    drop(Coordinator::start(&Settings { redis: Redis::start().url(), ..on(&second) }));
    postgres.sql(&name(&second), &format!("UPDATE farm SET id = '{}'", id.trim()));
    let (code, error) = on(&second).refusal();
    assert!(code == Some(3) && error.contains("two farms share one Redis"), "{code:?} {error}");
    drop(running);

    postgres.sql(
        &name(&first),
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999999, 'later', true, '', 0)",
    );
    let (code, error) = settings.refusal();
    assert!(code == Some(3) && error.to_lowercase().contains("newer"), "{code:?} {error}");
}

#[test]
fn a_coordinator_of_another_lease_is_refused_while_the_farm_runs() {
    let (redis, postgres) = (Redis::start(), Postgres::shared());
    let with = |lease: Option<&str>, database: &str| {
        let flag = lease.map(|lease| ("DARKROOM_LEASE_SECONDS".to_owned(), lease.to_owned()));
        Settings {
            database: database.to_owned(),
            environment: flag.into_iter().collect(),
            ..Settings::small(&redis)
        }
    };
    let database = postgres.create_database();
    let first = Coordinator::start(&with(Some("5"), &database));
    let (code, error) = with(Some("3"), &database).refusal();
    assert!(
        code == Some(2) && error.contains("lease-seconds is 3") && error.contains("last 5"),
        "{code:?} {error}"
    );
    drop(Coordinator::start(&with(None, &database)));
    let mut process = first.process;
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait(), Some(0), "{}", process.log_text());
    drop(Coordinator::start(&with(Some("3"), &database)));
    let name = database.rsplit('/').next().expect("a database");
    assert_eq!(postgres.sql(name, "SELECT lease_ms FROM farm").trim(), "3000");
}

#[test]
fn a_worker_that_is_terminated_costs_no_failure_and_the_job_is_whole() {
    let (redis, storage, postgres) = (Redis::start(), S3::start(), Postgres::shared());
    let settings =
        Settings { database: postgres.create_database(), ..Settings::on_s3(&redis, &storage) };
    let farm = Coordinator::start(&settings);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let worker = |grace: &str| {
        settings.member(
            "darkroom-worker",
            farm.port,
            &["--fake-step-ms", "20", "--batch", "4", "--grace-seconds", grace],
        )
    };
    let (mut leaving, _staying) = (worker("0.2"), worker("20"));
    let id = farm.submit(&settings, "60");
    eventually("some images are done", || {
        farm.job(&settings, &id)["images_done"].as_u64().filter(|done| *done > 4)
    });
    for _ in 0..3 {
        leaving.signal(Signal::SIGTERM);
    }
    assert_eq!(leaving.wait(), Some(0), "{}", leaving.log_text());
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    let images = farm.darkroom(&settings, &["--json", "ls", &id]).run().json_lines();
    assert_eq!(images.len(), 60);
    assert!(images.iter().all(|image| image["failures"] == 0), "{images:?}");

    eventually("the manifest is written", || {
        let verified = farm.darkroom(&settings, &["--json", "verify", &id]).run();
        (verified.code == Some(0)).then(|| assert_eq!(verified.json()["done"], 60))
    });
    // Anyone who has a link can open the picture.
    let linked = farm
        .darkroom(&settings, &["--json", "ls", &id, "--links=1h", "--limit", "3"])
        .run()
        .json_lines();
    assert_eq!(linked.len(), 3);
    for image in &linked {
        let (status, bytes) = http_get(image["link"]["url"].as_str().expect("a link"));
        let stored = std::fs::read(storage.file(image["key"].as_str().expect("a key")))
            .expect("the picture's file");
        assert!(status == 200 && bytes == stored, "{image} {status}");
    }

    let key = images[17]["key"].as_str().expect("a key");
    std::fs::remove_file(storage.file(key)).expect("the picture's file");
    let verified = farm.darkroom(&settings, &["verify", &id]).run();
    verified.refused(3, &["1 of the 60"]);
    assert!(verified.stderr.contains("image 17"), "{verified:?}");

    // A job that a sweep had to end is counted where an operator looks. A count of zero is not
    // shown.
    let shown = farm.darkroom(&settings, &["farm"]).run().stdout;
    assert!(shown.contains("tiny") && !shown.contains("a sweep ended"), "{shown}");
    let name = settings.database.rsplit('/').next().expect("a database");
    let planted = "UPDATE jobs SET state = 'active', finished_at = NULL, manifest = NULL, manifest_key = NULL";
    postgres.sql(name, planted);
    eventually("the sweep finds it", || {
        let told = farm.darkroom(&settings, &["--json", "farm"]).run().json();
        (told["jobs_overlooked"] == 1).then_some(())
    });
    let shown = farm.darkroom(&settings, &["farm"]).run().stdout;
    assert!(shown.contains("jobs that a sweep ended") && shown.contains(": 1;"), "{shown}");
}

#[test]
fn the_demo_cascade_is_published_fetched_and_rendered_by_separate_processes() {
    let redis = Redis::start();
    let settings = Settings { real: true, ..Settings::small(&redis) };
    // Each coordinator that starts publishes the cascade; the second one finds it complete.
    drop(Coordinator::start(&settings));
    let farm = Coordinator::start(&settings);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let _worker = settings.member("darkroom-worker", farm.port, &["--stage", "base"]);
    let arguments = ["--json", "submit", "a red circle", "--size", "64", "--steps", "base=2"];
    let submitted = farm.darkroom(&settings, &arguments).run().json();
    let id = submitted["id"]
        .as_str()
        .or_else(|| submitted["job"]["id"].as_str())
        .expect("an id")
        .to_owned();
    eventually("the manifest is written", || {
        let verified = farm.darkroom(&settings, &["--json", "verify", &id]).run();
        (verified.code == Some(0)).then(|| assert_eq!(verified.json()["done"], 1))
    });
}

#[test]
fn health_says_what_is_wrong_and_work_goes_on_by_itself() {
    let mut redis = Redis::start();
    let settings = Settings::small(&redis);
    let farm = Coordinator::start(&settings);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let _worker = settings.member("darkroom-worker", farm.port, &[]);
    let id = farm.submit(&settings, "4");
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    redis.kill();
    eventually("health tells", || farm.process.log_text().contains("not serving").then_some(()));
    redis.restart();
    eventually("health heals", || farm.process.log_text().contains("serving again").then_some(()));
    let id = farm.submit(&settings, "5");
    eventually("the next job is done", || {
        (farm.job(&settings, &id)["state"] == "done").then_some(())
    });
}

#[test]
fn health_tells_storage_that_cannot_be_used_while_nobody_uses_it() {
    let (redis, storage) = (Redis::start(), S3::start());
    let settings = Settings::on_s3(&redis, &storage);
    let farm = Coordinator::start(&settings);
    assert_eq!(farm.health(), ServingStatus::Serving);
    storage.faults().set([Rule::read_only()]);
    eventually("health tells", || (farm.health() == ServingStatus::NotServing).then_some(()));
    let log = farm.process.log_text();
    assert!(log.contains("not serving") && log.contains("may not be written to"), "{log}");
    storage.faults().clear();
    eventually("health heals", || (farm.health() == ServingStatus::Serving).then_some(()));
}

#[test]
fn health_of_a_worker_and_an_encoder_tells_a_redis_that_hangs_until_it_answers() {
    use ServingStatus::{NotServing, Serving};
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let farm = Coordinator::start(&settings);
    let encoder = Member::start(&settings, "darkroom-encoder", &farm, &[]);
    let slow = ["--host", "slow", "--fake-step-ms", "500", "--grace-seconds", "5", "--batch", "1"];
    let mut leaving = Member::start(&settings, "darkroom-worker", &farm, &slow);
    // Long enough for the drain to continue after Redis has come back.
    let arguments = ["--json", "submit", "a red circle", "-n", "4", "--steps", "base=40"];
    let submitted = farm.darkroom(&settings, &arguments).run().json();
    let id = submitted["id"]
        .as_str()
        .or_else(|| submitted["job"]["id"].as_str())
        .expect("an id")
        .to_owned();
    eventually("it has a task", || {
        let workers = farm.darkroom(&settings, &["--json", "workers"]).run().json();
        let busy = |worker: &Value| worker["host"] == "slow" && worker["tasks_leased"] != 0;
        workers.as_array().is_some_and(|workers| workers.iter().any(busy)).then_some(())
    });
    let worker = Member::start(&settings, "darkroom-worker", &farm, &[]);

    redis.pause();
    for member in [&encoder, &worker, &leaving] {
        member.until(NotServing);
        let log = member.process.log_text();
        assert!(log.contains("the queue cannot be reached"), "{log}");
    }
    assert_eq!(
        health(encoder.port, "darkroom.v1.Encoder"),
        Some(Serving),
        "it still answers calls"
    );
    leaving.process.signal(Signal::SIGTERM);
    eventually("it drains", || leaving.process.log_text().contains("draining").then_some(()));
    redis.resume();
    for member in [&encoder, &worker] {
        member.until(Serving);
        let log = member.process.log_text();
        let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
        assert_eq!((lines("not serving"), lines("serving again")), (1, 1), "{log}");
    }
    assert_eq!(leaving.process.wait(), Some(0), "{}", leaving.process.log_text());
    assert!(!leaving.process.log_text().contains("serving again"), "a drain takes precedence");
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    let id = farm.submit(&settings, "5");
    eventually("the next job is done", || {
        (farm.job(&settings, &id)["state"] == "done").then_some(())
    });
}

#[test]
fn health_of_a_worker_tells_storage_whose_faults_it_retries() {
    let (redis, storage) = (Redis::start(), S3::start());
    let settings = Settings::on_s3(&redis, &storage);
    let farm = Coordinator::start(&settings);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let worker = Member::start(
        &settings,
        "darkroom-worker",
        &farm,
        &["--fake-step-ms", "20", "--batch", "4"],
    );
    let id = farm.submit(&settings, "60");
    eventually("some images are done", || {
        farm.job(&settings, &id)["images_done"].as_u64().filter(|done| *done > 4)
    });
    storage.faults().set([Rule::read_only()]);
    worker.until(ServingStatus::NotServing);
    let log = worker.process.log_text();
    assert!(log.contains("not serving") && log.contains("an output cannot be stored"), "{log}");
    let shown = eventually("its card tells", || {
        let shown = farm.darkroom(&settings, &["workers"]).run().stdout;
        shown.contains("in trouble").then_some(shown)
    });
    assert!(shown.contains("in trouble (an output cannot be stored: "), "{shown}");
    storage.faults().clear();
    worker.until(ServingStatus::Serving);
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    let images = farm.darkroom(&settings, &["--json", "ls", &id]).run().json_lines();
    assert!(images.iter().all(|image| image["failures"] == 0), "{images:?}");
}

#[test]
fn a_worker_and_an_encoder_that_are_asked_to_drain_leave_at_no_cost() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let farm = Coordinator::start(&settings);
    let mut encoder = settings.member("darkroom-encoder", farm.port, &["--host", "leaving"]);
    let worker = |host: &str| {
        let arguments =
            ["--host", host, "--fake-step-ms", "20", "--batch", "4", "--grace-seconds", "0.2"];
        settings.member("darkroom-worker", farm.port, &arguments)
    };
    let (mut leaving, _staying) = (worker("going"), worker("staying"));
    let id = farm.submit(&settings, "60");
    eventually("some images are done", || {
        farm.job(&settings, &id)["images_done"].as_u64().filter(|done| *done > 4)
    });
    farm.darkroom(&settings, &["drain", "nobody"]).run().refused(3, &["nobody", "going-"]);
    let drained = farm.darkroom(&settings, &["--json", "drain", "going"]).run().json();
    assert_eq!(
        (drained.as_array().map(Vec::len), &drained[0]["state"]),
        (Some(1), &"draining".into())
    );
    assert_eq!(farm.darkroom(&settings, &["drain", "--all-of", "leaving"]).run().code, Some(0));
    assert_eq!(leaving.wait(), Some(0), "{}", leaving.log_text());
    assert_eq!(encoder.wait(), Some(0), "{}", encoder.log_text());
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    let images = farm.darkroom(&settings, &["--json", "ls", &id]).run().json_lines();
    assert!(images.len() == 60 && images.iter().all(|image| image["failures"] == 0), "{images:?}");
    let left = farm.darkroom(&settings, &["--json", "workers"]).run().json();
    assert_eq!((left.as_array().map(Vec::len), &left[0]["host"]), (Some(1), &"staying".into()));
}

#[test]
fn a_lone_worker_counts_and_one_that_was_leaving_or_died_with_its_host_does_not() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let farm =
        Coordinator::start_with(&settings, &["--lease-seconds", "4", "--sweep-seconds", "0.5"]);
    let _encoder = settings.member("darkroom-encoder", farm.port, &[]);
    let worker = |host: &str, step_ms: &str| {
        let arguments =
            ["--host", host, "--fake-step-ms", step_ms, "--batch", "1", "--grace-seconds", "600"];
        settings.member("darkroom-worker", farm.port, &arguments)
    };
    let state_of = |host: &str| {
        let workers = farm.darkroom(&settings, &["--json", "workers"]).run().json();
        let workers = workers.as_array().cloned().unwrap_or_default();
        let of_host: Vec<_> = workers.iter().filter(|worker| worker["host"] == host).collect();
        let leased =
            of_host.iter().filter(|worker| worker["tasks_leased"].as_u64() > Some(0)).count();
        (
            leased,
            of_host.first().map(|worker| worker["state"].as_str().unwrap_or_default().to_owned()),
        )
    };
    let until_busy = |host: &str, workers: usize| {
        eventually("each worker holds a task", || (state_of(host).0 == workers).then_some(()));
    };
    // A worker holds two batches at most, so each of two workers gets some of the four tasks.
    let id = farm.submit(&settings, "4");
    let failures = || {
        let images = farm.darkroom(&settings, &["--json", "ls", &id]).run().json_lines();
        images.iter().map(|image| image["failures"].as_u64().unwrap_or(99)).collect::<Vec<_>>()
    };

    // Two hosts die, each with one worker. From now on the images run alone.
    let lone = [worker("one", "60000"), worker("two", "60000")];
    until_busy("one", 1);
    until_busy("two", 1);
    drop(lone);
    // Two workers on one host, each with an image.
    let host = [worker("three", "60000"), worker("three", "60000")];
    until_busy("three", 2);
    assert_eq!(failures(), [0; 4]);
    drop(host);
    // Two workers that leave, and are killed before they finish.
    let leaving = [worker("four", "60000"), worker("five", "60000")];
    until_busy("four", 1);
    until_busy("five", 1);
    assert_eq!(failures(), [0; 4], "a dead host counts against nobody");
    for process in &leaving {
        process.signal(Signal::SIGTERM);
    }
    for host in ["four", "five"] {
        eventually("the farm knows that it leaves", || {
            (state_of(host).1.as_deref() == Some("draining")).then_some(())
        });
    }
    drop(leaving);
    // A single worker again.
    let lone = worker("six", "60000");
    until_busy("six", 1);
    assert_eq!(failures(), [0; 4], "a worker that was leaving counts against nobody");
    drop(lone);
    let _last = worker("seven", "0");
    eventually("the job is done", || (farm.job(&settings, &id)["state"] == "done").then_some(()));
    assert_ne!(failures(), [0; 4], "a lone worker counts");
}
