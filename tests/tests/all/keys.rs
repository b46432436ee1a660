//! A coordinator as a process: whether it asks for keys, and its first key.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::Command,
    time::SystemTime,
};

use darkroom_core::key::Key;
use darkroom_proto::v1::{
    CreateKeyRequest, GetFarmRequest, ListAuditRequest, ListKeysRequest, RevokeKeyRequest, Scope,
    admin_client::AdminClient, farm_client::FarmClient,
};
use darkroom_test_servers::{
    postgres::Postgres,
    process::{Process, free_port},
    redis::Redis,
};
use darkroom_tests::{
    command::Darkroom,
    eventually,
    processes::{Settings, health},
};
use tonic::{Code, Request, Status};

/// A coordinator of a farm whose callers need keys.
fn keyed(settings: &Settings, port: u16, arguments: &[&str]) -> Command {
    let mut command = settings.coordinator(port);
    command.env_remove("DARKROOM_OPEN").args(arguments);
    command
}

/// Runs a program that must not start: its exit code, and the one line that it prints.
fn refused(mut command: Command) -> (Option<i32>, String) {
    let ended = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&ended.stderr).into_owned();
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "one sentence: {text}");
    (ended.status.code(), errors[0].to_owned())
}

struct Started {
    port: u16,
    process: Process,
}

fn start(settings: &Settings, arguments: &[&str]) -> Started {
    let port = free_port();
    let log = settings.folder.path().join(format!("coordinator-{port}.log"));
    let mut process = Process::spawn(keyed(settings, port, arguments), &log);
    assert!(process.comes_to("serving", || health(port, "").is_some()), "{}", process.log_text());
    Started { port, process }
}

/// A request that shows a key.
fn showing<T>(message: T, key: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(key) = key {
        let shown = format!("Bearer {key}").parse().expect("ASCII");
        request.metadata_mut().insert("authorization", shown);
    }
    request
}

/// Asks for the farm, and with `admin` for its keys too.
fn ask(port: u16, key: Option<&str>) -> Result<usize, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let farm = format!("http://127.0.0.1:{port}");
        let mut client = FarmClient::connect(farm.clone()).await.expect("connects");
        client.get_farm(showing(GetFarmRequest {}, key)).await?;
        let mut admin = AdminClient::connect(farm).await.expect("connects");
        let listed = admin.list_keys(showing(ListKeysRequest::default(), key)).await?;
        Ok(listed.into_inner().keys.len())
    })
}

#[test]
fn a_farm_without_keys_starts_only_when_that_is_said() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let (code, error) = refused(keyed(&settings, free_port(), &[]));
    assert_eq!(code, Some(3), "{error}");
    for word in ["the farm has no key", "--first-key-file FILE", "--open"] {
        assert!(error.contains(word), "{error}");
    }
    let both = ["--open", "--first-key-file", "key"];
    let (code, error) = refused(keyed(&settings, free_port(), &both));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("open and first-key-file are both set"), "{error}");
    assert!(!settings.folder.path().join("key").exists());
    let open = start(&settings, &["--open"]);
    assert_eq!(ask(open.port, None).expect("open"), 0);
    assert!(!open.process.log_text().contains("this farm is open"), "on loopback");
    drop(open);
    let port = free_port();
    let here = keyed(&settings, port, &["--open", "--plaintext"]);
    let mut beyond = Command::new(here.get_program());
    let everywhere = |argument: &OsStr| match argument.to_str() {
        Some(text) if text == format!("127.0.0.1:{port}") => format!(":{port}").into(),
        _ => argument.to_owned(),
    };
    beyond.args(here.get_args().map(everywhere)).current_dir(settings.folder.path());
    beyond.envs(here.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = Process::spawn(beyond, &settings.folder.path().join("beyond.log"));
    let warns = "this farm is open and other machines can reach it";
    eventually("it warns", || process.log_text().contains(warns).then_some(()));
}

/// Revokes the farm's only admin key, after making one that may submit where that is wanted.
fn revoke(port: u16, admin: &str, leave: Option<&str>) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let farm = format!("http://127.0.0.1:{port}");
        let mut client = AdminClient::connect(farm).await.expect("connects");
        let mut left = None;
        if let Some(tenant) = leave {
            let asked = CreateKeyRequest {
                tenant: tenant.to_owned(),
                scopes: vec![Scope::Submit.into()],
                ..Default::default()
            };
            let made = client.create_key(showing(asked, Some(admin))).await.expect("made");
            left = Some(made.into_inner().secret);
        }
        let id = admin.parse::<Key>().expect("a key").id().to_string();
        client.revoke_key(showing(RevokeKeyRequest { id }, Some(admin))).await.expect("revoked");
        left
    })
}

