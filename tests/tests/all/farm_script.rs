//! `tools/farm.sh`: its servers refuse other users of the machine, its farm renders, and everything
//! ends when it stops.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

use darkroom_test_servers::process::listens;
use darkroom_tests::command::Darkroom;

struct Servers {
    folder: tempfile::TempDir,
    redis: u16,
    postgres: u16,
    /// Port of the first coordinator; the second one has the next port.
    coordinator: u16,
}

impl Servers {
    fn new() -> Self {
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            (listener.local_addr().expect("bound").port(), listener)
        };
        let (redis, _held) = port();
        let (postgres, _held_too) = port();
        // Two consecutive ports.
        let coordinator = (0..100).find_map(|_| {
            let (first, _held) = port();
            let next = TcpListener::bind(("127.0.0.1", first.checked_add(1)?));
            next.is_ok().then_some(first)
        });
        let coordinator = coordinator.expect("two ports");
        drop((_held, _held_too));
        Self { folder: tempfile::tempdir().expect("a folder"), redis, postgres, coordinator }
    }

    fn start() -> Self {
        let servers = Self::new();
        servers.script("servers");
        servers
    }

    /// A farm on these servers, with the programs beside this test: two coordinators, an encoder,
    /// and a worker for the first stage.
    fn start_farm() -> Self {
        let servers = Self::new();
        servers.script("start");
        servers
    }

    fn script(&self, what: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/farm.sh");
        let mut command = Command::new("bash");
        command.arg(script).arg(what);
        command.env("FARM_FOLDER", self.folder.path());
        command
            .env("FARM_REDIS_PORT", self.redis.to_string())
            .env("FARM_POSTGRES_PORT", self.postgres.to_string())
            .env("FARM_PORT", self.coordinator.to_string())
            .env("FARM_BINARIES", darkroom_tests::binary().parent().expect("a folder"))
            .env("FARM_STAGES", "base")
            .env("FARM_WORKERS", "1");
        let done = command.output().expect("bash runs");
        assert!(done.status.success(), "{what}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Command lines of the processes that were started for this folder.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let of = |process: fs::DirEntry| {
            let read = |name: &str| {
                let bytes = fs::read(process.path().join(name)).unwrap_or_default();
                String::from_utf8_lossy(&bytes).replace('\0', " ")
            };
            let (line, environment) = (read("cmdline"), read("environ"));
            let ours = line.contains(&folder) || environment.contains(&folder);
            (ours && !line.is_empty()).then_some(line)
        };
        fs::read_dir("/proc").expect("processes").flatten().filter_map(of).collect()
    }

    fn sql(&self, role: &str, passwords: Option<&Path>, statement: &str) -> Output {
        let mut command = Command::new("psql");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.postgres.to_string(),
            "-U",
            role,
            "-d",
            "darkroom",
            "-wtAc",
            statement,
        ]);
        command.env_remove("PGPASSWORD").env("PGPASSFILE", passwords.unwrap_or(Path::new("/none")));
        command.output().expect("psql runs")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.script("stop");
        // Folders of the servers' own users, if root runs the script.
        for name in ["postgres", "redis"] {
            if let Ok(folder) =
                fs::read_to_string(self.folder.path().join("run").join(format!("{name}.folder")))
            {
                let _ = fs::remove_dir_all(folder.trim());
            }
        }
    }
}

#[test]
fn the_servers_of_make_farm_are_closed_to_other_users_of_the_machine() {
    let servers = Servers::start();
    let secrets = servers.folder.path().join("secrets");
    let passwords = secrets.join("pgpass");

    for role in ["darkroom", "admin", "postgres"] {
        assert!(!servers.sql(role, None, "SELECT 1").status.success(), "{role} without a password");
    }
    let role = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = current_user";
    let answer = servers.sql("darkroom", Some(&passwords), role);
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "f", "{answer:?}");
    let shell = servers.sql("darkroom", Some(&passwords), "COPY (SELECT 1) TO PROGRAM 'id'");
    assert!(!shell.status.success(), "the farm's role cannot run programs");
    let table = servers.sql("darkroom", Some(&passwords), "CREATE TABLE mine (id int)");
    assert!(table.status.success(), "{table:?}");

    let mut redis = TcpStream::connect(("127.0.0.1", servers.redis)).expect("connect");
    redis.write_all(b"PING\r\n").expect("sent");
    let mut answer = [0; 7];
    redis.read_exact(&mut answer).expect("answered");
    assert_eq!(&answer, b"-NOAUTH");

    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(servers.folder.path()), 0o700);
    let mut words = Vec::new();
    for name in ["admin", "postgres", "redis"] {
        assert_eq!(mode(&secrets.join(name)), 0o600);
        words.push(fs::read_to_string(secrets.join(name)).expect("a password").trim().to_owned());
    }
    for process in fs::read_dir("/proc").expect("processes").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        assert!(
            !words.iter().any(|word| line.contains(word)),
            "a password on a command line: {line}"
        );
    }
    for name in ["postgres", "redis"] {
        let pid = fs::read_to_string(servers.folder.path().join("run").join(format!("{name}.pid")))
            .expect("a pid");
        let pid = pid.split_whitespace().next().expect("a number").to_owned();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
        assert!(!user.split_whitespace().any(|id| id == "0"), "{name} runs as root");
    }

    // After a restart, the passwords are the same.
    servers.script("stop");
    servers.script("servers");
    assert!(servers.sql("darkroom", Some(&passwords), "DROP TABLE mine").status.success());
}

#[test]
fn a_whole_farm_starts_renders_a_picture_and_leaves_nothing_running() {
    let farm = Servers::start_farm();
    let runs = farm.script("status");
    let expected =
        ["coordinator-1", "coordinator-2", "encoder-1", "postgres", "redis", "worker-base-1"];
    let mut lines: Vec<_> = runs.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, expected.map(|name| format!("{name} runs")));
    // Redis replaces its command line by its own title, so its port is checked below.
    assert!(farm.processes().len() >= expected.len() - 1, "{:?}", farm.processes());

    // Through each of the two coordinators.
    for (number, port) in [farm.coordinator, farm.coordinator + 1].iter().enumerate() {
        let out = format!("out{number}");
        let ended = Darkroom::new(farm.folder.path())
            .args(["--farm", &format!("127.0.0.1:{port}"), "render", "a red circle", "-o", &out])
            .args(["--size", "64", "--steps", "base=2", "--seed", &number.to_string()])
            .run();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let picture = fs::read(farm.folder.path().join(out).join("000000.png")).expect("a picture");
        assert!(picture.starts_with(b"\x89PNG"));
    }

    // A second start finds that everything runs.
    farm.script("start");
    farm.script("stop");
    assert_eq!(farm.script("status"), "");
    assert_eq!(farm.processes(), [""; 0], "nothing is left");
    for port in [farm.redis, farm.postgres, farm.coordinator, farm.coordinator + 1] {
        assert!(!listens(port), "{port}");
    }
}
