//! Secrets are planted in every place where a farm has some. Nothing that others can see shows one:
//! logs at the level `trace`, errors, the list of processes, pictures, manifests and everything
//! else in storage, the record, the queue, the audit, and what the farm tells of itself.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use darkroom_artifacts::picture;
use darkroom_test_servers::{
    certificates::{Authority, Validity},
    postgres::Postgres,
    process::{Process, free_port},
    redis::Redis,
    s3::{Options, S3},
};
use darkroom_tests::{
    command::{Darkroom, Ended},
    eventually,
    processes::Settings,
};
use nix::sys::signal::Signal;

const PROMPT: &str = "planted-prompt-of-a-surprise";
const REDIS: &str = "planted-redis-password-51c7";
const POSTGRES: &str = "planted-postgres-password-8d02";
const STORAGE: &str = "planted-storage-secret-3fe9";
/// What a farm's operator may get wrong.
const WRONG: &str = "planted-wrong-password-77aa";
/// A key that no farm knows, of the right form.
const NOBODYS: &str = "dk_000000000000_plantedKeyOfNobody0000000000000000000000000";

/// All that Redis holds, as text.
const ALL_OF_REDIS: &str = "
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
    local kind = redis.call('TYPE', key).ok
    local value = 'of type ' .. kind
    if kind == 'string' then value = redis.call('GET', key)
    elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1)
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'stream' then value = redis.call('XRANGE', key, '-', '+') end
    all[#all + 1] = key .. ' ' .. cjson.encode(value)
end
return (table.concat(all, '\\n'):gsub('[\\128-\\255]', '?'))
";

/// Texts that were found somewhere, and what they are.
#[derive(Default)]
struct Seen(Vec<(String, String)>);

impl Seen {
    fn add(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.0.push((what.into(), text.into()));
    }

    fn ended(&mut self, what: &str, ended: &Ended) {
        self.add(what, format!("{}\n{}", ended.stdout, ended.stderr));
    }

    /// Every file below a folder; of pictures also what their metadata says.
    fn files(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.files(&path);
                continue;
            }
            let bytes = fs::read(&path).expect("read");
            if let Ok(text) = picture::read_text(&bytes) {
                self.add(format!("metadata of {}", path.display()), format!("{text:?}"));
            }
            self.add(path.display().to_string(), String::from_utf8_lossy(&bytes));
        }
    }

    /// The texts of this kind that have this in them.
    fn with(&self, kind: &str, text: &str) -> usize {
        self.0.iter().filter(|(what, seen)| what.contains(kind) && seen.contains(text)).count()
    }

    fn assert_without(&self, secret: &str, name: &str, where_not: impl Fn(&str) -> bool) {
        assert!(secret.len() >= 8, "{name} is too short to be looked for: {secret:?}");
        for (what, text) in self.0.iter().filter(|(what, _)| where_not(what)) {
            if let Some(at) = text.find(secret) {
                let from = text.floor_char_boundary(at.saturating_sub(200));
                let to = text.ceil_char_boundary((at + 200).min(text.len()));
                panic!("{what} shows {name}: {}", &text[from..to]);
            }
        }
    }
}

/// Writes a file that only its owner can read.
fn private(path: PathBuf, text: &str) -> PathBuf {
    fs::write(&path, text).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closed");
    path
}

/// The farm of the test: its servers want passwords, its port a certificate, its callers keys.
struct Town {
    settings: Settings,
    authority: Authority,
    redis: Redis,
    storage: S3,
    postgres: Arc<Postgres>,
    database: String,
    tls_key: String,
    port: u16,
}