#[test]
fn a_first_key_that_was_revoked_stays_so_and_stops_only_a_farm_that_nobody_could_call() {
    let redis = Redis::start();
    for leave in [Some("studio"), None] {
        let settings = Settings::small(&redis);
        let file = settings.folder.path().join("first.key");
        let arguments = ["--first-key-file", "first.key"];
        let started = start(&settings, &arguments);
        let first = fs::read_to_string(&file).expect("read").trim().to_owned();
        let left = revoke(started.port, &first, leave);
        drop(started);
        let says = "was revoked; remove the file and start again, which makes a new first key";
        if let Some(left) = left {
            let again = start(&settings, &arguments);
            assert!(again.process.log_text().contains(says), "{}", again.process.log_text());
            let refused = ask(again.port, Some(&left)).expect_err("it lists no keys");
            assert_eq!(refused.code(), Code::PermissionDenied, "its holder goes on: {refused}");
            let refused = ask(again.port, Some(&first)).expect_err("revoked");
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        } else {
            let (code, error) = refused(keyed(&settings, free_port(), &arguments));
            assert_eq!(code, Some(3), "{error}");
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).expect("read").trim(), first);
        fs::remove_file(&file).expect("removed");
        let new = start(&settings, &arguments);
        let key = fs::read_to_string(&file).expect("read");
        ask(new.port, Some(key.trim())).expect("the new key is let in");
    }
}

