//! A whole farm whose Postgres fails under a job: a promoted standby, sessions that are ended, no
//! connection left, a restart. The coordinator keeps running and names the cause, and no image is
//! charged a failure. Also settings of databases, queues and storage that no farm can start with.

use std::time::{Duration, Instant};

use darkroom_test_servers::{
    postgres::Postgres,
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::{
    eventually,
    processes::{Coordinator, Settings, health},
};
use tonic_health::pb::health_check_response::ServingStatus;

/// A farm with a running job.
struct Busy {
    settings: Settings,
    farm: Coordinator,
    _members: [Process; 2],
    job: String,
}

impl Busy {
    fn start(redis: &Redis, database: String) -> Self {
        let settings = Settings { database, ..Settings::small(redis) };
        let farm = Coordinator::start(&settings);
        let encoder = settings.member("darkroom-encoder", farm.port, &[]);
        let slowly = ["--fake-step-ms", "20", "--batch", "2"];
        let worker = settings.member("darkroom-worker", farm.port, &slowly);
        let job = farm.submit(&settings, "150");
        let busy = Self { settings, farm, _members: [encoder, worker], job };
        busy.until_done(3);
        busy
    }

    /// Waits until this many images are done. Retries if the farm cannot answer.
    fn until_done(&self, images: u64) {
        eventually("more images are done", || {
            self.farm.job(&self.settings, &self.job)["images_done"]
                .as_u64()
                .filter(|done| *done >= images)
        });
    }

    fn done(&self) -> u64 {
        self.farm.job(&self.settings, &self.job)["images_done"].as_u64().expect("a number")
    }

    fn until_health(&self, status: ServingStatus) {
        eventually(&format!("{status:?}: {}", self.farm.process.log_text()), || {
            (health(self.farm.port, "darkroom.v1.Farm") == Some(status)).then_some(())
        });
    }

    fn says(&self, what: &str) {
        eventually(&format!("the log says {what:?}"), || {
            self.farm.process.log_text().contains(what).then_some(())
        });
    }

    /// Checks that the job ends as usual, and that another job does too.
    fn goes_on(&mut self) {
        assert!(self.farm.process.runs(), "{}", self.farm.process.log_text());
        self.until_health(ServingStatus::Serving);
        self.until_done(150);
        let verified = eventually("the manifest is written", || {
            let verified =
                self.farm.darkroom(&self.settings, &["--json", "verify", &self.job]).run();
            (verified.code == Some(0)).then_some(verified)
        });
        assert_eq!(verified.json()["done"], 150);
        let images =
            self.farm.darkroom(&self.settings, &["--json", "ls", &self.job]).run().json_lines();
        assert!(
            images.len() == 150 && images.iter().all(|image| image["failures"] == 0),
            "{images:?}"
        );
        let next = self.farm.submit(&self.settings, "3");
        eventually("the next job is done", || {
            (self.farm.job(&self.settings, &next)["state"] == "done").then_some(())
        });
        let log = self.farm.process.log_text();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn a_job_goes_on_with_the_standby_that_was_promoted_under_it() {
    let redis = Redis::start();
    let mut primary = Postgres::start();
    let standby = primary.start_standby();
    primary.sql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'");
    primary.sql("postgres", "SELECT pg_reload_conf()");
    let hosts = [&primary, &standby].map(|server| format!("127.0.0.1:{}", server.port()));
    let url = format!(
        "postgres://{}@{}/postgres?target_session_attrs=read-write",
        Postgres::USERINFO,
        hosts.join(",")
    );
    let mut busy = Busy::start(&redis, url);
    let before = busy.done();
    primary.kill();
    busy.says("none of the 2 servers");
    standby.promote();
    busy.goes_on();
    assert!(before < 150, "the job was done before");
    busy.says("writes to another Postgres from now on");
    let jobs = standby
        .sql("postgres", "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM jobs");
    assert_eq!(jobs, "2|2");
}

#[test]
fn a_job_goes_on_when_its_coordinators_sessions_are_ended_again_and_again() {
    let (redis, server) = (Redis::start(), Postgres::start());
    let mut busy = Busy::start(&redis, server.create_database());
    let mut ended = 0;
    while busy.done() < 75 {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        ended += server.sql("postgres", sql).parse::<u32>().expect("a number");
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(ended >= 5, "only {ended} sessions were ended");
    busy.goes_on();
}

#[test]
fn a_job_waits_while_there_is_no_connection_left_and_goes_on() {
    let (redis, server) = (Redis::start(), Postgres::start());
    server.sql("postgres", "CREATE ROLE farm LOGIN PASSWORD 'a password'");
    server.sql("postgres", "CREATE DATABASE farm OWNER farm");
    let url = format!("postgres://farm:a%20password@127.0.0.1:{}/farm", server.port());
    let mut busy = Busy::start(&redis, url);
    // The role may have no connections any more, and its sessions have ended: every new one is
    // refused with 53300.
    server.sql("postgres", "ALTER ROLE farm CONNECTION LIMIT 0");
    server.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'farm'",
    );
    busy.until_health(ServingStatus::NotServing);
    busy.says("has no connection left");
    let refused = busy.farm.darkroom(&busy.settings, &["--json", "status", &busy.job]).start();
    server.sql("postgres", "ALTER ROLE farm CONNECTION LIMIT -1");
    assert_eq!(refused.wait().code, Some(0), "the command waits, and is answered");
    busy.goes_on();
}

#[test]
fn a_job_goes_on_when_its_database_is_restarted() {
    let (redis, mut server) = (Redis::start(), Postgres::start());
    let mut busy = Busy::start(&redis, server.create_database());
    server.stop();
    busy.until_health(ServingStatus::NotServing);
    busy.says("nothing listens at");
    server.restart();
    // Like a power cut, and running again before the coordinator notices.
    busy.until_health(ServingStatus::Serving);
    server.kill();
    server.restart();
    busy.goes_on();
}

/// Runs a coordinator with these settings; returns its exit code and output. If it starts, it is
/// ended.
fn end_of(settings: &Settings) -> (Option<i32>, String) {
    let port = free_port();
    let log = settings.folder.path().join(format!("refused-{port}.log"));
    let mut process = Process::spawn(settings.coordinator(port), &log);
    let give_up = Instant::now() + Duration::from_secs(40);
    while process.runs() && Instant::now() < give_up {
        if process.log_text().contains("serving") {
            return (None, format!("it serves: {}", process.log_text()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let text = process.log_text();
    if process.runs() { (None, format!("it hangs: {text}")) } else { (process.wait(), text) }
}

/// Checks that it is refused at once, in one sentence that names the setting, contains one of these
/// words, and has no secret.
fn is_refused(settings: &Settings, words: &[&str], value: &str) {
    let setting = words[0];
    let (code, text) = end_of(settings);
    assert!(
        code.is_some_and(|code| (2..=4).contains(&code)),
        "{setting} {value:?}: {code:?} {text}"
    );
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{setting} {value:?}: {text}");
    let said = errors[0].to_lowercase();
    assert!(
        words.iter().any(|word| said.contains(word)),
        "{setting} {value:?} is not named: {text}"
    );
    assert!(!text.contains("panicked") && !text.contains("s3cret"), "{setting} {value:?}: {text}");
    assert!(text.len() < 4000, "{setting} {value:?}: {text}");
}

#[test]
fn settings_of_databases_that_cannot_be_used_are_refused_in_one_sentence() {
    let redis = Redis::start();
    let small = || Settings::small(&redis);
    for database in [
        " ",
        "postgres://u:s3cret@h:0/d",
        "postgres://u:s3cret@h:99999/d",
        "postgres://u:s3cret%ZZ@h/d",
        "postgres://u:s3cret%00@h/d",
        "postgres://u:s3cret@h/d?sslmode=VERIFY-EVERYTHING",
        "postgres://u:s3cret@127.0.0.1:1/d?connect_timeout=-1",
        "postgres://u:s3cret@127.0.0.1:1/d?connect_timeout=soon",
        "postgres://u:s3cret@127.0.0.1:1/d?target_session_attrs=standby",
        "postgres://u:s3cret@h1,h2/d?port=1,2,3",
        "postgres://u:s3cret@[::1/d",
        "postgres://u:s3cret@::1/d",
        "postgres://u:s3cret@h1,,h2/d",
        "postgres://u:s3cret@h/d#fragment",
        "postgres://u:s3cret/with@h/d",
        "POSTGRES://u:s3cret@127.0.0.1:1/d",
        "postgresql+psycopg2://u:s3cret@h/d",
        "jdbc:postgresql://h/d?password=s3cret",
        "host=h user=u password=s3cret",
        "sqlite:",
        "sqlite:/nowhere/farm.sqlite",
        "sqlite:.",
        "sqlite:/dev/null",
        "sqlite:/dev/full",
        "sqlite:/proc/self/farm.sqlite",
    ] {
        is_refused(
            &Settings { database: database.to_owned(), ..small() },
            &["database", "job store", "folder"],
            database,
        );
    }
}

#[test]
fn settings_of_a_redis_that_cannot_be_used_are_refused_in_one_sentence() {
    let (redis, guarded) = (Redis::start(), Redis::start_with_password("s3cret"));
    let replica = redis.start_replica();
    let (postgres, nobody) = (Postgres::shared(), free_port());
    redis.must(&["ACL", "SETUSER", "few", "on", ">s3cret", "~*", "+ping"]);
    redis.must(&["ACL", "SETUSER", "off", "off", ">s3cret", "~*", "+@all"]);
    let (open, closed) = (redis.port(), guarded.port());
    for url in [
        " ".to_owned(),
        "redis://".to_owned() + "?",
        "redis://h:x".to_owned(),
        "redis://h:99999".to_owned(),
        format!("http://127.0.0.1:{open}"),
        format!("REDIS//127.0.0.1:{open}"),
        format!("redis://127.0.0.1:{open}/99"),
        format!("redis://127.0.0.1:{open}/-1"),
        format!("redis://127.0.0.1:{open}/first"),
        format!("redis://127.0.0.1:{open}?protocol=resp9"),
        format!("redis://few:s3cret@127.0.0.1:{open}"),
        format!("redis://off:s3cret@127.0.0.1:{open}"),
        format!("redis://stranger:s3cret@127.0.0.1:{open}"),
        format!("redis://127.0.0.1:{closed}"),
        format!("redis://:no-s3cret@127.0.0.1:{closed}"),
        format!("rediss://127.0.0.1:{open}"),
        format!("redis://127.0.0.1:{}", postgres.port()),
        format!("redis://127.0.0.1:{nobody}"),
        format!("redis://127.0.0.1:{}", replica.port()),
        format!("redis+cluster://127.0.0.1:{open}"),
        format!("redis+sentinel://127.0.0.1:{open}/mymaster"),
        "redis+sentinel://".to_owned(),
        "unix:///nowhere/redis.sock".to_owned(),
    ] {
        is_refused(
            &Settings { redis: url.clone(), ..Settings::small(&redis) },
            &["redis", "queue's address"],
            &url,
        );
    }
}

#[test]
fn settings_of_storage_that_cannot_be_used_are_refused_in_one_sentence() {
    let redis = Redis::start();
    for url in [
        " ",
        "s3://",
        "s3:///x",
        "gs://",
        "az://",
        "https://bucket.s3.amazonaws.com/",
        "s3:bucket",
        "/etc/passwd",
        "/dev/null",
        "/dev/null/artifacts",
        "/proc/artifacts",
        "/sys/artifacts",
        "file:///etc/passwd",
    ] {
        is_refused(
            &Settings { artifacts: url.to_owned(), ..Settings::small(&redis) },
            &["artifacts"],
            url,
        );
    }
}