impl Town {
    fn build() -> Self {
        let redis = Redis::start_with_password(REDIS);
        let folder = tempfile::tempdir().expect("a folder");
        let options = Options {
            folder: folder.path().join("buckets"),
            port: free_port(),
            bucket: "darkroom".to_owned(),
            access_key: "an-access-key".to_owned(),
            secret_key: STORAGE.to_owned(),
        };
        let storage = S3::start_with(options).expect("a storage");
        let postgres = Postgres::shared();
        let url = postgres.create_database();
        let database = url.rsplit('/').next().expect("a name").to_owned();
        let role = format!("owner_of_{database}");
        let create = format!("CREATE ROLE {role} LOGIN PASSWORD '{POSTGRES}'");
        postgres.sql("postgres", &create);
        postgres.sql("postgres", &format!("ALTER DATABASE {database} OWNER TO {role}"));
        let path = |name: &str| folder.path().join(name);
        let here = format!("127.0.0.1:{}", postgres.port());
        let url = format!("postgres://{role}:{POSTGRES}@{here}/{database}");
        let database_file = private(path("database.url"), &url);
        let redis_file = private(path("redis.url"), &redis.url());
        let authority = Authority::new();
        let certificate = authority.sign("DNS:localhost,IP:127.0.0.1", Validity::Now);
        private(path("server.pem"), &certificate.certificate);
        private(path("server.key"), &certificate.key);
        // A line in the middle of it.
        let lines: Vec<_> = certificate.key.lines().collect();
        let tls_key = lines[lines.len() / 2].to_owned();
        let mut environment: Vec<_> = storage.environment().into();
        environment.push(("DARKROOM_LOG".to_owned(), "trace".to_owned()));
        let settings = Settings {
            database: format!("@{}", database_file.display()),
            redis: format!("@{}", redis_file.display()),
            artifacts: storage.url(),
            environment,
            real: false,
            folder,
        };
        let port = free_port();
        Self { settings, authority, redis, storage, postgres, database, tls_key, port }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.settings.folder.path().join(name)
    }