#[test]
fn the_first_key_is_made_once_for_several_coordinators_and_is_in_no_log() {
    let (redis, postgres) = (Redis::start(), Postgres::shared());
    let settings = Settings { database: postgres.create_database(), ..Settings::small(&redis) };
    let folder = settings.folder.path();
    let files = ["one.key", "two.key", "three.key"];
    // All at once.
    let started: Vec<_> = std::thread::scope(|scope| {
        let start = |file| {
            let settings = &settings;
            scope.spawn(move || start(settings, &["--first-key-file", file]))
        };
        let starting: Vec<_> = files.map(start).into();
        starting.into_iter().map(|starts| starts.join().expect("starts")).collect()
    });
    let there: Vec<_> = files.iter().filter(|file| folder.join(file).exists()).collect();
    assert_eq!(there.len(), 1, "{there:?}");
    let file = folder.join(there[0]);
    assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("read");
    let key: Key = text.trim().parse().expect("a key");
    for Started { port, process } in &started {
        assert_eq!(ask(*port, Some(text.trim())).expect("let in"), 1);
        let refused = ask(*port, None).expect_err("no key");
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        let log = process.log_text();
        let secret = text.trim().rsplit('_').next().expect("a secret");
        assert!(!log.contains(&secret[..12]), "{log}");
    }
    let told = started.iter().filter(|started| {
        let log = started.process.log_text();
        log.contains("the farm's first key is in this file") && log.contains(key.id().as_str())
    });
    assert_eq!(told.count(), 1);
    drop(started);
    // Started again, with or without the flag, it makes none.
    for arguments in [&["--first-key-file", "four.key"][..], &[]] {
        let again = start(&settings, arguments);
        assert_eq!(ask(again.port, Some(text.trim())).expect("let in"), 1);
        assert!(!folder.join("four.key").exists());
    }
    // A file that others may read holds no secret.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("opened");
    let other = Settings { database: postgres.create_database(), ..Settings::small(&redis) };
    let path = file.display().to_string();
    let (code, error) = refused(keyed(&other, free_port(), &["--first-key-file", &path]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("others can read or write"), "{error}");
}

#[test]
fn what_the_operator_decides_at_a_start_is_in_the_audit_once() {
    let redis = Redis::start();
    let settings = Settings::small(&redis);
    let file = settings.folder.path().join("first.key");
    let noted = |port: u16| {
        let key = fs::read_to_string(&file).expect("read");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let listed = runtime.expect("a runtime").block_on(async {
            let farm = format!("http://127.0.0.1:{port}");
            let mut client = AdminClient::connect(farm).await.expect("connects");
            client.list_audit(showing(ListAuditRequest::default(), Some(key.trim()))).await
        });
        let rows = listed.expect("listed").into_inner().entries.into_iter().rev();
        rows.map(|row| (row.action, row.target)).collect::<Vec<_>>()
    };
    let mut expected = Vec::new();
    for sharing in ["sealed", "sealed", "shared"] {
        let arguments = ["--first-key-file", "first.key", "--sharing", sharing];
        let started = start(&settings, &arguments);
        if expected.is_empty() {
            let key: Key = fs::read_to_string(&file).expect("read").trim().parse().expect("a key");
            expected.push(("key.create".to_owned(), key.id().to_string()));
        }
        let decided = ("farm.sharing".to_owned(), sharing.to_owned());
        if expected.last() != Some(&decided) {
            expected.push(decided);
        }
        let (mut sorted, mut wanted) = (noted(started.port), expected.clone());
        sorted.sort();
        wanted.sort();
        assert_eq!(sorted, wanted);
    }
}

/// The record's clock decides, so that all coordinators agree, also where all of them are wrong.
#[test]
fn keys_end_and_days_begin_by_the_records_clock_although_the_coordinators_is_another() {
    for hours in [-30, 30] {
        let Some(postgres) = Postgres::start_hours_ahead(hours) else {
            eprintln!("skipped: Debian's package faketime is not installed");
            return;
        };
        let redis = Redis::start();
        let settings = Settings { database: postgres.create_database(), ..Settings::small(&redis) };
        let started = start(&settings, &["--first-key-file", "first.key"]);
        let folder = settings.folder.path();
        let first = fs::read_to_string(folder.join("first.key")).expect("read");
        let farm = format!("127.0.0.1:{}", started.port);
        let darkroom = |key: &str, arguments: &[&str]| {
            let command = Darkroom::new(folder).args(["--farm", &farm]).args(arguments);
            command.env("DARKROOM_KEY", key.trim()).run()
        };
        let name = settings.database.rsplit('/').next().expect("a database");

        let now = "SELECT extract(epoch FROM clock_timestamp())::bigint";
        let now: i64 = postgres.sql(name, now).parse().expect("seconds");
        let here = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
        let apart = (now - here.cast_signed()) / 3600;
        assert!(apart.abs() >= 29, "the clocks differ by only {apart} h");

        // A key of an hour is let in, whichever day the coordinator thinks it is.
        let create =
            ["key", "create", "--tenant", "studio", "--scope", "submit", "--expires", "1h"];
        let made = darkroom(&first, &create);
        assert_eq!(made.code, Some(0), "{hours} h: {made:?}");
        let key = made.stdout;
        let asked = darkroom(&key, &["ls"]);
        assert_eq!(asked.code, Some(0), "{hours} h: {asked:?}");

        // The quota of a day is counted by the record's days.
        let quota = darkroom(&first, &["tenant", "set", "studio", "--images-per-day", "3"]);
        assert_eq!(quota.code, Some(0), "{quota:?}");
        let submit = |images: &str| darkroom(&key, &["submit", "a red circle", "-n", images]);
        let submitted = submit("3");
        assert_eq!(submitted.code, Some(0), "{hours} h: {submitted:?}");
        let tomorrow = "SELECT to_char(clock_timestamp() AT TIME ZONE 'utc' + interval '1 day', \
                        'YYYY-MM-DD\"T00:00:00Z\"')";
        let tomorrow = postgres.sql(name, tomorrow);
        let refused = submit("1");
        assert_ne!(refused.code, Some(0), "{refused:?}");
        let says = format!(
            "3 images were submitted today (UTC), and this adds 1; it frees up at {tomorrow}"
        );
        assert!(refused.stderr.contains(&says), "{hours} h, not {says}: {refused:?}");

        // When the record's day is over, there is room again, and the key ends when its hour is.
        postgres.sql(
            name,
            "UPDATE submitted_days SET day = (day::date - 1)::text;
             UPDATE usage_log SET at = at - interval '1 day'",
        );
        assert_eq!(submit("1").code, Some(0), "{hours} h: another day has begun");
        postgres.sql(
            name,
            "UPDATE keys SET expires_ms = (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
             WHERE expires_ms IS NOT NULL",
        );
        eventually("the key has ended", || {
            let refused = darkroom(&key, &["ls"]);
            (refused.code == Some(3) && refused.stderr.contains("expired")).then_some(())
        });
    }
}