    fn farm(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn coordinator(&self, settings: &Settings, port: u16) -> Command {
        let mut command = settings.coordinator(port);
        command.env_remove("DARKROOM_OPEN").args(["--tls-cert", "server.pem"]);
        command.args(["--tls-key", "server.key", "--first-key-file", "first.key"]);
        command
    }

    fn member(&self, program: &str, arguments: &[&str]) -> Process {
        let mut command = self.settings.member_of(program, &self.farm());
        command.arg("--ca").arg(self.authority.file()).args(["--key-file", "member.key"]);
        command.args(arguments);
        Process::spawn(command, &self.path(&format!("{program}.log")))
    }

    /// A command at the level `trace`. It shows the key that a login has stored.
    fn darkroom(&self, arguments: &[&str]) -> Darkroom {
        Darkroom::new(self.settings.folder.path())
            .env("DARKROOM_CA", self.authority.file())
            .env("DARKROOM_LOG", "trace")
            .args(["--farm", &self.farm()])
            .args(arguments)
    }

    fn as_admin(&self, arguments: &[&str]) -> Ended {
        self.darkroom(&["--key-file", "first.key"]).args(arguments).run()
    }

    fn key(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a key").trim().to_owned()
    }

    fn all_of_redis(&self) -> String {
        self.redis.must(&["EVAL", ALL_OF_REDIS, "0"])
    }

    /// What a coordinator says that is told something wrong.
    fn refusal(&self, database: &str, redis: &str, environment: [(String, String); 2]) -> Ended {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["server.pem", "server.key"] {
            fs::copy(self.path(name), folder.path().join(name)).expect("copied");
        }
        let environment =
            environment.into_iter().chain([("DARKROOM_LOG".to_owned(), "trace".to_owned())]);
        let settings = Settings {
            database: database.to_owned(),
            redis: redis.to_owned(),
            artifacts: self.storage.url(),
            environment: environment.collect(),
            real: false,
            folder,
        };
        let output = self.coordinator(&settings, free_port()).output().expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ended = Ended {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        };
        assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
        ended
    }
}

/// The command lines of all processes on this machine.
fn command_lines() -> String {
    let processes = fs::read_dir("/proc").expect("/proc");
    let lines = processes.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ") + "\n").collect()
}

#[test]
fn planted_secrets_are_nowhere_that_others_can_see() {
    let (town, mut seen) = (Town::build(), Seen::default());
    let log = town.path("coordinator.log");
    let mut coordinator = Process::spawn(town.coordinator(&town.settings, town.port), &log);
    let first = town.path("first.key");
    let serves = || first.exists() && town.as_admin(&["--json", "cascades"]).code == Some(0);
    assert!(coordinator.comes_to("serving", serves), "{}", coordinator.log_text());

    let create = ["key", "create", "--scope", "member", "--out", "member.key"];
    seen.ended("key create --out", &town.as_admin(&create));
    let create = ["--json", "key", "create", "--tenant", "studio", "--scope", "submit", "--out"];
    seen.ended("key create", &town.as_admin(&[&create[..], &["submit.key"]].concat()));
    let login = town.darkroom(&["login"]).input(town.key("submit.key").as_bytes()).run();
    assert_eq!(login.code, Some(0), "{login:?}");
    seen.ended("login", &login);
    let unknown = town.darkroom(&["ls"]).env("DARKROOM_KEY", NOBODYS).run();
    unknown.refused(3, &["does not accept the key"]);
    seen.ended("the refusal of a key", &unknown);

    // A job of each format succeeds, and one fails.
    let encoder = town.member("darkroom-encoder", &[]);
    let worker = town.member("darkroom-worker", &["--fake-failing-seed", "7"]);
    eventually("the worker is there", || {
        let workers = town.as_admin(&["--json", "workers"]).stdout;
        workers.contains("sr1024").then_some(())
    });
    // It takes nothing while the test looks at what waits for it.
    worker.signal(Signal::SIGSTOP);
    let mut jobs = Vec::new();
    for (seed, format) in [("1", "png"), ("2", "webp"), ("3", "jpeg:90"), ("7", "png")] {
        let submit = ["--json", "submit", PROMPT, "--seed", seed, "--output-format", format];
        let submitted = town.darkroom(&submit).run();
        assert_eq!(submitted.code, Some(0), "{submitted:?}");
        let job = submitted.json()["job"]["id"].as_str().expect("an id").to_owned();
        seen.ended(&format!("submit of {format}"), &submitted);
        jobs.push(job);
    }
    let watch = town.darkroom(&["watch", &jobs[3]]).env("DARKROOM_KEY", town.key("submit.key"));
    let watch = watch.start();
    // While they run: the queue has tasks with their embeddings, and everything is in the list of
    // processes.
    let queued = eventually("a task is in the queue", || {
        Some(town.all_of_redis()).filter(|all| all.contains("embeddings"))
    });
    seen.add("the queue while jobs run", queued);
    let lines = eventually("the watch is among the processes", || {
        Some(command_lines()).filter(|lines| lines.contains(&format!("watch {}", jobs[3])))
    });
    seen.add("the list of processes", lines);
    worker.signal(Signal::SIGCONT);
    let watched = watch.wait();
    assert_ne!(watched.code, Some(0), "its only image fails: {watched:?}");
    seen.ended("a watch", &watched);
    for job in &jobs[..3] {
        let watched = town.darkroom(&["watch", job]).run();
        assert_eq!(watched.code, Some(0), "{watched:?}");
        seen.ended("a watch", &watched);
    }
    for arguments in [
        &["--json", "status", &jobs[3]][..],
        &["--json", "image", &jobs[3], "0"],
        &["--json", "failures", &jobs[3]],
        &["--json", "ls", &jobs[0], "--links=1m"],
        &["get", &jobs[0], "-o", "out"],
        &["verify", &jobs[1]],
        &["--json", "queue"],
        &["--json", "ls"],
    ] {
        let ended = town.darkroom(arguments).run();
        assert!(matches!(ended.code, Some(0 | 1)), "{arguments:?}: {ended:?}");
        seen.ended(&format!("darkroom {}", arguments.join(" ")), &ended);
    }
    for arguments in [
        &["--json", "workers"][..],
        &["--json", "key", "list", "--ended"],
        &["--json", "audit"],
        &["--json", "tenant", "list"],
    ] {
        let ended = town.as_admin(arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
        seen.ended(&format!("darkroom {}", arguments.join(" ")), &ended);
    }

    // What is wrong is not repeated either.
    let right = town.settings.database.as_str();
    let wrong_redis = format!("redis://:{WRONG}@127.0.0.1:{}/", town.redis.port());
    let role = format!("owner_of_{}", town.database);
    let wrong_postgres =
        format!("postgres://{role}:{WRONG}@127.0.0.1:{}/{}", town.postgres.port(), town.database);
    let access = |secret: &str| {
        let [name, (key, _)] = town.storage.environment();
        [name, (key, secret.to_owned())]
    };
    let redis = town.settings.redis.as_str();
    for (what, ended) in [
        ("a wrong password of Redis", town.refusal(right, &wrong_redis, access(STORAGE))),
        ("a wrong password of Postgres", town.refusal(&wrong_postgres, redis, access(STORAGE))),
        ("a wrong secret of storage", town.refusal(right, redis, access(WRONG))),
    ] {
        seen.ended(what, &ended);
    }

    // Everything that stays.
    seen.add("the queue", town.all_of_redis());
    let all = "SELECT database_to_xml(true, false, '')";
    seen.add("the record", town.postgres.sql(&town.database, all));
    let bucket = town.storage.bucket_folder();
    seen.files(&bucket);
    for mut process in [coordinator, encoder, worker] {
        process.signal(Signal::SIGTERM);
        process.wait();
        seen.add("a log", process.log_text());
    }

    // The test looks at the right places.
    assert_eq!(seen.with("a log", "TRACE"), 3, "every process logs everything");
    assert!(seen.with("metadata", PROMPT) >= 3, "pictures of each format have their recipe");
    assert!(seen.with("/manifests/", PROMPT) == 4, "each job has a manifest");
    assert!(seen.with("the record", PROMPT) == 1 && seen.with("audit", "key.create") == 1);
    assert!(seen.with("the queue", "embeddings") >= 1, "tasks wait for the worker");
    assert!(seen.with("the list of processes", "darkroom-coordinator") == 1);
    let stored = fs::read_to_string(town.path("config/darkroom/keys.json")).expect("stored");

    let everywhere = |_: &str| true;
    for file in ["first.key", "member.key", "submit.key"] {
        let key = town.key(file);
        let secret = key.rsplit('_').next().expect("a secret");
        assert!(file != "submit.key" || stored.contains(secret), "it looks for the right text");
        seen.assert_without(secret, file, everywhere);
        seen.assert_without(&secret[..12], file, everywhere);
    }
    let nobodys = NOBODYS.rsplit('_').next().expect("a secret");
    for (secret, name) in [
        (REDIS, "the password of Redis"),
        (POSTGRES, "the password of Postgres"),
        (STORAGE, "the secret of storage"),
        (WRONG, "a wrong password"),
        (town.tls_key.as_str(), "the key of the certificate"),
        (nobodys, "the key of nobody"),
    ] {
        seen.assert_without(secret, name, everywhere);
    }
    // The farm's own secrets are in the record, and nowhere else.
    for column in ["secret", "token_secret"] {
        for form in ["hex", "base64"] {
            let select = format!("SELECT encode({column}, '{form}') FROM farm");
            let secret = town.postgres.sql(&town.database, &select);
            seen.assert_without(&secret[..20], column, |what| what != "the record");
        }
    }
    // Prompts are in pictures, manifests, rows and tasks, and never in a log of a service.
    seen.assert_without(PROMPT, "a prompt", |what| what == "a log" || what.starts_with("a wrong"));
}
